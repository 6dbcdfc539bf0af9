"""A prediction job: from plain settings to a model, an engine, a method and a view maker.

A front end fills in `PredictSettings`; `build_predict_job` checks everything that it can without a
forward pass.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tpt.errors import MethodError, PromptError
from tpt.images.views import Views
from tpt.methods import Gate, Method
from tpt.methods.objective import count_kept
from tpt.methods.reading import Reading
from tpt.methods.registry import find_method
from tpt.model.clip import Clip
from tpt.model.load import load_clip
from tpt.prompts import Context, PromptEngine
from tpt.streaming.predict_settings import (
    DEFAULT_MODEL,
    DEFAULT_VIEWS,
    PredictSettings,
    check_method_options,
)
from tpt.streaming.readings import choose_reading
from tpt.streaming.screen import Screen, check_screened


@dataclass(frozen=True, eq=False)
class PredictJob:
    """Everything that a run needs, and the settings to keep beside its records."""

    clip: Clip
    engine: PromptEngine
    method: Method
    views: Views
    settings: dict[str, Any]  # decides what the records say
    environment: dict[str, Any]  # device and versions
    screen: Screen | None = None
    shares_gradient: bool = False  # whether `--jacobian` has a meaning

    def prepare(self, show: Callable[[int], None] | None = None) -> None:
        """Build the start's Jacobian if the settings ask for it (`PromptEngine.build_jacobian`)."""
        if self.settings.get("jacobian"):
            self.engine.build_jacobian(show)


def build_predict_job(wanted: PredictSettings) -> PredictJob:
    """Load the model and the prompt, tokenise the classes, set the method up.

    Raises:
        TptError: for every setting that would fail later.
    """
    check_method_options(wanted)
    if wanted.screen:
        check_screened(find_method(wanted.method).name, wanted.precision)
    context = Context.load(wanted.init) if wanted.init is not None else None
    _choose_classes(wanted, context)
    clip, screen = load_models(wanted, context, wanted.init)
    return assemble_job(wanted, clip, context, screen)


def assemble_job(
    wanted: PredictSettings, clip: Clip, context: Context | None, screen: Screen | None = None
) -> PredictJob:
    """The job on a model and a prompt (from `wanted.init`) that are loaded already.

    Raises:
        TptError: as `build_predict_job`.
    """
    info = find_method(wanted.method)
    settings = check_method_options(wanted)
    classes = _choose_classes(wanted, context)
    if wanted.other is not None:
        classes = (*classes, wanted.other)
    words, templates = info.split_start(wanted.templates)
    if words is not None:
        context = Context.from_words(clip, words)
    engine = PromptEngine(clip, classes, context, force=wanted.force)
    method = info.make(engine, settings, templates)
    facts = asdict(settings)
    if wanted.jacobian:
        engine.check_jacobian()
        facts["jacobian"] = True
    if wanted.load_state is not None:
        facts["state"] = _load_state(method, wanted.load_state)
    if wanted.gate is not None:
        method = Gate(method, wanted.gate, wanted.gate_views or 1)
        facts["gate"] = asdict(method.settings)
    if method.together is not None:
        method.together = wanted.batch_size or method.together
        facts["batch_size"] = method.batch_size
    views = Views(clip, wanted.views or DEFAULT_VIEWS, wanted.augment or "crop", wanted.seed)
    rejection = wanted.reject, wanted.other
    method.reading = choose_reading(method, info.name, context, views.n, len(classes), *rejection)
    if method.reading != Reading():
        facts["reading"] = {k: v for k, v in asdict(method.reading).items() if v is not None}
    if method.reads_views:
        facts |= {"views": views.n, "augment": views.kind}
        if screen:
            facts["screen"] = True
        if facts.get("keep") is not None:
            facts["views_kept"] = count_kept(views.n, facts["keep"])
    return PredictJob(
        clip,
        engine,
        method,
        views,
        _describe(wanted, engine, facts),
        # Not a setting: `settings` has the digest of the context from `init`.
        {"init": wanted.init, **describe_environment(clip)},
        screen,
        info.shares_gradient(settings),
    )


