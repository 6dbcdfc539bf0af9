"""A table tells people what a method did: scores or votes, its entropies, images left alone."""

from __future__ import annotations

import pytest

from tpt.streaming.record_table import table_header, table_row
from tpt.streaming.records import Adaptation, Failure, Prediction, Record

CAT, DOG = Prediction("cat", 0.75, 0), Prediction("dog", 0.5, 1)
TUNED = Adaptation(0.5, 0.25, 6, 12.4)
AVERAGED = Adaptation(0.5, None, 6, 12.4)
LEFT = Adaptation(None, None, 1, 1.6, skipped=True)


def row(adapt: Adaptation | None = TUNED, first: Prediction = CAT, before: Prediction = CAT) -> str:
    return table_row(Record("a.png", 0, (first,), before, adapt))


def cell(text: str, title: str) -> str:
    """What stands under a title."""
    titles = table_header().splitlines()[0]
    names = ["image", "zero-shot", "adapted", "kept", "entropy (nats)", "ms"]
    starts = [titles.index(name) for name in names]
    place = names.index(title)
    return text[starts[place] : [*starts, None][place + 1]].strip()


@pytest.mark.parametrize(
    ("adapt", "entropy"),
    [(TUNED, "0.500 -> 0.250"), (AVERAGED, "0.500"), (LEFT, "skipped"), (None, "")],
)
def test_the_entropies_are_those_there_are(adapt: Adaptation | None, entropy: str) -> None:
    assert cell(row(adapt), "entropy (nats)") == entropy


def test_what_an_image_took_is_told_even_if_it_was_left_alone() -> None:
    assert (cell(row(LEFT), "kept"), cell(row(LEFT), "ms")) == ("1", "2")
    assert (cell(row(), "kept"), cell(row(), "ms")) == ("6", "12")
    assert row(None).split() == ["a.png", "cat", "75.0%", "cat", "75.0%"]


def test_what_was_assumed_of_a_picture_stands_behind_its_row() -> None:
    told = Record("a.png", 0, (CAT,), CAT, TUNED, warning="It has two\npages.")
    assert table_row(told) == row() + r"  warning: It has two\npages."


def test_votes_stand_in_the_place_of_a_score() -> None:
    text = row(AVERAGED, Prediction("cat", None, 0, votes=19))
    assert cell(text, "adapted") == "cat  19 votes"
    assert cell(text, "zero-shot") == "cat  75.0%"
    assert cell(text, "entropy (nats)") == "0.500"


def test_one_vote_is_one_vote() -> None:
    assert cell(row(AVERAGED, Prediction("cat", None, 0, votes=1)), "adapted") == "cat   1 vote"


@pytest.mark.parametrize("votes", [None, 1, 19, 100])
def test_long_names_and_a_change_keep_the_columns(votes: int | None) -> None:
    score = 0.5 if votes is None else None
    text = row(AVERAGED, Prediction("a very long name of a class", score, 0, votes=votes), DOG)
    assert cell(text, "kept") == "6"
    assert text.index("0.500") == row().index("0.500")


@pytest.mark.parametrize("votes", [None, 19])
def test_a_change_is_marked_whether_scores_or_votes_made_it(votes: int | None) -> None:
    first = CAT if votes is None else Prediction("cat", None, 0, votes=votes)
    assert cell(row(AVERAGED, first, DOG), "adapted").endswith("  *")
    assert "*" not in row(AVERAGED, first, CAT)


def test_an_error_takes_the_place_of_all_of_it() -> None:
    text = table_row(Record("a.png", 0, error=Failure("ImageError", "It is\nbroken.")))
    assert text.split(maxsplit=1) == ["a.png", "error: It is\\nbroken."]


def test_an_unnamed_image_is_told_by_its_place() -> None:
    assert table_row(Record(None, 7, (CAT,), CAT)).startswith("#7 ")
