"""The report page as text: its numbers, its words, and names that hold anything."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from report.report_sample import sample_confusions, sample_gallery, with_pictures
from report.sample import sample_results

from tpt.evaluate.gallery import Answer
from tpt.evaluate.protocols import base_to_new, domain_generalisation
from tpt.report.page import _render, render_report
from tpt.report.page._charts import make_axis
from tpt.report.page._facts import judge
from tpt.report.page._reliability_section import pool_bins
from tpt.report.page._text import clean_text, write_fixed, write_p, write_points

BLOCKS = {"td", "th", "p", "h3", "h4", "li", "small"}
VOID = {"meta", "img", "input", "br", "hr", "link"}
ODD = "a<b>&\"c' </script><!-- \u05d0\u05d1 \udcff\x07"


class Page(HTMLParser):
    """The page's elements, with the text of each; complains where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.faults: list[str] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        self.faults += [f"{self.elements[place][0]} is never closed" for place in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.faults.append(f"{tag} has an attribute twice: {names}")
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        opened = self.elements[self._open.pop()][0] if self._open else None
        if opened != tag:
            self.faults.append(f"</{tag}> closes {opened} at {self.getpos()}")
        if tag in BLOCKS:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for place in self._open:
            self.elements[place][2].append(data)

    def find(self, tag: str | None = None, **wanted: str) -> list[tuple[dict[str, str], str]]:
        """(attributes, text) of the elements that have all of `wanted`; `_` stands for `-`."""
        asked = {name.replace("_", "-").strip("-"): value for name, value in wanted.items()}
        return [
            (attributes, " ".join("".join(texts).split()))
            for name, attributes, texts in self.elements
            if tag in (None, name) and asked.items() <= attributes.items()
        ]

    def text(self, **wanted: str) -> str:
        return self.find(None, **wanted)[0][1]

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes, _ in self.elements if "id" in attributes]


def make_page(results: dict[str, Any] | None = None, gallery: Any = None) -> Page:
    chosen = sample_gallery() if gallery is None else gallery
    return Page(
        render_report(with_pictures(results or sample_results(), chosen, sample_confusions()))
    )


@pytest.fixture(scope="module")
def page() -> Page:
    return make_page()


def cut_methods(results: dict[str, Any], *names: str) -> dict[str, Any]:
    results["methods"] = [entry for entry in results["methods"] if entry["name"] in names]
    results["results"] = [entry for entry in results["results"] if entry["method"] in names]
    return results


def make_many(count: int = 15) -> dict[str, Any]:
    """`count` corruptions of five severities, with a clean set."""
    results = sample_results()
    entry = next(e for e in results["sets"] if e["corruption"])
    measured = [e for e in results["results"] if e["dataset"] == entry["name"]]
    results["sets"], results["results"] = [], []
    for number in range(count):
        for severity in range(1, 6):
            kind = f"kind{number}"
            name = f"cifar10-c/{kind}/{severity}"
            facts = {"name": name, "corruption": kind, "severity": severity, "clean": "cifar10"}
            results["sets"].append({**entry, **facts})
            for result in measured:
                made = {**copy.deepcopy(result), "dataset": name}
                made["metrics"]["acc1"] = 0.9 - 0.1 * severity - 0.01 * (number % 2)
                made["clean"] = {"dataset": "cifar10", "acc1": 0.9, "gap": 0.1}
                made["clean"]["effective_robustness"] = 0.0
                results["results"].append(made)
    return results


# --- form ---


def test_tags_close_in_order_and_every_id_is_there_once(page: Page) -> None:
    assert page.faults == []
    assert len(page.ids()) == len(set(page.ids()))


def test_links_and_labels_lead_to_what_is_there(page: Page) -> None:
    ids = set(page.ids())
    for _, attributes, _ in page.elements:
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
        for name in ("for", "data-for", "aria-labelledby"):
            assert attributes.get(name, "main") in ids


def test_the_page_refers_to_nothing_outside_itself(page: Page) -> None:
    for tag, attributes, texts in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
        assert "url(" not in attributes.get("style", "")
        if tag in ("style", "script"):
            assert "url(" not in "".join(texts)
            assert "@import" not in "".join(texts)
    policy = page.find("meta", http_equiv="Content-Security-Policy")[0][0]["content"]
    assert "default-src 'none'" in policy


def test_every_picture_and_chart_says_what_it_shows(page: Page) -> None:
    for tag, attributes, _ in page.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            hidden = attributes.get("aria-hidden") == "true"
            assert hidden or (attributes["role"] == "img" and attributes["aria-label"])


