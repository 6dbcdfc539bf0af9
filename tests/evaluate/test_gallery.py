"""The gallery is drawn at random, and shows the views that adaptation saw."""

from __future__ import annotations

import base64
import gc
import io
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import tpt
from tpt.corrupt import corrupt
from tpt.data.labelled_sets import ArrayRow, Sample, TarMember
from tpt.evaluate.gallery import (
    Answer,
    GalleryDraw,
    GalleryItem,
    draw_items,
    encode_thumbnail,
    redraw_views,
)
from tpt.images.decode import load_picture
from tpt.images.views import Views

CAT = Path(__file__).parents[2] / "examples" / "images" / "cat.jpg"
CLASSES = ("ant", "bee", "cat")


def make_row(key: str, label: int, before: int, after: int, method: str = "tpt") -> dict[str, Any]:
    """A row of two methods; the adapted one kept views 5, 0 and 2."""
    adapted = {
        "top": [[after, 0.75], [before, 0.25]],
        "entropy": [1.01, 0.93],
        "kept": [5, 0, 2],
        "kept_entropy": [0.1, 0.2, 0.3],
    }
    methods = {"zero-shot": {"top": [[before, 0.51], [after, 0.22]]}, method: adapted}
    return {"set": "zoo", "key": key, "label": label, "methods": methods}


def draw(rows: Iterable[dict[str, Any]], **options: Any) -> tuple[GalleryItem, ...]:
    lottery = GalleryDraw(**{"dataset": "zoo", "classes": CLASSES, **options})
    for row in rows:
        lottery.add(row)
    return lottery.items


def draw_keys(rows: Iterable[dict[str, Any]], **options: Any) -> list[str]:
    return [item.key for item in draw(rows, **options)]


def show(source: Any, key: str = "cat.jpg", **options: Any) -> GalleryItem:
    """The one item of a set whose only picture was put right."""
    candidates = draw([make_row(key, 0, 1, 0)])
    samples = {key: Sample(key, 0, source)}
    (item,) = draw_items(candidates, samples, **options)
    return item


def unpack(jpeg: str) -> npt.NDArray[Any]:
    with Image.open(io.BytesIO(base64.b64decode(jpeg))) as image:
        assert image.format == "JPEG"
        return np.asarray(image)


