"""A small results.json that agrees with itself, as the dictionary: `sample_results()`.

Four sets (a photo set and its sketches, CIFAR-10 in fog of two severities), four methods, of
which `zero` gives votes and so has no calibration. Every number follows from made-up confidences
and hits: accuracy from the hits, bins and their error from both, differences from the same images.
Import it as `from report.sample import sample_results`; every call returns a fresh dictionary.
"""

from __future__ import annotations

import json
import math
import random
from typing import Any

from tpt.evaluate.protocols import domain_generalisation

PACS = ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"]
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

# set: images, hits of each method, how far its mean confidence is above its accuracy
_SETS: dict[str, tuple[int, dict[str, int], float]] = {
    "pacs/photo": (120, {"zero-shot": 96, "tpt": 98, "tpt+init": 102, "zero": 97}, 0.0),
    "pacs/sketch": (200, {"zero-shot": 74, "tpt": 84, "tpt+init": 100, "zero": 70}, 0.1),
    "cifar10+fog:3": (160, {"zero-shot": 88, "tpt": 90, "tpt+init": 94, "zero": 85}, 0.05),
    "cifar10+fog:5": (160, {"zero-shot": 56, "tpt": 50, "tpt+init": 61, "zero": 56}, 0.15),
}
_METHODS = ["zero-shot", "tpt", "tpt+init", "zero"]
_MS = {"zero-shot": 0.4, "tpt": 9.1, "tpt+init": 9.2, "zero": 0.6}


def sample_results() -> dict[str, Any]:
    """The dictionary, as `json.load` gives it."""
    results: dict[str, Any] = {
        "format": "tpt-eval",
        "format_version": 1,
        "tool": "tpt-runtime 0.1.0",
        "settings": {
            "model": "tpt-tiny",
            "pretrained": "embedded",
            "precision": "fp32",
            "seed": 0,
            "views": 64,
            "augment": "crop",
        },
        "environment": {"torch": "2.7.0", "device": "cpu"},
        "baseline": "zero-shot",
        "methods": [
            _method("zero-shot", "zero_shot", {}),
            _method("tpt", "tpt", {"keep": 0.1, "steps": 1, "lr": 0.005}),
            _method("tpt+init", "tpt", {"keep": 0.1, "steps": 1, "lr": 0.005}, "coop.safetensors"),
            _method("zero", "zero", {"keep": 0.3}),
        ],
        "sets": [
            _set("pacs/photo", PACS, role="clean", domain="photo"),
            _set("pacs/sketch", PACS, domain="sketch", clean="pacs/photo", failed=1),
            _set("cifar10+fog:3", CIFAR, corruption="fog", severity=3),
            _set("cifar10+fog:5", CIFAR, corruption="fog", severity=5),
        ],
        "results": [_result(name, method) for name in _SETS for method in _METHODS],
    }
    protocols = {"domain_generalisation": domain_generalisation(results, "pacs/photo")}
    return json.loads(json.dumps({**results, "protocols": protocols}))


def _method(name: str, method: str, settings: dict[str, Any], file: str | None = None) -> Any:
    context = {"words": None if file else "a photo of a", "file": file}
    return {
        "name": name,
        "method": method,
        "settings": settings,
        "context": context,
        "templates": [],
    }


def _set(
    name: str, classes: list[str], *, failed: int = 0, role: str = "shift", **facts: Any
) -> Any:
    return {
        "name": name,
        "role": role,
        "layout": "one folder a class" if "pacs" in name else "CIFAR-10 arrays",
        "path": name.partition("+")[0],
        "classes": classes,
        "images": _SETS[name][0],
        "failed": failed,
        "domain": facts.get("domain"),
        "corruption": facts.get("corruption"),
        "severity": facts.get("severity"),
        "clean": facts.get("clean"),
        "part": None,
        "notes": ["README.txt beside the class folders is left out."] if failed else [],
    }


def _hits(name: str, method: str) -> list[bool]:
    """Which images are right: the first ones, a few of them traded so that methods disagree."""
    images, right, _ = _SETS[name]
    hits = [i < right[method] for i in range(images)]
    for i in range(_METHODS.index(method)):  # each trade makes one right and one wrong
        hits[i], hits[-1 - i] = hits[-1 - i], hits[i]
    return hits


def _confidences(name: str, method: str, hits: list[bool]) -> list[float]:
    rng = random.Random(f"{name} {method}")
    over = _SETS[name][2] + (0.1 if method.startswith("tpt") else 0.0)
    base = sum(hits) / len(hits) + over
    return [
        round(min(0.995, max(0.15, base + (0.1 if hit else -0.1) + rng.uniform(-0.25, 0.25))), 3)
        for hit in hits
    ]


