"""Test-time methods: one file a method, all with the same two calls.

`adapt(views)` encodes normalised views; `adapt_features(features)` starts from unit features.
`tpt.methods.registry` lists them. Names are imported when first used, so that the list does not
wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tpt.methods.base import Adapted, Method
    from tpt.methods.ctpt import CTPT
    from tpt.methods.gate import Gate
    from tpt.methods.mta import MTA
    from tpt.methods.tda import TDA
    from tpt.methods.tps import TPS
    from tpt.methods.tpt import TPT
    from tpt.methods.vte import VTE
    from tpt.methods.zero import ZERO
    from tpt.methods.zero_shot import ZeroShot

_HOME = {
    "Adapted": "base",
    "CTPT": "ctpt",
    "Gate": "gate",
    "MTA": "mta",
    "Method": "base",
    "TDA": "tda",
    "TPS": "tps",
    "TPT": "tpt",
    "VTE": "vte",
    "ZERO": "zero",
    "ZeroShot": "zero_shot",
}

__all__ = [
    "CTPT",
    "MTA",
    "TDA",
    "TPS",
    "TPT",
    "VTE",
    "ZERO",
    "Adapted",
    "Gate",
    "Method",
    "ZeroShot",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"tpt.methods.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tpt.methods' has no attribute {name!r}")
