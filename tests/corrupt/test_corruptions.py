"""The fifteen corruptions are seeded, worse with every severity, and alike at every size."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import kornia
import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal

import tpt
from tpt.corrupt import CORRUPTIONS, corrupt, parse_corruptions
from tpt.corrupt.corruptions import SEVERITIES, parse_kinds, parse_severities
from tpt.errors import ImageError, MethodError
from tpt.images.decode import decode_image

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
PUBLISHED = [
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
]
RANDOM = [kind for kind in PUBLISHED if CORRUPTIONS[kind].random]

each_kind = pytest.mark.parametrize("kind", PUBLISHED)
each_severity = pytest.mark.parametrize("severity", SEVERITIES)


def shrink(name: str, longest: int) -> Any:
    """An example picture as pixels (H, W, 3), its longer side `longest`."""
    with Image.open(EXAMPLES / name) as image:
        image.thumbnail((longest, longest))
        return decode_image(image)


@pytest.fixture(scope="module")
def cat() -> Any:
    return shrink("cat.jpg", 96)


def apply_level(pixels: Any, kind: str, severity: int, rng: int = 0) -> Any:
    """A kind with the same chance at every severity, so that only its level differs; bytes.

    `corrupt` draws anew for every severity, and one cloud may happen to be thicker than another.
    """
    chosen = CORRUPTIONS[kind]
    x = pixels.astype(np.float32) / 255
    out = chosen.apply(x, chosen.levels[severity - 1], np.random.default_rng(rng))
    return np.rint(np.clip(out, 0, 1) * 255).astype(np.uint8)


def measure_error(a: Any, b: Any) -> float:
    return float(((a.astype(float) - b.astype(float)) ** 2).mean())


# --- what all have in common ---


def test_the_kinds_are_the_fifteen_of_the_paper_in_its_order() -> None:
    assert list(CORRUPTIONS) == PUBLISHED


@each_severity
@each_kind
def test_a_corruption_keeps_the_form_changes_the_picture_and_leaves_its_input_alone(
    cat: Any, kind: str, severity: int
) -> None:
    before = cat.copy()
    out = corrupt(cat, kind, severity, seed=0, key="cat.jpg")
    assert out.shape == cat.shape
    assert out.dtype == np.uint8
    assert measure_error(out, cat) > 1
    assert (cat == before).all()


@each_severity
@each_kind
def test_the_same_seed_and_key_give_the_same_picture(cat: Any, kind: str, severity: int) -> None:
    first = corrupt(cat, kind, severity, seed=3, key="a/b.jpg")
    corrupt(cat, kind, severity, seed=4, key="other.jpg")
    assert (corrupt(cat, kind, severity, seed=3, key="a/b.jpg") == first).all()


@each_severity
@pytest.mark.parametrize("kind", RANDOM)
def test_another_key_or_another_seed_gives_another_picture(
    cat: Any, kind: str, severity: int
) -> None:
    first = corrupt(cat, kind, severity, seed=0, key="a.jpg")
    assert (corrupt(cat, kind, severity, seed=0, key="b.jpg") != first).any()
    assert (corrupt(cat, kind, severity, seed=1, key="a.jpg") != first).any()


@pytest.mark.parametrize("kind", [kind for kind in PUBLISHED if kind not in RANDOM])
def test_kinds_that_are_not_random_do_not_depend_on_key_or_seed(cat: Any, kind: str) -> None:
    first = corrupt(cat, kind, 3, seed=0, key="a.jpg")
    assert (corrupt(cat, kind, 3, seed=1, key="b.jpg") == first).all()


def test_the_noise_of_two_severities_is_not_the_same_noise_made_stronger() -> None:
    grey = np.full((40, 40, 3), 128, dtype=np.uint8)
    one, two = (corrupt(grey, "gaussian_noise", s).astype(float).ravel() - 128 for s in (1, 2))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


@each_kind
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 40), (40, 1), (3, 17)])
def test_tiny_pictures_and_strips_are_corrupted_too(kind: str, size: tuple[int, int]) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (*size, 3), dtype=np.uint8)
    for severity in (1, 5):
        assert corrupt(pixels, kind, severity).shape == (*size, 3)


@each_kind
@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_grey_picture_stays_grey_unless_colour_is_what_is_added(
    kind: str, value: int
) -> None:
    out = corrupt(np.full((24, 32, 3), value, dtype=np.uint8), kind, 3).astype(int)
    if "noise" not in kind and kind != "frost":
        assert np.ptp(out, axis=2).max() <= 1
    if kind.endswith("blur") or kind in ("contrast", "elastic_transform", "pixelate"):
        assert abs(out - value).max() <= 1


# --- severity means something ---


@each_kind
def test_a_picture_is_further_from_the_original_at_every_severity(kind: str) -> None:
    pixels = shrink("cat.jpg", 160)

    def distance(out: Any) -> float:
        # Frost's levels also dim the picture under the ice, which brings its values back; how much
        # of its structure is lost grows all the same.
        if kind != "frost":
            return measure_error(out, pixels)
        a, b = (torch.from_numpy(p).permute(2, 0, 1)[None] / 255 for p in (out, pixels))
        return 1 - float(kornia.metrics.ssim(a, b, 11).mean())

    found = [
        np.mean([distance(apply_level(pixels, kind, severity, draw)) for draw in range(3)])
        for severity in SEVERITIES
    ]
    # The published snow of severity 3 has fewer and larger flakes than 2: about the same error.
    least = 0.92 if kind == "snow" else 1.0
    assert all(after > least * before for before, after in pairwise(found))
    assert found[-1] > 1.2 * found[0]


@each_kind
def test_the_features_of_the_embedded_model_drift_further_at_every_severity(
    kind: str, lite: tpt.Clip
) -> None:
    views = tpt.Views(lite, n=1)
    names = [path.name for path in sorted(EXAMPLES.glob("*.jpg")) if "-small" not in path.name]
    pictures = [shrink(name, 160) for name in names]
    clean = lite.encode_views(views.plain(pictures))[:, 0]
    cosines = []
    for severity in SEVERITIES:
        worse = [apply_level(p, kind, severity, place) for place, p in enumerate(pictures)]
        features = lite.encode_views(views.plain(worse))[:, 0]
        cosines.append(float((features * clean).sum(-1).mean()))
    assert cosines[0] < 1
    assert all(after < before for before, after in pairwise(cosines))


# --- each against what defines it ---


def test_gaussian_noise_has_the_published_deviation() -> None:
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    for severity, deviation in zip((1, 2), (0.08, 0.12), strict=True):
        noise = corrupt(grey, "gaussian_noise", severity).astype(float) - 128
        assert noise.std() == pytest.approx(255 * deviation, rel=0.02)
        assert abs(noise.mean()) < 0.5


def test_shot_noise_grows_with_the_root_of_the_light() -> None:
    dark, light = (
        corrupt(np.full((200, 200, 3), value, dtype=np.uint8), "shot_noise", 1).astype(float).std()
        for value in (32, 128)
    )
    assert light / dark == pytest.approx(2, rel=0.03)


def test_impulse_noise_makes_the_published_share_of_values_black_or_white() -> None:
    out = corrupt(np.full((200, 200, 3), 128, dtype=np.uint8), "impulse_noise", 5)
    assert (out == 0).mean() == pytest.approx(0.135, abs=0.005)
    assert (out == 255).mean() == pytest.approx(0.135, abs=0.005)
    assert set(np.unique(out)) == {0, 128, 255}


@pytest.mark.parametrize(("severity", "radius"), [(1, 3), (5, 10)])
def test_defocus_turns_a_point_into_a_disc(severity: int, radius: int) -> None:
    pixels = np.zeros((224, 224, 3), dtype=np.uint8)
    pixels[110:113, 110:113] = 255
    out = corrupt(pixels, "defocus_blur", severity)
    rows, columns = np.nonzero(out[..., 0])
    reach = np.hypot(rows - 111, columns - 111).max()
    assert radius <= reach <= radius + 3


def test_motion_blur_smears_along_one_line() -> None:
    pixels = np.zeros((224, 224, 3), dtype=np.uint8)
    pixels[110:113, 110:113] = 255
    rows, columns = np.nonzero(corrupt(pixels, "motion_blur", 3, key="x")[..., 0] > 1)
    spread = np.linalg.eigvalsh(np.cov(rows, columns))
    assert spread[1] > 20 * spread[0]


def test_zoom_blur_leaves_the_middle_and_smears_the_edges() -> None:
    pixels = np.zeros((101, 101, 3), dtype=np.uint8)
    pixels[::, ::8] = 255
    out = corrupt(pixels, "zoom_blur", 5).astype(float)
    assert out[:, 44:57].std() > 2 * out[:, :12].std()


def test_contrast_draws_values_towards_the_mean_of_their_channel(cat: Any) -> None:
    out = corrupt(cat, "contrast", 3).astype(float)
    mean = cat.mean((0, 1))
    np.testing.assert_allclose(out, mean + 0.2 * (cat - mean), atol=0.51)


def test_brightness_keeps_hue_and_saturation(cat: Any) -> None:
    out = corrupt(cat, "brightness", 2).astype(float)
    value = cat.max(2).astype(float)
    np.testing.assert_allclose(out.max(2), np.minimum(value + 51, 255), atol=0.51)
    clear = value > 60
    before, after = (cat.min(2) / np.maximum(value, 1))[clear], (out.min(2) / out.max(2))[clear]
    np.testing.assert_allclose(after, before, atol=0.01)


def test_fog_is_paler_and_flatter(cat: Any) -> None:
    spread = [corrupt(cat, "fog", severity).std((0, 1)).mean() for severity in (1, 2)]
    assert max(spread) < cat.std((0, 1)).mean()


def test_snow_and_frost_add_light(cat: Any) -> None:
    assert corrupt(cat, "snow", 1).mean() > cat.mean()
    assert corrupt(cat, "frost", 1).mean() > cat.mean()


def test_jpeg_compression_is_pillows_at_the_published_quality(cat: Any, tmp_path: Path) -> None:
    Image.fromarray(cat).save(tmp_path / "a.jpg", quality=10)
    assert (corrupt(cat, "jpeg_compression", 4) == decode_image(tmp_path / "a.jpg")).all()


@pytest.mark.parametrize(("side", "blocks"), [(60, 15), (224, 56), (448, 56)])
def test_pixelate_shows_as_many_blocks_at_any_size_above_224(side: int, blocks: int) -> None:
    ramp = np.repeat(np.linspace(0, 255, side)[None, :, None], side, axis=0)
    out = corrupt(np.repeat(ramp, 3, axis=2).astype(np.uint8), "pixelate", 5)
    assert len(np.unique(out[0, :, 0])) == blocks


@pytest.mark.parametrize("kind", ["defocus_blur", "motion_blur", "zoom_blur", "glass_blur"])
def test_a_large_picture_shrunk_looks_like_the_small_one(kind: str) -> None:
    small = shrink("cat.jpg", 150)
    height, width = small.shape[:2]
    size = 3 * width, 3 * height
    large = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))
    expected = corrupt(small, kind, 5, key="cat").astype(float)
    shrunk = Image.fromarray(corrupt(large, kind, 5, key="cat")).resize(
        (width, height), Image.Resampling.BOX
    )
    # The edges are mirrored at either size, and the smallest details are not the same.
    assert measure_error(np.asarray(shrunk), expected) < 0.25 * measure_error(expected, small)


# --- mistakes ---


@pytest.mark.parametrize(
    ("kind", "severity", "message"),
    [
        ("gausian_noise", 1, 'Unknown corruption "gausian_noise": expected one of gaussian_noise,'),
        ("gausian_noise", 1, 'Did you mean "gaussian_noise"'),
        ("fog", 0, "A severity is a whole number from 1 (weak) to 5 (strong); got 0."),
        ("fog", 6, "got 6."),
        ("fog", 2.5, "got 2.5."),
        ("fog", True, "got True."),
        ("fog", "3", "got '3'."),
    ],
)
def test_unknown_kinds_and_severities_are_refused(
    cat: Any, kind: str, severity: Any, message: str
) -> None:
    assert message in refusal(MethodError, corrupt, cat, kind, severity)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_of_another_form_are_refused(pixels: Any) -> None:
    with pytest.raises(MethodError, match=r"is an array \(H, W, 3\) of uint8; got shape"):
        corrupt(pixels, "fog", 1)


def test_a_picture_too_long_for_jpeg_is_refused() -> None:
    with pytest.raises(ImageError, match="65501 x 1 pixels cannot be compressed as JPEG"):
        corrupt(np.zeros((1, 65_501, 3), np.uint8), "jpeg_compression", 1)


def test_kinds_are_read_in_any_spelling_and_given_in_the_papers_order() -> None:
    assert parse_kinds("JPEG-compression, Gaussian_Noise") == ("gaussian_noise", "jpeg_compression")
    assert parse_kinds("all") == tuple(PUBLISHED)


@pytest.mark.parametrize(
    ("text", "severities"),
    [("3", (3,)), ("5,1", (1, 5)), ("1-5", (1, 2, 3, 4, 5)), ("1-2, 4", (1, 2, 4))],
)
def test_severities_are_read_one_by_one_and_as_ranges(
    text: str, severities: tuple[int, ...]
) -> None:
    assert parse_severities(text) == severities


@pytest.mark.parametrize("text", ["", "0", "6", "x", "1-6", "3-1", "1-", "2.5", "1,,2"])
def test_what_is_no_severity_is_refused(text: str) -> None:
    with pytest.raises(MethodError, match=r"is no severity: expected a whole number from 1"):
        parse_severities(text)


def test_corruptions_are_read_with_their_severities() -> None:
    assert parse_corruptions("gaussian_noise:3,contrast:5") == [
        ("gaussian_noise", 3),
        ("contrast", 5),
    ]
    assert parse_corruptions("fog:1-2") == [("fog", 1), ("fog", 2)]
    assert parse_corruptions("fog:1,3-4,snow:5") == [
        ("fog", 1),
        ("fog", 3),
        ("fog", 4),
        ("snow", 5),
    ]
    assert parse_corruptions("all:4") == [(kind, 4) for kind in PUBLISHED]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fog", '"fog" is no corruption with its severity: expected KIND:SEVERITY'),
        ("", '"" is no corruption with its severity'),
        (":3", '":3" is no corruption with its severity'),
        ("fog:3,", '"" is no corruption with its severity'),
        ("fog:9", '"9" is no severity'),
        ("fog:3,7", '"7" is no severity'),
        ("3,fog:1", 'Unknown corruption "3"'),
        ("fogg:3", 'Unknown corruption "fogg"'),
        ("fogg:3", 'Did you mean "fog"?'),
        ("fog:3,fog:1-5", '"fog:3" is named twice. Name it once.'),
    ],
)
def test_what_is_no_list_of_corruptions_is_refused(text: str, message: str) -> None:
    assert message in refusal(MethodError, parse_corruptions, text)


def test_a_kind_or_severity_named_twice_is_refused() -> None:
    with pytest.raises(MethodError, match='"fog" is named twice'):
        parse_kinds("fog,Fog")
    with pytest.raises(MethodError, match='"3" is named twice'):
        parse_severities("1-5,3")


def test_the_rooms_names_do_not_wait_for_torch() -> None:
    code = "import sys, tpt.corrupt; print('torch' in sys.modules, *sorted(dir(tpt.corrupt))[:3])"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.split()[0] == "False"
    assert "CORRUPTIONS" in told.stdout
