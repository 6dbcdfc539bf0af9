"""Test-time adaptation of CLIP-like models: per-image prompt tuning, exact and fast.

    import tpt
    clip = tpt.load_clip("ViT-B-16", pretrained="openai")
    engine = tpt.PromptEngine(clip, ["cat", "dog"], tpt.Context.from_words(clip, "a photo of a"))
    for record in tpt.stream(paths, tpt.TPT(engine), views=tpt.Views(clip, n=64)):
        print(record.path, record.predictions[0].label)

Names are imported when first used, so that `import tpt` (and `tpt --help`) does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tpt.errors import (
    ImageError,
    MethodError,
    ModelError,
    OutputError,
    PromptError,
    SourceError,
    TptError,
)

if TYPE_CHECKING:
    from tpt.images.views import Views
    from tpt.methods import CTPT, MTA, TDA, TPS, TPT, VTE, ZERO, Adapted, Gate, ZeroShot
    from tpt.model.clip import Clip
    from tpt.model.load import load_clip
    from tpt.prompts import Context, PromptEngine
    from tpt.streaming import Prediction, Record, stream

from tpt._version import __version__

_HOME = {
    "Adapted": "tpt.methods",
    "CTPT": "tpt.methods",
    "Clip": "tpt.model.clip",
    "Context": "tpt.prompts",
    "Gate": "tpt.methods",
    "MTA": "tpt.methods",
    "Prediction": "tpt.streaming",
    "PromptEngine": "tpt.prompts",
    "Record": "tpt.streaming",
    "TDA": "tpt.methods",
    "TPS": "tpt.methods",
    "TPT": "tpt.methods",
    "VTE": "tpt.methods",
    "Views": "tpt.images.views",
    "ZERO": "tpt.methods",
    "ZeroShot": "tpt.methods",
    "load_clip": "tpt.model.load",
    "stream": "tpt.streaming",
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
    "Clip",
    "Context",
    "Gate",
    "ImageError",
    "MethodError",
    "ModelError",
    "OutputError",
    "Prediction",
    "PromptEngine",
    "PromptError",
    "Record",
    "SourceError",
    "TptError",
    "Views",
    "ZeroShot",
    "__version__",
    "load_clip",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tpt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
