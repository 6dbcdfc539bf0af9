"""The published protocols: which sets become columns, and what is averaged over what."""

from __future__ import annotations

from typing import Any

import pytest

from tpt.errors import OutputError
from tpt.evaluate.protocols import (
    base_to_new,
    domain_generalisation,
    find_parent,
    published_column,
)

WHOLE = {"imagenet": 50_000, "imagenet-a": 7_500, "imagenet-r": 30_000}


def shift_set(name: str, **facts: Any) -> dict[str, Any]:
    entry = {"name": name, "path": name, "layout": "one folder a class", "role": "shift"}
    rest = {"classes": ["dog", "horse"], "images": 10, "corruption": None, "severity": None}
    return {**entry, **rest, "part": None, **facts}


def make_results(
    sets: list[dict[str, Any]], accuracies: dict[str, list[float | None]], **settings: str
) -> dict[str, Any]:
    """Results of methods "zero-shot", "tpt", ... with one accuracy a set each."""
    return {
        "settings": settings,
        "methods": [{"name": method} for method in accuracies],
        "sets": sets,
        "results": [
            {"dataset": entry["name"], "method": method, "metrics": {"acc1": value}}
            for method, values in accuracies.items()
            for entry, value in zip(sets, values, strict=True)
        ],
    }


def imagenet(name: str, layout: str, classes: int, **facts: Any) -> dict[str, Any]:
    names = [f"class {i}" for i in range(classes)]
    given = {"layout": layout, "classes": names, "images": WHOLE.get(name, 60_000), **facts}
    return shift_set(name, **given)


PLAIN = "ImageNet or ImageNet-Sketch by WordNet id"
IMAGENET = imagenet("imagenet", PLAIN, 1000, role="clean")
A = imagenet("imagenet-a", "ImageNet-A by WordNet id", 200)
R = imagenet("imagenet-r", "ImageNet-R by WordNet id", 200)
V2 = imagenet("v2", "ImageNet-V2 by number", 1000)
SKETCH = imagenet("imagenet-sketch", PLAIN, 1000)


# --- domain generalisation ---


def test_the_source_comes_first_and_only_the_ood_average_leaves_it_out():
    sets = [shift_set("sketch"), shift_set("photo", role="clean"), shift_set("cartoon")]
    table = domain_generalisation(make_results(sets, {"tpt": [0.3, 0.9, 0.6]}), "photo")
    assert [column["title"] for column in table["columns"]] == ["photo", "sketch", "cartoon"]
    assert table["rows"][0]["accuracy"] == [0.9, 0.3, 0.6]
    assert table["rows"][0]["average"] == pytest.approx(0.6)
    assert table["rows"][0]["ood_average"] == pytest.approx(0.45)


def test_without_a_source_there_is_only_the_average_of_the_shifts():
    sets = [shift_set("sketch"), shift_set("cartoon")]
    row = domain_generalisation(make_results(sets, {"tpt": [0.3, 0.6]}))["rows"][0]
    assert row["average"] is None
    assert row["ood_average"] == pytest.approx(0.45)


def test_a_missing_accuracy_leaves_the_averages_open():
    sets = [shift_set("photo", role="clean"), shift_set("a"), shift_set("b")]
    table = domain_generalisation(make_results(sets, {"tpt": [0.9, None, 0.5]}), "photo")
    row = table["rows"][0]
    assert (row["accuracy"], row["average"], row["ood_average"]) == ([0.9, None, 0.5], None, None)


def test_one_set_alone_makes_no_table():
    assert domain_generalisation(make_results([shift_set("sketch")], {"tpt": [0.3]})) is None


def test_clean_sets_of_the_same_classes_and_parts_are_no_columns():
    sets = [
        shift_set("photo", role="clean"),
        shift_set("photo (2 classes of a)", role="clean, same classes"),
        shift_set("a"),
        shift_set("b (base)", part="base"),
    ]
    table = domain_generalisation(make_results(sets, {"tpt": [0.9, 0.8, 0.5, 0.4]}), "photo")
    assert [column["title"] for column in table["columns"]] == ["photo", "a"]


