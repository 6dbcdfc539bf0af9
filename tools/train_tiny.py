"""Train the small CLIP that ships inside the package, from folders of real pictures.

The embedded model is a stand-in: it lets a person try, test and demonstrate the runtime with no
download. It is a ModifiedResNet image tower (CLIP's own, with batch norm and attention pooling)
and a four-layer causal text tower, trained with a symmetric contrastive loss in which every
picture of the same class *and* style as a caption is a positive. Pictures are drawn in one of
nine styles, so that the words around a class name ("a blurry photo of a {}.") mean something.

    python tools/train_tiny.py DATA --output tpt/model/embedded/tiny --epochs 36

DATA holds `cifar10/train`, `imagenette/train`, `caltech101` and `pacs/photo`, one folder a class.
Every fifth picture of Caltech101 and PACS photo is held out for measuring; CIFAR-10's and
Imagenette's own test splits are never read. `benchmarks/accuracy.py` measures the result.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kornia.filters as kf
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": 64,
            "layers": [1, 1, 1, 1],
            "width": 32,
            "patch_size": None,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 128,
            "heads": 4,
            "layers": 4,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
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
STYLES = (  # share of the pictures, caption
    (0.44, "a photo of a {}."),
    (0.07, "a blurry photo of a {}."),
    (0.07, "a dark photo of a {}."),
    (0.07, "a bright photo of a {}."),
    (0.07, "a black and white photo of a {}."),
    (0.07, "a noisy photo of a {}."),
    (0.07, "a pixelated photo of a {}."),
    (0.07, "a sketch of a {}."),
    (0.07, "a painting of a {}."),
)
STORED, SIZE, TOKENS = 80, 64, 20


def list_pictures(data: Path) -> list[tuple[Path, str]]:
    """(file, class name) of every training picture, in a fixed order."""
    found = []
    for root, names, holdout in (
        (data / "cifar10/train", {}, False),
        (data / "imagenette/train", IMAGENETTE, False),
        (data / "caltech101", CALTECH, True),
        (data / "pacs/photo", {}, True),
    ):
        for folder in sorted(p for p in root.iterdir() if p.is_dir()):
            name = names.get(folder.name, folder.name.replace("_", " "))
            for i, file in enumerate(sorted(folder.iterdir())):
                if not (holdout and i % 5 == 0):
                    found.append((file, name))
    return found


def load_pictures(files: list[Path]) -> Tensor:
    """Every picture as uint8 (n, 3, STORED, STORED): short side resized, centre cropped."""
    out = np.empty((len(files), STORED, STORED, 3), np.uint8)
    for i, file in enumerate(files):
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        scale = STORED / min(picture.size)
        w, h = (max(STORED, round(side * scale)) for side in picture.size)
        picture = picture.resize((w, h), Image.Resampling.BICUBIC)
        x, y = (w - STORED) // 2, (h - STORED) // 2
        out[i] = np.asarray(picture.crop((x, y, x + STORED, y + STORED)))
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


def crop_and_flip(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Random crops (area 0.25-1, aspect 3/4-4/3) and flips of bytes, as floats in [0, 1]."""
    n = len(pictures)
    area = torch.empty(n).uniform_(0.25, 1, generator=rng)
    aspect = torch.empty(n).uniform_(math.log(3 / 4), math.log(4 / 3), generator=rng).exp()
    w = (area * aspect).sqrt().clamp(max=1)
    h = (area / aspect).sqrt().clamp(max=1)
    x = (torch.rand(n, generator=rng) * 2 - 1) * (1 - w)
    y = (torch.rand(n, generator=rng) * 2 - 1) * (1 - h)
    flip = (torch.rand(n, generator=rng) < 0.5).float() * -2 + 1
    zero = torch.zeros(n)
    theta = torch.stack([torch.stack([w * flip, zero, x], 1), torch.stack([zero, h, y], 1)], 1)
    grid = F.affine_grid(theta, [n, 3, SIZE, SIZE], align_corners=False)
    return F.grid_sample(
        pictures.float().div_(255), grid, padding_mode="reflection", align_corners=False
    )


