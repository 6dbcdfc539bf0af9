"""How a job reads its method's logits: by the prompt's calibration and the user's options."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from typing import Any

from tpt.errors import MethodError
from tpt.methods import Method
from tpt.methods.reading import Reading, parse_reject
from tpt.prompts import Context
from tpt.prompts.calibration import Calibration


def settings_to_calibrate(method: Method, views: int) -> dict[str, Any]:
    """The settings that a calibration holds for: the method's, its gate's, and its views."""
    own = method.go_on
    gate = {"gate": asdict(method.settings)} if own is not method else {}
    return {**asdict(own.settings), **gate, **({"views": views} if method.reads_views else {})}


def read_by(calibration: Calibration | None, method: Method, name: str, views: int) -> Reading:
    """How a method's logits are read by the calibration of its prompt.

    Warns:
        UserWarning: the calibration is for another method or other settings, and is not used.
    """
    if calibration is None:
        return Reading()
    fits = calibration.method == name
    if not fits or dict(calibration.settings) != settings_to_calibrate(method, views):
        what = "other settings of it" if fits else f"--method {calibration.method}"
        warnings.warn(
            f"The prompt was calibrated for {what}, not for this {name}: its temperature and its "
            "threshold are not used.",
            UserWarning,
            stacklevel=3,
        )
        return Reading()
    return Reading(calibration.temperature, calibration.rule, calibration.threshold)


def choose_reading(
    method: Method,
    name: str,
    context: Context | None,
    views: int,
    classes: int,
    reject: str | None,
    other: str | None,
) -> Reading:
    """How scores are read: the prompt's calibration, changed by the user's options.

    Args:
        reject: the option --reject.
        other: the option --other; the last class is then the one for everything else.

    Raises:
        MethodError: `reject` is not a threshold; rejection with a method that votes.
    """
    found = parse_reject(reject) if reject is not None else None
    rejects = found is not None or other is not None
    if rejects and not method.gives_probabilities:
        raise MethodError(
            f"--method {name} counts votes and gives no probabilities to reject by. Leave "
            "--reject and --other out, or use another method, such as vte."
        )
    calibration = context.calibration if context is not None else None
    reading = read_by(calibration, method, name, views)
    if reject is not None:
        rule, threshold = found or (reading.rule, None)
        reading = replace(reading, rule=rule, threshold=threshold)
    return replace(reading, other=classes - 1) if other is not None else reading
