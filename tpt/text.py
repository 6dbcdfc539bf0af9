"""Text that may have come from a file system or a pipe, where anything can be a name."""

from __future__ import annotations


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold `text`; undecodable bytes in file names make it say no."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
