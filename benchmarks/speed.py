"""How long one image takes, against the reference recipe written plainly. Prints ratios of one run.

    python benchmarks/speed.py                      # ViT-B/16, 64 views, 10 to 1,000 classes
    python benchmarks/speed.py --classes 100 --repeats 3
    python benchmarks/speed.py --device cuda --precision fp32 tf32 bf16

"screened" among the precisions is fp32 after a first look in bf16 (`--screen`), beside fp32 alone.
Both sides get the same random weights, the same views of the same picture and the same classes,
and have to give the same logits to 1e-3. The reference does what the public TPT program does:
every prompt through all 77 tokens of the text tower, the 64 views through the image tower in one
batch, AdamW on the context, then image and text towers again to predict. Every measurement runs
in a process of its own, so that peak memory means something.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
import torch.nn.functional as F
from _common import clock, clock_in_turn, encode_plainly
from torch import Tensor

import tpt
from tpt.images.decode import load_picture
from tpt.model.load import find_device
from tpt.model.precision import multiplying
from tpt.prompts.operations import count_jacobian
from tpt.streaming.screen import Screen

PICTURE = Path(__file__).parent.parent / "examples" / "images" / "cat.jpg"
KEEP, LR = 0.1, 5e-3


class Reference:
    """TPT as the public program computes it, on open_clip's modules, for one context of words."""

    def __init__(self, clip: tpt.Clip, classes: list[str]) -> None:
        self.clip = clip
        self.model = cast(Any, clip.model)
        sentences = [f"a photo of a {name.replace('_', ' ')}." for name in classes]
        self.ids = clip.tokenizer(sentences).to(clip.device)
        with torch.no_grad():
            self.embedded = self.model.token_embedding(self.ids)
        self.start = self.embedded[0, 1:5].float().clone()

    def logits(self, views: Tensor, context: Tensor) -> Tensor:
        with torch.no_grad():
            images = self.model.encode_image(views.to(self.model.transformer.get_cast_dtype()))
            images = F.normalize(images.float(), dim=-1)
        return (
            self.model.logit_scale.exp()
            * images
            @ encode_plainly(self.model, self.embedded, self.ids, context).T
        )

    def adapt(self, views: Tensor) -> Tensor:
        context = self.start.clone().requires_grad_()
        optimizer = torch.optim.AdamW([context], lr=LR)
        logits = self.logits(views, context)
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
        kept = logits[entropy.argsort()[: int(len(views) * KEEP)]]
        log_p = kept.log_softmax(1)
        mean = log_p.logsumexp(0) - torch.log(torch.tensor(float(len(log_p))))
        loss = -(mean.exp() * mean).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            return self.logits(views[:1], context)[0]


