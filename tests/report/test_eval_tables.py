"""The tables of an evaluation: what stands in which row, in Markdown, LaTeX and on the console."""

from __future__ import annotations

from typing import Any

from report.sample import sample_results

from tpt.evaluate.protocols import base_to_new, domain_generalisation
from tpt.report.console import console_table
from tpt.report.eval_tables import make_tables, set_tables


def get_rows(results: dict[str, Any], title: str) -> list[list[str]]:
    """The texts of the table whose title begins so."""
    table = next(table for table in make_tables(results) if table.title.startswith(title))
    assert len(table.header) == len(table.form)
    return [[cell.text for cell in row] for row in table.rows]


def find_entry(results: dict[str, Any], name: str, method: str) -> dict[str, Any]:
    return next(r for r in results["results"] if (r["dataset"], r["method"]) == (name, method))


def make_tree(kinds: dict[str, list[int]]) -> dict[str, Any]:
    """Results of two methods on corrupted CIFAR-10; zero-shot has 60% less 10 a severity."""
    results = sample_results()
    entry = find_entry(results, "cifar10+fog:3", "zero-shot")
    described = results["sets"][2]
    names = [(kind, severity) for kind, severities in kinds.items() for severity in severities]
    results["methods"] = results["methods"][:2]
    results["sets"] = [
        described | {"name": f"cifar10/{kind}/{s}", "corruption": kind, "severity": s}
        for kind, s in names
    ]
    results["results"] = [
        entry
        | {"dataset": f"cifar10/{kind}/{s}", "method": method}
        | {"metrics": entry["metrics"] | {"acc1": 0.6 - 0.1 * s + better, "ece15": 0.1 * s}}
        for kind, s in names
        for method, better in (("zero-shot", 0.0), ("tpt", 0.05))
    ]
    results["protocols"] = {}
    return results


# --- accuracy ---


def test_the_main_table_has_a_row_for_each_method_on_each_set():
    rows = get_rows(sample_results(), "Accuracy")
    assert [row[0] for row in rows[::4]] == [
        "pacs/photo (clean)",
        "pacs/sketch",
        "cifar10+fog:3",
        "cifar10+fog:5",
    ]
    assert [row[1] for row in rows[:4]] == ["zero-shot", "tpt", "tpt+init", "zero"]


def test_a_row_tells_accuracy_difference_and_significance():
    results = sample_results()
    entry = find_entry(results, "pacs/sketch", "tpt")
    entry["metrics"] |= {"acc1": 0.369, "acc5": None, "mean_per_class_recall": 0.35}
    entry["intervals"]["acc1"] = [0.354, 0.384]
    versus = {"difference": 0.012, "interval": [-0.004, 0.028], "mcnemar_p": 0.0312}
    entry["versus_baseline"] = versus | {"put_right": 11, "put_wrong": 4}
    row = next(r for r in get_rows(results, "Accuracy") if r[:2] == ["pacs/sketch", "tpt"])
    assert row[2:6] == ["200", "36.9 (35.4 to 38.4)", "\N{EN DASH}", "35.0"]
    assert row[6:] == ["+1.2 (-0.4 to +2.8)", "0.031 *", "11 / 4"]


def test_a_difference_that_may_be_chance_is_called_not_significant():
    results = sample_results()
    find_entry(results, "pacs/sketch", "tpt")["versus_baseline"]["mcnemar_p"] = 0.05
    row = next(r for r in get_rows(results, "Accuracy") if r[:2] == ["pacs/sketch", "tpt"])
    assert row[7] == "0.050, not significant"


def test_the_baseline_has_dashes_where_it_would_be_compared_with_itself():
    assert get_rows(sample_results(), "Accuracy")[0][6:] == ["\N{EN DASH}"] * 3


# --- calibration, gap, cost ---


def test_a_method_that_votes_has_dashes_for_calibration():
    rows = get_rows(sample_results(), "Calibration")
    assert [row[2:] for row in rows if row[1] == "zero"] == [["\N{EN DASH}"] * 4] * 4


def test_calibration_is_in_percent_and_the_scores_are_not():
    results = sample_results()
    entry = find_entry(results, "pacs/photo", "zero-shot")
    entry["metrics"] |= {"ece15": 0.0441, "ece20": 0.1, "nll": 1.2345, "brier": 0.5}
    entry["intervals"] = {key: [0.01, 0.2] for key in entry["intervals"]}
    assert get_rows(results, "Calibration")[0][2:] == [
        "4.4 (1.0 to 20.0)",
        "10.0 (1.0 to 20.0)",
        "1.234 (0.010 to 0.200)",
        "0.500 (0.010 to 0.200)",
    ]


