"""Views against open_clip's own preprocessing and Pillow, and what their chance depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images.view_pictures import natural, noise, pillow_views, to_bytes
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from refusals import refusal
from torch import Tensor

import tpt
from tpt.errors import ImageError, MethodError
from tpt.images import resample
from tpt.images import views as module
from tpt.images.decode import load_picture
from tpt.images.resample import cut, preprocess_plain, shrink_huge
from tpt.images.views import draw_crops
from tpt.model.clip import Preprocess

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.jpg"))


def grey_levels(clip: tpt.Clip, views: Tensor) -> Tensor:
    """Normalised views (..., 3, H, W) back to 0 to 255."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (clip.preprocess.mean, clip.preprocess.std))
    return (views * std + mean) * 255


# --- view 0 ---


def open_clips_own(pixels: np.ndarray, facts: Preprocess) -> Tensor:
    config = PreprocessCfg(
        size=facts.size,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation=facts.interpolation,
        resize_mode=facts.resize_mode,
        fill_color=facts.fill,
    )
    return image_transform_v2(config, is_train=False)(Image.fromarray(pixels)) * 255


@pytest.mark.parametrize(
    ("mode", "size", "interpolation"),
    [
        (mode, size, interpolation)
        for mode in ("shortest", "longest", "squash")
        for size in ((32, 32), (48, 48), (24, 40))
        for interpolation in ("bicubic", "bilinear")
        # Where the sides differ, open_clip's "shortest" is bicubic whatever the model says.
        if (mode, size, interpolation) != ("shortest", (24, 40), "bilinear")
    ],
)
def test_the_plain_view_is_open_clips_own_preprocessing(
    mode: str, size: tuple[int, int], interpolation: str
) -> None:
    facts = Preprocess(size, (0, 0, 0), (1, 1, 1), interpolation, mode, fill=9)
    shapes = [
        (32, 32),
        (100, 150),
        (333, 97),
        (20, 30),
        (31, 200),
        (200, 31),
        (3, 2),
        (1, 1),
        (33, 67),
    ]
    for shape in shapes:
        # Bicubic overshoots are cut after each of two passes, and Pillow chooses which comes first;
        # single pixels of pure noise show it.
        for pixels, most in ((natural(*shape), 2), (noise(*shape), 255)):
            got = preprocess_plain(to_bytes(pixels), facts).float()
            difference = (got - open_clips_own(pixels, facts)).abs()
            assert difference.max() <= most, shape
            assert difference.mean() < 0.4, shape


@pytest.mark.parametrize("length", [500, 501, 5000, 5001])
@pytest.mark.parametrize("short", [1, 2, 5])
@pytest.mark.parametrize("upright", [True, False])
def test_the_plain_view_of_a_strip_is_its_middle(length: int, short: int, upright: bool) -> None:
    shape = (length, short) if upright else (short, length)
    facts = Preprocess((32, 32), (0, 0, 0), (1, 1, 1), "bicubic", "shortest", fill=0)
    for pixels, mean in ((natural(*shape), 0.2), (noise(*shape), 2)):
        got = preprocess_plain(to_bytes(pixels), facts).float()
        assert (got - open_clips_own(pixels, facts)).abs().mean() < mean


def test_a_huge_strip_costs_no_more_than_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def resize(picture: Tensor, size: tuple[int, int], filter_name: str) -> Tensor:
        seen.append(size)
        return torch.zeros((1, 3, *size), dtype=torch.uint8)

    monkeypatch.setattr(resample, "resize", resize)
    facts = Preprocess((32, 32), (0, 0, 0), (1, 1, 1), "bicubic", "shortest", fill=0)
    preprocess_plain(to_bytes(natural(1, 20001)), facts)
    assert max(seen[0]) <= 32 * 8


@pytest.mark.parametrize("kind", ["crop", "augmix"])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_view_0_is_the_plain_view_whatever_the_others_are(
    tiny: tpt.Clip, kind: str, n: int
) -> None:
    images = [natural(90, 120), natural(200, 70)]
    views = tpt.Views(tiny, n=n, kind=kind)
    made = views(images)
    assert made.shape == (2, n, 3, 64, 64)
    assert made.dtype == torch.float32
    plain = views.plain(images)
    assert plain.shape == (2, 1, 3, 64, 64)
    torch.testing.assert_close(made[:, :1], plain, atol=1e-6, rtol=0)
    for image, view in zip(images, made[:, 0], strict=True):
        expected = open_clips_own(image, tiny.preprocess)
        assert (grey_levels(tiny, view) - expected).abs().max() < 2.5


# --- crops ---


