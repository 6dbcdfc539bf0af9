"""Find, load and list models: open_clip names, hub names, local folders, the embedded model.

Weights are read by open_clip with `weights_only=True` or as safetensors, and configs through an
allow-list (`tpt.model._config`); nothing in them is executed. A model without its weights is an
error; random weights are made only for `pretrained="random"`.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import factory

from tpt.errors import ModelError, suggest
from tpt.model._archive import KIND, is_archive, read_archive_config
from tpt.model._building import build_model, check_size, make_tokenizer, reads_tokenizer
from tpt.model._config import ModelConfig, read_config
from tpt.model._folders import CONFIG_FILE, check_folder, fetch_repository, read_folder
from tpt.model._hf_text import check_installed, width_of, with_text_facts
from tpt.model._weights import find_weights
from tpt.model.clip import Clip
from tpt.model.precision import choose_precision
from tpt.model.surroundings import steady

EMBEDDED = {"lite": Path(__file__).parent / "embedded" / "lite"}
RANDOM = "random"
_OFFLINE = (
    "Without a network, download the weights elsewhere and give the file: "
    "pretrained=/path/to/weights.safetensors, or a folder: local-dir:/path/to/folder."
)


@dataclass(frozen=True)
class ModelInfo:
    """One row of `tpt models`: what is known of a model before it is loaded."""

    name: str
    image_size: int
    width: int  # D, of a context vector
    text_path: str  # "shared-prefix" or "full-length"
    tags: tuple[str, ...]


@torch.inference_mode(False)
@steady()
def load_clip(
    name: str,
    pretrained: str | None = None,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    seed: int = 0,
    micro_batch: int | None = None,
    cuda_graphs: bool = False,
) -> Clip:
    """Load a model, frozen and in eval mode.

    Args:
        name: an open_clip name ("ViT-B-16"); "hf-hub:org/repo" or "local-dir:/path" (open_clip's
            format, or a CLIPModel, SiglipModel or ChineseCLIPModel of transformers); "lite", the
            small model inside this package; or the path of one of OpenAI's archives
            ("/home/me/.cache/clip/ViT-B-16.pt"), whose code is not run.
        pretrained: for an open_clip name, a tag ("openai"), a local weight file, or "random" for
            random weights drawn from `seed`. Not used with the other kinds of name.
        device: "auto" (a CUDA device, else Apple's, else the CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: of the towers' matrix products: "auto" (bf16 where the device has units for it,
            see `tpt.model.precision`), "fp32", "tf32" (on CUDA devices), "bf16", or "fp16" (not on
            a CPU; the image tower alone).
        seed: for random weights only.
        micro_batch, cuda_graphs: see `Clip`.

    Raises:
        ModelError: unknown name or tag; missing or unreachable weights; a device or precision that
            this machine does not have; a text tower that context vectors cannot enter.
    """
    place = find_device(device)
    precision = choose_precision(precision, place)
    known, weights, config = _resolve(name, pretrained)
    try:
        config, folder, file = _fetch(known, weights, config)
        model, digest = build_model(config, file, precision, place, seed)
        tokenizer = make_tokenizer(config, folder, known)
    except ModelError:
        raise
    except Exception as error:  # open_clip and the readers of weights raise nearly every kind
        raise ModelError(_explain(known, pretrained, error)) from error
    return Clip(
        model,
        tokenizer,
        name=known,
        pretrained=weights,
        micro_batch=micro_batch,
        digest=digest,
        config=config,
        precision=precision,
        cuda_graphs=cuda_graphs,
    )


def resolve_name(name: str, pretrained: str | None) -> tuple[str, str | None]:
    """(model, weights) as `load_clip` writes them in a prompt file; nothing is loaded.

    Raises:
        ModelError: what `load_clip` refuses before it reads weights.
    """
    return _resolve(name, pretrained)[:2]


def name_folder(name: str) -> str:
    """A name as `load_clip` takes it: with "local-dir:" before a folder's path."""
    return f"local-dir:{name}" if _may_be_path(name) and Path(name).is_dir() else name


def _may_be_path(name: str) -> bool:
    return ":" not in name and name not in EMBEDDED and name not in open_clip.list_models()


def find_device(device: str | torch.device) -> torch.device:
    """The torch device of a name ("auto": the best one), if this machine has it.

    Raises:
        ModelError: unknown, unsupported or missing.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ModelError(
            f'Unknown device "{device}": expected auto, cpu, cuda, cuda:0, cuda:1, ... or mps.'
        ) from error
    if place.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f'Device "{device}" is not supported: expected auto, cpu, cuda or mps.')
    if place.type == "cpu":  # no driver is asked
        return place
    found = torch.cuda.device_count()
    count = found if place.type == "cuda" else int(torch.backends.mps.is_available())
    if (place.index or 0) >= count:
        raise ModelError(
            f'Device "{device}" is not on this machine ({found} CUDA devices were found). Use '
            "--device auto or --device cpu."
        )
    return place


def list_models() -> list[ModelInfo]:
    """Every model that `load_clip` knows by name: the embedded ones, then open_clip's."""
    return [_describe(name) for name in [*EMBEDDED, *open_clip.list_models()]]


def _describe(name: str) -> ModelInfo:
    config = _config(name)
    size = config.model["vision_cfg"].get("image_size", 224)
    text = config.text
    slow = any(map(text.get, ("hf_model_name", "no_causal_mask", "embed_cls")))
    tags = ["embedded"] if name in EMBEDDED else open_clip.list_pretrained_tags_by_model(name)
    return ModelInfo(
        name=name,
        image_size=size if isinstance(size, int) else size[0],
        width=width_of(text["hf_facts"]) if text.get("hf_facts") else text.get("width", 512),
        text_path="full-length" if slow else "shared-prefix",
        tags=tuple(tags),
    )


def _config(name: str) -> ModelConfig:
    """The config of a model that this package or open_clip contains."""
    if name in EMBEDDED:
        return read_config(EMBEDDED[name] / CONFIG_FILE, name)
    config = ModelConfig(dict(open_clip.get_model_config(name) or {}), {})
    return with_text_facts(config, None, name)


def _resolve(name: str, pretrained: str | None) -> tuple[str, str | None, ModelConfig | None]:
    """(our name; a tag, a file, RANDOM or None; the config unless it must be fetched)."""
    if _may_be_path(name) and Path(name).is_dir():
        raise ModelError(f'"{name}" is a folder: write local-dir:{name} to load what is in it.')
    if _may_be_path(name) and Path(name).is_file():
        return name, None, _read_file(name, pretrained)
    known = name.replace("/", "-") if ":" not in name else name
    if known in EMBEDDED:
        if pretrained not in (None, "embedded", RANDOM):
            raise _has_weights(f'The model "{known}"', pretrained)
        return known, RANDOM if pretrained == RANDOM else None, _config(known)
    if known.startswith(("local-dir:", "hf-hub:")):
        if pretrained is not None:
            raise _has_weights(f'"{known}"', pretrained)
        return known, None, None if known.startswith("hf-hub:") else read_folder(known)
    listed = open_clip.list_models()
    if known == "tiny":
        raise ModelError(
            'The embedded model "tiny" was replaced by "lite", which is the default. A prompt '
            'learned for "tiny" does not fit it: learn it again with `tpt train`.'
        )
    if known not in listed:
        raise ModelError(
            f'Unknown model "{known}".{suggest(known, [*listed, *EMBEDDED])} Expected an open_clip '
            "name (`tpt models` lists them), hf-hub:org/repo, local-dir:/path or lite."
        )
    weights, quick_gelu = _resolve_weights(known, pretrained)
    config = _config(known)
    check_installed(config.text, known)
    if quick_gelu:
        config.model["quick_gelu"] = True
    return known, weights, config


def _has_weights(what: str, pretrained: str) -> ModelError:
    return ModelError(
        f'{what} has its own weights; pretrained="{pretrained}" does not apply. Leave it out.'
    )


def _read_file(name: str, pretrained: str | None) -> ModelConfig:
    """The config of one of OpenAI's archives, which hold a whole model."""
    if not is_archive(Path(name)):
        raise ModelError(
            f'"{name}" is a file; only OpenAI\'s archives (ViT-B-16.pt) say which model they hold. '
            "Name the model and give the file as its weights: --model NAME --pretrained FILE."
        )
    if pretrained is not None:
        raise _has_weights(f'"{name}"', pretrained)
    try:
        return read_archive_config(Path(name), name)
    except ValueError as error:
        raise ModelError(
            f'The archive "{name}" could not be read: {error}. Give a state dict of the model as '
            ".safetensors instead: --model NAME --pretrained FILE."
        ) from error


def _resolve_weights(name: str, pretrained: str | None) -> tuple[str, bool]:
    if pretrained == RANDOM:
        return RANDOM, False
    tags = open_clip.list_pretrained_tags_by_model(name)
    listed = ", ".join(tags) if tags else "none are published"
    if pretrained is None:
        raise ModelError(
            f'The model "{name}" needs weights: give pretrained=TAG or a local weight file. Tags: '
            f"{listed}. Random weights are made only for pretrained=random."
        )
    tag_config = _tag_config(name, pretrained)
    if tag_config:
        # OpenAI's weights need QuickGELU, which the plain config does not say. Without it every
        # feature is slightly wrong, and no error says so.
        tag = pretrained.lower().replace("-", "_")  # as open_clip lists it
        return tag, bool(tag_config.get("quick_gelu"))
    if Path(pretrained).is_file():
        return pretrained, is_archive(Path(pretrained))  # OpenAI's: QuickGELU
    raise ModelError(
        f'"{pretrained}" is neither a weight file nor a tag of "{name}".'
        f"{suggest(pretrained, tags)} Tags: {listed}."
    )


def _tag_config(name: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of a tag, or {}. It reads "-" as "_" and ignores case."""
    return dict(open_clip.pretrained.get_pretrained_cfg(name, tag))


def _fetch(
    name: str, weights: str | None, config: ModelConfig | None
) -> tuple[ModelConfig, Path | None, Path | None]:
    """(config, folder of the tokenizer's files, weight file), downloaded if need be."""
    if config is None:
        config, folder, file = fetch_repository(name)
        check_size(config, file)
        return config, folder, file
    if weights == RANDOM:
        return config, None, None
    if weights is not None:
        tag = _tag_config(name, weights)
        file = Path(factory.download_pretrained(tag) if tag else weights)
        kind = KIND if is_archive(file) else config.kind
        return replace(config, preprocess=tag, kind=kind), None, file
    if config.kind == KIND:
        check_size(config, Path(name))
        return config, None, Path(name)
    folder = EMBEDDED[name] if name in EMBEDDED else Path(name.removeprefix("local-dir:"))
    if not reads_tokenizer(folder, config):
        check_installed(config.text, name)
    config = with_text_facts(config, folder, name)
    found = find_weights(folder, config.kind)
    assert found is not None  # `read_folder` has found it
    if name not in EMBEDDED:
        check_size(config, found)
        check_folder(folder, name, config)
    return config, folder, found


def _explain(name: str, pretrained: str | None, error: Exception) -> str:
    reason = _reason(error)
    plain = "as .safetensors or a torch file with no code in it"
    if name.startswith("local-dir:"):
        return (
            f'The model in "{name}" could not be loaded: {reason}. Expected weights that are a '
            f"state dict of exactly the architecture that its config describes, {plain}."
        )
    if pretrained and not _tag_config(name, pretrained) and Path(pretrained).is_file():
        return (
            f"The weight file {pretrained} could not be loaded into {name}: {reason}. Expected a "
            f"state dict of exactly this architecture, {plain}, or OpenAI's own archive of it. "
            "Check the model name too."
        )
    what = f'"{name}"' + (f' with weights "{pretrained}"' if pretrained else "")
    return f"The model {what} could not be loaded: {reason}. {_OFFLINE}"


def _reason(error: Exception) -> str:
    """The error's text on one line, without torch's advice to allow code."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is not a torch file, or it holds objects that would run code when read"
    text = " ".join(str(error).split())
    return text[:400].rstrip(".") or type(error).__name__
