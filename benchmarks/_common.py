"""What several benchmarks share: where the sets are, the names of their folders, a clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Result = TypeVar("Result")

IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
CALTECH = {
    "Faces": "face",
    "Faces_easy": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "car_side": "automobile",
}


def list_set(root: Path, names: dict[str, str], every: int = 1) -> list[tuple[str, str]]:
    """(file, class name) of a folder-per-class set; `every` takes each n-th file of a folder."""
    return [
        (str(file), names.get(folder.name, folder.name.replace("_", " ")))
        for folder in sorted(root.iterdir())
        for file in sorted(folder.iterdir())[::every]
    ]


def take_evenly(pictures: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """At most `count` of a set's pictures, evenly over the list and so over the classes."""
    step = max(1, len(pictures) / count)
    return [pictures[int(place * step)] for place in range(min(count, len(pictures)))]


def encode_plainly(model: Any, embedded: Tensor, ids: Tensor, context: Tensor) -> Tensor:
    """Class features (K, E) of a context (M, D), as the public programs compute them.

    Every prompt runs through all tokens. `embedded` (K, L, D) are the prompts' token embeddings,
    the context's places from token 1 on, and `ids` (K, L) their tokens.
    """
    dtype = model.transformer.get_cast_dtype()
    head, tail = embedded[:, :1], embedded[:, 1 + len(context) :]
    x = torch.cat([head, context.expand(len(head), -1, -1).to(head.dtype), tail], dim=1)
    x = x.to(dtype) + model.positional_embedding.to(dtype)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    x = x[torch.arange(len(x)), ids.argmax(-1)] @ model.text_projection
    return F.normalize(x.float(), dim=-1)


def clock(work: Callable[[], Result], repeats: int = 1) -> tuple[Result, float]:
    """The last result and the median seconds of `repeats` calls, the device's work included."""
    results, seconds = clock_in_turn({"": work}, repeats)
    return results[""], seconds[""]


def clock_in_turn(
    works: dict[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """The last results and the median seconds of several pieces of work, `repeats` calls each.

    Each round calls all of them once, so that a machine that slows down slows all of them.
    """
    results: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            _wait()
            start = time.perf_counter()
            results[name] = work()
            _wait()
            seconds[name].append(time.perf_counter() - start)
    return results, {name: statistics.median(found) for name, found in seconds.items()}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
