"""Pictures shrink as in Pillow, however far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tpt.images import resample


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((600, 900), (8, 8)), ((1, 3000), (16, 16)), ((3000, 3), (16, 8)), ((400, 300), (64, 50))],
)
def test_two_products_are_pillows_filter(
    name: str, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    method = Image.Resampling[name.upper()]
    expected = np.array(Image.fromarray(pixels).resize((size[1], size[0]), method)).astype(int)
    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    exact = resample.shrink_far(picture.float(), size, name).clamp(0, 255).round()
    for result in (exact, resample.resize(picture, size, name)):
        assert np.abs(result[0].permute(1, 2, 0).numpy() - expected).max() <= 1


def test_no_device_is_asked_for_more_than_its_kernel_can(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def interpolate(pixels: torch.Tensor, size: tuple[int, int], **_: Any) -> torch.Tensor:
        asked.append(max(pixels.shape[-2] / size[0], pixels.shape[-1] / size[1]))
        return pixels.new_empty((*pixels.shape[:2], *size))

    monkeypatch.setattr(resample.F, "interpolate", interpolate)
    for length in (30, 300, 3_000, 30_000):
        picture = torch.empty(1, 3, length, 40, dtype=torch.uint8, device="meta")
        assert resample.resize(picture, (10, 10), "bicubic").shape == (1, 3, 10, 10)
    assert asked == [4]