def test_every_table_has_a_caption_and_heads_with_a_scope(page: Page) -> None:
    tables = page.find("table")
    assert len(tables) == len(page.find("caption"))
    assert all("scope" in attributes for attributes, _ in page.find("th"))


def read_colours(name: str) -> tuple[str, str]:
    style = resources.files("tpt.report.page").joinpath("report.css").read_text()
    found = re.search(rf"--{name}: light-dark\((#\w+), (#\w+)\)", style)
    assert found is not None
    return found[1], found[2]


def luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("ground", ["page", "raised", "soft"])
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_stand_out_in_both_themes(ground: str, theme: int) -> None:
    under = read_colours(ground)[theme]
    for text in ("ink", "quiet", "link", "better", "worse"):
        assert contrast(read_colours(text)[theme], under) >= 4.5, text
    for mark in range(7):  # WCAG 2.2, 1.4.11: what is no text needs 3
        assert contrast(read_colours(f"m{mark}")[theme], under) >= 3, mark


# --- numbers ---


def test_every_metric_of_the_results_stands_in_its_cell_in_full(page: Page) -> None:
    for entry in sample_results()["results"]:
        for metric, value in entry["metrics"].items():
            cells = page.find(
                "td", data_dataset=entry["dataset"], data_method=entry["method"], data_metric=metric
            )
            if value is None:
                assert all("data-value" not in attributes for attributes, _ in cells)
                continue
            attributes, text = cells[0]
            assert float(attributes["data-value"]) == value
            low, high = entry["intervals"][metric]
            assert (float(attributes["data-low"]), float(attributes["data-high"])) == (low, high)
            digits, factor = (3, 1) if metric in ("nll", "brier") else (1, 100)
            assert text.startswith(f"{value * factor:.{digits}f}")
            assert f"{high * factor:.{digits}f}" in text


def test_comparisons_with_the_baseline_stand_in_their_cells(page: Page) -> None:
    for entry in sample_results()["results"]:
        for metric in ("difference", "mcnemar_p", "put_right", "put_wrong"):
            attributes, text = page.find(
                "td", data_dataset=entry["dataset"], data_method=entry["method"], data_metric=metric
            )[0]
            if entry["versus_baseline"] is None:
                assert (text, "data-value" in attributes) == ("\N{EN DASH}", False)
            else:
                assert float(attributes["data-value"]) == entry["versus_baseline"][metric]


def test_gaps_and_effective_robustness_stand_in_their_cells(page: Page) -> None:
    for entry in sample_results()["results"]:
        for metric in ("gap", "effective_robustness"):
            cells = page.find(
                "td", data_dataset=entry["dataset"], data_method=entry["method"], data_metric=metric
            )
            values = [float(attributes["data-value"]) for attributes, _ in cells]
            assert values == ([entry["clean"][metric]] if entry["clean"] else [])


def test_the_results_are_inside_the_page_as_they_are(page: Page) -> None:
    assert json.loads(page.text(id="results")) == sample_results()


def test_marks_of_the_chart_say_their_numbers_and_intervals(page: Page) -> None:
    entry = next(e for e in sample_results()["results"] if e["method"] == "tpt")
    low, high = (f"{end * 100:.1f}" for end in entry["intervals"]["acc1"])
    said = f"tpt {entry['metrics']['acc1'] * 100:.1f} % ({low} to {high})"
    labels = [attributes.get("aria-label", "") for attributes, _ in page.find("svg")]
    assert any(label.startswith(f"{entry['dataset']}, top-1") and said in label for label in labels)


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0004, "0.0"), (-0.012, "\N{MINUS SIGN}1.2"), (0.5, "+50.0")]
)
def test_differences_have_a_sign_but_zero_has_none(value: float, text: str) -> None:
    assert write_points(value) == text


def test_a_number_that_is_missing_or_not_finite_is_a_dash() -> None:
    assert write_fixed(None, 1) == write_fixed(float("nan"), 1) == "\N{EN DASH}"


def test_a_small_p_value_is_told_as_small_and_not_as_zero() -> None:
    assert (write_p(0.0002), write_p(0.25)) == ("<0.001", "0.250")
    assert write_p(0.0498) == "<0.05"  # and not 0.050, which would not be significant


