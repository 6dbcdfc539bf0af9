"""`corrupt` makes a picture worse in one of fifteen ways, seeded; `parse_*` read what people write.

The random numbers depend on (seed, kind, severity, key) alone, so the result does not depend on
other pictures, their order or the number of workers. `corruption_kinds.py` has the kinds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tpt.corrupt.corruption_kinds import CORRUPTIONS, Pixels, to_bytes, to_floats
from tpt.errors import MethodError, suggest
from tpt.images.rng import make_rng

SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(pixels: Pixels, kind: str, severity: int, seed: int = 0, key: str | int = "") -> Pixels:
    """A corrupted copy of a picture.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        kind: one of `CORRUPTIONS`.
        severity: 1 (weak) to 5 (strong).
        seed: random numbers depend on it, `key`, `kind` and `severity` alone.
        key: the picture's own, for example its path inside the data set.

    Returns:
        (H, W, 3) uint8, sharing no memory with `pixels`.

    Raises:
        MethodError: an unknown kind, a severity out of range, an array of another form.
        ImageError: `jpeg_compression` of a picture longer than 65,500 pixels.
    """
    kind, severity = check_kind(kind), check_severity(severity)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise MethodError(
            f"A picture to corrupt is an array (H, W, 3) of uint8; got shape {pixels.shape} of "
            f"{pixels.dtype}. tpt.images.decode.decode_image makes one of any image."
        )
    chosen = CORRUPTIONS[kind]
    rng = make_rng(seed, kind, severity, type(key).__name__, key)
    return to_bytes(chosen.apply(to_floats(pixels), chosen.levels[severity - 1], rng))


def check_kind(name: str) -> str:
    """The kind's own spelling ("Gaussian-Noise" is gaussian_noise).

    Raises:
        MethodError: no such kind.
    """
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    if plain not in CORRUPTIONS:
        raise MethodError(
            f'Unknown corruption "{name}": expected one of {", ".join(CORRUPTIONS)}, or all.'
            f"{suggest(plain, CORRUPTIONS)}"
        )
    return plain


def check_severity(severity: object) -> int:
    """A severity from 1 to 5.

    Raises:
        MethodError: anything else.
    """
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise MethodError(
            f"A severity is a whole number from 1 (weak) to 5 (strong); got {severity!r}."
        )
    return int(severity)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds from "contrast,fog" or "all", in the paper's order.

    Raises:
        MethodError: an unknown kind, one named twice, none, or others beside all.
    """
    words = [word.strip() for word in text.split(",")]
    if words == ["all"]:
        return tuple(CORRUPTIONS)
    if "all" in words:
        raise MethodError('"all" is every kind, so it stands alone. Leave the others out.')
    kinds = _refuse_twice([check_kind(word) for word in words])
    return tuple(kind for kind in CORRUPTIONS if kind in kinds)


def parse_severities(text: str) -> tuple[int, ...]:
    """Severities from "3", "1,3,5" or "1-5", in order.

    Raises:
        MethodError: not of that form, out of range, or one named twice.
    """
    severities: list[int] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        last = last if dash else first
        if not {first, last}.issubset("12345") or first > last:
            raise MethodError(
                f'"{part.strip()}" is no severity: expected a whole number from 1 (weak) to 5 '
                "(strong), several with commas, or a range such as 1-5."
            )
        severities += range(int(first), int(last) + 1)
    return tuple(sorted(_refuse_twice(severities)))


def parse_corruptions(text: str) -> list[tuple[str, int]]:
    """(kind, severity) pairs from "gaussian_noise:3,contrast:5".

    "all:3", "fog:1-5" and "fog:1,3,5" are several.

    Raises:
        MethodError: not of that form, an unknown kind or severity, or a pair named twice.
    """
    pairs: list[tuple[str, int]] = []
    kinds: tuple[str, ...] = ()
    for part in text.split(","):
        kind, colon, severity = part.strip().partition(":")
        if kinds and not colon and kind[:1].isdecimal():  # one more severity of the kind before
            colon, severity = ":", kind
        else:
            kinds = parse_kinds(kind) if kind.strip() else ()
        if not kinds or not colon:
            raise MethodError(
                f'"{part.strip()}" is no corruption with its severity: expected KIND:SEVERITY, for '
                "example gaussian_noise:3,contrast:5."
            )
        pairs += [(k, s) for k in kinds for s in parse_severities(severity)]
    _refuse_twice([f"{kind}:{severity}" for kind, severity in pairs])
    return pairs


def _refuse_twice(items: Iterable[Any]) -> list[Any]:
    seen: list[Any] = []
    for item in items:
        if item in seen:
            raise MethodError(f'"{item}" is named twice. Name it once.')
        seen.append(item)
    return seen
