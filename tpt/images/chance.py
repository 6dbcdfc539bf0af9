"""Random numbers that depend on what they are for, and on nothing that ran before."""

from __future__ import annotations

import hashlib

import numpy as np


def draw_from(*parts: object) -> np.random.Generator:
    """The generator of a seed, a purpose and a key, given as text or numbers; alike everywhere."""
    text = "\0".join(map(str, parts))
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
