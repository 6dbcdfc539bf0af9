"""The state that TDA or OGA keeps of a stream: when it is reset, how it is saved and loaded.

The state is a `.safetensors` file, written whole or not at all. Its metadata (JSON texts) name the
model, the weights and the classes. A state of others is refused: its numbers would fit and mean
nothing. `title` is the name of the method's class.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from tpt.errors import MethodError, why
from tpt.methods.base import Method
from tpt.model.surroundings import steady
from tpt.prompts import PromptEngine
from tpt.prompts.checks import name_model
from tpt.runs.whole_files import write_whole
from tpt.text import fold

VERSION = 1


class StreamMethod(Method):
    """A method that learns from each image, and can save and load its state.

    A subclass defines `_empty`, `_tensors` and `_take`. Its setting `reset` says when the state is
    emptied: at the start of each "stream", or "never".
    """

    keeps_state = True

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        super().__init__(engine, *values, **options)
        self.reset()

    def _empty(self) -> None:
        """Start with an empty state."""
        raise NotImplementedError

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors of the state, by name."""
        raise NotImplementedError

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a saved state; they have the same names and shapes."""
        raise NotImplementedError

    @torch.inference_mode(False)  # the state outlives the caller
    @steady()
    def reset(self) -> None:
        """Forget the images before."""
        self._empty()
        self._loaded = False

    def start_stream(self) -> None:
        """Reset if the setting says so, but keep a state that was just loaded."""
        if self.settings.reset == "stream" and not self._loaded:
            self.reset()
        self._loaded = False

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a .safetensors file, whole or not at all.

        Raises:
            MethodError: another suffix.
            OutputError: the disk refused.
        """
        from tpt._version import __version__

        title, clip = type(self).__name__, self.engine.clip
        target = _check_suffix(title, path)
        head = {
            "format": _format(title),
            "format_version": VERSION,
            "tool": f"tpt-runtime {__version__}",
            "model": clip.name,
            "pretrained": clip.pretrained,
            "digest": clip.digest,
            "classes": self.engine.classes,
        }
        meta = {key: json.dumps(value, ensure_ascii=False) for key, value in head.items()}
        plain = {name: tensor.cpu().contiguous() for name, tensor in self._tensors().items()}
        write_whole(target, safetensors_bytes(plain, metadata=meta), what=f"state of {title}")

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Load what `save_state` wrote; the next stream starts with it.

        A stream in two parts gives the same answers as a whole one, if the first part ends with a
        whole batch.

        Raises:
            MethodError: there is no such file, it is not a state, or the model, the classes or the
                capacities differ. The method's state is then unchanged.
        """
        title, source = type(self).__name__, Path(path)
        named = f'state of {title} "{source}"'
        try:
            with source.open("rb"):
                pass
        except OSError as error:
            raise MethodError(
                f"The {named} cannot be read: {why(error)}. Expected a .safetensors "
                "file that save_state wrote."
            ) from error
        try:
            with safetensors.safe_open(source, framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            # Other programs' metadata need not be JSON.
            ours = meta.get("format") == json.dumps(_format(title))
            head = {key: json.loads(value) for key, value in meta.items()} if ours else {}
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise _damaged(named, " ".join(str(error).split())[:200]) from error
        if not ours:
            raise MethodError(
                f'"{source}" is not a state of {title}. Expected a file that save_state wrote.'
            )
        if head.get("format_version") != VERSION:
            raise MethodError(
                f"The {named} has format version {head.get('format_version')}, but "
                f"this version of tpt-runtime reads {VERSION}. Use the version that wrote it."
            )
        _check_origin(named, head, self.engine)
        _check_sizes(named, tensors, self._tensors())
        self._take(tensors)
        self._loaded = True


def _format(title: str) -> str:
    return f"tpt-{title.lower()}-state"


def check_state_path(title: str, path: str | os.PathLike[str]) -> None:
    """Check, before a run, that its state can be written to `path`.

    Raises:
        MethodError: the suffix is not .safetensors, the folder does not exist, or the file exists
            and holds something else.
    """
    target = _check_suffix(title, path)
    if not target.parent.is_dir():
        raise MethodError(
            f'The state of {title} cannot be saved to "{target}": there is no folder '
            f'"{target.parent}". Make it, or choose another place.'
        )
    if target.is_dir() or (target.exists() and not _is_state(title, target)):
        raise MethodError(
            f'"{target}" exists already and is not a state of {title}; it is not written over. '
            "Choose another place."
        )


def _check_suffix(title: str, path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.suffix != ".safetensors":
        raise MethodError(f'A state of {title} ends in .safetensors, but "{target}" does not.')
    return target


def _is_state(title: str, path: Path) -> bool:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == json.dumps(_format(title))
    except (safetensors.SafetensorError, OSError):
        return False


def _damaged(named: str, why: str) -> MethodError:
    return MethodError(f"The {named} is damaged or truncated ({why}). Start without it.")


def _check_origin(named: str, head: dict[str, Any], engine: PromptEngine) -> None:
    """Refuse the state of another model or of other classes."""
    clip, kept = engine.clip, (head.get("model"), head.get("pretrained"))
    if not clip.is_model(*kept, head.get("digest")):
        made, own = name_model(*kept), name_model(clip.name, clip.pretrained)
        own += " with other weights" if own == made else ""
        raise MethodError(
            f"The {named} was made with {made}, but the model is "
            f"{own}; features of one model mean nothing to another. Start without it."
        )
    classes = head.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise _damaged(named, "it names no classes")
    if len(classes) != len(engine.classes):
        raise MethodError(
            f"The {named} was made for {len(classes)} classes, but there are "
            f"{len(engine.classes)}. Give the same classes in the same order, or start without it."
        )
    for place, (name, own_name) in enumerate(zip(classes, engine.classes, strict=True), start=1):
        if fold(name) != fold(own_name):
            raise MethodError(
                f'Class number {place} of the {named} is "{name}", but "{own_name}" was given '
                "there. Give the same classes in the same order, or start without it."
            )


def _check_sizes(named: str, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """Refuse caches of another capacity or width, another dtype, or with NaN."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in like.items()}
    if shapes != wanted:
        raise MethodError(
            f"The caches in the {named} have the shapes {_list(shapes)}, but this method's have "
            f"{_list(wanted)}. Use the capacities and the model it was made with."
        )
    for name, tensor in tensors.items():
        if tensor.dtype != like[name].dtype:
            raise _damaged(named, f"{name} holds {tensor.dtype}")
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise _damaged(named, f"{name} holds NaN")


def _list(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items())) or "(none)"
