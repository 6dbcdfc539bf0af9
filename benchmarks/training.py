"""What an epoch of training costs, against a plain implementation. Prints ratios of one run.

    python benchmarks/training.py                     # ViT-B/16, random weights, 100 classes
    python benchmarks/training.py --steps 4 --classes 50 --device cuda

An epoch is 16 shots of every class. The plain side does what the public CoOp and CoCoOp programs
do: at every step it runs every prompt through all 77 tokens of the text tower (for CoCoOp once more
for each image of the batch), forward and backward, and the batch through the image tower. Ours
takes the packed text path and, with cached views, encodes each image's views once in the whole
training. Both get the same weights and images, and must give the same loss to 1e-4. Text and image
are timed apart, a few steps of each; an epoch's time is that of a step times its steps. Every side
runs in a process of its own, so that peak memory can be compared. A side that does not fit into the
machine's memory is stopped and reported.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from _common import encode_plainly
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from torch import Tensor

import tpt
from coop.learners import Batch, CoCoOp, CoOp
from coop.recipes import CACHE_VIEWS
from tpt.prompts.meta_network import MetaNet

SHOTS = 16
CASES = {  # method, batch, epochs at 16 shots
    "CoOp, batch 32": ("coop", 32, 200),
    "CoCoOp, batch 1": ("cocoop", 1, 10),
    "CoCoOp, batch 8": ("cocoop", 8, 10),
}


class Plain:
    """The recipe on open_clip's own modules: full-length prompts, one pass an image for CoCoOp."""

    def __init__(self, clip: tpt.Clip, classes: list[str], method: str) -> None:
        self.clip = clip
        self.model = cast(Any, clip.model)
        self.ids = clip.tokenizer([f"a photo of a {name}." for name in classes]).to(clip.device)
        with torch.no_grad():
            self.embedded = self.model.token_embedding(self.ids).float()
        self.vectors = self.embedded[0, 1:5].clone().requires_grad_()
        rng = torch.Generator().manual_seed(0)
        net = MetaNet.draw(clip.embedding_width, clip.width, rng).to(clip.device)
        self.net = net if method == "cocoop" else None
        for tensor in net.tensors().values():
            tensor.requires_grad_()

    def encode_text(self, context: Tensor) -> Tensor:
        """Class features (K, E) of one context (M, D)."""
        return encode_plainly(self.model, self.embedded, self.ids, context)

    def step(self, features: Tensor, labels: Tensor) -> float:
        if self.net is None:
            logits = self.clip.logit_scale * features @ self.encode_text(self.vectors).T
        else:
            contexts = self.vectors + self.net(features).unsqueeze(1)
            rows = [
                f @ encode_plainly(self.model, self.embedded, self.ids, c).T
                for f, c in zip(features, contexts, strict=True)
            ]
            logits = self.clip.logit_scale * torch.stack(rows)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        return float(loss.detach())


class Ours:
    """The same step by the learners of `coop`."""

    def __init__(self, clip: tpt.Clip, classes: list[str], method: str) -> None:
        context = tpt.Context.from_words(clip, "a photo of a")
        engine = tpt.PromptEngine(clip, classes, context)
        self.learner = CoCoOp(engine, seed=0) if method == "cocoop" else CoOp(engine)

    def step(self, features: Tensor, labels: Tensor) -> float:
        batch = Batch(features, labels, features, labels, torch.Generator())
        loss = self.learner.loss(batch).total
        loss.backward()
        return float(loss.detach())


