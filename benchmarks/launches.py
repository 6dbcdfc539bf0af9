"""Kernels and synchronisations a picture, counted on a CPU, so that no GPU is needed.

    python benchmarks/launches.py              # 8 pictures, 12 layers, 10 to 1,000 classes
    python benchmarks/launches.py --classes 100 --batch 1 8 --augment augmix

A GPU is fast where few, large kernels are asked for and nothing waits for their end. A narrow model
of ViT-B/16's depth runs on the CPU as it would on a GPU (the pictures of a batch together, views by
products), and a dispatch mode counts. An operator that only looks at its input otherwise (a view)
costs nothing, any other counts as one kernel, those that prepare something on the host among them;
a fused attention is one. A synchronisation is whatever brings numbers to Python: `item`, `tolist`,
`cpu`, `bool`, an index by a mask. What `cpu` gave lies on the host from there on and costs nothing.
The counts do not depend on width or weights.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import tpt
import tpt.images.resample
import tpt.images.views
from tpt.evaluate.runner import judge
from tpt.images.decode import load_picture
from tpt.methods.registry import make_method
from tpt.streaming.batches import encode, predict_batch
from tpt.streaming.loading import Loaded

PICTURES = sorted((Path(__file__).parent.parent / "examples" / "images").glob("*.jpg"))
_FREE = ("empty", "detach", "alias", "_unsafe_view", "_reshape_alias", "lift_fresh")
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal")
_FETCHING = {Tensor.tolist, Tensor.cpu, Tensor.numpy}


@dataclass
class Counts:
    """What was asked of the device."""

    kernels: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)


class _Host:
    """Which tensors were fetched, by the memory they lie in; it is held, so that none reuses it."""

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}

    def add(self, *found: Any) -> None:
        for tensor in _tensors(found):
            memory = tensor.untyped_storage()
            self.held[memory.data_ptr()] = memory

    def has(self, *found: Any) -> bool:
        """Whether any lies there: no operator takes tensors from both."""
        return any(t.untyped_storage().data_ptr() in self.held for t in _tensors(found))


def _tensors(found: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(found) if type(leaf) is Tensor and leaf.numel()]


class _Kernels(TorchDispatchMode):
    def __init__(self, counts: Counts, host: _Host) -> None:
        super().__init__()
        self.counts, self.host = counts, host

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if self.host.has(args, kwargs):
            result = func(*args, **(kwargs or {}))
            self.host.add(result)
            return result
        if name in _WAITING or (name.startswith("index") and _has_mask(args)):
            if not _counts_steps():
                self.counts.waits[name] += 1
        elif not _is_view(func) and not name.startswith(_FREE):
            self.counts.kernels[name] += 1
        return func(*args, **(kwargs or {}))


def _counts_steps() -> bool:
    """Whether an optimiser reads its step, which it keeps on the host."""
    frame = sys._getframe(2)
    while frame is not None and "optim" not in frame.f_code.co_filename:
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None


class _Fetches(TorchFunctionMode):
    """What reads a tensor's memory never reaches the dispatcher."""

    def __init__(self, counts: Counts, host: _Host) -> None:
        super().__init__()
        self.counts, self.host = counts, host

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _FETCHING or self.host.has(args):
            return func(*args, **(kwargs or {}))
        self.counts.waits[func.__name__] += 1
        if func is not Tensor.cpu:
            return func(*args, **(kwargs or {}))
        with _disable_current_modes():  # on a CPU `cpu` copies nothing
            fetched = args[0].clone()
        self.host.add(fetched)
        return fetched


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _has_mask(args: tuple[Any, ...]) -> bool:
    masks = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    return any(isinstance(m, Tensor) and m.dtype == torch.bool for m in masks)


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what is asked of the device inside."""
    counts, host = Counts(), _Host()
    with _Fetches(counts, host), _Kernels(counts, host):
        yield counts


def build_clip(layers: int) -> tpt.Clip:
    """A narrow model of `layers` layers that takes the pictures of a batch together."""
    vision = {"image_size": 32, "layers": layers, "width": 64, "patch_size": 16, "head_width": 32}
    text = {"width": 64, "heads": 2, "layers": layers, "vocab_size": 49408, "context_length": 77}
    torch.manual_seed(0)
    clip = tpt.Clip(CLIP(32, vision, text), open_clip.get_tokenizer("ViT-B-16"), micro_batch=4096)
    clip.images_a_pass = lambda waiting: waiting  # type: ignore[method-assign]
    return clip


def measure(
    classes: int, batch: int, layers: int, augment: str, name: str, jacobian: bool = False
) -> dict[str, Counts]:
    """Counts of a batch, by stage, and of all that `predict` and `eval` do with it."""
    with like_a_gpu():
        return _measure(classes, batch, layers, augment, name, jacobian)


@contextmanager
def like_a_gpu() -> Iterator[None]:
    """Make views by the path of devices that are no CPU."""
    homes: Any = (tpt.images.resample, tpt.images.views)
    kept = [home.works_on_bytes for home in homes]
    try:
        for home in homes:
            home.works_on_bytes = lambda device: False
        yield
    finally:
        for home, own in zip(homes, kept, strict=True):
            home.works_on_bytes = own


def _measure(
    classes: int, batch: int, layers: int, augment: str, name: str, jacobian: bool
) -> dict[str, Counts]:
    clip = build_clip(layers)
    names = list(open_clip.IMAGENET_CLASSNAMES)[:classes]
    method = make_method(name, tpt.PromptEngine(clip, names))
    if jacobian:
        method.engine.build_jacobian()
    views = tpt.Views(clip, kind=augment)
    pictures = [load_picture(PICTURES[place % len(PICTURES)]) for place in range(batch)]
    items = [Loaded(place, None, picture) for place, picture in enumerate(pictures)]
    list(predict_batch(items, method, views, 5))  # what is made once a class list
    made = views(pictures)
    features = clip.encode_views(made)
    stages: dict[str, Callable[[], Any]] = {
        "views": lambda: views(pictures),
        "tower": lambda: clip.encode_views(made),
        "method": lambda: method.adapt_features(features),
        "predict": lambda: list(predict_batch(items, method, views, 5)),
        "encode": lambda: encode(items, clip, views, check=method.weighs_others),
        "judge": partial(judge, features, [0] * batch, {name: method}),
    }
    found = {}
    for stage, work in stages.items():
        with counting() as found[stage]:
            work()
    return found


def show(found: dict[str, Counts], classes: int, batch: int, name: str) -> None:
    """One line of figures."""
    each = {stage: counts.kernels.total() / batch for stage, counts in found.items()}
    print(
        f"{classes:5} classes, batch {batch}, {name}: {each['predict']:6.0f} kernels a picture in "
        f"all (views {each['views']:.0f}, tower {each['tower']:.0f}, method {each['method']:.0f}); "
        f"synchronisations a batch: predict {found['predict'].waits.total()}, eval "
        f"{found['encode'].waits.total()} and {found['judge'].waits.total()} a method",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--batch", nargs="+", type=int, default=[8])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--augment", choices=["crop", "augmix"], default="crop")
    parser.add_argument("--method", nargs="+", default=["tpt"])
    parser.add_argument("--jacobian", action="store_true", help="of the start, as the command has")
    parser.add_argument("--most", type=int, default=0, metavar="N", help="kernels a stage to name")
    args = parser.parse_args()
    print(f"{args.layers} layers, 64 views ({args.augment})")
    for name in args.method:
        for batch in args.batch:
            for classes in args.classes:
                found = measure(classes, batch, args.layers, args.augment, name, args.jacobian)
                show(found, classes, batch, name)
                for stage, counts in found.items() if args.most else ():
                    print(f"      {stage}: {counts.kernels.most_common(args.most)}")


if __name__ == "__main__":
    main()