def measure_gap(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """The mean difference of two pictures in grey levels."""
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


# --- the draw ---


def test_pictures_put_right_and_put_wrong_qualify_and_no_others() -> None:
    rows = [
        make_row("right", label=0, before=1, after=0),
        make_row("wrong", label=0, before=0, after=1),
        make_row("still right", label=0, before=0, after=0),
        make_row("still wrong", label=0, before=1, after=2),
        {"set": "zoo", "key": "broken", "label": 0, "error": {"type": "ImageError"}},
    ]
    assert [(c.key, c.kind) for c in draw(rows)] == [("right", "right"), ("wrong", "wrong")]


def test_a_candidate_holds_what_the_run_said() -> None:
    (found,) = draw([make_row("a", label=0, before=1, after=0)])
    assert found == GalleryItem(
        dataset="zoo",
        method="tpt",
        key="a",
        kind="right",
        label="ant",
        before=(Answer("bee", 0.51), Answer("ant", 0.22)),
        after=(Answer("ant", 0.75), Answer("bee", 0.25)),
        entropy=(1.01, 0.93),
        kept=((5, 0.1), (0, 0.2), (2, 0.3)),
    )


def test_votes_are_no_probabilities_and_entropies_may_be_missing() -> None:
    row = make_row("a", label=0, before=1, after=0)
    row["methods"]["tpt"] = {"top": [[0, 14], [1, 3]], "votes": True}
    (found,) = draw([row])
    assert found.after == (Answer("ant", None), Answer("bee", None))
    assert found.entropy == (None, None)
    assert found.kept == ()


def test_all_are_shown_where_few_qualify_and_per_kind_where_many_do() -> None:
    rows = [make_row(f"{i}", label=0, before=1, after=0) for i in range(9)]
    assert sorted(draw_keys(rows[:4])) == ["0", "1", "2", "3"]
    assert len(set(draw_keys(rows))) == 4
    assert len(draw_keys(rows, per_kind=2)) == 2
    assert draw_keys(rows, per_kind=0) == []


def test_the_same_pictures_are_drawn_in_any_order_of_the_rows() -> None:
    rows = [make_row(f"{i}", label=0, before=1, after=0) for i in range(50)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert draw(rows) == draw(shuffled)


@pytest.mark.parametrize("other", [{"seed": 1}, {"dataset": "farm"}, {"method": "vte"}])
def test_seed_set_and_method_each_change_the_draw(other: dict[str, Any]) -> None:
    method = other.pop("method", "tpt")
    one = draw_keys([make_row(f"{i}", 0, 1, 0) for i in range(50)])
    another = draw_keys([make_row(f"{i}", 0, 1, 0, method) for i in range(50)], **other)
    assert set(one) != set(another)


def test_every_picture_is_drawn_about_equally_often() -> None:
    rows = [make_row(f"dog/{i}.png", label=0, before=1, after=0) for i in range(12)]
    runs = 600
    times = Counter(key for seed in range(runs) for key in draw_keys(rows, per_kind=3, seed=seed))
    expected = runs * 3 / 12
    spread = (runs * 3 / 12 * 9 / 12) ** 0.5  # of a binomial count: 10.6
    assert len(times) == 12
    assert all(abs(count - expected) < 4 * spread for count in times.values())


def count_candidates(dataset: str) -> int:
    """How many of a set are in memory."""
    return sum(type(o) is GalleryItem and o.dataset == dataset for o in gc.get_objects())


def test_no_more_candidates_are_held_than_are_shown() -> None:
    lottery = GalleryDraw("long", CLASSES, per_kind=3)
    for i in range(600):
        lottery.add(make_row(f"{i}", label=0, before=i % 2, after=1 - i % 2))
        if i % 100 == 99:
            assert count_candidates("long") == 6  # three put right, three put wrong


def test_a_key_that_is_no_unicode_takes_part() -> None:
    assert draw_keys([make_row("caf\udce9.png", label=0, before=1, after=0)]) == ["caf\udce9.png"]


# --- the pictures ---


def test_answers_are_named_and_the_picture_is_shrunk() -> None:
    item = show(str(CAT))
    assert (item.dataset, item.method, item.key, item.kind) == ("zoo", "tpt", "cat.jpg", "right")
    assert item.label == "ant"
    assert item.before == (Answer("bee", 0.51), Answer("ant", 0.22))
    assert item.after == (Answer("ant", 0.75), Answer("bee", 0.25))
    assert item.entropy == (1.01, 0.93)
    assert item.kept == ((5, 0.1), (0, 0.2), (2, 0.3))
    assert item.kept_pictures == ()  # nothing was said of how views are made
    assert item.picture is not None
    shown = unpack(item.picture)
    with Image.open(CAT) as image:
        small = np.asarray(image.resize((shown.shape[1], shown.shape[0])))
    assert max(shown.shape) == 160
    assert measure_gap(shown, small) < 4


def test_a_small_picture_keeps_its_size() -> None:
    pixels = np.full((20, 32, 3), (250, 120, 10), np.uint8)
    shown = unpack(encode_thumbnail(pixels, 160))
    assert shown.shape == (20, 32, 3)
    assert measure_gap(shown, pixels) < 2


@pytest.mark.parametrize("kind", ["crop", "augmix"])
def test_a_redrawn_view_is_the_view_of_the_run(tiny: tpt.Clip, kind: str) -> None:
    views = Views(tiny, n=8, kind=kind, seed=3)
    picture = load_picture(str(CAT))
    run = views([str(CAT)])[0]  # (8, 3, 64, 64)
    redrawn = redraw_views(picture, [5, 0, 2], views)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (tiny.preprocess.mean, tiny.preprocess.std))
    for place, view in zip([5, 0, 2], redrawn, strict=True):
        grey = (run[place] * std + mean) * 255
        torch.testing.assert_close(
            torch.from_numpy(view).permute(2, 0, 1).float(), grey, atol=0.51, rtol=0
        )


def test_kept_views_are_shown_in_the_order_of_their_confidence(tiny: tpt.Clip) -> None:
    views = Views(tiny, n=8, seed=3)
    item = show(str(CAT), make_views=views)
    wanted = redraw_views(load_picture(str(CAT)), [5, 0, 2], views)
    shown = [unpack(jpeg) for jpeg in item.kept_pictures]
    gaps = [[measure_gap(one, other) for other in wanted] for one in shown]
    assert [row.index(min(row)) for row in gaps] == [0, 1, 2]
    assert max(gaps[i][i] for i in range(3)) < 5


def test_at_most_six_kept_views_are_shown(tiny: tpt.Clip) -> None:
    row = make_row("cat.jpg", label=0, before=1, after=0)
    row["methods"]["tpt"] |= {"kept": list(range(8)), "kept_entropy": [0.1] * 8}
    samples = {"cat.jpg": Sample("cat.jpg", 0, str(CAT))}
    (item,) = draw_items(draw([row]), samples, Views(tiny, n=8))
    assert len(item.kept) == 8
    assert len(item.kept_pictures) == 6


def test_a_corrupted_set_is_shown_corrupted(tiny: tpt.Clip) -> None:
    def worsen(pixels: npt.NDArray[np.uint8], key: str) -> npt.NDArray[np.uint8]:
        return corrupt(pixels, "fog", 5, seed=7, key=key)

    plain = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    foggy = corrupt(plain, "fog", 5, seed=7, key="0")
    views = Views(tiny, n=8, seed=3)
    item = show(ArrayRow(plain[None], 0), key="0", make_views=views, change=worsen)
    assert item.picture == encode_thumbnail(foggy, 160)
    seen = redraw_views(replace(load_picture(plain), pixels=foggy), [5, 0, 2], views)
    assert item.kept_pictures == tuple(encode_thumbnail(view, 64) for view in seen)


def assert_only_words_are_left(item: GalleryItem) -> None:
    assert item.picture is None
    assert item.kept_pictures == ()
    assert item.after[0] == Answer("ant", 0.75)
    assert item.kept[0] == (5, 0.1)


def test_a_vanished_picture_leaves_what_the_run_said(tmp_path: Path, tiny: tpt.Clip) -> None:
    item = show(str(tmp_path / "gone.png"), make_views=Views(tiny, n=8))
    assert_only_words_are_left(item)


def test_a_broken_picture_leaves_what_the_run_said(tmp_path: Path, tiny: tpt.Clip) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(CAT.read_bytes()[:700])
    assert_only_words_are_left(show(str(broken), make_views=Views(tiny, n=8)))


def test_a_vanished_archive_leaves_what_the_run_said(tmp_path: Path) -> None:
    assert_only_words_are_left(show(TarMember(str(tmp_path / "gone.tar"), 512, 9, "cat.jpg")))


def test_an_array_that_became_shorter_leaves_what_the_run_said() -> None:
    assert_only_words_are_left(show(ArrayRow(np.zeros((2, 8, 8, 3), np.uint8), 2)))


def test_a_picture_that_left_its_set_leaves_what_the_run_said() -> None:
    candidates = draw([make_row("cat.jpg", label=0, before=1, after=0)])
    samples: dict[str, Sample] = {}
    (item,) = draw_items(candidates, samples)
    assert_only_words_are_left(item)


def test_a_picture_too_long_for_its_corruption_leaves_what_the_run_said() -> None:
    def worsen(pixels: npt.NDArray[np.uint8], key: str) -> npt.NDArray[np.uint8]:
        return corrupt(pixels, "jpeg_compression", 3, key=key)

    item = show(ArrayRow(np.zeros((1, 1, 65_501, 3), np.uint8), 0), change=worsen)
    assert_only_words_are_left(item)