def _result(name: str, method: str) -> dict[str, Any]:
    hits, votes = _hits(name, method), method == "zero"
    count, acc = len(hits), sum(hits) / len(hits)
    sure = _confidences(name, method, hits)
    bins = {str(n): _bins(hits, sure, n) for n in (15, 20)}
    metrics: dict[str, float | None] = {
        "acc1": acc,
        "acc5": min(1.0, acc + 0.3),
        "mean_per_class_recall": acc - 0.01,
        "nll": _mean(map(_nll, hits, sure)),
        "brier": _mean(map(_brier, hits, sure)),
        "ece15": _error(bins["15"]),
        "ece20": _error(bins["20"]),
    }
    if votes:
        metrics |= dict.fromkeys(["nll", "brier", "ece15", "ece20"])
    return {
        "dataset": name,
        "model": "tpt-tiny",
        "pretrained": "embedded",
        "task": "zeroshot_classification",
        "language": "en",
        "method": method,
        "images": count,
        "metrics": {key: None if v is None else round(v, 6) for key, v in metrics.items()},
        "intervals": {
            key: None
            if v is None
            else _around(v, 1.96 * math.sqrt(v * max(0.05, 1 - v) / count), _LARGEST.get(key, 1.0))
            for key, v in metrics.items()
        },
        "reliability": None if votes else bins,
        "versus_baseline": None if method == "zero-shot" else _versus(name, hits),
        "clean": _clean(acc, method) if name == "pacs/sketch" else None,
        "ms": {"image": 110.2, "method": _MS[method]},
    }


def _nll(hit: bool, sure: float) -> float:
    """In nats, had the true class a quarter of what the predicted one leaves, where it is wrong."""
    return -math.log(sure if hit else (1 - sure) / 4)


def _brier(hit: bool, sure: float) -> float:
    rest = (1 - sure) / 4  # four other classes share what is left
    return (1 - sure) ** 2 + 4 * rest**2 if hit else sure**2 + 3 * rest**2 + (1 - rest) ** 2


def _bins(hits: list[bool], sure: list[float], number: int) -> dict[str, list[Any]]:
    places = [min(number - 1, math.floor(p * number)) for p in sure]
    members = [[i for i, place in enumerate(places) if place == b] for b in range(number)]
    return {
        "count": [len(m) for m in members],
        "confidence": [round(_mean(sure[i] for i in m), 6) if m else None for m in members],
        "accuracy": [round(_mean(hits[i] for i in m), 6) if m else None for m in members],
    }


def _error(bins: dict[str, list[Any]]) -> float:
    """Expected calibration error of the bins."""
    filled = [row for row in zip(*bins.values(), strict=True) if row[0]]
    return sum(n * abs(p - a) for n, p, a in filled) / sum(bins["count"])


def _versus(name: str, hits: list[bool]) -> dict[str, Any]:
    pairs = list(zip(_hits(name, "zero-shot"), hits, strict=True))
    right = sum(now and not before for before, now in pairs)
    wrong = sum(before and not now for before, now in pairs)
    odd, few = right + wrong, min(right, wrong)
    p = min(1.0, 2 * sum(math.comb(odd, k) for k in range(few + 1)) / 2**odd)
    difference = (right - wrong) / len(pairs)
    spread = 1.96 * math.sqrt(odd / len(pairs) - difference**2) / math.sqrt(len(pairs))
    return {
        "difference": round(difference, 6),
        "interval": [round(difference - spread, 6), round(difference + spread, 6)],
        "mcnemar_p": round(p, 6),
        "put_right": right,
        "put_wrong": wrong,
    }


def _clean(acc: float, method: str) -> dict[str, Any]:
    def gap(of: str) -> float:
        clean, shift = (_hits(name, of) for name in ("pacs/photo", "pacs/sketch"))
        return sum(clean) / len(clean) - sum(shift) / len(shift)

    return {
        "dataset": "pacs/photo",
        "acc1": round(acc + gap(method), 6),
        "gap": round(gap(method), 6),
        "effective_robustness": round(gap("zero-shot") - gap(method), 6),
    }


_LARGEST = {"nll": math.inf, "brier": 2.0}  # shares end at one


def _around(value: float, spread: float, largest: float) -> list[float]:
    return [round(max(0.0, value - spread), 6), round(min(value + spread, largest), 6)]


def _mean(values: Any) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