def test_a_tree_of_corruptions_is_one_column_averaged_by_corruption_first():
    tree = [("fog", 1), ("fog", 5), ("snow", 5)]
    sets = [shift_set("c", role="clean")]
    sets += [shift_set(f"c/{kind}/{s}", corruption=kind, severity=s) for kind, s in tree]
    table = domain_generalisation(make_results(sets, {"tpt": [0.9, 0.8, 0.4, 0.2]}), "c")
    assert [column["title"] for column in table["columns"]] == ["c", "c, mean of 2 corruptions"]
    # fog (0.8 + 0.4) / 2 = 0.6 and snow 0.2 make 0.4
    assert table["rows"][0]["accuracy"] == pytest.approx([0.9, 0.4])


@pytest.mark.parametrize(
    ("tree", "title"),
    [
        ([("fog", 3)], "c/fog/3"),
        ([("fog", 3), ("fog", 5)], "c, fog, mean of 2 severities"),
        ([("fog", 3), ("snow", 3)], "c, mean of 2 corruptions"),
    ],
)
def test_a_column_of_corruptions_says_what_it_is_a_mean_of(tree, title):
    sets = [shift_set("c", role="clean")]
    sets += [shift_set(f"c/{kind}/{s}", corruption=kind, severity=s) for kind, s in tree]
    table = domain_generalisation(make_results(sets, {"tpt": [0.5] * len(sets)}), "c")
    assert table["columns"][1]["title"] == title


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("imagenet-c/fog/3", "imagenet-c"),
        ("cifar10+fog:3", "cifar10"),
        ("pacs/photo/fog/3", "pacs/photo"),
        ("foggy/fog/3", "foggy"),
        ("fog/3", "fog"),
        ("mist", "mist"),
    ],
)
def test_what_stands_before_the_corruption_is_the_parent(name, parent):
    assert find_parent({"name": name, "corruption": "fog"}) == parent


@pytest.mark.parametrize(
    ("name", "parent"), [("mine/3", "mine"), ("fog/3", "fog"), ("seafog/3", "seafog")]
)
def test_the_severities_of_one_corruption_are_one_column(name, parent):
    sets = [
        shift_set(name.replace("3", str(level)), corruption="fog", severity=level)
        for level in (3, 5)
    ]
    assert {find_parent(entry) for entry in sets} == {parent}
    table = domain_generalisation(
        make_results([shift_set("photo", role="clean"), *sets], {"tpt": [0.9, 0.5, 0.4]}), "photo"
    )
    assert [column["title"] for column in table["columns"]] == [
        *("photo", f"{parent}, fog, mean of 2 severities")
    ]


def test_sets_of_other_classes_than_the_source_are_told():
    sets = [shift_set("photo", role="clean"), shift_set("a"), shift_set("b", classes=["car"])]
    table = domain_generalisation(make_results(sets, {"tpt": [0.9, 0.5, 0.4]}), "photo")
    assert table["notes"] == ["With classes that photo lacks, but averaged all the same: b."]


def test_an_unknown_source_is_a_sentence():
    results = make_results([shift_set("photo"), shift_set("a")], {"tpt": [0.9, 0.5]})
    with pytest.raises(OutputError, match=r'no set "phoot" .*Did you mean "photo"'):
        domain_generalisation(results, "phoot")


# --- published columns and rows ---


