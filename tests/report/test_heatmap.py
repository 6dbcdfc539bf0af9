"""The heat map of a transfer matrix: what its colours and frames say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tpt.errors import OutputError
from tpt.report.heatmap import Panel, draw_heatmap, find_differences, pick_ink

WORDS = '"a photo of a {}."'


def panel(
    accuracy: list[list[float | None]],
    base: tuple[float | None, ...] = (0.5, 0.6),
    rows: tuple[str, ...] = ("photo", "sketch"),
    columns: tuple[str, ...] = ("photo", "sketch"),
    title: str = "",
) -> Panel:
    return Panel(title, WORDS, base, rows, columns, accuracy)


def draw(path: Path, *panels: Panel) -> np.ndarray:
    draw_heatmap(panels, "Transfer, tiny: top-1, %", path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def share_of(image: np.ndarray, channel: int, other: int) -> float:
    """How much of the picture is much stronger in one channel than in another."""
    left = image[:, : int(image.shape[1] * 0.8)]  # without the key, which has every colour
    return float((left[..., channel] - left[..., other] > 60).mean())


def test_a_difference_is_that_to_the_words_on_the_same_set() -> None:
    found = find_differences(panel([[0.75, 0.5], [0.5, None]]))
    assert found == [[0.25, pytest.approx(-0.1)], [0.0, None]]


def test_better_than_the_words_is_blue_and_worse_is_red(tmp_path: Path) -> None:
    better = draw(tmp_path / "b.png", panel([[0.8, 0.9], [0.8, 0.9]]))
    worse = draw(tmp_path / "w.png", panel([[0.2, 0.3], [0.2, 0.3]]))
    red, blue = 0, 2
    assert share_of(better, blue, red) > 0.2
    assert share_of(better, red, blue) < 0.001
    assert share_of(worse, red, blue) > 0.2
    assert share_of(worse, blue, red) < 0.001


def test_a_difference_within_the_noise_of_small_sets_stays_pale(tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", panel([[0.505, 0.605], [0.495, 0.595]]))
    assert share_of(image, 2, 0) < 0.001
    assert share_of(image, 0, 2) < 0.001


def test_cells_of_a_prompts_own_set_are_framed(tmp_path: Path) -> None:
    cells = [[0.5, 0.6], [0.5, 0.6]]
    own = draw(tmp_path / "own.png", panel(cells))
    none = draw(tmp_path / "none.png", panel(cells, rows=("Photo", "Sketch")))

    def longest_lines(image: np.ndarray) -> int:
        """Rows of the picture of which a twelfth or more, but not a half, is black."""
        black = (image.sum(axis=2) < 90).mean(axis=1)
        return int(((black > 0.12) & (black < 0.5)).sum())

    assert longest_lines(own) > longest_lines(none) + 10


def test_every_method_has_a_panel_of_the_same_size(tmp_path: Path) -> None:
    one = panel([[0.5, 0.6], [0.5, 0.6]], title="zero-shot")
    single = draw(tmp_path / "1.png", one)
    double = draw(tmp_path / "2.png", one, one)
    assert double.shape[1] == single.shape[1]
    assert 1.6 < double.shape[0] / single.shape[0] < 2.1


@pytest.mark.parametrize("name", ["$x^$", "a" * 300, "写真", "line\nbreak", "_"])
def test_any_name_is_drawn_as_it_is(tmp_path: Path, name: str) -> None:
    made = panel([[0.5, None], [0.4, 0.6]], (0.5, None), rows=(name, "b"), columns=(name, "b"))
    image = draw(tmp_path / "a.png", made)
    assert image.shape[1] < 2000  # a long name does not push the cells out of sight


def test_many_sets_get_a_larger_picture_and_not_smaller_letters(tmp_path: Path) -> None:
    names = tuple(f"set {number}" for number in range(12))
    many = panel([[0.5] * 12] * 12, (0.5,) * 12, names, names)
    image = draw(tmp_path / "a.png", many)
    assert image.shape[1] / 12 > 200  # pixels a cell
    assert image.shape[0] / 13 > 120


def test_names_too_long_for_their_cells_are_turned(tmp_path: Path) -> None:
    cells = [[0.5, 0.6], [0.5, 0.6]]
    flat = draw(tmp_path / "a.png", panel(cells, columns=("photo", "sketch")))
    long = ("a rather long name", "another long name")
    turned = draw(tmp_path / "b.png", panel(cells, columns=long))

    def height_of_head(image: np.ndarray) -> int:
        """Pixels from the top to the rule below the words, the longest dark line."""
        return int((image.sum(axis=2) < 90).mean(axis=1).argmax())

    assert height_of_head(turned) > height_of_head(flat) + 40


@pytest.mark.parametrize(
    ("colour", "ink"),
    [("white", "black"), ("black", "white"), ("#b2182b", "white"), ("#fddbc7", "black")],
)
def test_ink_is_whichever_stands_out_more(colour: str, ink: str) -> None:
    assert pick_ink(colour) == ink


def test_without_matplotlib_the_error_says_how_to_get_it_and_where_the_numbers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OutputError, match=r"pip install 'tpt-runtime\[eval\]'.*transfer\.json\.$"):
        draw_heatmap([panel([[0.5, 0.6], [0.5, 0.6]])], "t", tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
