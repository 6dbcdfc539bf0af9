"""Text that came from outside: names that may be anything, values that may be numbers."""

from __future__ import annotations


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold `text`; undecodable bytes in file names make it say no."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_value(text: str) -> int | float | str:
    """A number, if it is one; else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