def test_the_published_calibration_is_called_published():
    assert "Published (arXiv 2403.14119" in set_tables(sample_results())[0]


def test_the_gap_table_has_the_sets_with_a_clean_counterpart():
    rows = get_rows(sample_results(), "Clean")
    assert rows[1] == ["pacs/sketch", "pacs/photo", "tpt", "81.7", "42.0", "+39.7", "+3.3"]
    assert {row[0] for row in rows} == {"pacs/sketch"}


def test_without_clean_counterparts_there_is_no_gap_table():
    assert not [t for t in make_tables(make_tree({"fog": [1]})) if t.title.startswith("Clean")]


def test_the_cost_tells_what_is_shared_and_what_a_method_takes():
    assert get_rows(sample_results(), "Cost")[1] == ["pacs/photo (clean)", "tpt", "110.2", "9.1"]


# --- corruptions ---


def test_one_corruption_makes_one_table_of_methods_by_severity():
    rows = get_rows(make_tree({"fog": [1, 3]}), "cifar10, fog")
    # zero-shot 60 - 10 and 60 - 30, TPT five points more
    assert rows == [["zero-shot", "50.0", "30.0", "40.0"], ["tpt", "55.0", "35.0", "45.0"]]


def test_several_corruptions_have_a_table_for_each_method_with_means_last():
    results = make_tree({"fog": [1, 3], "snow": [1, 3]})
    find_entry(results, "cifar10/snow/1", "tpt")["metrics"]["acc1"] = 0.35
    rows = get_rows(results, "cifar10, tpt")
    assert rows == [
        ["fog", "55.0", "35.0", "45.0"],
        ["snow", "35.0", "35.0", "35.0"],
        ["mean", "45.0", "35.0", "40.0"],
    ]
    assert get_rows(results, "cifar10, mean over 2 corruptions")[1][1:] == rows[2][1:]


def test_corruptions_at_different_severities_are_told():
    results = make_tree({"fog": [3], "contrast": [5]})
    table = next(t for t in make_tables(results) if t.title.startswith("cifar10, mean over"))
    assert [cell.text for cell in table.rows[0]] == ["zero-shot", "30.0", "10.0", "20.0"]
    assert table.notes[0].startswith("Not every corruption was run at every severity")
    assert get_rows(results, "cifar10, zero-shot")[0] == ["fog", "30.0", "\N{EN DASH}", "30.0"]


def test_one_corrupted_set_needs_no_table_of_its_own():
    assert not [t for t in make_tables(make_tree({"fog": [1]})) if t.title.startswith("cifar10")]


# --- protocols ---


def test_published_rows_beside_come_after_the_measured_ones_and_are_never_best():
    results = sample_results()
    results["settings"] |= {"model": "ViT-B-16", "pretrained": "openai"}
    results["sets"][0] |= {"layout": "ImageNet-A", "classes": ["x"] * 200}
    results["sets"][1] |= {"layout": "ImageNet-V2", "classes": ["x"] * 1000}
    results["sets"] = results["sets"][:2]
    table = domain_generalisation(results, "pacs/photo")
    results["protocols"]["domain_generalisation"] = table
    shown = next(t for t in make_tables(results) if t.title.startswith("Domain"))
    assert shown.rules == {4}
    row = next(row for row in shown.rows if row[0].text.startswith("TPT, published"))
    assert [cell.text for cell in row[1:]] == ["54.77", "63.45", "59.11", "63.45"]
    assert not any(cell.best for row in shown.rows[4:] for cell in row)
    assert shown.rows[2][1].best  # tpt+init, 85.00, is the best of those measured


def test_published_rows_of_another_model_are_a_table_of_their_own():
    results = sample_results()
    results["sets"][1] |= {"layout": "ImageNet-R by WordNet id", "classes": ["x"] * 200}
    results["protocols"]["domain_generalisation"] = domain_generalisation(results, "pacs/photo")
    rows = get_rows(results, "Domain generalisation, published")
    assert rows[0][0].endswith(", ViT-B-16")
    assert rows[0][1:] == ["66.73", "47.87", "60.86", "73.98", "46.09", "59.11", "57.20"]


def test_base_to_new_has_its_published_rows_last_and_labelled():
    results = sample_results()
    for entry, part in zip(results["sets"][2:], ("base", "new"), strict=True):
        entry |= {"part": part, "corruption": None}
        for result in results["results"]:
            if result["dataset"] == entry["name"]:
                result["dataset"] = f"cifar10 ({part})"
        entry["name"] = f"cifar10 ({part})"
    results["protocols"] = {"base_to_new": base_to_new(results)}
    rows = get_rows(results, "Base to new")
    assert rows[0] == ["cifar10", "zero-shot", "55.00", "35.00", "42.78"]  # 2 * 0.1925 / 0.9
    assert [row[0] for row in rows[4:]] == ["published, mean of eleven sets"] * 5
    assert rows[-1][1:] == [
        "PromptSRC, published (arXiv 2307.06948)",
        "84.26",
        "76.10",
        "79.97",
    ]


