"""Shifted data: pictures made worse on purpose, to measure how a model bears it."""

from tpt.shift.corruptions import corrupt, parse_corruptions
from tpt.shift.kinds import CORRUPTIONS

__all__ = ["CORRUPTIONS", "corrupt", "parse_corruptions"]
