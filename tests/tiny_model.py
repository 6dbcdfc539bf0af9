"""A model that knows nothing, for tests that need an answer and do not mind which.

Tests of the command use it wherever no other model is named: it answers in a hundredth of the time
of the embedded one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

TINY = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}
COMMANDS = ("predict", "eval", "serve", "train", "transfer", "calibrate", "advise")
NAMING = ("--model", "--pretrained", "--init", "--prompt", "--help")
"""Options that say, or should say, which model is meant."""


def fill_from_seed(model: torch.nn.Module) -> None:
    """Fill every weight from its name, by the rules of the golden values (parity/README.md)."""
    state = {}
    for name, old in model.state_dict().items():
        if not old.is_floating_point():
            continue
        random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
        z = random.standard_normal(tuple(old.shape))
        if name == "logit_scale":
            value = np.array(np.log(100.0))
        elif name.endswith(".bias"):
            value = 0.1 * z
        elif ".ln_" in name or name == "ln_final.weight":
            value = 1 + 0.1 * z
        elif name.endswith("positional_embedding"):
            value = 0.1 * z
        elif name == "token_embedding.weight":
            value = 0.2 * z
        elif name.endswith("class_embedding"):
            value = 0.5 * z
        elif name in ("text_projection", "visual.proj"):
            value = z / np.sqrt(z.shape[0])
        else:
            value = z / np.sqrt(np.prod(z.shape[1:]))
        state[name] = torch.from_numpy(np.asarray(value)).to(old.dtype)
    model.load_state_dict(state, strict=False)


def write_tiny(folder: Path) -> None:
    """Write the model's folder, as embedded models lie: fp16 weights of a seed."""
    folder.mkdir(parents=True)
    model = open_clip.model.CLIP(**TINY)
    fill_from_seed(model)
    state = {name: value.half() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))


def name_tiny(words: Sequence[str]) -> list[str]:
    """A command line's words, with the model named where it would be the embedded one."""
    named = any(word in NAMING for word in words)
    if named or not words or words[0] not in COMMANDS:
        return [*words]
    return [*words, "--model", "tiny"]


def main(folder: str) -> None:
    """`tpt` in a process of its own, which knows the model in `folder` as "tiny"."""
    import sys

    from cli.main import main as tpt_command
    from tpt.model import precision
    from tpt.model.load import EMBEDDED

    precision.has_bf16_units = lambda: False  # type: ignore[assignment]  # as in conftest
    EMBEDDED["tiny"] = Path(folder)
    sys.argv[1:] = name_tiny(sys.argv[1:])
    tpt_command()
