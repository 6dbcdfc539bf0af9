"""A prediction job: from plain settings to a model, an engine, a method and a view maker.

The command line and any other front end describe what they want as `JobSettings`; `build_job`
checks everything that can be checked short of a forward pass.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tpt.clip import Clip
from tpt.errors import MethodError, PromptError
from tpt.load import load_clip
from tpt.methods import TPT, Method, ZeroShot
from tpt.methods.tpt import TPTSettings
from tpt.objective import count_kept
from tpt.prompts import Context, PromptEngine
from tpt.views import Views

METHODS = ("tpt", "zero_shot")
DEFAULT_MODEL = "tiny"
_TPT_ONLY = ("keep", "steps", "lr", "reset", "views", "augment")


@dataclass(frozen=True)
class JobSettings:
    """What a user asks for; None means "not said", and the method's default applies."""

    classes: tuple[str, ...] | None = None  # None: those of the prompt file
    model: str | None = None  # None: the prompt file's model, else the embedded one
    pretrained: str | None = None
    init: str | None = None  # a prompt file
    templates: tuple[str, ...] = ()
    method: str = "tpt"
    views: int | None = None
    augment: str | None = None
    keep: float | None = None
    steps: int | None = None
    lr: float | None = None
    reset: str | None = None
    precision: str = "fp32"
    device: str = "auto"
    seed: int = 0
    force: bool = False


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a run needs, and the settings to keep beside its records."""

    clip: Clip
    engine: PromptEngine
    method: Method
    views: Views
    settings: dict[str, Any]  # decides what the records say
    environment: dict[str, Any]  # worth knowing besides


def build_job(wanted: JobSettings) -> Job:
    """Load the model and the prompt, tokenise the classes, set the method up.

    Raises:
        TptError: anything that would fail later, now and in a sentence.
    """
    check_method_options(wanted)
    context = Context.load(wanted.init) if wanted.init is not None else None
    classes = _choose_classes(wanted, context)
    name, pretrained = choose_model(wanted, context)
    clip = load_clip(
        name, pretrained, device=wanted.device, precision=wanted.precision, seed=wanted.seed
    )
    if context is None and wanted.templates and wanted.method == "tpt":
        context = Context.from_words(clip, wanted.templates[0])
    engine = PromptEngine(clip, classes, context, force=wanted.force)
    method: Method
    if wanted.method == "tpt":
        chosen = {k: getattr(wanted, k) for k in ("keep", "steps", "lr", "reset")}
        tuned = TPTSettings(**{k: v for k, v in chosen.items() if v is not None})
        method, facts = TPT(engine, **asdict(tuned)), asdict(tuned)
    else:
        method, facts = ZeroShot(engine, wanted.templates), {}
    views = Views(clip, wanted.views or 64, wanted.augment or "crop", wanted.seed)
    if method.reads_views:
        facts |= {"views": views.n, "augment": views.kind}
        facts["views_kept"] = count_kept(views.n, facts["keep"])
    return Job(
        clip, engine, method, views, _describe(wanted, engine, facts), _environment(clip, wanted)
    )


def check_method_options(wanted: JobSettings) -> None:
    """Refuse combinations of options of which one would be silently ignored."""
    if wanted.method not in METHODS:
        raise MethodError(f'Unknown method "{wanted.method}": expected {" or ".join(METHODS)}.')
    if wanted.method == "zero_shot":
        for option in _TPT_ONLY:
            if getattr(wanted, option) is not None:
                raise MethodError(
                    f"--{option} has no meaning with --method zero_shot, which looks at the plain "
                    "picture and tunes nothing. Leave it out, or use --method tpt."
                )
    elif len(wanted.templates) > 1:
        raise MethodError(
            f"--method tpt starts from one template, but {len(wanted.templates)} were given. Give "
            "one, or use --method zero_shot for an ensemble."
        )
    if wanted.templates and wanted.init is not None:
        raise MethodError(
            "--init and --template both say where the prompt starts. Give one of them."
        )


def choose_model(wanted: JobSettings, context: Context | None) -> tuple[str, str | None]:
    """(model, pretrained): as asked, else the prompt file's own, else the embedded model."""
    if wanted.model is not None:
        return wanted.model, wanted.pretrained
    if wanted.pretrained is not None:
        raise MethodError("--pretrained names the weights of a --model; give --model too.")
    if context is None:
        return DEFAULT_MODEL, None
    if context.info.model is None:
        raise PromptError(
            f'The prompt file "{wanted.init}" does not say which model it was made for (official '
            "CoOp checkpoints never do). Name it: --model ViT-B-16 --pretrained openai, say."
        )
    return context.info.model, context.info.pretrained


def _choose_classes(wanted: JobSettings, context: Context | None) -> tuple[str, ...]:
    if wanted.classes is not None:
        return wanted.classes
    if context is not None and context.info.classes is not None:
        return context.info.classes
    raise MethodError(
        "No class names were given. Use --classes cat,dog or --classes FILE with a name a line"
        + ("; the prompt file holds none." if context is not None else ".")
    )


def _describe(wanted: JobSettings, engine: PromptEngine, facts: dict[str, Any]) -> dict[str, Any]:
    """Every setting that decides what the records say."""
    context, clip = engine.context, engine.clip
    parts = [context.vectors, *(context.meta.tensors().values() if context.meta else ())]
    digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()[:16]
    blend = context.blend
    mixed = {"templates": list(blend.templates), "weight": blend.weight} if blend else None
    return {
        "model": clip.name,
        "pretrained": clip.pretrained,
        "precision": wanted.precision,
        "method": wanted.method,
        **facts,
        "seed": wanted.seed,
        "context": {
            "words": context.info.words,
            "position": context.position,
            "vectors": list(context.vectors.shape),
            "sha256": digest,
            **({"conditional": True} if context.conditional else {}),
            **({"blend": mixed} if mixed else {}),
        },
        "templates": list(wanted.templates),
        "classes": list(engine.classes),
    }


def _environment(clip: Clip, wanted: JobSettings) -> dict[str, Any]:
    from tpt import __version__

    place = clip.device
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine()
    return {
        "tpt_runtime": __version__,
        "torch": torch.__version__,
        "init": wanted.init,  # where the context came from; `settings` has its digest
        "device": f"{place} ({name})",
    }