@pytest.mark.parametrize("make", [natural, noise])
@pytest.mark.parametrize("shape", [(64, 64), (120, 90), (300, 400), (20, 30), (7, 50)])
def test_crops_are_pillows(shape: tuple[int, int], make: Any) -> None:
    pixels = make(*shape)
    crops = draw_crops(np.random.default_rng(0), shape, 40, (0.08, 1.0))
    difference = (
        cut(to_bytes(pixels), crops, (64, 64)).float() - pillow_views(pixels, crops, 64)
    ).abs()
    assert difference.max() <= 1
    assert difference.mean() < 0.1


def test_the_views_are_the_drawn_crops(tiny: tpt.Clip) -> None:
    pixels = natural(150, 110)
    views = tpt.Views(tiny, n=17, seed=3)
    crops = draw_crops(views._rng("a.jpg", "crop"), (150, 110), 16, views.scale)
    expected = pillow_views(pixels, crops, 64)
    got = grey_levels(tiny, views([pixels], ["a.jpg"])[0, 1:])
    assert (got - expected).abs().max() < 1.5


def normalise(clip: tpt.Clip, levels: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (clip.preprocess.mean, clip.preprocess.std))
    return (levels / 255 - mean) / std


@pytest.mark.parametrize("image", [*EXAMPLES[::4], natural(300, 400), natural(90, 64, seed=1)])
def test_features_are_those_of_pillows_crops(tiny: tpt.Clip, image: Any) -> None:
    pixels = np.array(Image.open(image)) if isinstance(image, Path) else image
    views = tpt.Views(tiny, n=33)
    crops = draw_crops(views._rng("key", "crop"), pixels.shape[:2], 32, views.scale)
    expected = tiny.encode_images(normalise(tiny, pillow_views(pixels, crops, 64)))
    got = tiny.encode_images(views([image], ["key"])[0, 1:])
    cosine = (got * expected).sum(-1)
    assert cosine.mean() > 0.999
    assert cosine.min() > 0.99


def test_a_huge_picture_is_shrunk_first_and_the_features_hardly_notice(tiny: tpt.Clip) -> None:
    grain = noise(1400, 1100).astype(np.float32) / 4
    pixels = np.rint(0.75 * natural(1400, 1100) + grain).astype(np.uint8)
    small = shrink_huge(to_bytes(pixels), (64, 64), 0.08)
    assert small.shape == (1, 3, 700, 550)
    views = tpt.Views(tiny, n=17)
    crops = draw_crops(views._rng(0, "crop"), (700, 550), 16, views.scale)
    exact = pillow_views(pixels, crops, 64, factor=2)
    got = views([pixels], keys=[0])[0, 1:]
    assert (grey_levels(tiny, got) - exact).abs().mean() < 1
    cosine = (tiny.encode_images(got) * tiny.encode_images(normalise(tiny, exact))).sum(-1)
    assert cosine.min() > 0.99


@pytest.mark.parametrize("shape", [(1000, 1000), (1000, 3000), (40, 9000)])
def test_a_picture_of_common_size_is_not_shrunk(shape: tuple[int, int]) -> None:
    picture = torch.zeros((1, 3, *shape), dtype=torch.uint8)
    assert shrink_huge(picture, (64, 64), 0.08) is picture


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 0.9), (0.3, 0.3)])
@pytest.mark.parametrize("shape", [(400, 500), (500, 400), (448, 448)])
def test_crops_follow_the_rule_of_random_resized_crops(
    scale: tuple[float, float], shape: tuple[int, int]
) -> None:
    height, width = shape
    crops = draw_crops(np.random.default_rng(0), shape, 4000, scale)
    top, left, h, w = crops.boxes.T
    assert (top.min(), left.min()) == (0, 0)
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    area, aspect = h * w / (height * width), w / h
    assert area.min() > scale[0] - 0.01
    assert area.max() < scale[1] + 0.01
    assert aspect.min() > 0.74
    assert aspect.max() < 1.35
    assert abs(np.log(aspect).mean()) < 0.06  # as many upright ones as wide ones
    assert 0.47 < crops.flips.mean() < 0.53


def test_small_crops_are_spread_over_the_area_and_the_scale() -> None:
    crops = draw_crops(np.random.default_rng(0), (1000, 1000), 4000, (0.08, 0.25))
    top, left, h, w = crops.boxes.T
    assert np.mean(h * w) / 1e6 == pytest.approx((0.08 + 0.25) / 2, abs=0.005)
    places = np.stack([top / (1000 - h), left / (1000 - w)])  # uniform in [0, 1]
    assert places.mean(1).tolist() == pytest.approx([0.5] * 2, abs=0.03)
    assert places.std(1).tolist() == pytest.approx([12**-0.5] * 2, abs=0.02)
    for one, other in ((places[0], places[1]), (places[0], crops.flips), (h * w, w / h)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((1, 1), (0, 0, 1, 1)),
        ((1, 5000), (0, 2499, 1, 1)),
        ((5000, 1), (2499, 0, 1, 1)),
        ((30, 3000), (0, 1480, 30, 40)),
        ((3000, 30), (1480, 0, 40, 30)),
    ],
)
def test_where_no_crop_fits_the_middle_is_taken(shape: tuple, box: tuple) -> None:
    crops = draw_crops(np.random.default_rng(0), shape, 20, (0.9, 1.0))
    assert crops.boxes.tolist() == [list(box)] * 20


