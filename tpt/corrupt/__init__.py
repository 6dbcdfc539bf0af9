"""Shifted data: pictures made worse on purpose, to measure how a model bears it."""

from tpt.corrupt.corruption_kinds import CORRUPTIONS
from tpt.corrupt.corruptions import corrupt, parse_corruptions

__all__ = ["CORRUPTIONS", "corrupt", "parse_corruptions"]