def test_an_axis_has_round_ticks_that_hold_all_values_within_its_bounds() -> None:
    axis = make_axis([0.213, 0.987], bounds=(0.0, 1.0))
    assert axis.low <= 0.213
    assert axis.high == pytest.approx(1.0)
    assert [round(tick, 6) for tick in axis.ticks] == [0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.mark.parametrize("values", [[], [0.5], [1.0, 1.0], [0.0], [float("nan")]])
def test_an_axis_of_one_value_or_none_still_has_a_length(values: list[float]) -> None:
    axis = make_axis(values, bounds=(0.0, 1.0))
    assert axis.high > axis.low
    assert all(axis.low <= value <= axis.high for value in values if value == value)


# --- words ---


def set_versus(results: dict[str, Any], difference: float, p: float) -> None:
    """Make the only method's difference on pacs/sketch, and its p, what is said."""
    cut_methods(results, "zero-shot", "tpt")
    base, other = (e for e in results["results"] if e["dataset"] == "pacs/sketch")
    other["metrics"]["acc1"] = base["metrics"]["acc1"] + difference
    other["versus_baseline"] |= {"difference": difference, "mcnemar_p": p}


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (0.05, 0.049, "Significantly better than zero-shot."),
        (0.05, 0.05, "No significant difference to zero-shot."),
        (-0.05, 0.001, "No method is above zero-shot; the next is tpt: significantly"),
        (-0.05, 0.3, "No method is above zero-shot; the next is tpt: no significant"),
        (0.0, 1.0, "No method is above zero-shot; the next is tpt: no significant"),
    ],
)
def test_a_card_says_no_more_than_the_test_allows(difference: float, p: float, words: str) -> None:
    results = sample_results()
    set_versus(results, difference, p)
    card = next(text for _, text in make_page(results).find("article", class_="card"))
    assert words in card


def test_without_a_test_there_is_no_verdict() -> None:
    assert judge({"versus_baseline": {"difference": 0.1, "mcnemar_p": None}}) == "unknown"
    assert judge(None) == "unknown"


def test_images_that_could_not_be_read_are_told(page: Page) -> None:
    assert "1 of pacs/sketch (200 counted)" in page.text(class_="notice")


def test_a_method_that_votes_has_no_probabilities_and_no_diagram(page: Page) -> None:
    told = [
        text for _, text in page.find("td", class_="votes") if text == "votes, no probabilities"
    ]
    assert len(told) == len(sample_results()["sets"])
    labels = [attributes.get("aria-label", "") for attributes, _ in page.find("svg")]
    assert any("Reliability of tpt on" in label for label in labels)
    assert not any("Reliability of zero on" in label for label in labels)


def test_diagrams_name_the_error_that_was_measured(page: Page) -> None:
    for entry in sample_results()["results"]:
        for number in (15, 20):
            label = f"Reliability of {entry['method']} on {entry['dataset']}, {number} bins"
            labels = [attributes.get("aria-label", "") for attributes, _ in page.find("svg")]
            found = [text for text in labels if text.startswith(label)]
            error = entry["metrics"][f"ece{number}"]
            assert [text.endswith(f" {error * 100:.1f} %") for text in found] == (
                [] if error is None else [True]
            )


def test_changed_answers_are_listed_and_the_rest_is_counted(page: Page) -> None:
    table = page.text(id="table-changes")
    assert "dog horse dog put right 20" in table
    assert "horse horse dog put wrong 9" in table
    assert "house dog person still wrong 8" in table
    assert "2 rarer changes of 2 images" in page.text(id="changes")


def test_changes_that_were_only_counted_are_among_those_left_out() -> None:
    (cut,) = (x for x in sample_confusions() if len(x.changes) > 10)
    whole = with_pictures(sample_results(), (), [replace(cut, rarer=30, rarer_images=41)])
    made = render_report(whole)
    assert "32 rarer changes of 43 images" in Page(made).text(id="changes")


def test_the_gallery_shows_answers_entropies_and_kept_views(page: Page) -> None:
    items = page.find("article", data_kind="right")
    assert len(items) == 3
    text = items[0][1]
    assert "dog true class dog/1.png entropy 1.013 → 0.931 nats" in text
    assert "horse 51.2 %" in text
    assert "63.4 %" in text
    assert "0.10" in text
    assert "0.25" in text
    votes = page.find("article", data_method="zero")[0][1]
    assert "by votes, without probabilities" in votes
    assert "entropy 1.013 nats" in votes
    pictures = [a for a, _ in page.find("img") if a["alt"] == "The image dog/1.png, of dog"]
    assert pictures[0]["src"].startswith("data:image/jpeg;base64,/9j/")


