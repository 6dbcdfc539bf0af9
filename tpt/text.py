"""Text that came from outside: names that may be anything, values that may be numbers."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
"""Characters of no width: joiners, marks of direction, soft hyphens, byte order marks."""


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold `text`; undecodable bytes in file names make it say no."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_url(text: str) -> bool:
    """Whether a name says that it is an address: https://, s3://, file:// and their kind, data:."""
    # Also behind the folder of a list. As a path, "https://a" is "https:/a".
    form = r"(^|[/\\])([a-z][a-z0-9+.-]+:/|data:[a-z]+/)"  # one letter is a drive of Windows
    return re.search(form, text[:4096], re.IGNORECASE) is not None


def read_value(text: str) -> bool | int | float | str:
    """A number, or true or false, if it is one; else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def drop_invisible(text: str) -> str:
    """Text without the characters that nobody sees and a tokenizer would read."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


@lru_cache(maxsize=65_536)
def fold(name: str) -> str:
    """A name as it is compared: as CLIP's tokenizer sees it, "_" a space.

    Upper and lower case are the same, and so are composed and decomposed letters, straight and
    curly quotes, full and half width, "&" and "&amp;".
    """
    text = drop_invisible(name).replace("_", " ")
    if not (text.isascii() and "&" not in text):
        import ftfy  # as the tokenizer does; loaded where a name needs it

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.lower().split())


def some(names: Iterable[str]) -> str:
    """The first three of some names."""
    listed = [as_text(name) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3:,} more" if len(listed) > 3 else "")


def as_text(name: str) -> str:
    """A file's name as text that can be written down: one of other bytes than UTF-8 cannot."""
    return name.encode("utf-8", "backslashreplace").decode()


LARGEST_JSON = 2**28  # bytes: a list of three million pictures


def read_json(path: Path, largest: int = LARGEST_JSON) -> Any:
    """What a JSON file of at most `largest` bytes holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or larger.
    """
    with path.open("rb") as file:
        text = file.read(largest + 1)
    if len(text) > largest:
        raise ValueError(f"it is larger than {largest:,} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