def measure(side: str, method: str, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step of text and of image, the loss, and peak memory; run in a child process."""
    clip = tpt.load_clip(args.model, "random", device=args.device, precision="fp32")
    classes = list(IMAGENET_CLASSNAMES[: args.classes])
    rng = torch.Generator().manual_seed(0)
    size = clip.preprocess.size
    pictures = torch.randn(batch, 3, *size, generator=rng).to(clip.device)
    labels = torch.randint(len(classes), (batch,), generator=rng).to(clip.device)
    made = (Plain if side == "plain" else Ours)(clip, classes, method)

    def encode() -> Tensor:
        if side == "plain":
            model: Any = clip.model
            with torch.no_grad():
                return F.normalize(model.encode_image(pictures).float(), dim=-1)
        return clip.encode_images(pictures)

    features, image = clock(encode, args)
    loss, text = clock(lambda: made.step(features, labels), args)
    peak = (
        torch.cuda.max_memory_allocated()
        if clip.device.type == "cuda"
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {"image": image, "text": text, "loss": loss, "peak": peak, "cpu": clip.device.type}


def clock(work: Any, args: argparse.Namespace) -> tuple[Any, float]:
    """The first result, and the fastest of some later calls: the first one warms up."""
    first, seconds = work(), []
    for _ in range(args.steps):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return first, min(seconds)


def run_child(side: str, case: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """`measure` in a process of its own; None if it asked for more memory than there is."""
    words = [sys.executable, __file__, "--child", side, "--case", case, "--model", args.model]
    words += ["--classes", str(args.classes), "--steps", str(args.steps), "--device", args.device]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            if available_memory() < 1.5e9:
                child.kill()
                child.wait()
                return None
            time.sleep(0.1)
        assert child.stdout is not None
        text = child.stdout.read()
    if child.returncode:
        raise SystemExit(f"{side}, {case} failed with exit code {child.returncode}.")
    return dict(json.loads(text))


def available_memory() -> float:
    """Bytes still available on this machine (Linux; elsewhere there is no limit)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    line = next(line for line in lines if line.startswith("MemAvailable"))
    return 1024 * float(line.split()[1])


def report(case: str, plain: dict[str, Any] | None, ours: dict[str, Any], count: int) -> None:
    """One case: seconds a step and an epoch, ratios, memory."""
    _, batch, epochs = CASES[case]
    images = SHOTS * count
    steps = max(1, images // batch)
    views = min(CACHE_VIEWS, epochs)
    cached = ours["image"] / batch * images * views / epochs  # a share of the views an epoch
    text, live = ours["text"] * steps, ours["image"] * steps
    print(f"\n{case}, {count} classes, {steps} steps an epoch, {epochs} epochs")
    print(f"{'':24}{'text/step':>10}{'image/step':>11}{'epoch':>10}{'memory':>9}")
    if plain is not None:
        whole = (plain["text"] + plain["image"]) * steps
        print(row("plain", plain, whole))
    else:
        print("  plain: stopped, it needs more memory than this machine has")
    print(row("ours, no cached views", ours, text + live))
    print(row(f"ours, {views} cached views", ours, text + cached))
    if plain is None:
        return
    print(f"  text {plain['text'] / ours['text']:.1f} x", end="")
    print(f", epoch {whole / (text + live):.1f} x without and", end="")
    print(f" {whole / (text + cached):.1f} x with cached views", end="")
    print(f", memory {plain['peak'] / ours['peak']:.1f} x; the losses differ by", end="")
    print(f" {abs(plain['loss'] / ours['loss'] - 1):.0e}")
    if abs(plain["loss"] / ours["loss"] - 1) > 1e-4:
        raise SystemExit("The two sides do not compute the same loss.")


def row(name: str, side: dict[str, Any], epoch: float) -> str:
    return (
        f"  {name:22}{side['text']:8.2f} s{side['image']:9.2f} s{epoch:8.0f} s"
        f"{side['peak'] / 1e9:6.1f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=2, help="timed steps, after one to warm up")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--child", choices=["plain", "ours"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        method, batch, _ = CASES[args.case]
        print(json.dumps(measure(args.child, method, batch, args)))
        return
    for case in [args.case] if args.case else CASES:
        ours = run_child("ours", case, args)
        if ours is None:
            raise SystemExit(f"{case} needs more memory than this machine has.")
        report(case, run_child("plain", case, args), ours, args.classes)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
