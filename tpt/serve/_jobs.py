"""Make the method that a request asks for ready; errors have the command line's messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from tpt.errors import MethodError
from tpt.methods.registry import MethodInfo, find_method, list_methods, make_settings
from tpt.model.clip import Clip
from tpt.prompts import Context
from tpt.serve.settings import Asked
from tpt.streaming.predict_job import PredictJob, assemble_job, load_model
from tpt.streaming.predict_settings import PredictSettings, check_method_options

_OWN = ("keep", "steps", "lr", "reset", "gate", "gate_views", "reject")
"""Options that apply only to the method that the service was started with."""


@dataclass(frozen=True, eq=False)
class Base:
    """The settings, the model and the prompt file's context, which all requests share."""

    wanted: PredictSettings
    clip: Clip
    context: Context | None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The service's own class names, if any."""
        if self.wanted.classes is not None or self.context is None:
            return self.wanted.classes
        return self.context.info.classes


def load_base(wanted: PredictSettings) -> Base:
    """Check the settings, then load prompt and model.

    Raises:
        TptError: as `build_predict_job`, and MethodError for a method with state.
    """
    settings = check_method_options(wanted)
    info = find_method(wanted.method)
    if info.keeps_state or getattr(settings, "reset", "image") != "image":
        raise _refuse_state(info)
    context = Context.load(wanted.init) if wanted.init is not None else None
    return Base(wanted, load_model(wanted, context), context)


def name_fully(asked: Asked, base: Base) -> Asked:
    """Fill in the service's own class names and method, so that equal requests compare equal.

    Raises:
        MethodError: no such method, or neither side has class names.
    """
    classes = asked.classes if asked.classes is not None else base.classes
    if classes is None:
        raise MethodError(
            "Neither the request nor the service has class names. Send classes, a JSON list of "
            'names: ["cat", "dog"].'
        )
    name = find_method(base.wanted.method if asked.method is None else asked.method).name
    return Asked(classes, asked.templates, name)


def make_job(asked: Asked, base: Base) -> PredictJob:
    """The method that a request asks for, warmed up: what its pictures share is computed.

    Args:
        asked: from `name_fully`.

    Raises:
        TptError: with the command line's message.
    """
    info = find_method(asked.method or base.wanted.method)
    if info.keeps_state:
        raise _refuse_state(info)
    context = None if asked.templates else base.context
    job = assemble_job(_translate(asked, info, base.wanted), base.clip, context)
    if job.method.keeps_state:
        raise _refuse_state(info)
    _warm(job)
    return job


def _translate(asked: Asked, info: MethodInfo, own: PredictSettings) -> PredictSettings:
    """The settings of a request, without the service's own that are for another method."""
    changes: dict[str, Any] = {"method": info.name, "classes": asked.classes}
    if find_method(own.method).name != info.name:
        changes |= dict.fromkeys(_OWN) | {"options": {}}
        if not info.reads_views(make_settings(info.name, {})):
            changes |= {"views": None, "augment": None}
        if len(own.templates) > 1 and not info.takes_templates:
            changes["templates"] = ()
    if asked.templates:
        changes |= {"templates": asked.templates, "init": None}
    return replace(own, **changes)


@torch.no_grad()
def _warm(job: PredictJob) -> None:
    """Compute once what the method keeps for a class list, and let torch choose its kernels."""
    job.method.start_stream()
    count = job.views.n if job.method.reads_views else 1
    features = torch.ones(count, job.clip.embedding_width, device=job.clip.device)
    features[:, 0] += torch.arange(count, device=job.clip.device)
    job.method.adapt_features(F.normalize(features, dim=-1))


def list_servable() -> Iterator[MethodInfo]:
    """The methods that a request may ask for."""
    for info in list_methods():
        if isinstance(info, MethodInfo) and not info.keeps_state:
            yield info


def _refuse_state(info: MethodInfo) -> MethodError:
    return MethodError(
        f"The method {info.name} keeps state between images with these settings, so one client's "
        "pictures would change another's results. Use one of "
        f"{', '.join(one.name for one in list_servable())}."
    )
