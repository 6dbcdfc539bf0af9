"""Features of training pictures: what their views are, what they depend on, what is remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal
from torch import Tensor

import coop.features as module
import tpt
from coop.features import FeatureBank, draw_view
from coop.learners import CoOp
from coop.loop import LoopSettings, train
from coop.recipes import Recipe, RecipeSettings, make_recipe
from coop.run import epoch_reader
from tpt.data.labelled_sets import Sample
from tpt.errors import MethodError, SourceError
from tpt.images.views import draw_crops, normalise
from tpt.streaming import loading

SIZES = [(60, 80), (90, 50), (40, 40), (33, 120)]
SCALE = (0.08, 1.0)


def natural(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8, smooth as photographs are."""
    random = np.random.RandomState(seed)
    total = np.zeros((height, width, 3))
    for cells in (2, 4, 8, 16):
        waves = random.standard_normal((3, cells, cells)).astype(np.float32)
        layers = [
            Image.fromarray(w).resize((width, height), Image.Resampling.BICUBIC) for w in waves
        ]
        total += np.stack([np.asarray(layer) for layer in layers], axis=-1) / cells**0.7
    return np.rint((total - total.min()) / np.ptp(total) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four pictures of different sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    names = []
    for number, size in enumerate(SIZES):
        name = folder / f"{number}.png"
        Image.fromarray(natural(*size, seed=number)).save(name)
        names.append(str(name))
    return names


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file has been decoded."""
    counts: Counter[str] = Counter()
    decode = loading.load_picture

    def count(source: Any) -> Any:
        counts[str(source)] += 1
        return decode(source)

    monkeypatch.setattr(loading, "load_picture", count)
    return counts


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert list(got) == list(want)
    for path, features in want.items():
        assert torch.equal(got[path], features), path


# --- plain features ---


def test_plain_features_are_those_of_the_models_own_preprocessing(
    golden: SimpleNamespace, paths: list[str]
) -> None:
    got = FeatureBank(golden.clip).plain(paths)
    assert list(got) == paths
    views = tpt.Views(golden.clip, n=1).plain(paths)
    for path, view in zip(paths, views, strict=True):
        assert torch.equal(got[path], golden.clip.encode_images(view)[0])
        assert got[path].norm().item() == pytest.approx(1, abs=1e-5)


def test_a_picture_is_decoded_once_for_its_plain_features(
    golden: SimpleNamespace, paths: list[str], decodes: Counter[str]
) -> None:
    bank = FeatureBank(golden.clip)
    first = bank.plain([*paths[:3], paths[0]])
    assert decodes == dict.fromkeys(paths[:3], 1)
    again = bank.plain(paths)
    assert decodes == dict.fromkeys(paths, 1)
    assert list(again) == paths
    assert_same({path: again[path] for path in first}, first)


def test_no_pictures_have_no_features(golden: SimpleNamespace) -> None:
    bank = FeatureBank(golden.clip)
    assert bank.plain([]) == {}
    assert bank.augmented([], 1, [0]) == {}


def test_progress_is_told_picture_by_picture(golden: SimpleNamespace, paths: list[str]) -> None:
    bank, told = FeatureBank(golden.clip), []
    bank.plain(paths[:1])
    bank.plain(paths, tell=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]  # what is known already is no work


# --- augmented views ---


@pytest.mark.parametrize("seed", [0, 7])
def test_an_augmented_view_is_pillows_bicubic_crop_of_the_same_box(
    golden: SimpleNamespace, paths: list[str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[Tensor] = []
    encode = golden.clip.encode_images

    def keep(pixels: Tensor) -> Tensor:
        encoded.append(pixels)
        return encode(pixels)

    monkeypatch.setattr(golden.clip, "encode_images", keep)
    FeatureBank(golden.clip).augmented(paths, seed, range(12))
    size = golden.clip.preprocess.size
    flipped = 0
    for path, got in zip(paths, encoded, strict=True):
        picture = Image.open(path)
        for view, pixels in enumerate(got):
            crops = draw_crops(draw_view(seed, path, view), picture.size[::-1], 1, SCALE)
            top, left, height, width = crops.boxes[0].tolist()
            box = picture.crop((left, top, left + width, top + height))
            part = np.array(box.resize(size[::-1], Image.Resampling.BICUBIC))
            if crops.flips[0]:
                part, flipped = part[:, ::-1].copy(), flipped + 1
            want = torch.from_numpy(part).permute(2, 0, 1).unsqueeze(0).float()
            # One grey level is 1 / 255, divided by a channel's deviation of at least 0.26.
            difference = pixels - normalise(want, golden.clip.preprocess)[0]
            assert difference.abs().max() < 2 / 255 / 0.26, (path, view)
    assert 5 < flipped < 43  # of 48


def test_crops_cover_8_to_100_percent_and_half_are_mirrored(
    golden: SimpleNamespace, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, flips, filters = [], [], set()
    cut = module.cut

    def note(picture: Tensor, crops: Any, size: tuple[int, int], filter_name: str) -> Tensor:
        _, _, height, width = crops.boxes[0].tolist()
        assert 3 / 4 * 0.9 < width / height < 4 / 3 * 1.1
        shares.append(height * width / (picture.shape[-1] * picture.shape[-2]))
        flips.append(bool(crops.flips[0]))
        filters.add(filter_name)
        return cut(picture, crops, size, filter_name)

    monkeypatch.setattr(module, "cut", note)
    FeatureBank(golden.clip).augmented(paths[:1], 3, range(400))
    assert len(shares) == 400
    assert 0.07 < min(shares) < 0.12  # sides are whole pixels
    assert 0.9 < max(shares) <= 1
    assert sum(share < 0.54 for share in shares) > 150  # spread evenly over areas that fit
    assert 160 < sum(flips) < 240
    assert filters == {"bicubic"}


def test_views_depend_on_seed_path_and_number() -> None:
    keys = [(1, "a.jpg", 0), (2, "a.jpg", 0), (1, "b.jpg", 0), (1, "a.jpg", 1), (11, ".jpg", 0)]
    draws = {key: tuple(draw_view(*key).random(4).tolist()) for key in keys}
    assert len(set(draws.values())) == len(keys)
    assert all(tuple(draw_view(*key).random(4).tolist()) == d for key, d in draws.items())
    assert tuple(draw_view(1, "odd\udcff.jpg", 0).random(4)) != draws[1, "a.jpg", 0]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_views_depend_on_nothing_else(
    golden: SimpleNamespace, paths: list[str], workers: int
) -> None:
    """Not on order, other pictures, what was asked before, or the number of workers."""
    want = FeatureBank(golden.clip).augmented(paths, 1, range(3))
    assert all(features.shape == (3, golden.clip.embedding_width) for features in want.values())
    bank = FeatureBank(golden.clip, num_workers=workers)
    bank.plain(paths[:2])
    bank.augmented(paths[1:3], 2, range(2))
    backwards = bank.augmented(paths[::-1], 1, range(3))
    assert list(backwards) == paths[::-1]
    assert_same({path: backwards[path] for path in paths}, want)
    alone = FeatureBank(golden.clip, num_workers=workers).augmented(paths[2:3], 1, range(3))
    assert_same(alone, {paths[2]: want[paths[2]]})


def test_another_seed_or_number_gives_another_view(
    golden: SimpleNamespace, paths: list[str]
) -> None:
    bank = FeatureBank(golden.clip)
    views = torch.cat([bank.augmented(paths, seed, range(4))[paths[0]] for seed in (1, 2)])
    distances = torch.cdist(views, views) + torch.eye(8)
    assert distances.min() > 1e-3


def test_views_asked_for_in_any_combination_are_the_same_views(
    golden: SimpleNamespace, paths: list[str]
) -> None:
    """But for the rounding of a batch of another size."""
    want = FeatureBank(golden.clip).augmented(paths, 1, range(6))
    bank = FeatureBank(golden.clip)
    for views in ([3], [5, 0], [0, 1, 2, 3, 4], [2, 2]):
        got = bank.augmented(paths, 1, views, keep=len(views) != 2)
        for path in paths:
            torch.testing.assert_close(got[path], want[path][views], atol=1e-6, rtol=0)


def test_kept_views_are_decoded_once_and_others_every_time(
    golden: SimpleNamespace, paths: list[str], decodes: Counter[str]
) -> None:
    bank = FeatureBank(golden.clip)
    first = bank.augmented([*paths, paths[0]], 1, range(5))
    assert decodes == dict.fromkeys(paths, 1)
    assert_same(bank.augmented(paths, 1, range(5)), first)
    some = bank.augmented(paths[:2], 1, [4, 1])
    assert decodes == dict.fromkeys(paths, 1)
    assert_same(some, {path: first[path][[4, 1]] for path in paths[:2]})
    for _ in range(2):
        bank.augmented(paths, 1, [9], keep=False)
    assert decodes == dict.fromkeys(paths, 3)


def test_without_augmentation_every_view_is_the_plain_one(
    golden: SimpleNamespace, paths: list[str], decodes: Counter[str]
) -> None:
    bank = FeatureBank(golden.clip, augment="none")
    views = bank.augmented(paths, 1, range(3))
    for path, feature in bank.plain(paths).items():
        assert torch.equal(views[path], feature.expand(3, -1))
    bank.augmented(paths, 2, [8], keep=False)
    assert decodes == dict.fromkeys(paths, 1)


def test_an_unknown_augmentation_is_refused(golden: SimpleNamespace) -> None:
    message = refusal(MethodError, FeatureBank, golden.clip, augment="flip")
    assert message == 'Unknown augmentation "flip": expected crop or none.'


# --- broken files ---


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_skipped_with_a_sentence(
    golden: SimpleNamespace,
    paths: list[str],
    tmp_path: Path,
    decodes: Counter[str],
    workers: int,
) -> None:
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    broken.write_bytes(b"not a picture")
    mixed = [paths[0], str(broken), paths[1], str(missing), paths[2]]
    bank = FeatureBank(golden.clip, num_workers=workers)
    plain = bank.plain(mixed)
    assert_same(plain, FeatureBank(golden.clip).plain(paths[:3]))
    assert set(bank.failed) == {str(broken), str(missing)}
    for path, message in bank.failed.items():
        assert Path(path).name in message
        assert message.endswith(".")
        assert "\n" not in message

    decodes.clear()
    views = bank.augmented(mixed, 1, range(2))
    assert_same(views, FeatureBank(golden.clip).augmented(paths[:3], 1, range(2)))
    assert decodes[str(broken)] == decodes[str(missing)] == 0  # known to be broken
    assert_same(bank.augmented(mixed, 1, range(2)), views)


def test_features_that_are_no_numbers_count_as_a_broken_picture(
    golden: SimpleNamespace, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = FeatureBank(golden.clip).augmented(paths, 1, range(2))
    encode, places = golden.clip.encode_images, iter(range(9))

    def overflow(pixels: Tensor) -> Tensor:
        features = encode(pixels)
        if next(places) == 1:
            features[-1, 3] = float("nan")
        return features

    monkeypatch.setattr(golden.clip, "encode_images", overflow)
    bank = FeatureBank(golden.clip)
    got = bank.augmented(paths, 1, range(2))
    assert_same(got, {path: want[path] for path in paths if path != paths[1]})
    message = f'NaN or infinite features for "{paths[1]}". Try --precision fp32 or bf16.'
    assert list(bank.failed) == [paths[1]]
    assert bank.failed[paths[1]].endswith(message)


@pytest.mark.parametrize("stage", ["Making views", "Encoding"])
def test_a_failure_at_any_stage_costs_the_one_picture(
    golden: SimpleNamespace, paths: list[str], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    want = FeatureBank(golden.clip).augmented(paths, 1, range(2))
    bank = FeatureBank(golden.clip)
    place, name = (bank, "_crop") if stage == "Making views" else (golden.clip, "encode_images")
    work, calls = getattr(place, name), iter(range(9))

    def fail_second(*given: Any) -> Tensor:
        if next(calls) == 1:
            raise RuntimeError("no such kernel")
        return work(*given)  # type: ignore[no-any-return]

    monkeypatch.setattr(place, name, fail_second)
    got = bank.augmented(paths, 1, range(2))
    assert_same(got, {path: want[path] for path in paths if path != paths[1]})
    said = f"{stage} failed for this image: RuntimeError: no such kernel."
    assert bank.failed == {paths[1]: said}


# --- passes of the image tower ---


class Elsewhere(str):
    """A device that is no CPU, as far as the bank can tell."""

    type = "elsewhere"


@pytest.mark.parametrize(("room", "passes"), [(1, [3, 3, 3, 3]), (4, [6, 6]), (9, [9, 3])])
def test_off_the_cpu_passes_are_filled_up_with_several_pictures_views(
    golden: SimpleNamespace,
    paths: list[str],
    tmp_path: Path,
    room: int,
    passes: list[int],
) -> None:
    sizes = []

    def encode(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return golden.clip.encode_images(pixels)

    clip = SimpleNamespace(
        images_a_pass=lambda waiting: waiting,
        device=Elsewhere("cpu"),
        preprocess=golden.clip.preprocess,
        micro_batch=room,
        encode_images=encode,
    )
    bank = FeatureBank(clip)  # type: ignore[arg-type]
    broken = str(tmp_path / "missing.jpg")
    got = bank.augmented([*paths[:2], broken, *paths[2:]], 1, range(3))
    assert sizes == passes
    want = FeatureBank(golden.clip).augmented(paths, 1, range(3))
    assert list(got) == paths
    for path in paths:
        torch.testing.assert_close(got[path], want[path], atol=1e-6, rtol=0)


# --- an epoch's views ---


def silent() -> Any:
    return SimpleNamespace(encode=lambda what, done, total: None)


def recipe_with(cache_views: int, **more: Any) -> Recipe:
    wanted = RecipeSettings("coop", epochs=4, cache_views=cache_views, **more)
    return make_recipe(wanted, 1, on_cpu=True)


def read_epochs(clip: tpt.Clip, paths: Sequence[str], recipe: Recipe, count: int) -> list[Tensor]:
    bank = FeatureBank(clip, recipe.augment)
    items = [Sample.of_file(path, number % 2) for number, path in enumerate(paths)]
    read = epoch_reader(bank, items, 1, recipe, silent())
    return [read(epoch) for epoch in range(count)]


def encode_one_by_one(clip: tpt.Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the batch's size out of the rounding."""
    encode = clip.encode_images
    monkeypatch.setattr(
        clip, "encode_images", lambda pixels: torch.cat([encode(view[None]) for view in pixels])
    )


def test_kept_views_come_round_again_and_fresh_ones_do_not(
    golden: SimpleNamespace, paths: list[str]
) -> None:
    kept = read_epochs(golden.clip, paths, recipe_with(2), 5)
    assert all(features.shape == (4, golden.clip.embedding_width) for features in kept)
    assert torch.equal(kept[0], kept[2])
    assert torch.equal(kept[1], kept[3])
    assert torch.equal(kept[0], kept[4])
    assert not torch.equal(kept[0], kept[1])
    fresh = torch.stack(read_epochs(golden.clip, paths, recipe_with(0), 5)).flatten(1)
    assert (torch.cdist(fresh, fresh) + torch.eye(5)).min() > 0.01


@pytest.mark.parametrize("views", [4, 9])
def test_as_many_kept_views_as_epochs_are_the_same_run_as_fresh_ones(
    golden: SimpleNamespace, paths: list[str], views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(cache_views: int) -> list[Tensor]:
        recipe = recipe_with(cache_views)
        bank = FeatureBank(golden.clip)
        items = [Sample.of_file(path, number % 2) for number, path in enumerate(paths)]
        read = epoch_reader(bank, items, 1, recipe, silent())
        engine = tpt.PromptEngine(golden.clip, ["cat", "dog"])
        labels = torch.tensor([item.label for item in items])
        epochs = train(CoOp(engine), read, labels, LoopSettings(4, 2e-3, 2, 1))
        return [epoch.state.parameters["vectors"] for epoch in epochs]

    for fresh, kept in zip(learn(0), learn(views), strict=True):
        torch.testing.assert_close(kept, fresh, atol=1e-5, rtol=0)
    encode_one_by_one(golden.clip, monkeypatch)
    for fresh, kept in zip(learn(0), learn(views), strict=True):
        assert torch.equal(kept, fresh)
    fewer = learn(2)
    assert not torch.equal(fewer[-1], kept)


def test_without_augmentation_every_epoch_reads_the_plain_features(
    golden: SimpleNamespace, paths: list[str]
) -> None:
    plain = torch.stack(list(FeatureBank(golden.clip).plain(paths).values()))
    for features in read_epochs(golden.clip, paths, recipe_with(3, augment="none"), 3):
        assert torch.equal(features, plain)


def test_a_picture_that_is_gone_in_the_middle_of_training_is_said_in_a_sentence(
    golden: SimpleNamespace, paths: list[str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(paths[0]).read_bytes())
    items = [Sample.of_file(str(copy), 0), Sample.of_file(paths[1], 1)]
    read = epoch_reader(FeatureBank(golden.clip), items, 1, recipe_with(0), silent())
    read(0)
    copy.unlink()
    assert "copy.png" in refusal(SourceError, read, 1)