def test_a_picture_that_is_gone_leaves_its_answers() -> None:
    item = replace(sample_gallery()[0], picture=None, kept_pictures=())
    page = make_page(gallery=[item])
    assert "no picture" in page.text(data_kind="right")
    assert page.find("img") == []
    assert "63.4 %" in page.text(data_kind="right")


def test_a_gallery_of_some_of_the_sets_says_so() -> None:
    item = sample_gallery()[0]
    others = [replace(item, dataset=entry["name"]) for entry in sample_results()["sets"]]
    assert "put wrong on 1 of the 4 sets" in make_page(gallery=[item]).text(id="gallery")
    some = make_page(gallery=others[:2]).text(id="gallery")
    assert "put wrong on 2 of the 4 sets" in some
    assert "that has any" not in make_page(gallery=others).text(id="gallery")


def test_an_empty_gallery_is_told() -> None:
    assert "No pictures were kept" in make_page(gallery=[]).text(id="gallery")


# --- other runs ---


def test_without_corruptions_there_is_no_part_on_severity() -> None:
    results = sample_results()
    results["sets"] = [entry for entry in results["sets"] if not entry["corruption"]]
    kept = {entry["name"] for entry in results["sets"]}
    results["results"] = [entry for entry in results["results"] if entry["dataset"] in kept]
    page = make_page(results)
    assert "severity" not in page.ids()
    assert page.find("a", href="#severity") == []


def test_with_one_method_nothing_is_compared() -> None:
    page = make_page(cut_methods(sample_results(), "zero-shot"), gallery=[])
    assert page.faults == []
    assert page.find("td", data_metric="difference") == []
    assert "table-scores" not in page.ids()
    assert "95 % interval" in page.text(class_="card").replace("\xa0", " ")


def test_a_run_without_any_result_says_so() -> None:
    results = {**sample_results(), "results": []}
    page = Page(render_report(results))
    assert page.faults == []
    assert "This run has no results" in page.text(id="overview")


def test_a_set_where_a_method_is_missing_leaves_its_row_out() -> None:
    results = sample_results()
    results["results"] = [
        e for e in results["results"] if (e["dataset"], e["method"]) != ("pacs/sketch", "tpt")
    ]
    page = make_page(results)
    assert page.find("td", data_dataset="pacs/sketch", data_method="tpt", data_metric="acc1") == []
    assert page.find("td", data_dataset="pacs/sketch", data_method="zero", data_metric="acc1")


def test_many_sets_fold_into_trees_and_the_page_says_so() -> None:
    text = render_report(make_many())
    page = Page(text)
    cards = [text for _, text in page.find("article", class_="card")]
    assert len(cards) == 1
    assert cards[0].startswith("cifar10-c mean of 75 sets 59.5 %")
    assert "are pooled here" in page.text(id="reliability")
    assert "cifar10-c, kind3 5 sets" in page.text(id="accuracy")
    assert len(page.find("td", data_metric="acc1", data_method="tpt")) == 2 * 75  # and the gaps'
    assert len(text) < 4e6


def test_severities_start_at_the_clean_accuracy_and_average_over_corruptions() -> None:
    page = make_page(make_many(2))
    labels = [
        attributes.get("aria-label", "") for attributes, _ in page.find("svg", class_="lines")
    ]
    assert "tpt 90.0, 79.5, 69.5, 59.5, 49.5, 39.5" in labels[0]  # the mean of both
    assert "tpt 90.0, 79.0, 69.0, 59.0, 49.0, 39.0" in labels[2]  # the second corruption


def test_bins_of_several_sets_are_pooled_by_their_images() -> None:
    one = {"count": [1, 0], "confidence": [0.4, None], "accuracy": [0.0, None]}
    two = {"count": [3, 2], "confidence": [0.2, 0.9], "accuracy": [1.0, 0.5]}
    pooled = pool_bins([one, two])
    assert pooled["count"] == [4, 2]
    assert pooled["confidence"] == [pytest.approx(0.25), 0.9]
    assert pooled["accuracy"] == [0.75, 0.5]


