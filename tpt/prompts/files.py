"""Prompt files: context vectors and where they came from, written and read without pickling.

Three formats are read: our `.safetensors`, our `.pt`, and the official checkpoints of CoOp, CoCoOp,
KgCoOp and ProGrad. These are `prompt_learner/model.pth.tar-50` with `state_dict["ctx"]`, (M, D) or
(K, M, D), possibly fp16, and CoCoOp's `meta_net.*`. The prefixes `module.` and `prompt_learner.` of
names are ignored. `token_prefix` and `token_suffix` belong to the training classes and are dropped,
and so are CLIP's own weights. A file with any other tensor comes from a method whose `ctx` means
something else, and is refused. Missing facts are read from the log beside a checkpoint
(`tpt.prompts.dassl`).

Torch files go through torch's restricted reader. The few harmless classes in official checkpoints
(the scheduler with its optimiser, numpy scalars) become inert stand-ins; all others are refused.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import threading
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from tpt._version import __version__
from tpt.errors import PromptError, why
from tpt.prompts._checkpoint_tensors import META, choose_tensors, not_a_prompt
from tpt.prompts.calibration import Calibration
from tpt.prompts.dassl import find_checkpoint, read_facts
from tpt.prompts.head import NAMES, Head
from tpt.prompts.head import PREFIX as HEAD
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend, PromptInfo
from tpt.runs.whole_files import write_whole

if TYPE_CHECKING:
    from tpt.prompts.context import Context

FORMAT, VERSION = "tpt-prompt", 3
_HEAD_FACTS = ("method", "alpha", "beta")
_LARGEST = 2**32  # bytes of a file: enough for 21,000 classes with 60 tokens each
_LARGEST_HEAD = 2**26  # bytes of metadata
_LARGEST_TENSOR = 2**29  # numbers, 2 GiB as float32
_log = logging.getLogger(__name__)
_standing_in = threading.Lock()

Parts = tuple[dict[str, Any], dict[str, Any]]
"""A file's metadata and its tensors by name."""