def measure(side: str, args: argparse.Namespace) -> dict[str, Any]:
    """One side's seconds an image, where they go, its logits and its peak memory."""
    count, screened = args.classes[0], args.precision[0] == "screened"
    precision = "fp32" if screened else args.precision[0]

    def load(precision: str) -> tpt.Clip:
        return tpt.load_clip(args.model, "random", device=args.device, precision=precision)

    clip = load(precision)
    names = list(open_clip.IMAGENET_CLASSNAMES)[:count]
    make = tpt.Views(clip, n=args.views)
    views = make([PICTURE])
    report: dict[str, Any] = {"device": str(clip.device)}
    if side == "reference":
        reference = Reference(clip, names)
        logits, report["image"] = clock(lambda: reference.adapt(views[0]), args.repeats)
    else:
        screen = Screen(load("bf16")) if screened else None
        logits = measure_ours(clip, names, make, args.repeats, report, screen)
        if args.jacobian:
            measure_jacobian(clip, names, views, logits, args.repeats, report)
    report["logits"] = logits.float().cpu().tolist()
    if clip.device.type == "cuda":
        report["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    else:
        report["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return report


def measure_ours(
    clip: tpt.Clip,
    names: list[str],
    make: tpt.Views,
    repeats: int,
    report: dict[str, Any],
    screen: Screen | None = None,
) -> Tensor:
    """Fill the report; the timed image is tower -> tuning -> prediction, as in use.

    Everything runs once before it is timed, and then the parts take turns (`clock_in_turn`).
    """
    engine = tpt.PromptEngine(clip, names, tpt.Context.from_words(clip, "a photo of a"))
    method = tpt.TPT(engine, keep=KEEP, lr=LR)
    _, report["once"] = clock(engine.start_graph)
    picture = load_picture(PICTURE)
    views = make([picture])
    features = clip.encode_views(views)
    with torch.no_grad():
        engine.class_features(engine.start)
    parts: dict[str, Callable[[], Any]] = {
        "decode": lambda: load_picture(PICTURE),
        "views": lambda: make([picture]),
        "tower": lambda: clip.encode_views(views),
        "text": lambda: method.adapt_features(features[0]),
        "predict": torch.no_grad()(lambda: engine.class_features(engine.start)),
        "image": lambda: method.adapt(views[0]),
    }
    results, seconds = clock_in_turn(parts, repeats)
    report.update(seconds)
    out = results["image"]
    if screen is not None:
        seen = out.logits

        def look() -> Tensor:
            features = screen.encode(clip, views, [method])
            return method.adapt_features(features[0]).logits

        logits, report["screened"] = clock(look, repeats)
        report["moved"] = float((logits - seen).abs().max())
    encoder: Any = engine._encode
    report["tokens"] = len(encoder.plan.ids) if engine.path == "packed" else None
    return out.logits


def measure_jacobian(
    clip: tpt.Clip,
    names: list[str],
    views: Tensor,
    seen: Tensor,
    repeats: int,
    report: dict[str, Any],
) -> None:
    """What `--jacobian` takes once, and what tuning and predicting take behind it."""
    engine = tpt.PromptEngine(clip, names, tpt.Context.from_words(clip, "a photo of a"))
    cost = count_jacobian(engine)
    _, built = clock(engine.build_jacobian)
    engine.start_features()  # once a class list too
    method = tpt.TPT(engine, keep=KEEP, lr=LR)
    features = clip.encode_views(views)
    out, text = clock(lambda: method.adapt_features(features[0]), repeats)
    moved = float((out.logits - seen).abs().max())
    report["jacobian"] = {"told": str(cost), "built": built, "text": text, "moved": moved}


def matrix_rate(device: str, precision: str) -> float:
    """GFLOP/s of a plain matrix product here: the floor under everything else."""
    place = find_device(device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    size = 2048 if place.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=place).to(dtype) for _ in range(2))
    with multiplying(precision, place):
        a @ b
        _, seconds = clock(lambda: a @ b, 10)
    return 2 * size**3 / seconds / 1e9


def run(side: str, count: int, precision: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one side in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--classes", str(count)]
    command += ["--precision", precision, "--model", args.model, "--device", args.device]
    command += ["--views", str(args.views), "--repeats", str(args.repeats)]
    command += ["--jacobian"] if args.jacobian else []
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise SystemExit(f"{side} with {count} classes failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def show(count: int, precision: str, ours: dict[str, Any], plain: dict[str, Any] | None) -> None:
    rest = ours["image"] - ours["tower"] - ours["text"]
    parts = f"tower {ours['tower']:.2f}, tuning and predicting {ours['text']:.2f}, rest {rest:+.2f}"
    print(
        f"{count:5} classes {precision}: {ours['image']:6.2f} s an image, "
        f"{ours['image'] / ours['tower']:.2f} x the image tower, peak {ours['peak_gb']:.1f} GB "
        f"[{parts}; text predict alone {ours['predict']:.2f}; once a class list "
        f"{ours['once']:.2f}; decode {ours['decode'] * 1e3:.0f} ms, views "
        f"{ours['views'] * 1e3:.0f} ms; {ours['tokens']} text tokens]",
        flush=True,
    )
    if "screened" in ours:
        gain = ours["image"] / ours["screened"]
        print(
            f"      with --screen: {ours['screened']:6.2f} s, {gain:.2f} x as fast as without; "
            f"logits move by {ours['moved']:.1e}",
            flush=True,
        )
    if "jacobian" in ours:
        found = ours["jacobian"]
        saved = ours["text"] - found["text"]
        even = f"after {found['built'] / saved:,.0f} pictures" if saved > 0 else "never"
        print(
            f"      with --jacobian: tuning and predicting {found['text']:.2f} s, built in "
            f"{found['built']:.1f} s, so it breaks even {even} here; logits move "
            f"by {found['moved']:.1e} [{found['told']}]",
            flush=True,
        )
    if plain is not None:
        difference = (torch.tensor(ours["logits"]) - torch.tensor(plain["logits"])).abs().max()
        print(
            f"      reference: {plain['image']:6.2f} s, peak {plain['peak_gb']:.1f} GB: ours is "
            f"{plain['image'] / ours['image']:.2f} x as fast; logits differ by {difference:.1e}",
            flush=True,
        )
        if precision == "fp32" and difference > 1e-3:
            raise SystemExit("The two sides do not compute the same logits.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16", "screened"])
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100, 300, 1000])
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--jacobian", action="store_true", help="measure it too; minutes a list")
    parser.add_argument("--largest-reference", type=int, default=300, help="skip it above this")
    parser.add_argument("--side", choices=["ours", "reference"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args)))
        return
    print(f"{args.model}, random weights, {args.views} views, {torch.get_num_threads()} threads")
    for precision in args.precision:
        type_ = "fp32" if precision == "screened" else precision
        rate = matrix_rate(args.device, type_)
        print(f"matrix products in {type_}: {rate:,.0f} GFLOP/s", flush=True)
        for count in args.classes:
            ours = run("ours", count, precision, args)
            compare = count <= args.largest_reference and precision == "fp32"
            show(
                count,
                precision,
                ours,
                run("reference", count, precision, args) if compare else None,
            )


if __name__ == "__main__":
    main()
