"""The settings of a prediction, and whether each has a meaning with the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tpt.errors import MethodError
from tpt.methods.registry import MethodInfo, find_method, make_settings

DEFAULT_MODEL = "lite"
DEFAULT_VIEWS = 64


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """How a run computes, whether it predicts or evaluates."""

    precision: str = "auto"
    micro_batch: int | None = None  # views a pass of the image tower
    screen: bool = False
    jacobian: bool = False
    cuda_graphs: bool = False
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class PredictSettings(ComputeSettings):
    """The settings of a prediction; None means "not given", and the default applies."""

    classes: tuple[str, ...] | None = None  # None: those of the prompt file
    model: str | None = None  # None: the prompt file's model, else the embedded one
    pretrained: str | None = None
    init: str | None = None  # a prompt file
    templates: tuple[str, ...] = ()
    method: str = "tpt"  # a name of `tpt.methods.registry`
    views: int | None = None
    augment: str | None = None
    keep: float | None = None
    steps: int | None = None
    lr: float | None = None
    reset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # the method's other settings
    batch_size: int | None = None  # for methods whose images of a batch decide together
    gate: float | None = None  # the threshold of a gate before the method
    gate_views: int | None = None
    reject: str | None = None  # a threshold, "off", or None: the prompt's own
    other: str | None = None  # the name of a class for everything else
    load_state: str | None = None  # a file of save_state, for methods that keep state
    force: bool = False


def check_gate_views(gate_views: int | None, gate: float | None, views: int | None) -> None:
    """Refuse --gate-views without a gate, or with more views than are made.

    Raises:
        MethodError: naming which of the two.
    """
    if gate_views is None:
        return
    if gate is None:
        raise MethodError("--gate-views says what a gate looks at; give --gate too.")
    made = views or DEFAULT_VIEWS
    if gate_views > made:
        raise MethodError(
            f"--gate-views {gate_views} is more than the {made} views that are made. Give "
            "fewer, or more --views."
        )


def check_jacobian_used(methods: Sequence[tuple[MethodInfo, Any]]) -> None:
    """Refuse the start's Jacobian if no method, with its settings, would use it.

    Raises:
        MethodError: naming the methods.
    """
    if not any(info.shares_gradient(settings) for info, settings in methods):
        names = ", ".join(info.name for info, _ in methods)
        raise MethodError(
            f"--jacobian has no meaning with --method {names} here: it speeds up methods that tune "
            "the context anew for every picture. Leave it out, or use --method tpt --reset image."
        )


def check_method_options(wanted: PredictSettings) -> Any:
    """The method's settings, if every option given has a meaning with it.

    Raises:
        MethodError: an unknown method; an option without a meaning, or out of its range.
    """
    info = find_method(wanted.method)
    given = {name: getattr(wanted, name) for name in ("keep", "steps", "lr", "reset")}
    settings = make_settings(wanted.method, {**given, **wanted.options})
    reads_views = info.reads_views(settings)
    for option in ("views", "augment", "gate"):
        if getattr(wanted, option) is not None and not reads_views:
            way = "give --keep too" if "keep" in info.options else "use another method, such as tpt"
            raise MethodError(
                f"--{option} has no meaning with --method {info.name}, which looks at the plain "
                f"picture alone. Leave it out, or {way}."
            )
    check_gate_views(wanted.gate_views, wanted.gate, wanted.views)
    if wanted.jacobian:
        check_jacobian_used([(info, settings)])
    if len(wanted.templates) > 1 and not info.takes_templates:
        raise MethodError(
            f"--method {info.name} starts from one template, but {len(wanted.templates)} were "
            "given. Give one, or use another method (zero_shot, vte, tps, ...) for an ensemble."
        )
    if wanted.templates and wanted.init is not None:
        raise MethodError(
            "--init and --template both say where the prompt starts. Give one of them."
        )
    if wanted.load_state is not None and not info.keeps_state:
        raise MethodError(
            f"--load-state has no meaning with --method {info.name}, which keeps no state between "
            "images. Leave it out, or use --method tda."
        )
    return settings
