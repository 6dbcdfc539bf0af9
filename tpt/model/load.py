"""Find, load and describe models: open_clip names, hub names, local folders, the embedded model.

Weights are read by open_clip with `weights_only=True` or as safetensors; nothing in them is
executed. A model without its weights is an error, never a random model: those are made only for
`pretrained="random"`.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch

from tpt.errors import ModelError, suggest
from tpt.model.clip import Clip

EMBEDDED = {"tiny": Path(__file__).parent / "embedded" / "tiny"}
RANDOM = "random"
_OFFLINE = (
    "Without a network, download the weights elsewhere and give the file: "
    "pretrained=/path/to/weights.safetensors, or a folder: local-dir:/path/to/folder."
)


@dataclass(frozen=True)
class ModelInfo:
    """One row of `tpt models`: what is known of a model before it is built."""

    name: str
    image_size: int
    width: int  # D, of a context vector
    text_path: str  # "shared-prefix", "full-length" or "unsupported"
    tags: tuple[str, ...]


def load_clip(
    name: str,
    pretrained: str | None = None,
    *,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    seed: int = 0,
    micro_batch: int | None = None,
) -> Clip:
    """Load a model, frozen and in eval mode.

    Args:
        name: an open_clip name ("ViT-B-16"), "hf-hub:org/repo", "local-dir:/path", or "tiny", the
            small model inside this package.
        pretrained: for an open_clip name, a tag ("openai"), a local weight file, or "random" for
            random weights drawn from `seed`. Not used with the other kinds of name.
        device: "auto" (a CUDA device, else Apple's, else the CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: "fp32", "bf16" or "fp16" (not on a CPU) for the towers' matrix products.
        seed: for random weights only.
        micro_batch: see `Clip`.

    Raises:
        ModelError: unknown name or tag, missing or unreachable weights, a device or precision that
            this machine does not have, a text tower that context vectors cannot enter.
    """
    place = find_device(device)
    check_precision(precision, place)
    known, source, weights, quick_gelu = _resolve_all(name, pretrained)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # open_clip's notes on its own configs
            model = _create(source, weights, precision, place, quick_gelu, seed)
            tokenizer = open_clip.get_tokenizer(source)
    except Exception as error:  # open_clip and the readers of weights raise nearly every kind
        raise ModelError(_explain(known, pretrained, error)) from error
    return Clip(model, tokenizer, name=known, pretrained=weights, micro_batch=micro_batch)


def resolve_name(name: str, pretrained: str | None) -> tuple[str, str | None]:
    """(model, weights) as `load_clip` would spell them in a prompt file; nothing is loaded.

    Raises:
        ModelError: what `load_clip` would refuse without looking at weights.
    """
    known, _, weights, _ = _resolve_all(name, pretrained)
    return known, weights


def _resolve_all(name: str, pretrained: str | None) -> tuple[str, str, str | None, bool]:
    """(our name, open_clip's name for the source, weights, needs QuickGELU), all checked."""
    _check_not_folder(name)
    known = name.replace("/", "-") if ":" not in name else name
    source, weights, quick_gelu = _resolve(known, pretrained)
    _check_text_tower(known, source)
    return known, source, weights, quick_gelu


def find_device(device: str | torch.device) -> torch.device:
    """The torch device meant by "auto" or a device's name, if this machine has it."""
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
    count = torch.cuda.device_count() if place.type == "cuda" else 1
    missing = place.type == "mps" and not torch.backends.mps.is_available()
    if missing or (place.type == "cuda" and (place.index or 0) >= count):
        raise ModelError(
            f'Device "{device}" is not on this machine ({torch.cuda.device_count()} CUDA devices '
            "were found). Use --device auto or --device cpu."
        )
    if place.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f'Device "{device}" is not supported: expected auto, cpu, cuda or mps.')
    return place


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse precisions that do not exist, and half precision where it is not computed."""
    if precision not in ("fp32", "bf16", "fp16"):
        raise ModelError(f'Unknown precision "{precision}": expected fp32, bf16 or fp16.')
    if precision == "fp16" and device.type == "cpu":
        raise ModelError(
            "Precision fp16 is not computed on a CPU. Use bf16 (about twice as fast as fp32 on "
            "processors that have it) or fp32."
        )


def list_models() -> list[ModelInfo]:
    """Every model that `load_clip` knows by name: the embedded ones, then open_clip's."""
    names = [*EMBEDDED, *open_clip.list_models()]
    return [_describe(name) for name in names]


def _describe(name: str) -> ModelInfo:
    config = _config(f"local-dir:{EMBEDDED[name]}" if name in EMBEDDED else name)
    text, vision = config["text_cfg"], config["vision_cfg"]
    size = vision.get("image_size", 224)
    tags = (
        ("embedded",) if name in EMBEDDED else tuple(open_clip.list_pretrained_tags_by_model(name))
    )
    return ModelInfo(
        name=name,
        image_size=size if isinstance(size, int) else size[0],
        width=text.get("width", 512),
        text_path=_text_path(text),
        tags=tags,
    )


def _text_path(text_cfg: dict[str, Any]) -> str:
    if "hf_model_name" in text_cfg:
        return "unsupported"
    if text_cfg.get("no_causal_mask") or text_cfg.get("embed_cls"):
        return "full-length"
    return "shared-prefix"


def _config(source: str) -> dict[str, Any]:
    config = open_clip.get_model_config(source)
    assert config is not None
    return dict(config)


def _check_not_folder(name: str) -> None:
    known = name in EMBEDDED or name in open_clip.list_models()
    if ":" not in name and not known and Path(name).is_dir():
        raise ModelError(f'"{name}" is a folder: write local-dir:{name} to load what is in it.')


def _resolve(name: str, pretrained: str | None) -> tuple[str, str | None, bool]:
    """(open_clip's name for the source, tag or file or RANDOM or None, needs QuickGELU)."""
    if name in EMBEDDED:
        if pretrained not in (None, "embedded", RANDOM):
            raise ModelError(
                f'The model "{name}" carries its own weights; pretrained="{pretrained}" does not '
                "apply to it. Leave it out."
            )
        return f"local-dir:{EMBEDDED[name]}", RANDOM if pretrained == RANDOM else None, False
    if name.startswith(("local-dir:", "hf-hub:")):
        if pretrained is not None:
            raise ModelError(
                f'"{name}" names its own weights; pretrained="{pretrained}" does not apply to it. '
                "Leave it out."
            )
        if name.startswith("local-dir:"):
            _check_folder(Path(name.removeprefix("local-dir:")))
        return name, None, False
    known = open_clip.list_models()
    if name not in known:
        raise ModelError(
            f'Unknown model "{name}".{suggest(name, [*known, *EMBEDDED])} Expected an open_clip '
            "name (`tpt models` lists them), hf-hub:org/repo, local-dir:/path or tiny."
        )
    return name, *_resolve_weights(name, pretrained)


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
        # The published OpenAI weights want QuickGELU although the plain config does not say so;
        # without it every feature is slightly wrong and nothing complains.
        tag = pretrained.lower().replace("-", "_")  # as open_clip lists it
        return tag, bool(tag_config.get("quick_gelu"))
    if Path(pretrained).is_file():
        return pretrained, False
    raise ModelError(
        f'"{pretrained}" is neither a weight file nor a tag of "{name}".'
        f"{suggest(pretrained, tags)} Tags: {listed}."
    )


def _tag_config(name: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of a tag, or {}. It takes "-" for "_" and capitals for small letters."""
    return dict(open_clip.pretrained.get_pretrained_cfg(name, tag))


def _check_folder(folder: Path) -> None:
    if not (folder / "open_clip_config.json").is_file():
        raise ModelError(
            f'No open_clip_config.json in "{folder}": local-dir: expects a folder that holds an '
            "open_clip config and a weight file (.safetensors, .bin or .pth)."
        )
    if not any(file.suffix in (".safetensors", ".bin", ".pth") for file in folder.iterdir()):
        raise ModelError(
            f'"{folder}" holds a config but no weight file (.safetensors, .bin or .pth). Put the '
            "weights beside the config; a random model is never made in their place."
        )


def _check_text_tower(name: str, source: str) -> None:
    """Refuse a Hugging Face text tower before anything of it is built or fetched."""
    if source.startswith("hf-hub:"):
        return  # its config is fetched with the model; `Clip` checks what comes
    try:
        path = _text_path(_config(source).get("text_cfg", {}))
    except Exception as error:  # a config may hold anything
        raise ModelError(
            f'The config of "{name}" cannot be read ({_reason(error)}). Expected the '
            "open_clip_config.json that open_clip writes."
        ) from error
    if path == "unsupported":
        raise ModelError(
            f'The text tower of "{name}" is a wrapped Hugging Face model; context vectors cannot '
            "enter it. Choose another model: `tpt models` lists those that work."
        )


def _create(
    source: str,
    weights: str | None,
    precision: str,
    device: torch.device,
    quick_gelu: bool,
    seed: int,
) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]), _without_their_logs():
        torch.default_generator.manual_seed(seed)  # weights are drawn on the CPU, then moved
        model: torch.nn.Module = open_clip.create_model(
            source,
            pretrained=None if weights == RANDOM else weights,
            load_weights=weights != RANDOM,
            require_pretrained=weights != RANDOM,
            precision=precision,
            device=device,
            force_quick_gelu=quick_gelu,
            pretrained_text=False,
            weights_only=True,
        )
    # Convolutions are a fifth faster in this order; attention does not care.
    model.visual.to(memory_format=torch.channels_last)
    return model


@contextmanager
def _without_their_logs() -> Iterator[None]:
    """Hold back what open_clip and the hub client log: our errors say it, or it was asked for."""

    def refuse(record: logging.LogRecord) -> bool:
        return False

    theirs = [logging.getLogger(name) for name in ("", "huggingface_hub.utils._http")]
    for logger in theirs:
        logger.addFilter(refuse)
    try:
        yield
    finally:
        for logger in theirs:
            logger.removeFilter(refuse)


def _explain(name: str, pretrained: str | None, error: Exception) -> str:
    reason = _reason(error)
    plain = "as .safetensors or a torch file with no code in it"
    if name.startswith("local-dir:"):
        return (
            f'What is in "{name}" could not be loaded: {reason}. The weights have to be a state '
            f"dict of exactly the architecture that open_clip_config.json describes, {plain}."
        )
    if pretrained and not _tag_config(name, pretrained) and Path(pretrained).is_file():
        return (
            f"The weight file {pretrained} could not be loaded into {name}: {reason}. It has to be "
            f"a state dict of exactly this architecture, {plain}. OpenAI's own TorchScript "
            "archives and wrong model names end here too."
        )
    what = f'"{name}"' + (f' with weights "{pretrained}"' if pretrained else "")
    return f"The model {what} could not be loaded: {reason}. {_OFFLINE}"


def _reason(error: Exception) -> str:
    """The error's own words in one line; torch's advice to read code all the same is left out."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is not a torch file, or it holds objects that would run code when read"
    text = " ".join(str(error).split())
    return text[:400].rstrip(".") or type(error).__name__
