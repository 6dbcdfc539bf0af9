"""One table in Markdown, LaTeX and text: escaping, best cells, numbers."""

from __future__ import annotations

import pytest

from tpt.report.typeset import (
    LONGEST,
    Cell,
    Table,
    escape_latex,
    escape_markdown,
    exact,
    format_p,
    mark_best,
    number,
    percent,
    points,
    rules_between,
    shorten,
    to_latex,
    to_markdown,
    to_text,
)


def make_table(*texts: tuple[str, ...], **facts) -> Table:
    rows = tuple(tuple(map(Cell, row)) for row in texts)
    return Table("Accuracy", ("Set", "Top-1, %"), rows, "lr", **facts)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", r"a\|b"),
        ("gaussian_noise", "gaussian_noise"),
        ("_x_", r"\_x\_"),
        ("0.01 *", r"0.01 \*"),
        ("<b>", r"\<b>"),
        ("[x](y)", r"\[x\](y)"),
        ("a\nb", "a b"),
        ("a\\|b", r"a\\\|b"),
    ],
)
def test_markdown_says_a_name_as_it_is(text, written):
    assert escape_markdown(text) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a_b & 5 % of #3", r"a\_b \& 5 \% of \#3"),
        ("${x}^~", r"\$\{x\}\textasciicircum{}\textasciitilde{}"),
        ("a\\b", r"a\textbackslash{}b"),
        ("<0.001", r"\textless{}0.001"),
        ('the "words"', "the ``words''"),
        ("-1.2 (-3.0 to +0.5)", "$-$1.2 ($-$3.0 to +0.5)"),
        ("zero-shot, cifar10-1, ViT-B-16", "zero-shot, cifar10-1, ViT-B-16"),
        ("a\nb", "a b"),
    ],
)
def test_latex_says_a_name_as_it_is(text, written):
    assert escape_latex(text) == written


def test_a_name_with_a_bar_stays_in_its_cell():
    lines = to_markdown(make_table(("a|b", "36.9"))).splitlines()
    assert lines == ["## Accuracy", "", "| Set | Top-1, % |", "| :-- | --: |", r"| a\|b | 36.9 |"]


def test_notes_stand_below_the_table():
    assert to_markdown(make_table(("a", "1"), notes=("Of all.",))).endswith(
        "| a | 1 |\n\nOf all.\n"
    )


def test_latex_has_the_rules_of_booktabs_and_bold_best_cells():
    rows = mark_best(
        [(Cell("a"), number(0.5, percent)), (Cell("b"), number(0.6, percent))], {1: True}
    )
    text = to_latex(Table("Top-1, %", ("Set", "%"), tuple(rows), "lr", frozenset([1])))
    assert text.splitlines()[2:] == [
        r"\caption{Top-1, \%}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"Set & \% \\",
        r"\midrule",
        r"a & 50.0 \\",
        r"\midrule",
        r"b & \textbf{60.0} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_a_long_table_goes_over_pages():
    text = to_latex(make_table(*[("a", "1")] * (LONGEST + 1)))
    assert r"\begin{longtable}{lr}" in text
    assert "tabular" not in text


def test_text_aligns_columns_and_keeps_to_ascii():
    text = to_text(make_table(("photo", "36.9"), ("b", number(None, percent).text)))
    assert text == "Set    Top-1, %\n---------------\nphoto      36.9\nb             -\n"


# --- best cells ---


def best(cells: list[float | None], higher: bool = True) -> list[bool]:
    rows = [(Cell("set"), number(value, percent)) for value in cells]
    return [row[1].best for row in mark_best(rows, {1: higher})]


def test_the_highest_is_best_or_the_lowest_where_less_is_better():
    assert best([0.5, 0.7, None]) == [False, True, False]
    assert best([0.5, 0.7, None], higher=False) == [True, False, False]


def test_what_reads_the_same_is_equally_good():
    assert best([0.6994, 0.6996, 0.5]) == [False, True, False]
    assert best([0.70001, 0.70002, 0.5]) == [True, True, False]


def test_one_value_alone_is_not_best():
    assert best([0.5, None]) == [False, False]


def test_rivals_are_of_one_group():
    pairs = [("a", 0.1), ("a", 0.2), ("b", 0.9), ("b", 0.8)]
    rows = [(Cell(name), number(value, percent)) for name, value in pairs]
    marked = mark_best(rows, {1: True}, group=0)
    assert [row[1].best for row in marked] == [False, True, True, False]


def test_a_rule_stands_where_the_first_cell_changes():
    assert rules_between([(Cell(name),) for name in "aabbc"]) == {2, 4}


# --- numbers ---


def test_a_share_is_percent_and_an_interval_follows():
    assert number(0.369, percent, (0.3541, 0.384)).text == "36.9 (35.4 to 38.4)"
    assert exact(0.66734).text == "66.73"
    assert exact(None).text == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "text"), [(0.012, "+1.2"), (-0.012, "-1.2"), (0.0, "0.0"), (-0.0004, "0.0")]
)
def test_a_difference_has_its_sign_unless_it_reads_as_nothing(value, text):
    assert points(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "<0.001"),
        (0.00099, "<0.001"),
        (0.0064, "0.006"),
        (0.0497, "<0.05"),
        (0.05, "0.050"),
        (1.0, "1.000"),
    ],
)
def test_a_p_value_never_reads_as_on_the_other_side_of_the_bound(p, text):
    assert format_p(p) == text


def test_a_long_name_loses_its_middle():
    assert shorten("imagenet-c/gaussian_noise/5", 15) == "imagen...oise/5"
    assert shorten("pacs/sketch", 11) == "pacs/sketch"