class _Inert:
    """Stands in for a class found in a checkpoint: it accepts any arguments and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_HARMLESS = [
    *(f"torch.optim.lr_scheduler.{n}" for n in ("CosineAnnealingLR", "StepLR", "MultiStepLR")),
    *(f"torch.optim.{n}" for n in ("sgd.SGD", "adam.Adam", "adamw.AdamW", "radam.RAdam")),
    *(f"dassl.optim.lr_scheduler.{n}WarmupScheduler" for n in ("Constant", "Linear", "_Base")),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    *("numpy.dtype", "numpy.dtypes.Float64DType", "numpy.dtypes.Float32DType"),
    *("_codecs.encode", "builtins.dict", "__builtin__.dict"),
]


def save_context(context: Context, path: str | os.PathLike[str]) -> None:
    """Write `context` to `path`, whole or not at all.

    Raises:
        PromptError: the suffix is neither .safetensors nor .pt.
        OutputError: the disk refused.
    """
    target = Path(path)
    plain = context.meta is None and context.blend is None
    head_of, calibration = context.head, context.calibration
    newest = head_of is not None or calibration is not None
    head: dict[str, Any] = {
        "format": FORMAT,
        # An older reader must refuse a file whose contents it would ignore.
        "format_version": VERSION if newest else 1 if plain else 2,
        "tool": f"tpt-runtime {__version__}",
        "position": context.position,
        "before": context.before,
        "class_specific": context.class_specific,
        "context_length": context.vectors.shape[-2],
        "width": context.vectors.shape[-1],
        **asdict(context.info),
    }
    if context.blend is not None:
        head["blend"] = {**asdict(context.blend), "templates": list(context.blend.templates)}
    if head_of is not None:
        head["head"] = {name: getattr(head_of, name) for name in _HEAD_FACTS}
    if calibration is not None:
        head["calibration"] = {**vars(calibration), "settings": dict(calibration.settings)}
    tensors = {"vectors": context.vectors}
    if head_of is not None:
        tensors |= {HEAD + name: tensor for name, tensor in head_of.tensors().items()}
    if context.meta is not None:
        tensors |= {META + name: t.contiguous() for name, t in context.meta.tensors().items()}
    if target.suffix == ".safetensors":
        meta = {key: json.dumps(value, ensure_ascii=False) for key, value in head.items()}
        write_whole(target, safetensors_bytes(tensors, metadata=meta), "prompt")
    elif target.suffix == ".pt":
        buffer = io.BytesIO()
        head["classes"] = list(head["classes"]) if head["classes"] else None
        torch.save({**head, **tensors}, buffer)
        write_whole(target, buffer.getvalue(), "prompt")
    else:
        raise PromptError(
            f'A prompt file ends in .safetensors (preferred) or .pt, but "{target}" does not. '
            "Choose one of the two."
        )


def load_context(path: str | os.PathLike[str], make: type[Context]) -> Context:
    """Read a prompt file in any of the three formats.

    Args:
        path: the file, or a folder that Dassl wrote, whose latest checkpoint is read.
        make: the class `Context`, which this module cannot import because `Context` imports it.

    Raises:
        PromptError: there is no such file, or it is not a prompt, is truncated, or holds code.
    """
    source = Path(path)
    source = find_checkpoint(source) if source.is_dir() else source
    try:
        with source.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise PromptError(
            f'The prompt file "{source}" cannot be read: {why(error)}. Expected a .safetensors '
            "or .pt file, or an official CoOp checkpoint."
        ) from error
    if not start:
        raise PromptError(f'The prompt file "{source}" is empty. It was probably never finished.')
    is_safetensors = start[8:9] == b"{"
    _check_size(source, int.from_bytes(start[:8], "little") if is_safetensors else 0)
    read = _load_safetensors if is_safetensors else _load_torch
    return _from_parts(source, make, *read(source))


def _load_safetensors(source: Path) -> Parts:
    try:
        with safetensors.safe_open(source, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        ours = meta.get("format") == json.dumps(FORMAT)  # other programs' metadata is not JSON
        head = {key: json.loads(value) for key, value in meta.items()} if ours else {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(source, error) from error
    return _choose_own(source, head, tensors) if ours else (head, choose_tensors(source, tensors))


def _choose_own(source: Path, head: dict[str, Any], tensors: dict[str, Any]) -> Parts:
    """The parts of a file of ours, which may hold a head's tensors beside the context's."""
    own = {key: t for key, t in tensors.items() if "head" in head and key.startswith(HEAD)}
    rest = {key: t for key, t in tensors.items() if key not in own}
    return head, {**choose_tensors(source, rest), **own}


def _load_torch(source: Path) -> Parts:
    try:
        content = _read_torch(source)
    except pickle.UnpicklingError as error:
        raise PromptError(
            f'The prompt file "{source}" was refused: it is not a torch file of plain tensors, or '
            "it holds objects that would run code when read. Expected a .safetensors or .pt prompt "
            "or an official CoOp checkpoint; ask its author for a .safetensors file."
        ) from error
    except Exception as error:  # the reader raises nearly any error on broken data
        raise _damaged(source, error) from error
    if isinstance(content, Tensor):
        return {}, {"vectors": content}
    if not isinstance(content, dict):
        raise not_a_prompt(source, f"a {type(content).__name__}")
    if content.get("format") == FORMAT:
        return _choose_own(source, content, content)
    return _from_official(source, content)


def _read_torch(source: Path) -> Any:
    """The content of a torch file, by torch's restricted reader.

    Raises:
        ValueError: an archive that holds code, or is larger than a prompt can be.
        Exception: any error of the reader.
    """
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            parts = archive.infolist()
        if any(part.filename.endswith("/constants.pkl") for part in parts):
            raise ValueError("it is one of the TorchScript archives, which hold code")
        heads = sum(part.file_size for part in parts if part.filename.endswith(".pkl"))
        if heads > _LARGEST_HEAD or sum(part.file_size for part in parts) > _LARGEST:
            raise ValueError("what it holds unpacks to more than a prompt can be")
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # perhaps an official checkpoint with its scheduler
        # torch keeps one list for the whole process, so stand-ins are added only if needed.
        with _standing_in, torch.serialization.safe_globals(_stand_ins()):
            return torch.load(source, map_location="cpu", weights_only=True)


def _check_size(source: Path, head: int) -> None:
    """Refuse a file that is larger than a prompt can be, or that has too large a header."""
    size = source.stat().st_size
    for name, found, most in (("file", size, _LARGEST), ("header", head, _LARGEST_HEAD)):
        if most < found <= size:  # a header beyond the file's end means that the file is truncated
            raise PromptError(
                f'"{source}" is not a prompt file: its {name} is {found:,} bytes long, and at most '
                f"{most:,} are read. Give the file of the prompt, not of a whole model."
            )


def _stand_ins() -> list[Any]:
    """The stand-ins for the harmless classes, under the same names."""

    def defaultdict(*args: Any) -> dict[Any, Any]:  # the reader only fills plain dictionaries
        return {}

    defaultdict.__module__, defaultdict.__qualname__ = "collections", "defaultdict"
    paths = [path.rpartition(".") for path in _HARMLESS]
    return [defaultdict, *(type(n, (_Inert,), {"__module__": module}) for module, _, n in paths)]


def _from_official(source: Path, content: dict[str, Any]) -> Parts:
    state = content.get("state_dict", content)
    if not isinstance(state, dict):
        raise not_a_prompt(source, "a torch file without a state_dict")
    beside = {k: v for k, v in content.items() if isinstance(v, Tensor) and v.ndim}
    return read_facts(source), choose_tensors(source, {**beside, **state})


def _from_parts(
    source: Path, make: type[Context], head: dict[str, Any], tensors: dict[str, Any]
) -> Context:
    """Make the context from a file's metadata and tensors."""
    vectors = tensors.get("vectors", tensors.get("ctx"))
    meta = {key.removeprefix(META): t for key, t in tensors.items() if key.startswith(META)}
    if not isinstance(vectors, Tensor):
        raise not_a_prompt(source, "no tensor named vectors")
    if not (vectors.is_floating_point() or vectors.is_complex() or vectors.is_quantized):
        raise not_a_prompt(source, f"whole numbers ({vectors.dtype}), which cannot be learned")
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and not _is_plain(tensor):
            raise not_a_prompt(source, f'a tensor "{name}" that is not a plain real array')
    version = head.get("format_version", VERSION)
    if not isinstance(version, int) or version > VERSION:
        raise PromptError(
            f'The prompt file "{source}" has format version {version}, but this version of '
            f"tpt-runtime reads up to {VERSION}. Upgrade tpt-runtime."
        )
    known = {key: head.get(key) for key in PromptInfo.__dataclass_fields__}
    try:
        _check_types(known)
        known["classes"] = tuple(known["classes"]) if known["classes"] else None
        context = make(
            vectors,
            position=str(head.get("position", "end")),
            before=int(head.get("before", -1)),
            info=PromptInfo(**known),
            meta=MetaNet.from_tensors(meta) if meta else None,
            blend=_read_blend(head.get("blend")),
            head=_read_head(head.get("head"), tensors),
            calibration=_read_calibration(head.get("calibration")),
        )
    except PromptError as error:
        raise PromptError(f'The prompt file "{source}" cannot be used. {error}') from error
    except (TypeError, ValueError, KeyError) as error:  # metadata of a wrong type
        raise _damaged(source, error) from error
    if "position" not in head:
        _log.warning(
            '"%s" does not say where the class name stands (official checkpoints never do); it is '
            'taken to be at the "end", their default. If this one was trained otherwise, say so '
            "with `tpt prompt import --position`.",
            source,
        )
    return context


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, real, on the CPU and not too large."""
    dense = tensor.layout == torch.strided and not (tensor.is_complex() or tensor.is_quantized)
    return dense and tensor.device.type == "cpu" and tensor.numel() <= _LARGEST_TENSOR


def _check_types(known: dict[str, Any]) -> None:
    """Refuse facts of a wrong type, because later code relies on their types."""
    for key, value in known.items():
        wanted: Any = list | tuple if key == "classes" else int if key in ("shots", "seed") else str
        if value is not None and not isinstance(value, wanted):
            raise TypeError(f"{key} is {value!r}")
    if not all(isinstance(name, str) for name in known["classes"] or ()):
        raise TypeError("classes are not all text")


def _read_blend(value: Any) -> Blend | None:
    if value is None:
        return None
    templates = value["templates"]
    if not isinstance(templates, str):  # Blend refuses a single string itself
        templates = tuple(str(template) for template in templates)
    return Blend(templates, float(value["weight"]))


def _read_head(facts: Any, tensors: dict[str, Any]) -> Head | None:
    if facts is None:
        return None
    own = {key.removeprefix(HEAD): t for key, t in tensors.items() if key.startswith(HEAD)}
    unknown = own.keys() - set(NAMES)
    missing = {"text", "weight", "bias"} - own.keys()
    if unknown or missing or not all(isinstance(t, Tensor) for t in own.values()):
        raise ValueError(f"a head with the tensors {', '.join(sorted(own)) or '(none)'}")
    alpha, beta = (float(facts[name]) for name in ("alpha", "beta"))
    return Head(str(facts["method"]), **own, alpha=alpha, beta=beta)


def _read_calibration(facts: Any) -> Calibration | None:
    if facts is None:
        return None
    made = Calibration(**facts)
    if not isinstance(made.settings, dict) or not isinstance(made.method, str):
        raise TypeError("a calibration without a method and its settings")
    return made


def _damaged(source: Path, error: Exception) -> PromptError:
    return PromptError(
        f'The prompt file "{source}" is damaged or truncated, or something else than a prompt '
        f"({' '.join(str(error).split())[:200]}). Copy or train it again."
    )