def draw_style(pictures: Tensor, style: int, rng: torch.Generator) -> Tensor:
    """Pictures (n, 3, H, W) in [0, 1] drawn in one of STYLES, strength drawn for each."""
    strength = torch.rand(len(pictures), 1, 1, 1, generator=rng)
    grey = pictures.mul(torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if style == 1:
        sigma = 0.8 + 1.2 * strength.view(-1, 1)
        return kf.gaussian_blur2d(pictures, (9, 9), sigma.expand(-1, 2))
    if style == 2:
        return pictures * (0.2 + 0.35 * strength)
    if style == 3:
        return (pictures * (1.3 + 0.6 * strength) + 0.1 + 0.2 * strength).clamp(0, 1)
    if style == 4:
        return grey.expand_as(pictures)
    if style == 5:
        noise = torch.randn(pictures.shape, generator=rng)
        return (pictures + noise * (0.08 + 0.17 * strength)).clamp(0, 1)
    if style == 6:
        small = F.interpolate(pictures, size=(16, 16), mode="area")
        return F.interpolate(small, size=pictures.shape[-2:], mode="nearest")
    if style == 7:  # dark lines where brightness changes, on white
        edges = kf.sobel(kf.gaussian_blur2d(grey, (3, 3), (0.7, 0.7)))
        peak = edges.amax((1, 2, 3), keepdim=True).clamp(min=1e-3)
        return (1 - (edges / peak * (1.5 + strength)).clamp(0, 1)).expand_as(pictures)
    if style == 8:  # flat patches of few colours
        return (kf.median_blur(pictures, (5, 5)) * 5).round() / 5
    return pictures


class Batches:
    """Endless shuffled batches of normalised pictures with their caption's number."""

    def __init__(self, pictures: Tensor, labels: Tensor, seed: int, size: int) -> None:
        self.pictures, self.labels, self.size = pictures, labels, size
        self.rng = torch.Generator().manual_seed(seed)
        self.shares = torch.tensor([share for share, _ in STYLES])
        cfg = CONFIG["preprocess_cfg"]
        self.mean = torch.tensor(cfg["mean"]).view(1, 3, 1, 1)
        self.std = torch.tensor(cfg["std"]).view(1, 3, 1, 1)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.pictures), generator=self.rng)
        for picked in order[: len(order) // self.size * self.size].view(-1, self.size):
            views = crop_and_flip(self.pictures[picked], self.rng)
            styles = torch.multinomial(self.shares, len(picked), True, generator=self.rng)
            for style in range(1, len(STYLES)):
                where = (styles == style).nonzero().squeeze(1)
                if len(where):
                    views[where] = draw_style(views[where], style, self.rng)
            views = views.sub_(self.mean).div_(self.std)
            yield (
                views.contiguous(memory_format=torch.channels_last),
                self.labels[picked] * len(STYLES) + styles,
            )


def encode_captions(model: Any, table: Tensor, tokens: Tensor) -> Tensor:
    """Unit text features of captions whose words are rows of `table` (used words only)."""
    x = table[tokens] + model.positional_embedding[: tokens.shape[1]]
    x = model.transformer(x, attn_mask=model.attn_mask[: tokens.shape[1], : tokens.shape[1]])
    x = model.ln_final(x[torch.arange(len(x)), tokens.argmax(1)])
    return F.normalize(x @ model.text_projection, dim=-1)


def contrast(image: Tensor, text: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """Symmetric contrastive loss; image i belongs to caption `target[i]`, captions are unique."""
    logits = scale * image @ text.T
    member = F.one_hot(target, len(text)).T.float()
    to_image = logits.T.log_softmax(-1).mul(member).sum(-1) / member.sum(-1)
    return (F.cross_entropy(logits, target) - to_image.mean()) / 2


def make_optimizer(model: Any, table: Tensor) -> torch.optim.AdamW:
    frozen = model.token_embedding.weight
    params = [p for p in model.parameters() if p is not frozen]
    matrices = [p for p in params if p.ndim > 1]
    rest = [p for p in params if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.05},
            {"params": [*rest, table], "weight_decay": 0.0},
        ],
        lr=1e-3,
        betas=(0.9, 0.98),
        fused=True,
    )


def save_model(model: Any, used: Tensor, table: Tensor, out: Path) -> None:
    """Write open_clip's local-dir format: a config and fp16 weights."""
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    state["token_embedding.weight"][used] = table.detach()
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file({k: v.contiguous() for k, v in half.items()}, out / "open_clip_model.safetensors")
    (out / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    listed = list_pictures(args.data)
    names = sorted({name for _, name in listed})
    labels = torch.tensor([names.index(name) for _, name in listed])
    pictures = load_pictures([file for file, _ in listed])
    print(f"{len(pictures)} pictures of {len(names)} classes", flush=True)

    config = copy.deepcopy(CONFIG["model_cfg"])
    model: Any = open_clip.CLIP(**config).train()
    model.visual.to(memory_format=torch.channels_last)
    captions = [text.format(name) for name in names for _, text in STYLES]
    tokens = open_clip.tokenize(captions)[:, :TOKENS]
    used, compact = torch.unique(tokens, return_inverse=True)
    # The largest token id is EOS; `used` is sorted, so EOS stays the arg-max after compaction.
    table = model.token_embedding.weight.detach()[used].clone().requires_grad_()
    model.token_embedding.weight.requires_grad_(False)

    optimizer = make_optimizer(model, table)
    steps = args.epochs * (len(pictures) // args.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / 200, 0.5 * (1 + math.cos(math.pi * min(s / steps, 1)))),
    )
    batches = Batches(pictures, labels, args.seed, args.batch)
    step, start, mean_loss = 0, time.time(), float("nan")
    for epoch in range(args.epochs):
        for views, target in batches.epoch():
            seen, target = torch.unique(target, return_inverse=True)
            with torch.autocast("cpu", torch.bfloat16):
                image = model.visual(views)
                text = encode_captions(model, table, compact[seen])
            scale = model.logit_scale.exp().clamp(max=100)
            loss = contrast(F.normalize(image.float(), dim=-1), text.float(), target, scale)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            mean_loss = loss.item() if step == 1 else 0.98 * mean_loss + 0.02 * loss.item()
            if step % 50 == 0 or step == steps:
                print(
                    f"epoch {epoch} step {step}/{steps} loss {mean_loss:.3f} "
                    f"scale {scale.item():.1f} {(time.time() - start) / step:.2f} s/step",
                    flush=True,
                )
        save_model(model, used, table, args.output)
    (args.output / "classes.txt").write_text("\n".join(names) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with the unpacked picture sets")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=256)
    train(parser.parse_args())
