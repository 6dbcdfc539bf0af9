from .corruption_kinds import CORRUPTIONS as CORRUPTIONS
from .corruptions import corrupt as corrupt
from .corruptions import parse_corruptions as parse_corruptions
