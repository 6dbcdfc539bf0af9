"""OpenAI's model archives (`ViT-B-16.pt`, `RN50.pt`), read without running them.

An archive is a TorchScript zip file: the model's code, a pickle that lays out its modules, and the
numbers of each tensor. A small interpreter follows the pickle. It knows only what such a layout
needs (tables, lists, names, tensors), and imports and calls nothing. The code is not read: all
archives of OpenAI's layout are the CLIP that open_clip builds, with QuickGELU (Alec Radford et al.,
2103.00020).
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tpt.errors import why
from tpt.model._config import CONFIG, ModelConfig, check_settings

KIND = "torchscript"
_LARGEST_LAYOUT = 2**24  # bytes of the pickle; ViT-L/14's has a fortieth
_DEEPEST = 64  # modules in modules
_DROPPED = ("input_resolution", "context_length", "vocab_size", "attn_mask")
_DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch DoubleStorage": torch.float64,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch BoolStorage": torch.bool,
}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_MARK = object()
_CONSTANTS = {"MARK": _MARK, "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclass
class _Name:
    """A class or function that the pickle names; it is never looked up."""

    text: str


@dataclass
class _Module:
    parts: Any = field(default_factory=dict)


@dataclass
class _Stored:
    """A tensor's place: `storage` is ("storage", dtype name, key, device, count)."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_archive(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of an archive, by name.

    Raises:
        ValueError: the archive is damaged, or holds more than modules and plain tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            heads = [n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1]
            if len(heads) != 1 or archive.getinfo(heads[0]).file_size > _LARGEST_LAYOUT:
                raise ValueError("the archive has no layout of its modules, or a very large one")
            root = _follow(archive.read(heads[0]))
            home = heads[0].removesuffix("data.pkl") + "data/"
            cache: dict[str, Tensor] = {}
            return {
                name: _read_tensor(archive, home, stored, cache)
                for name, stored in _walk(root, "", 0)
                if name.rsplit(".", 1)[-1] not in _DROPPED
            }
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"the archive is damaged ({why(error)})") from error
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("the layout of its modules is damaged") from error


def _follow(data: bytes) -> Any:
    """What the pickle describes: tables, lists, `_Module` and `_Stored`, nothing else."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def take() -> list[Any]:
        """Pop what is above the last mark, and the mark."""
        place = max(i for i, item in enumerate(stack) if item is _MARK)
        taken = stack[place + 1 :]
        del stack[place:]
        return taken

    for code, argument in _read_instructions(data):
        match code:
            case "PROTO" | "STOP" | "FRAME":
                pass
            case "MARK" | "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[code])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_LIST" | "EMPTY_DICT":
                stack.append([] if code == "EMPTY_LIST" else {})
            case "TUPLE":
                stack.append(tuple(take()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(code[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = take()
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                items = take()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Name(argument))
            case "BINPERSID":
                stack[-1] = ("storage", *stack[-1][1:])
            case "NEWOBJ":
                stack[-2:] = [_Module()]
            case "BUILD":
                parts = stack.pop()
                stack[-1].parts = parts
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                plain = isinstance(function, _Name) and function.text == _REBUILD
                stack.append(_Stored(*arguments[:4]) if plain else None)
            case other:
                raise ValueError(f"the layout of its modules holds the instruction {other}")
    return stack[-1]


def _read_instructions(data: bytes) -> Iterator[tuple[str, Any]]:
    try:
        for code, argument, _ in pickletools.genops(data):
            yield code.name, argument
    except ValueError as error:
        raise ValueError("the layout of its modules is damaged") from error


def _walk(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, _Stored]]:
    if depth > _DEEPEST or not isinstance(module.parts, dict):
        raise ValueError("the layout of its modules is damaged")
    for name, part in module.parts.items():
        if isinstance(part, _Stored):
            yield f"{prefix}{name}", part
        elif isinstance(part, _Module):
            yield from _walk(part, f"{prefix}{name}.", depth + 1)


def _read_tensor(
    archive: zipfile.ZipFile, home: str, stored: _Stored, cache: dict[str, Tensor]
) -> Tensor:
    _, name, key, _, count = stored.storage
    dtype = _DTYPES[name.text]
    if key not in cache:
        info = archive.getinfo(home + key)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != count * dtype.itemsize:
            raise ValueError(f"{info.filename} is packed, or not of the size that it should be")
        cache[key] = torch.frombuffer(bytearray(archive.read(info)), dtype=dtype)
    return cache[key].as_strided(stored.size, stored.stride, stored.offset)


def read_archive_config(path: Path, name: str) -> ModelConfig:
    """The config of the model in an archive, from the shapes of its tensors.

    Raises:
        ModelError: sizes out of bounds.
        ValueError: as `read_archive`; the layout is not OpenAI's.
    """
    state = read_archive(path)
    try:
        tokens, width = state["token_embedding.weight"].shape
        model = {
            "embed_dim": state["text_projection"].shape[1],
            "vision_cfg": _image_tower(state),
            "text_cfg": {
                "context_length": len(state["positional_embedding"]),
                "vocab_size": tokens,
                "width": width,
                "heads": width // 64,
                "layers": _count(state, "transformer.resblocks."),
            },
            "quick_gelu": True,
        }
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            "the archive is not one of OpenAI's CLIPs, the only ones that can be read without "
            "running their code"
        ) from error
    check_settings({"model_cfg": model}, CONFIG, name)
    return ModelConfig(model, {}, KIND)


def _image_tower(state: Mapping[str, Tensor]) -> dict[str, Any]:
    if "visual.proj" in state:
        width, _, _, patch = state["visual.conv1.weight"].shape
        grid = _root(len(state["visual.positional_embedding"]) - 1)
        layers = _count(state, "visual.transformer.resblocks.")
        size = {"image_size": patch * grid, "patch_size": patch}
        return {"width": width, "layers": layers, **size}
    grid = _root(len(state["visual.attnpool.positional_embedding"]) - 1)
    return {
        "width": state["visual.layer1.0.conv1.weight"].shape[0],
        "layers": [_count(state, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)],
        "image_size": grid * 32,
        "patch_size": None,
    }


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """The number of blocks named `prefix` and a number."""
    return len({n.removeprefix(prefix).split(".")[0] for n in state if n.startswith(prefix)})


def _root(patches: int) -> int:
    grid = round(patches**0.5)
    if grid * grid != patches:
        raise ValueError("no square")
    return grid
