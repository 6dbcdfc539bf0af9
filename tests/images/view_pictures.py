"""Pictures that the tests of views make, and views of them by Pillow."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tpt.images.resample import Crops


def natural(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 with the falling spectrum of photographs."""
    random = np.random.RandomState(seed)
    total = np.zeros((height, width, 3))
    for cells in (2, 4, 8, 16, 32, 64):
        waves = random.standard_normal((3, cells, cells)).astype(np.float32)
        layers = [
            Image.fromarray(w).resize((width, height), Image.Resampling.BICUBIC) for w in waves
        ]
        total += np.stack([np.asarray(layer) for layer in layers], axis=-1) / cells**0.7
    span = max(float(np.ptp(total)), 1e-6)
    return np.rint((total - total.min()) / span * 255).astype(np.uint8)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def to_bytes(pixels: np.ndarray) -> Tensor:
    """(1, 3, H, W) uint8."""
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)


def pillow_views(pixels: np.ndarray, crops: Crops, size: int, factor: int = 1) -> Tensor:
    """The crops by Pillow, (n, 3, size, size), 0 to 255; boxes in units of `factor` pixels."""
    picture, made = Image.fromarray(pixels), []
    for (top, left, height, width), flip in zip(crops.boxes * factor, crops.flips, strict=True):
        part = picture.crop((left, top, left + width, top + height))
        part = part.resize((size, size), Image.Resampling.BILINEAR)
        if flip:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        made.append(np.array(part))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float()
