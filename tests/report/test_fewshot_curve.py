"""The curve says the mean and spread over seeds, as numbers and as a picture."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tpt.errors import OutputError
from tpt.report.fewshot_curve import Point, draw_curve, summarise, write_curve

HAND = Point('zero-shot, "a photo of a {}."', None, None, 0.5)
POINTS = [
    Point("coop", 4, 1, 0.7),
    Point("linear probe", 4, 1, 0.3),
    Point("coop", None, 1, 0.95),
    Point("coop", 1, 1, 0.5),
    Point("coop", 4, 2, 0.9),
    Point("coop", 4, 3, 0.8),
    HAND,
]


def test_a_method_is_summed_up_by_shots_with_all_last() -> None:
    rows = summarise(POINTS, "coop")
    assert [row[0] for row in rows] == [1, 4, None]
    assert rows[0] == (1, 0.5, 0.0, 1)
    assert rows[1] == (4, pytest.approx(0.8), pytest.approx((0.02 / 3) ** 0.5), 3)
    assert summarise(POINTS, "linear probe") == [(4, 0.3, 0.0, 1)]
    assert summarise(POINTS, "kgcoop") == []


def test_the_csv_file_holds_every_point_as_it_came(tmp_path: Path) -> None:
    write_curve(POINTS, tmp_path / "c.csv")
    with open(tmp_path / "c.csv", newline="") as file:
        head, *rows = list(csv.reader(file))
    assert head == ["method", "shots", "seed", "accuracy"]
    assert rows[0] == ["coop", "4", "1", "0.700000"]
    assert rows[2] == ["coop", "all", "1", "0.950000"]
    assert rows[-1] == ['zero-shot, "a photo of a {}."', "", "", "0.500000"]
    assert len(rows) == len(POINTS)


def is_png(path: Path) -> bool:
    with Image.open(path) as picture:
        picture.load()
        return picture.format == "PNG"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, to look into."""
    from matplotlib.figure import Figure

    drawn: list[Any] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **options: Any) -> None:
        drawn.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return drawn


def test_the_picture_has_a_line_a_method_and_a_dashed_one_for_the_hand_crafted_prompt(
    tmp_path: Path, figures: list[Any]
) -> None:
    draw_curve(POINTS, "pets, tiny", tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert len(set(picture.convert("L").tobytes())) > 50
    (axes,) = figures[0].axes
    assert axes.get_title() == "pets, tiny"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4", "all"]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines[HAND.method].get_ydata()) == [50, 50]
    assert lines[HAND.method].get_linestyle() == "--"
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert set(labels) == {"coop", "linear probe", HAND.method}
    coop, probe = axes.containers
    assert list(coop[0].get_xdata()) == [0, 1, 2]
    assert list(coop[0].get_ydata()) == pytest.approx([50, 80, 95])
    assert list(probe[0].get_xdata()) == [1]  # at the place of 4 shots


def test_many_methods_stand_side_by_side_above_a_floor(tmp_path: Path, figures: list[Any]) -> None:
    many = [Point(f"method {n}", shots, 1, 0.9 - n / 10) for n in range(6) for shots in (1, 4)]
    draw_curve([*many, HAND], "pets, tiny", tmp_path / "c.png", floor=0.6)
    (axes,) = figures[0].axes
    places = [line[0].get_xdata()[0] for line in axes.containers]
    assert len(set(places)) == 6
    assert sum(places) == pytest.approx(0)
    assert len({line[0].get_marker() for line in axes.containers}) == 6
    assert axes.get_ylim()[0] == 60
    draw_curve(POINTS, "pets, tiny", tmp_path / "c.png", floor=0.1)
    assert figures[1].axes[0].get_ylim()[0] > 20  # nothing is below 10


def test_names_in_any_script_and_with_any_sign_can_be_drawn(
    tmp_path: Path, figures: list[Any]
) -> None:
    points = [POINTS[0], Point(r"zero-shot, a $\foo$ {} for $5_", None, None, 0.5)]
    draw_curve(points, r"猫 $\bar$, tiny", tmp_path / "c.png")
    assert figures[0].axes[0].get_title() == r"猫 $\bar$, tiny"
    assert is_png(tmp_path / "c.png")


@pytest.mark.parametrize(
    "points", [[POINTS[0]], [HAND], [Point("coop", None, 1, 0.0), Point("coop", None, 2, 1.0)]]
)
def test_a_curve_of_few_points_can_be_drawn(tmp_path: Path, points: list[Point]) -> None:
    draw_curve(points, "pets", tmp_path / "c.png")
    assert is_png(tmp_path / "c.png")


def test_without_matplotlib_the_person_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OutputError) as caught:
        draw_curve(POINTS, "pets", tmp_path / "c.png")
    assert "needs matplotlib" in str(caught.value)
    assert "pip install 'tpt-runtime[train]'" in str(caught.value)
    assert str(caught.value).endswith("its numbers are in the CSV file.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [write_curve, lambda p, path: draw_curve(p, "pets", path)])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, make: Any) -> None:
    with pytest.raises(OutputError, match=r"The curve could not be saved to .*No such file"):
        make(POINTS, tmp_path / "missing" / "c")
