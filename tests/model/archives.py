"""Small random models in OpenAI's archives, for the tests of what reads them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import open_clip
import torch

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8}
RESNET = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 16}


def build(vision: dict[str, Any], seed: int = 0) -> Any:
    """A randomly filled CLIP in OpenAI's layout, its numbers as few bits as theirs have."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(48, dict(vision), dict(TEXT), quick_gelu=True).eval()
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not name.endswith("running_var"):
                tensor += 0.05 * torch.randn_like(tensor)
    return model.half().float()


def script(model: Any, path: Path, half: bool = True) -> Path:
    del model.context_length, model.vocab_size  # OpenAI keeps both, and the size, as tensors
    size = model.visual.image_size
    model.register_buffer("input_resolution", torch.tensor(size if type(size) is int else size[0]))
    model.register_buffer("context_length", torch.tensor(77))
    model.register_buffer("vocab_size", torch.tensor(49408))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is old
        scripted = torch.jit.script(model)
        torch.jit.save(scripted.half() if half else scripted, str(path))
    if half:
        scripted.float()
    return path
