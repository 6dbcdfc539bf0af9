"""The prompt engine: context vectors, where the class name stands, text encoding, prompt files."""

from tpt.prompts.context import Context
from tpt.prompts.engine import PromptEngine

__all__ = ["Context", "PromptEngine"]
