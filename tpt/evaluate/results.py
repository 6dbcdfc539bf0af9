"""`results.json`: what an evaluation measured, as one dictionary that other programs read.

An entry of "results" has the keys of the field's common benchmark, CLIP_benchmark (dataset, model,
pretrained, task, language, metrics), so that its readers find them. All shares are fractions in
[0, 1], rounded to six places; what was not measured is null. `tpt.evaluate.metrics` computes the
metrics.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpt._version import __version__
from tpt.errors import OutputError
from tpt.evaluate.protocols import base_to_new, domain_generalisation
from tpt.runs.whole_files import write_whole

if TYPE_CHECKING:
    from tpt.evaluate.metrics import SetMetrics

FORMAT, VERSION = "tpt-eval", 1
TRANSFER_FORMAT, TRANSFER_VERSION = "tpt-transfer", 1  # of transfer.json


@dataclass(frozen=True, kw_only=True)
class SetInfo:
    """One evaluated set: what it is and where it came from."""

    name: str
    role: str = "shift"  # or "clean", or "clean, same classes"
    layout: str  # how it was read, in words
    path: str  # as the user gave it
    classes: tuple[str, ...]
    images: int  # evaluated
    failed: int = 0  # could not be read
    domain: str | None = None
    corruption: str | None = None
    severity: int | None = None
    clean: str | None = None  # the set of this run that it is compared with
    part: str | None = None  # "base" or "new" classes of a split set
    notes: tuple[str, ...] = ()  # what a reader must know of how it was read


@dataclass(frozen=True)
class Times:
    """Median milliseconds an image."""

    image: float | None  # views and image tower, shared by all methods; not decoding
    method: float | None  # this method's own work


def build_results(
    sets: Sequence[SetInfo],
    methods: Sequence[Mapping[str, Any]],
    measured: Mapping[str, Mapping[str, SetMetrics]],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    baseline: str,
    ms: Mapping[str, Mapping[str, Times]],
) -> dict[str, Any]:
    """The content of results.json, without its gallery, confusions and outside pictures.

    The gap of a method on a set is its accuracy on the set's clean counterpart minus its accuracy
    on the set. Taori et al. (2007.00644) define effective robustness as the accuracy above a line
    from clean to shifted accuracy, fitted through many models. A run has one model, so the line
    used here has slope one and goes through the baseline: `effective_robustness` = the baseline's
    gap - the method's gap. It says how much less a method loses than the baseline, and nothing
    about models in general.

    Args:
        sets: in the order of the tables.
        methods: the entries of `MethodPool.describe`, in the order of the tables, with the
            baseline.
        measured: the metrics by set name, then method name; a pair may be missing.
        settings: of the run; "model" and "pretrained" are repeated in every entry.
        environment: versions and device.
        baseline: name of the method that the others are compared with.
        ms: median times, by set name, then method name; a pair may be missing.
    """
    results: dict[str, Any] = {
        "format": FORMAT,
        "format_version": VERSION,
        "tool": f"tpt-runtime {__version__}",
        "settings": dict(settings),
        "environment": dict(environment),
        "baseline": baseline,
        "methods": [dict(method) for method in methods],
        "sets": [asdict(info) for info in sets],
        "results": [
            _result_entry(info, method["name"], measured, settings, baseline, ms)
            for info in sets
            for method in methods
            if method["name"] in measured.get(info.name, {})
        ],
    }
    results = round_floats(results)
    clean = [info.name for info in sets if info.role == "clean"]
    source = clean[0] if len(clean) == 1 else None
    tables = {
        "domain_generalisation": domain_generalisation(results, source),
        "base_to_new": base_to_new(results),
    }
    filled = {name: table for name, table in tables.items() if table is not None}
    return results | {"protocols": round_floats(filled)}


def _result_entry(
    info: SetInfo,
    method: str,
    measured: Mapping[str, Mapping[str, SetMetrics]],
    settings: Mapping[str, Any],
    baseline: str,
    ms: Mapping[str, Mapping[str, Times]],
) -> dict[str, Any]:
    """One method on one set."""
    found = measured[info.name][method]
    times = ms.get(info.name, {}).get(method, Times(None, None))

    def accuracy(of: str, on: str | None) -> float | None:
        there = measured.get(on or "", {}).get(of)
        return None if there is None else there.metrics["acc1"]

    def gap(of: str) -> float | None:
        return _less(accuracy(of, info.clean), accuracy(of, info.name))

    clean = {
        "dataset": info.clean,
        "acc1": accuracy(method, info.clean),
        "gap": gap(method),
        "effective_robustness": _less(gap(baseline), gap(method)),
    }
    return {
        "dataset": info.name,
        "model": settings.get("model"),
        "pretrained": settings.get("pretrained"),
        "task": "zeroshot_classification",
        "language": "en",
        "method": method,
        "images": found.images,
        "metrics": dict(found.metrics),
        "intervals": dict(found.intervals),
        "reliability": found.reliability
        and {str(bins): asdict(diagram) for bins, diagram in found.reliability.items()},
        "versus_baseline": asdict(found.versus) if found.versus and method != baseline else None,
        "clean": None if info.clean is None else clean,
        "ms": asdict(times),
    }


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def round_floats(value: Any) -> Any:
    """The same with every float rounded to six places: enough for a million pictures."""
    if isinstance(value, float):
        return round(value, 6) + 0.0  # no -0.0
    if isinstance(value, dict):
        return {key: round_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(item) for item in value]
    return value


def write_results(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write results.json or transfer.json as strict JSON, whole or not at all.

    Raises:
        OutputError: the disk refused, or a number is not finite.
    """
    place = _find_not_finite(results, "")
    if place:
        raise OutputError(
            f"The results hold a number that is not finite, at {place}, and JSON has no such "
            "number. The model gave broken scores there: try --precision fp32."
        )
    content = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(Path(path), content.encode("utf-8", "backslashreplace"), "results")


def _find_not_finite(value: Any, place: str) -> str | None:
    """Where the first NaN or infinity is: `results[3].metrics.nll`."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    items: Any = ()
    if isinstance(value, Mapping):
        items = ((f"{place}.{key}" if place else str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{place}[{index}]", item) for index, item in enumerate(value))
    return next((found for p, item in items if (found := _find_not_finite(item, p))), None)
