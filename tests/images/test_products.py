"""Crops as two products against Pillow, and against the kernel on bytes that a CPU uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from images.view_pictures import natural, noise, pillow_views, to_bytes

import tpt
from tpt.images import resample
from tpt.images import views as module
from tpt.images._products import cut_by_products
from tpt.images.resample import cut
from tpt.images.views import draw_crops

SHAPES = [(64, 64), (120, 90), (300, 400), (20, 30), (7, 50), (1, 200)]


@pytest.mark.parametrize("make", [natural, noise])
def test_crops_of_all_pictures_are_pillows(make: type[natural]) -> None:
    pictures = [make(*shape) for shape in SHAPES]
    crops = [draw_crops(np.random.default_rng(0), shape, 20, (0.08, 1.0)) for shape in SHAPES]
    made = cut_by_products([to_bytes(picture) for picture in pictures], crops, (64, 64))
    assert made.shape == (len(SHAPES), 20, 3, 64, 64)
    assert torch.equal(made, made.round())
    for views, picture, some in zip(made, pictures, crops, strict=True):
        difference = (views - pillow_views(picture, some, 64)).abs()
        assert difference.max() <= 1
        assert difference.mean() < 0.3  # Pillow rounds between its two passes


def test_how_many_stand_between_the_products_leaves_the_numbers() -> None:
    pictures = [to_bytes(natural(*shape)) for shape in SHAPES]
    crops = [draw_crops(np.random.default_rng(0), shape, 6, (0.08, 1.0)) for shape in SHAPES]
    whole = cut_by_products(pictures, crops, (16, 24))
    for most in (1, 16 * 3 * 400 * 2, 16 * 3 * 400 * 6 * 2):
        parts = cut_by_products(pictures, crops, (16, 24), most)
        assert (parts - whole).abs().max() <= 1  # a half may be rounded either way
        assert (parts != whole).float().mean() < 1e-3


def test_a_picture_shrinks_however_far() -> None:
    picture = natural(3000, 2000)
    crops = draw_crops(np.random.default_rng(0), (3000, 2000), 4, (0.5, 1.0))
    made = cut_by_products([to_bytes(picture)], [crops], (8, 8))[0]
    assert (made - pillow_views(picture, crops, 8)).abs().max() <= 1


def test_views_and_features_are_those_of_a_cpu(
    tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [natural(300, 400), natural(90, 64, seed=1), natural(150, 200, seed=2)]
    for kind in ("crop", "augmix"):
        views = tpt.Views(tiny, n=33, kind=kind)
        expected = views(images)
        with monkeypatch.context() as patch:
            for where in (resample, module):
                patch.setattr(where, "works_on_bytes", lambda device: False)
            made = views(images)
        if kind == "crop":
            assert (made - expected).abs().max() * 255 * 0.28 < 1.1  # a grey level
        cosine = torch.linalg.vecdot(tiny.encode_views(made), tiny.encode_views(expected))
        assert cosine.mean() > 0.9999
        assert cosine.min() > 0.999


def test_one_grey_level_at_the_size_of_a_real_model() -> None:
    pixels = natural(375, 500)
    crops = draw_crops(np.random.default_rng(1), (375, 500), 8, (0.08, 1.0))
    made = cut_by_products([to_bytes(pixels)], [crops], (224, 224))[0]
    assert (made - cut(to_bytes(pixels), crops, (224, 224)).float()).abs().max() <= 1