@pytest.mark.parametrize("kind", ["crop", "augmix"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 2), (2, 3)])
def test_tiny_and_long_pictures_have_views(
    tiny: tpt.Clip, shape: tuple[int, int], kind: str
) -> None:
    views = tpt.Views(tiny, n=6, kind=kind)([noise(*shape)])
    assert views.shape == (1, 6, 3, 64, 64)
    levels = grey_levels(tiny, views)
    assert levels.min() > -0.01
    assert levels.max() < 255.01


def test_every_view_of_a_single_pixel_is_its_colour(tiny: tpt.Clip) -> None:
    levels = grey_levels(tiny, tpt.Views(tiny, n=5)([np.array([[[10, 200, 30]]], np.uint8)]))
    expected = torch.tensor([10.0, 200.0, 30.0]).view(3, 1, 1).expand(1, 5, 3, 64, 64)
    torch.testing.assert_close(levels, expected, atol=1e-3, rtol=0)


# --- what chance depends on ---


def make(clip: tpt.Clip, images: Sequence[Any], keys: Any = None, **options: Any) -> Tensor:
    return tpt.Views(clip, **{"n": 6, "kind": "augmix", **options})(images, keys)


def test_the_same_seed_and_key_give_the_same_bits(tiny: tpt.Clip) -> None:
    image = natural(80, 100)
    assert torch.equal(make(tiny, [image], ["a"], seed=3), make(tiny, [image], ["a"], seed=3))


@pytest.mark.parametrize(
    ("key", "seed"), [("b", 0), ("a", 1), ("A", 0), ("a ", 0), (0, 0), ("0", 0), ("caf\udce9", 0)]
)
def test_another_seed_or_key_gives_other_views_but_the_same_view_0(
    tiny: tpt.Clip, key: str | int, seed: int
) -> None:
    image = natural(80, 100)
    one, other = make(tiny, [image], ["a"]), make(tiny, [image], [key], seed=seed)
    assert torch.equal(one[:, 0], other[:, 0])
    assert not any(torch.equal(x, y) for x, y in zip(one[0, 1:], other[0, 1:], strict=True))


def test_a_number_and_its_text_are_different_keys(tiny: tpt.Clip) -> None:
    image = natural(80, 100)
    assert not torch.equal(make(tiny, [image], [1]), make(tiny, [image], ["1"]))


@pytest.mark.parametrize("kind", ["crop", "augmix"])
def test_neighbours_and_their_order_leave_an_images_views_alone(tiny: tpt.Clip, kind: str) -> None:
    images = {"a": natural(80, 100), "b": noise(33, 150), "c": natural(200, 64, seed=1)}
    alone = {key: make(tiny, [image], [key], kind=kind)[0] for key, image in images.items()}
    for order in ("abc", "cba", "ba", "aca"):
        together = make(tiny, [images[key] for key in order], list(order), kind=kind)
        for key, views in zip(order, together, strict=True):
            assert torch.equal(views, alone[key]), (order, key)


def test_without_keys_the_content_is_the_key(tiny: tpt.Clip) -> None:
    one, other = natural(80, 100), natural(80, 100, seed=1)
    made = make(tiny, [one, other, one])
    assert torch.equal(made[0], made[2])
    assert torch.equal(made[1:2], make(tiny, [other]))
    keys = [load_picture(image).digest for image in (one, other, one)]
    assert torch.equal(made, make(tiny, [one, other, one], keys))
    assert len(set(keys)) == 2


def test_the_shape_is_a_part_of_the_content() -> None:
    flat = np.zeros((4, 6, 3), np.uint8)
    assert load_picture(flat).digest != load_picture(flat.reshape(6, 4, 3)).digest