@pytest.mark.parametrize(
    ("entry", "column"),
    [
        (IMAGENET, "IN"),
        (A, "A"),
        (R, "R"),
        (V2, "V2"),
        (SKETCH, "Sketch"),
        (imagenet("imagenetv2-threshold0.7", "ImageNet-V2 by number", 1000), None),
        (imagenet("imagenetv2-top-images", "ImageNet-V2 by number", 1000), None),
        (imagenet("ten", PLAIN, 10), None),
        (imagenet("imagenet/fog/3", PLAIN, 1000, corruption="fog", severity=3), None),
        (imagenet("imagenet (base)", PLAIN, 1000, part="base"), None),
        (shift_set("pacs/sketch"), None),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_a_set_fills_a_published_column_only_where_it_is_that_set(entry, column):
    assert published_column(entry) == column


def published(sets: list[dict[str, Any]], source: str | None, **settings: str) -> Any:
    results = make_results(sets, {"tpt": [0.5] * len(sets)}, **settings)
    return domain_generalisation(results, source)["published"]


def test_published_rows_stand_beside_a_run_of_that_model_on_those_sets():
    found = published([IMAGENET, A, R], "imagenet", model="ViT-B-16", pretrained="openai")
    assert (found["beside"], found["columns"]) == (True, ["IN", "A", "R"])
    row = next(row for row in found["rows"] if row["method"].startswith("TPT, published"))
    assert row["accuracy"] == [0.6898, 0.5477, 0.7706]
    assert row["average"] == pytest.approx((0.6898 + 0.5477 + 0.7706) / 3)
    assert row["ood_average"] == pytest.approx((0.5477 + 0.7706) / 2)


def test_the_ood_average_of_all_four_shifts_is_the_printed_one():
    sets = [IMAGENET, SKETCH, A, R, V2]
    found = published(sets, "imagenet", model="ViT-B-16", pretrained="openai")
    row = next(row for row in found["rows"] if row["method"].startswith("TPT, published"))
    assert row["ood_average"] == 0.6081  # the four rounded figures alone give 0.60805


def test_published_rows_of_another_model_stand_apart_in_their_own_columns():
    found = published([A, shift_set("pacs/sketch")], None, model="tpt-tiny", pretrained="embedded")
    assert (found["beside"], found["columns"]) == (False, ["IN", "A", "V2", "R", "Sketch"])
    assert {row["model"] for row in found["rows"]} == {"ViT-B-16"}


def test_a_run_of_the_model_with_other_sets_has_them_apart_too():
    sets = [A, shift_set("pacs/sketch")]
    assert not published(sets, None, model="RN50", pretrained="openai")["beside"]


def test_a_run_without_any_of_the_sets_has_no_published_rows():
    sets = [shift_set("a"), shift_set("b")]
    assert published(sets, None, model="ViT-B-16", pretrained="openai") is None


def test_part_of_a_published_set_is_told():
    small = imagenet("imagenet-a", "ImageNet-A by WordNet id", 200, images=1000)
    results = make_results([IMAGENET, small], {"tpt": [0.5, 0.5]})
    (note,) = domain_generalisation(results, "imagenet")["notes"]
    assert note.startswith("imagenet-a: 1,000 of 7,500 pictures")


# --- base to new ---


def test_base_and_new_of_one_set_make_a_row_a_method_with_the_harmonic_mean():
    sets = [shift_set("pets (base)", part="base"), shift_set("pets (new)", part="new")]
    table = base_to_new(make_results(sets, {"tpt": [0.9, 0.6], "zero": [0.8, None]}))
    assert table["parents"] == ["pets"]
    assert table["rows"][0]["harmonic_mean"] == pytest.approx(0.72)  # 2 * 0.54 / 1.5
    assert table["rows"][1]["harmonic_mean"] is None
    assert table["average"] == []
    assert table["published"][0]["method"].startswith("CLIP, published")


def test_over_several_sets_the_harmonic_mean_is_of_the_means():
    sets = [
        shift_set(f"{parent} ({part})", part=part)
        for parent in ("pets", "cars")
        for part in ("base", "new")
    ]
    (row,) = base_to_new(make_results(sets, {"tpt": [1.0, 0.2, 0.8, 0.8]}))["average"]
    # 2 * 0.9 * 0.5 / 1.4; the mean of the harmonic means would be 0.567
    assert (row["base"], row["new"]) == pytest.approx((0.9, 0.5))
    assert row["harmonic_mean"] == pytest.approx(0.642857, abs=1e-6)


@pytest.mark.parametrize("form", ["database ({})", "database/{}", "database {}"])
def test_the_parent_keeps_its_own_name(form):
    sets = [shift_set(form.format(part), part=part) for part in ("base", "new")]
    assert base_to_new(make_results(sets, {"tpt": [0.9, 0.6]}))["parents"] == ["database"]


def test_half_a_split_makes_no_table():
    sets = [shift_set("pets (base)", part="base"), shift_set("cars")]
    assert base_to_new(make_results(sets, {"tpt": [0.9, 0.6]})) is None
