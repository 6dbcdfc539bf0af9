"""Stage 1: features of pictures: to train on (a clean crop, two styled ones) and to measure on.

Training reads CIFAR-10's and Imagenette's training splits and four fifths of Caltech101 and PACS
photo. Development reads the rest, PACS sketch and the ImageNet samples; of these no label enters.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from lite.backbone import SIZE, centre_crop, encode, load_backbone, to_tensor
from lite.files import load, progress, save
from lite.styles import STYLES

CHUNK = 512  # pictures a file of the stage
BATCH = 32  # pictures of one style


@dataclass(frozen=True)
class Share:
    """A folder of class folders, and which of its pictures are read."""

    name: str
    folder: str
    most: int  # pictures a class
    fifths: tuple[int, ...] = (0, 1, 2, 3, 4)  # by place in the sorted folder, modulo 5


TRAIN = (
    Share("cifar", "cifar10/train", 500),
    Share("imagenette", "imagenette/train", 480),
    Share("caltech", "caltech101", 45, (1, 2, 3, 4)),
    Share("pacs", "pacs/photo", 200, (1, 2, 3, 4)),
)
DEVELOPMENT = (
    Share("cifar", "cifar10/test", 60),
    Share("imagenette", "imagenette/val", 60),
    Share("caltech", "caltech101", 8, (0,)),
    Share("pacs", "pacs/photo", 48, (0,)),
    Share("sketch", "pacs/sketch", 85),
    Share("samples", "imagenet_samples", 9),
)


def listing(data: Path, shares: tuple[Share, ...], seed: int) -> list[tuple[str, str, str]]:
    """(path in `data`, set, class folder) of every picture, shuffled."""
    rng, rows = random.Random(seed), []
    missing = [share.folder for share in shares if not (data / share.folder).is_dir()]
    if missing:
        raise SystemExit(f"{data} has no {', '.join(missing)}: expected one folder a class there.")
    for share in shares:
        for folder in sorted(path for path in (data / share.folder).iterdir() if path.is_dir()):
            paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
            paths = [path for n, path in enumerate(paths) if n % 5 in share.fifths]
            rng.shuffle(paths)
            for path in paths[: share.most]:
                rows.append((str(path.relative_to(data)), share.name, folder.name))
    rng.shuffle(rows)
    return rows


def training_features(data: Path, work: Path, seed: int, most: int | None) -> None:
    """Write pictures.pt: `clean` (n, 1280), `styled` (2, n, 1280), `style` (2, n), `rows`."""
    rows = listing(data, TRAIN, seed)[:most]
    parts = []
    trunk = _trunk()
    for start in progress(range(0, len(rows), CHUNK), "features of training pictures", 1):
        path = work / "pictures" / f"{start}.pt"
        if not path.exists():
            save(path, _chunk(trunk, data, rows[start : start + CHUNK], seed + start))
        parts.append(load(path))
    joined = {
        "clean": torch.cat([part["clean"] for part in parts]),
        "styled": torch.cat([part["styled"] for part in parts], 1),
        "style": torch.cat([part["style"] for part in parts], 1),
    }
    save(work / "pictures.pt", {**joined, "rows": rows})


def development_features(data: Path, work: Path, seed: int) -> None:
    """Write development.pt: `clean` (n, 1280) of centre crops, `rows`."""
    rows, trunk, parts = listing(data, DEVELOPMENT, seed), _trunk(), []
    for start in progress(range(0, len(rows), BATCH), "features of development pictures"):
        crops = [centre_crop(data / path) for path, _, _ in rows[start : start + BATCH]]
        parts.append(encode(trunk, torch.stack(crops) / 255).half())
    save(work / "development.pt", {"clean": torch.cat(parts), "rows": rows})


def _chunk(
    trunk: nn.Module, data: Path, rows: list[tuple[str, str, str]], seed: int
) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    rng = random.Random(seed)
    clean, styled, style, deck = [], [[], []], [[], []], list[int]()  # type: ignore[var-annotated]
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        pixels = torch.stack([random_crop(data / path, rng) for path, _, _ in batch]) / 255
        clean.append(encode(trunk, pixels).half())
        for k in range(2):
            if not deck:
                deck = rng.sample(range(1, len(STYLES)), len(STYLES) - 1)
            number = deck.pop()
            styled[k].append(encode(trunk, STYLES[number](pixels)).half())
            style[k].append(torch.full((len(batch),), number))
    return {
        "clean": torch.cat(clean),
        "styled": torch.stack([torch.cat(part) for part in styled]),
        "style": torch.stack([torch.cat(part) for part in style]),
    }


def random_crop(path: Path, rng: random.Random, size: int = SIZE) -> Tensor:
    """A crop of 0.3 to 1 of the area, mirrored half the time: (3, size, size) uint8."""
    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    for _ in range(10):
        area = width * height * rng.uniform(0.3, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if across <= width and down <= height:
            break
    else:
        across = down = min(width, height)
    left, top = rng.randint(0, width - across), rng.randint(0, height - down)
    box = (left, top, left + across, top + down)
    picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_tensor(picture)


def _trunk() -> nn.Module:
    trunk = load_backbone()
    trunk.reset_classifier(0)  # type: ignore[operator]
    return trunk.to(memory_format=torch.channels_last)
