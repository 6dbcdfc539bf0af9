"""Errors for what a decoder raised: a picture is broken, not supported, or too large."""

from __future__ import annotations

import re

from PIL import Image

from tpt.errors import ImageError, LargeImageError, why

_UNSUPPORTED = re.compile(
    r"unsupported|not (yet )?supported|unknown (pixel|raw) ?mode|unknown data organi|unknown BMP"
    r"|unimplemented|cannot handle|unrecogni[sz]ed|requires the|data type|not available|bad mode"
    r"|compression method|invalid value for samples per pixel",
    re.IGNORECASE,
)


class BrokenImageError(ImageError):
    """A decoder could not read the picture; it may be possible to mend it."""


def unreadable(name: str, what: str, error: Exception) -> ImageError:
    """The error for what a decoder raised, in one line that names the picture.

    A sound picture of an unsupported kind is not called damaged.
    """
    # A frame or tile inside may declare more than the picture does.
    if isinstance(error, (Image.DecompressionBombError, MemoryError)):
        return LargeImageError(f"{name} is too large to decode ({why(error)}). Scale it down.")
    missing = error.__cause__ if isinstance(error.__cause__, KeyError) else error
    no_kind = isinstance(missing, KeyError) and isinstance(missing.args[0], tuple)  # a plugin's
    if no_kind or isinstance(error, NotImplementedError) or _UNSUPPORTED.search(str(error)):
        return unsupported(name, why(error))
    return BrokenImageError(
        f"{name} is damaged or cut short: {what} ({why(error)}). Fetch it again, or leave it out."
    )


def unsupported(name: str, reason: str) -> ImageError:
    """The error for a picture that may be sound, but cannot be read here."""
    return BrokenImageError(
        f"{name} is of a kind that is not supported ({reason}). Convert it to PNG or JPEG, or "
        "leave it out."
    )


def missing_extra(name: str, kind: str) -> ImageError:
    """The error for a picture whose plugin is not installed."""
    return ImageError(
        f"{name} is a picture of the kind {kind}, which needs the extra formats. Install it: "
        "pip install 'tpt-runtime[formats]'."
    )
