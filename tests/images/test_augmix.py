"""AugMix: each operation against the Pillow original, and how the chains are mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tpt.images import _augmix as augmix
from tpt.images._augmix import OPS, PIXEL_OPS, WARP_OPS, mix_chains

LEVELS = [0.1, 0.35, 0.5, 0.99, 1.0, 4.0, 7.5]


def natural(height: int, width: int, seed: int = 0) -> np.ndarray:
    random = np.random.RandomState(seed)
    total = np.zeros((height, width, 3))
    for cells in (2, 4, 8, 16, 32):
        waves = random.standard_normal((3, cells, cells)).astype(np.float32)
        sized = [Image.fromarray(w).resize((width, height)) for w in waves]
        total += np.stack([np.asarray(wave) for wave in sized], axis=-1) / cells**0.7
    return np.rint((total - total.min()) / np.ptp(total) * 255).astype(np.uint8)


PICTURES = {
    "natural": natural(64, 64),
    "upright": natural(64, 48, seed=1),
    "dull": natural(48, 64, seed=2) // 4 + 90,
    "noise": np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8),
    "every level": np.arange(256, dtype=np.uint8).repeat(48).reshape(64, 64, 3),
    "one level": np.full((32, 32, 3), 77, np.uint8),
    "two levels": np.where(natural(32, 32) > 128, 57, 56).astype(np.uint8),
    "black and white": np.where(natural(32, 32) > 128, 255, 0).astype(np.uint8),
}


def by_pillow(name: str, pixels: np.ndarray, level: float, sign: float) -> np.ndarray:
    """The operation as the public TPT program writes it, its random numbers given."""
    image = Image.fromarray(pixels)
    shear, shift = sign * level * 0.3 / 10, sign * int(level * (image.width / 3) / 10)
    maps = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
    }
    bilinear = Image.Resampling.BILINEAR
    if name in maps:
        made = image.transform(image.size, Image.Transform.AFFINE, maps[name], resample=bilinear)
    elif name == "rotate":
        made = image.rotate(sign * int(level * 30 / 10), resample=bilinear)
    elif name == "posterize":
        made = ImageOps.posterize(image, 4 - int(level * 4 / 10))
    elif name == "solarize":
        made = ImageOps.solarize(image, 256 - int(level * 256 / 10))
    else:
        made = getattr(ImageOps, name)(image)
    return np.asarray(made).astype(np.float64)


def to_views(*pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def by_us(name: str, pixels: np.ndarray, level: float, sign: float) -> np.ndarray:
    ops = np.array([OPS.index(name)])
    view = augmix._apply(to_views(pixels), ops, np.array([level]), np.array([sign]))
    return view[0].permute(1, 2, 0).double().numpy() * 255


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("name", PIXEL_OPS)
def test_pixel_operations_are_pillows(name: str, picture: str) -> None:
    pixels = PICTURES[picture]
    most = 1.001 if name == "autocontrast" else 0.001  # Pillow cuts its fractions off there
    for level in LEVELS:
        difference = by_us(name, pixels, level, 1.0) - by_pillow(name, pixels, level, 1.0)
        assert np.abs(difference).max() < most, level


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("picture", ["natural", "upright", "dull", "noise"])
@pytest.mark.parametrize("name", WARP_OPS)
def test_warps_are_pillows_inside_the_picture(name: str, picture: str, sign: float) -> None:
    pixels, white = PICTURES[picture], np.full_like(PICTURES[picture], 255)
    for level in LEVELS:
        inside = (by_us(name, white, level, sign) > 254.9) & (
            by_pillow(name, white, level, sign) == 255
        )
        assert inside.mean() > 0.3, level
        difference = np.abs(by_us(name, pixels, level, sign) - by_pillow(name, pixels, level, sign))
        assert difference[inside].max() < 1.001, level


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", WARP_OPS)
def test_warps_at_the_used_severity_differ_at_the_edge_alone(name: str, sign: float) -> None:
    """kornia fades into the black outside over one pixel, where Pillow stops short."""
    pixels = PICTURES["natural"]
    for level in (0.1, 0.5, 0.99):
        difference = np.abs(by_us(name, pixels, level, sign) - by_pillow(name, pixels, level, sign))
        assert difference[4:-4, 4:-4].max() < 1.001
        assert difference.mean() < 2


@pytest.mark.parametrize("name", ["translate_x", "translate_y"])
def test_whole_pixels_are_moved_without_loss(name: str) -> None:
    for level in LEVELS:
        ours, theirs = (f(name, PICTURES["noise"], level, -1.0) for f in (by_us, by_pillow))
        assert np.abs(ours - theirs).max() < 0.001


@pytest.mark.parametrize("name", OPS)
def test_an_operation_on_many_views_is_that_on_each(name: str) -> None:
    views = to_views(*(natural(32, 32, seed) for seed in range(5)))
    op = OPS.index(name)
    ops = np.array([op, -1, op, op, -1])
    level, sign = np.array([0.2, 0.9, 0.5, 0.99, 0.1]), np.array([1.0, 1.0, -1.0, 1.0, -1.0])
    together = augmix._apply(views, ops, level, sign)
    for i in range(5):
        alone = augmix._apply(views[i : i + 1], ops[i : i + 1], level[i : i + 1], sign[i : i + 1])
        assert torch.equal(together[i], alone[0])
    assert torch.equal(together[[1, 4]], views[[1, 4]])


# --- the mixture ---


@pytest.mark.parametrize("shape", [(64, 64), (32, 48), (1, 1), (2, 3)])
@pytest.mark.parametrize("count", [1, 7])
def test_mixed_views_keep_shape_and_range(shape: tuple[int, int], count: int) -> None:
    random = np.random.RandomState(0)
    pictures = [random.randint(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(count)]
    for seed in range(5):
        mixed = mix_chains(to_views(*pictures), np.random.default_rng(seed))
        assert mixed.shape == (count, 3, *shape)
        assert mixed.min() >= -1e-6
        assert mixed.max() <= 1 + 1e-6


def test_the_same_chance_gives_the_same_bits() -> None:
    views = to_views(*(natural(32, 32, seed) for seed in range(6)))
    before = views.clone()
    first, again, other = (mix_chains(views, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not any(torch.equal(x, y) for x, y in zip(first, other, strict=True))
    assert torch.equal(views, before)


def test_the_weights_of_the_mixture_sum_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    views = to_views(*(natural(32, 32, seed) for seed in range(20)))
    monkeypatch.setattr(augmix, "_apply", lambda views, ops, level, sign: views)
    mixed = mix_chains(views, np.random.default_rng(0))
    torch.testing.assert_close(mixed, views, atol=1e-6, rtol=0)


def test_weights_depths_and_operations_follow_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chain paints its own colour channel; what is left of it is the chain's weight."""
    count, seen = 4000, []

    def apply(views: Tensor, ops: np.ndarray, level: np.ndarray, sign: np.ndarray) -> Tensor:
        seen.append((ops, level, sign))
        painted = torch.zeros_like(views)
        painted[:, (len(seen) - 1) // 3] = 1
        return painted

    monkeypatch.setattr(augmix, "_apply", apply)
    black = torch.zeros(count, 3, 1, 1)
    mixed = mix_chains(black, np.random.default_rng(0)).squeeze()  # (1 - m) * weights
    clean = 1 - mixed.sum(1)  # Beta(1, 1): uniform
    weights = mixed / mixed.sum(1, keepdim=True)  # Dirichlet(1, 1, 1)
    assert clean.mean().item() == pytest.approx(1 / 2, abs=0.02)
    assert clean.var().item() == pytest.approx(1 / 12, abs=0.005)
    assert weights.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert weights.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.005)

    ops = np.stack([o for o, _, _ in seen]).reshape(3, 3, count)
    level, sign = (np.stack([part[i] for part in seen]) for i in (1, 2))
    depth = (ops >= 0).sum(1)
    assert (ops[:, 0] >= 0).all()
    assert ((ops[:, 1] >= 0) >= (ops[:, 2] >= 0)).all()
    shares = [(depth == d).mean() for d in (1, 2, 3)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.02)
    used = np.bincount(ops[ops >= 0], minlength=len(OPS)) / (ops >= 0).sum()
    assert used.tolist() == pytest.approx([1 / 9] * 9, abs=0.01)
    assert level.min() >= 0.1
    assert level.max() <= 1.0
    assert level.mean() == pytest.approx(0.55, abs=0.01)
    assert set(np.unique(sign)) == {-1.0, 1.0}
    assert abs(sign.mean()) < 0.03