# --- the whole page ---


def test_a_name_with_a_bar_or_an_underscore_is_escaped_on_the_page():
    results = sample_results()
    for entry in (*results["sets"], *results["results"]):
        key = "name" if "name" in entry else "dataset"
        entry[key] = entry[key].replace("pacs/sketch", "a|b_c&d%#")
    assert r"| a\|b_c&d%# | tpt | 200 |" in set_tables(results)[0]
    assert r"a\textbar{}b\_c\&d\%\# & tpt & 200 &" in set_tables(results)[1]


def test_the_page_begins_with_the_run_and_what_to_know_of_the_sets():
    text = set_tables(sample_results())[0]
    assert "- tpt-runtime 0.1.0: model tpt-tiny, pretrained embedded" in text
    assert '- tpt: tpt; keep 0.1, steps 1, lr 0.005; words "a photo of a"' in text
    assert "- tpt+init: tpt; keep 0.1, steps 1, lr 0.005; file coop.safetensors" in text
    assert "- pacs/sketch: 1 picture could not be read; the numbers are of the others." in text
    assert "- pacs/sketch: README.txt beside the class folders is left out." in text


def test_a_note_of_many_sets_is_told_once():
    results = make_tree({"fog": [1, 2, 3, 4, 5]})
    for entry in results["sets"]:
        entry["notes"] = ["One class has no pictures."]
    text = set_tables(results)[0]
    assert text.count("One class has no pictures.") == 1
    assert "cifar10/fog/3 and 2 more: One class has no pictures." in text


def test_latex_keeps_its_comments_on_their_lines():
    results = sample_results()
    results["sets"][0]["notes"] = ["first\n\\input{second}"]
    assert "\n\\input" not in set_tables(results)[1]


def test_settings_that_are_lists_or_templates_are_told_in_words():
    results = sample_results()
    results["settings"]["gate"] = None
    results["settings"]["corrupt"] = ["fog:3", "fog:5"]
    results["methods"][0]["templates"] = ["a photo of a {}."] * 80
    results["methods"][1]["templates"] = ["each set's own"]
    text = set_tables(results)[0]
    assert "corrupt fog:3 fog:5" in text
    assert "gate" not in text
    assert "- zero-shot: zero_shot; words" in text
    assert "; 80 templates" in text
    assert "; each set's own" in text


# --- the console ---


def test_the_console_names_a_set_once_and_fits_the_width():
    lines = console_table(sample_results()).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("pacs/sketch" in line for line in lines) == 1
    line = next(line for line in lines if "pacs/sketch" in line)
    assert line.split()[:4] == ["pacs/sketch", "200", "zero-shot", "37.0"]
    assert "+5.0 p=0.006" in lines[7]
    assert "+13.0 p<0.001" in lines[8]


def test_long_names_do_not_widen_the_console():
    results = sample_results()
    for entry in (*results["sets"], *results["results"], *results["methods"]):
        for key in ("name", "dataset", "method"):
            if key in entry:
                entry[key] = f"{entry[key]}-of-a-very-long-name-that-goes-on-and-on"
    results["baseline"] = results["methods"][0]["name"]
    assert max(map(len, console_table(results).splitlines())) <= 100


def test_many_corrupted_sets_become_one_line_a_method_on_the_console():
    results = make_tree({"fog": [1, 3, 5], "snow": [1, 3, 5]})
    lines = console_table(results).splitlines()
    assert len(lines) == 4
    assert lines[2].split() == [
        "cifar10,",
        "mean",
        "of",
        "6",
        "960",
        "zero-shot",
        "30.0",
        "-",
        "30.0",
    ]
    assert lines[3].split() == ["tpt", "35.0", "+5.0", "30.0"]


def test_a_set_of_which_nothing_could_be_read_has_dashes_only():
    results = sample_results()
    for result in results["results"]:
        result |= {"images": 0, "versus_baseline": None, "clean": None, "reliability": None}
        result["metrics"] = dict.fromkeys(result["metrics"])
        result["intervals"] = dict.fromkeys(result["intervals"])
        result["ms"] = {"image": None, "method": None}
    assert get_rows(results, "Accuracy")[1][3:] == ["\N{EN DASH}"] * 6
    assert console_table(results).splitlines()[3].split() == ["tpt", "-", "-", "-"]