def load_models(
    wanted: Any, context: Context | None, init: str | None
) -> tuple[Clip, Screen | None]:
    """The model, and its bf16 copy if the run screens.

    With `precision="auto"` a run that screens uses fp32.

    Args:
        wanted: settings of a prediction or an evaluation.
        context: from the prompt file `init`; names the model if the settings name none.
    """
    name, tag = choose_model(wanted.model, wanted.pretrained, context, init)
    how = {name: getattr(wanted, name) for name in ("device", "seed", "micro_batch", "cuda_graphs")}
    if not wanted.screen:
        return load_clip(name, tag, precision=wanted.precision, **how), None
    high = "fp32" if wanted.precision == "auto" else wanted.precision
    low = load_clip(name, tag, precision="bf16", **how)
    return load_clip(name, tag, precision=high, **how), Screen(low)


def load_model(wanted: PredictSettings, context: Context | None) -> Clip:
    """The model that the settings name, or the one that the prompt was made for."""
    return load_models(wanted, context, wanted.init)[0]


def _load_state(method: Method, path: str) -> str:
    """Load a state file into the method; the file's digest, for the settings.

    Raises:
        MethodError: the method, from another package, cannot load one.
    """
    if not hasattr(method, "load_state"):
        raise MethodError(
            f"--load-state has no meaning with {type(method).__name__}, which cannot load a state. "
            "Leave it out, or use --method tda."
        )
    method.load_state(path)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def choose_model(
    model: str | None, pretrained: str | None, context: Context | None, init: str | None
) -> tuple[str, str | None]:
    """(model, pretrained): as given, else the prompt file's own, else the embedded model."""
    if model is not None:
        return model, pretrained
    if pretrained is not None:
        raise MethodError("--pretrained names the weights of a --model; give --model too.")
    if context is None:
        return DEFAULT_MODEL, None
    if context.info.model is None:
        raise PromptError(
            f'The prompt file "{init}" does not say which model it was made for (official '
            "CoOp checkpoints never do). Name it: --model ViT-B-16 --pretrained openai, say."
        )
    return context.info.model, context.info.pretrained


def _choose_classes(wanted: PredictSettings, context: Context | None) -> tuple[str, ...]:
    if wanted.classes is not None:
        return wanted.classes
    if context is not None and context.info.classes is not None:
        return context.info.classes
    raise MethodError(
        "No class names were given. Use --classes cat,dog or --classes FILE with one name a line"
        + ("; the prompt file holds none." if context is not None else ".")
    )


def _describe(
    wanted: PredictSettings, engine: PromptEngine, facts: dict[str, Any]
) -> dict[str, Any]:
    """Every setting that decides what the records say."""
    clip = engine.clip
    return {
        "model": clip.name,
        "pretrained": clip.pretrained,
        "weights": clip.digest,
        "precision": clip.precision,
        "method": find_method(wanted.method).name,
        **facts,
        "seed": wanted.seed,
        "context": describe_context(engine.context),
        "templates": list(wanted.templates),
        "classes": list(engine.classes),
    }


def describe_context(context: Context) -> dict[str, Any]:
    """What a context is, and a digest of its numbers."""
    blend, head = context.blend, context.head
    facts: dict[str, Any] = {
        "words": context.info.words,
        "position": context.position,
        "vectors": list(context.vectors.shape),
        "sha256": context.sha256[:16],
    }
    if context.conditional:
        facts["conditional"] = True
    if blend is not None:
        facts["blend"] = {"templates": list(blend.templates), "weight": blend.weight}
    if context.calibration is not None:
        facts["calibration"] = asdict(context.calibration)
    if head is not None:
        facts["head"] = {"method": head.method, "alpha": head.alpha, "beta": head.beta}
    return facts


def describe_environment(clip: Clip) -> dict[str, Any]:
    """The versions and the device of a run."""
    from tpt._version import __version__

    place = clip.device
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine()
    return {
        "tpt_runtime": __version__,
        "torch": torch.__version__,
        "device": f"{place} ({name})",
    }