def test_outside_pictures_have_a_table_where_they_were_judged() -> None:
    results = sample_results()
    entry = {"dataset": "pacs/photo", "outside": ODD, "method": "tpt", "rule": "probability"}
    entry |= {"inside_images": 1200, "outside_images": 5, "auroc": 0.8125, "fpr95": 0.4}
    entry |= {"threshold": None, "false_alarms": None, "misses": None}
    other = entry | {"rule": "energy", "auroc": 0.75, "fpr95": 0.25}
    other |= {"threshold": 0.5, "false_alarms": 0.051, "misses": 0.3}
    assert make_page(results).find(id="outside") == []
    page = make_page({**results, "outside": [entry, other, entry | {"outside": "far"}]})
    assert page.faults == []
    assert page.find("a", href="#outside")
    rows = [text for _, text in page.find("tr") if "1,200 + 5" in text]
    assert rows[0].startswith("pacs/photo ")
    assert rows[0].endswith("tpt probability 1,200 + 5 81.2 40.0 \N{EN DASH} \N{EN DASH}")
    assert rows[1].endswith("energy 1,200 + 5 75.0 25.0 5.1 30.0")
    assert [text for _, text in page.find("strong") if text in ("81.2", "25.0", "75.0")] == [
        "81.2",
        "25.0",
    ]  # the last stands alone


def test_published_rows_are_marked_as_published() -> None:
    results = sample_results()
    results["sets"][0] |= {
        "layout": "ImageNet or ImageNet-Sketch by WordNet id",
        "classes": [str(i) for i in range(1000)],
    }
    results["protocols"] = {"domain_generalisation": domain_generalisation(results, "pacs/photo")}
    page = make_page(results)
    assert page.faults == []
    measured = page.text(id="protocol-domains")
    assert "published" not in measured
    assert "OOD average" in measured
    rows = page.find("tr", class_="published")
    assert len(rows) >= 10
    assert all("published" in text for _, text in rows)


def test_base_and_new_classes_have_a_table_a_set_and_one_of_papers() -> None:
    results = sample_results()
    for place, part in ((0, "base"), (1, "new")):
        name = f"pacs ({part})"
        for entry in results["results"]:
            if entry["dataset"] == results["sets"][place]["name"]:
                entry["dataset"] = name
        results["sets"][place] |= {"name": name, "part": part, "clean": None}
    results["protocols"] = {"base_to_new": base_to_new(results)}
    page = make_page(results, gallery=[])
    assert "tpt 81.7 42.0 55.5" in page.text(id="protocol-split-0")
    assert "CoCoOp" in page.text(id="protocol-split-published")


# --- names of any kind ---


def test_names_of_any_kind_are_shown_and_never_become_markup() -> None:
    results = sample_results()
    results["sets"][1] |= {"name": ODD, "path": ODD, "notes": [ODD], "classes": [ODD]}
    results["methods"][1]["name"] = ODD
    results["settings"]["model"] = results["environment"]["device"] = ODD
    for entry in results["results"]:
        entry["dataset"] = ODD if entry["dataset"] == "pacs/sketch" else entry["dataset"]
        entry["method"] = ODD if entry["method"] == "tpt" else entry["method"]
    answers = (Answer(ODD, 0.5),)
    item = replace(sample_gallery()[0], dataset=ODD, method=ODD, key=ODD, label=ODD, before=answers)
    changes = [replace(change, truth=ODD) for change in sample_confusions()[0].changes]
    confusion = replace(sample_confusions()[0], dataset=ODD, method=ODD, changes=tuple(changes))
    text = render_report(with_pictures(results, [item], [confusion]))
    text.encode("utf-8")
    page = Page(text)
    assert page.faults == []
    assert len(page.find("script")) == 2
    assert page.find("b") == [found for found in page.find("b") if "class" in found[0]]
    shown = clean_text(ODD)
    assert shown.endswith("\\udcff\\x07")
    assert page.find("td", data_dataset=shown, data_method=shown, data_metric="acc1")
    assert shown in page.text(data_kind="right")
    assert not set("<>&") & set(page.text(id="results"))
    assert json.loads(page.text(id="results"))["sets"][1]["name"] == ODD


# --- sections of one's own ---


def test_the_section_of_the_documentation_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "adding-a-report-section.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    module: dict[str, Any] = {}
    exec(code, module)
    before = make_page()
    monkeypatch.setattr(_render, "SECTIONS", (*_render.SECTIONS, module["COST"]))
    page = make_page()
    assert page.faults == []
    assert "tpt: " in page.text(id="cost")
    assert page.text(id="cost-title") == "What each method costs"
    assert page.find("a", href="#cost")
    assert not before.find("a", href="#cost")
    empty = replace(module["COST"], make=lambda results, templates: "")
    monkeypatch.setattr(_render, "SECTIONS", (empty,))
    assert not make_page().find("section", id="cost")
