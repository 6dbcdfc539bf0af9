"""RNGs that depend on what they are for, and on nothing that ran before."""

from __future__ import annotations

import hashlib

import numpy as np


def make_rng(*parts: object) -> np.random.Generator:
    """An RNG seeded by all `parts` (text or numbers), the same on every machine.

    Views give (seed, purpose, content); corruptions give (seed, kind, severity, key).
    """
    text = "\0".join(map(str, parts))
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
