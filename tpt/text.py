"""Untrusted text: names of any content, values that may be numbers, JSON files."""

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
"""Characters without width: joiners, direction marks, soft hyphens, byte order marks."""


def is_utf8(text: str) -> bool:
    """Whether `text` can be encoded; undecodable bytes of a file name cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_url(text: str) -> bool:
    """Whether a name is an address: https://, s3://, file:// and so on, or data:."""
    # Also after a list's folder. As a path, "https://a" is "https:/a".
    form = r"(^|[/\\])([a-z][a-z0-9+.-]+:/|data:[a-z]+/)"  # one letter is a Windows drive
    return re.search(form, text[:4096], re.IGNORECASE) is not None


def read_value(text: str) -> bool | int | float | str:
    """A text's value: a boolean or number if it is one, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def drop_invisible(text: str) -> str:
    """Text without characters that are invisible but that a tokenizer would read."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


@lru_cache(maxsize=65_536)
def fold(name: str) -> str:
    """A name in the form that names are compared in: as CLIP's tokenizer reads it, "_" as a space.

    These count as equal: upper and lower case, composed and decomposed letters, straight and curly
    quotes, full and half width, "&" and "&amp;".
    """
    text = drop_invisible(name).replace("_", " ")
    if not (text.isascii() and "&" not in text):
        import ftfy  # as the tokenizer does; imported only if needed

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.lower().split())


def some(names: Iterable[str]) -> str:
    """The first three names and the number of others: "a, b, c and 12 more"."""
    listed = [as_text(name) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3:,} more" if len(listed) > 3 else "")


def as_text(name: str) -> str:
    """A file name as valid text; bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


LARGEST_JSON = 2**28  # bytes: a list of three million pictures


def read_json(path: Path, largest: int = LARGEST_JSON) -> Any:
    """The content of a JSON file of at most `largest` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or larger.
    """
    with path.open("rb") as file:
        text = file.read(largest + 1)
    if len(text) > largest:
        raise ValueError(f"it is larger than {largest:,} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
