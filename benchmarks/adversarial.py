"""Attacked images: zero-shot, TPT and R-TPT before and after a PGD attack on the plain view.

    python benchmarks/adversarial.py DATA --images 100

DATA holds `imagenette/val`, one folder per class. The attack is projected gradient descent (Madry
et al., 1706.06083) on the image as the model sees it, against zero-shot's cross-entropy: ten steps
of 1/255 within 4/255 of every pixel, starting at the image itself. It knows the model and the
class, and does not know the views, which are cut from the attacked image. The last line is the
ratio of R-TPT's accuracy under attack to zero-shot's without it, both from this run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _common import IMAGENETTE, list_set, take_evenly
from torch import Tensor

import tpt
from tpt.images.decode import decode_image
from tpt.images.resample import preprocess_plain
from tpt.methods import Method

EPSILON, STEP, STEPS = 4 / 255, 1 / 255, 10


def attack(clip: tpt.Clip, classes: Tensor, picture: Tensor, label: int) -> Tensor:
    """The attacked picture (3, H, W), uint8, of one as the model sees it (3, H, W), uint8.

    The difference stays within 4 of every value, as epsilon is 4/255 and pixels are whole.
    """
    plain = picture.float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (clip.preprocess.mean, clip.preprocess.std))
    model: Any = clip.model
    attacked = plain.clone()
    for _ in range(STEPS):
        attacked = attacked.detach().requires_grad_()
        raw = model.encode_image(((attacked - mean) / std).unsqueeze(0).to(clip.dtype))
        logits = clip.logit_scale * F.normalize(raw.float(), dim=-1) @ classes.T
        (slope,) = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([label])), attacked)
        attacked = attacked.detach() + STEP * slope.sign()
        attacked = plain + (attacked - plain).clamp(-EPSILON, EPSILON)
        attacked = attacked.clamp(0, 1)
    return (255 * attacked).round().to(torch.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--views", type=int, default=64)
    args = parser.parse_args()
    clip = tpt.load_clip(args.model, device="cpu")
    chosen = take_evenly(list_set(args.data / "imagenette/val", IMAGENETTE), args.images)
    names = sorted({label for _, label in chosen})
    engine = tpt.PromptEngine(clip, names)
    methods: dict[str, Method] = {
        "zero-shot": tpt.ZeroShot(engine),
        "TPT": tpt.TPT(engine),
        "R-TPT": tpt.RTPT(engine),
    }
    make, classes = tpt.Views(clip, n=args.views), engine.class_features().detach()
    right = {(name, state): 0 for name in methods for state in ("clean", "attacked")}
    for file, label in chosen:
        pixels = torch.from_numpy(np.ascontiguousarray(decode_image(file))).permute(2, 0, 1)
        plain = preprocess_plain(pixels.unsqueeze(0), clip.preprocess)[0]
        wrong = attack(clip, classes, plain, names.index(label))
        assert int((wrong.int() - plain.int()).abs().max()) <= 4
        for state, picture in (("clean", plain), ("attacked", wrong)):
            features = clip.encode_views(make([picture]))[0]
            for name, method in methods.items():
                seen = features if method.reads_views else features[:1]
                best = int(method.adapt_features(seen).logits.argmax())
                right[name, state] += names[best] == label
    print(f"| method | clean, % | attacked, % |   ({len(chosen)} pictures)\n|---|---|---|")
    for name in methods:
        clean, attacked = (100 * right[name, s] / len(chosen) for s in ("clean", "attacked"))
        print(f"| {name} | {clean:.1f} | {attacked:.1f} |")
    ratio = right["R-TPT", "attacked"] / max(1, right["zero-shot", "clean"])
    print(f"R-TPT under attack / zero-shot without: ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