def test_a_decoded_picture_is_not_decoded_again(
    tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = load_picture(natural(80, 100))
    expected = make(tiny, [natural(80, 100)])
    monkeypatch.setattr(module, "load_picture", None)
    assert torch.equal(make(tiny, [picture]), expected)


def test_the_callers_chance_is_neither_used_nor_changed(tiny: tpt.Clip) -> None:
    image = natural(80, 100)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = make(tiny, [image])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.rand(3)
    assert torch.equal(make(tiny, [image]), first)


def test_augmix_changes_the_crops_but_keeps_where_they_are_cut(
    tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = natural(80, 100)
    crops, mixed = (make(tiny, [image], kind=kind) for kind in ("crop", "augmix"))
    assert not any(torch.equal(x, y) for x, y in zip(crops[0, 1:], mixed[0, 1:], strict=True))
    monkeypatch.setattr(module, "mix_chains", lambda views, rng: views)
    assert torch.equal(make(tiny, [image], kind="augmix"), crops)


# --- what goes in ---


def test_all_kinds_of_images_give_the_same_views(tiny: tpt.Clip, tmp_path: Path) -> None:
    pixels = natural(80, 100)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = make(tiny, [pixels])
    encoded = make(tiny, [path])
    assert torch.equal(encoded[:, 0], expected[:, 0])
    assert torch.equal(make(tiny, [str(path), path.read_bytes()]), encoded.repeat(2, 1, 1, 1, 1))
    images = [
        Image.fromarray(pixels),
        channels_first,
        channels_first.float() / 255,
        channels_first.double() / 255,
        pixels.astype(np.float32) / 255,
        np.asfortranarray(pixels),
    ]
    for image in images:
        assert torch.equal(make(tiny, [image]), expected), type(image)
    batch = channels_first.unsqueeze(0)
    assert torch.equal(make(tiny, batch), expected)
    assert torch.equal(make(tiny, batch.float() / 255), expected)
    assert torch.equal(make(tiny, (image for image in [pixels])), expected)


def test_the_images_stay_as_they_were(tiny: tpt.Clip) -> None:
    pixels = natural(80, 100)
    before = pixels.copy()
    make(tiny, [pixels])
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n": 0}, "The number of views must be at least 1; got 0."),
        ({"n": -3}, "at least 1; got -3."),
        ({"kind": "autoaugment"}, 'Unknown kind of views "autoaugment": expected crop or augmix.'),
        ({"scale": (0.0, 1.0)}, "within (0, 1]; got (0.0, 1.0)."),
        ({"scale": (0.5, 0.4)}, "got (0.5, 0.4)."),
        ({"scale": (0.5, 1.5)}, "got (0.5, 1.5)."),
        ({"scale": (float("nan"), 1.0)}, "got (nan, 1.0)."),
    ],
)
def test_a_setting_out_of_its_range_is_refused(
    tiny: tpt.Clip, options: dict[str, Any], text: str
) -> None:
    assert text in refusal(MethodError, tpt.Views, tiny, **options)


@pytest.mark.parametrize("call", ["__call__", "plain"])
@pytest.mark.parametrize(
    "image",
    [
        natural(8, 9),
        torch.zeros(3, 8, 9),
        Image.fromarray(natural(8, 9)),
        "image.png",
        Path("image.png"),
        b"",
    ],
)
def test_a_single_image_without_a_list_is_refused(tiny: tpt.Clip, image: Any, call: str) -> None:
    with pytest.raises(MethodError, match="Images are expected as a list") as caught:
        getattr(tpt.Views(tiny), call)(image)
    assert f"a single {type(image).__name__}" in str(caught.value)
    assert "views([image])" in str(caught.value)


@pytest.mark.parametrize("call", ["__call__", "plain"])
def test_no_image_is_refused(tiny: tpt.Clip, call: str) -> None:
    with pytest.raises(MethodError, match="No images came"):
        getattr(tpt.Views(tiny), call)([])


@pytest.mark.parametrize("keys", [[], ["a"], ["a", "b", "c"]])
def test_another_number_of_keys_is_refused(tiny: tpt.Clip, keys: list[str]) -> None:
    with pytest.raises(MethodError, match=f"2 images came with {len(keys)} keys"):
        make(tiny, [natural(8, 9), natural(8, 9)], keys)


@pytest.mark.parametrize("image", ["/no/such/image.png", b"no image", np.zeros((2, 2, 5)), 7])
def test_an_image_that_cannot_be_read_is_an_error(tiny: tpt.Clip, image: Any) -> None:
    with pytest.raises(ImageError):
        make(tiny, [natural(8, 9), image])


# --- models ---


@pytest.mark.parametrize(
    "change",
    [{"mean": (0.0, 0.0, 0.0)}, {"size": (32, 32)}, {"resize_mode": "squash"}],
)
def test_views_of_one_model_are_refused_for_a_model_that_wants_others(
    tiny: tpt.Clip, change: dict[str, object]
) -> None:
    other = tpt.Clip(tiny.model, tiny.tokenizer, name="other")
    method = tpt.ZeroShot(tpt.PromptEngine(tiny, ["cat", "dog"]))
    images = [torch.zeros(3, 9, 9)]
    assert next(tpt.stream(images, method, tpt.Views(other, n=2))).predictions
    other.preprocess = dataclasses.replace(other.preprocess, **change)
    message = refusal(MethodError, tpt.stream, images, method, tpt.Views(other, n=2))
    assert "These views are made for other (" in message
    assert "but the method's model is tiny (size (64, 64)" in message
    assert str(*change.values()) in message
