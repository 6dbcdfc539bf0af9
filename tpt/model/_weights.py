"""Weight files: find a folder's, read it, and check that it fits the model.

Tensors are read as safetensors or by torch's restricted reader; nothing in a file is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from open_clip import factory
from torch import Tensor, nn

from tpt.model._archive import KIND, read_archive
from tpt.model._config import ModelConfig, pattern
from tpt.model._hf_names import to_open_clip
from tpt.text import read_json, some

SUFFIXES = (".safetensors", ".bin", ".pth")
INDEX = ".index.json"
_PREFERRED = (  # open_clip's order if a folder holds several
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
HF_NAMES = (  # the order of transformers
    *("model.safetensors", f"model.safetensors{INDEX}"),
    *("pytorch_model.bin", f"pytorch_model.bin{INDEX}"),
)
_LARGEST_INDEX = 2**24  # bytes
_SHARD = pattern(r"[\w-][\w.-]*\.(safetensors|bin)")


def find_weights(folder: Path, kind: str = "open_clip") -> Path | None:
    """The weight file of a model folder that the model's own library would take.

    For `transformers` it may be the index of several files.
    """
    if kind != "open_clip":
        files = [folder / name for name in HF_NAMES]
        return next((file for file in files if file.is_file()), None)
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    files.sort(key=lambda file: file.suffix != ".safetensors")
    ranks = {name: rank for rank, name in enumerate(_PREFERRED)}
    return min(files, key=lambda file: ranks.get(file.name, len(ranks)), default=None)


def list_files(weights: Path) -> list[Path]:
    """The files that hold the tensors: the file itself, or those that an index names.

    Raises:
        ValueError: the index is damaged, or a file that it names is missing.
    """
    names = list_names(weights)
    missing = [name for name in names if not (weights.parent / name).is_file()]
    if missing:
        raise ValueError(f"of the {len(names)} weight files, {some(missing)} are missing")
    return [weights.parent / name for name in names]


def list_names(weights: Path) -> list[str]:
    """The names of the files that hold the tensors: the file's own, or those in an index.

    Raises:
        ValueError: the index is damaged.
    """
    if not weights.name.endswith(INDEX):
        return [weights.name]
    found = read_json(weights, _LARGEST_INDEX)
    table = found.get("weight_map") if isinstance(found, dict) else None
    names = list(table.values()) if isinstance(table, dict) else []
    if not names or not all(map(_SHARD, names)):  # plain names, so nothing outside the folder
        raise ValueError(f"{weights.name} does not list the weight files beside it")
    return list(dict.fromkeys(names))


def load_weights(model: nn.Module, config: ModelConfig, weights: Path) -> None:
    """Load the tensors of a file into a model.

    Raises:
        ValueError: a tensor is missing, unknown to the model or of another shape.
    """
    if config.kind == "open_clip":
        factory.load_checkpoint(model, str(weights), weights_only=True)
        return
    if config.kind == KIND:
        _fill(model, read_archive(weights))
        return
    state: dict[str, Tensor] = {}
    for file in list_files(weights):
        state |= _read_file(file)
    _fill(model, to_open_clip(state, config.kind))


def _fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors into a model that has exactly these.

    Raises:
        ValueError: a tensor is missing, unknown to the model or of another shape.
    """
    wanted = model.state_dict()
    for what, names in (
        ("it lacks", wanted.keys() - state.keys()),
        ("it holds unknown tensors", state.keys() - wanted.keys()),
    ):
        if names:
            raise ValueError(f"{what}: {some(sorted(names))}")
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise ValueError(
                f"{name} has the shape {tuple(state[name].shape)} where the config describes "
                f"{tuple(tensor.shape)}"
            )
    model.load_state_dict(dict(state))


def _read_file(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return dict(safetensors.torch.load_file(file))
    found = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{file.name} holds no table of tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in found.items()}
