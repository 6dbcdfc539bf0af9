"""Records read back exactly what was found, as JSON lines and as CSV rows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpt.streaming.records import Adaptation, Failure, Prediction, Record, csv_cells, csv_header

CAT, DOG = Prediction("cat", 0.75, 4), Prediction("dog", 0.25, 0)
ADAPT = Adaptation(entropy_before=0.5, entropy_after=0.25, views_kept=6, ms=12.0)
FULL = Record("a.png", 7, (CAT, DOG), Prediction("dog", 0.5, 0), ADAPT)
PLAIN = Record("a.png", 7, (CAT, DOG), CAT)
VOTED = Record(
    *("a.png", 7, (Prediction("cat", None, 4, votes=5), Prediction("dog", None, 0, votes=1))),
    *(Prediction("dog", 0.5, 0), Adaptation(0.5, None, 6, 12.0)),
)
LEFT = Record("a.png", 7, (CAT, DOG), CAT, Adaptation(None, None, 1, 1.5, skipped=True))
BAD = Record("a.png", 7, error=Failure("ImageError", "It is broken."))
ODD_NAMES = [
    *("a b.png", "it's.png", 'say "x".png', "a,b.png", "new\nline.png", "cr\r.png", "tab\t.png"),
    *("猫é.png", "\u2028.png", "🐈.png", "latin-\udce9.png", "猫\udcff.png", "{}.png", "\\.png"),
]


def test_a_record_has_the_documented_keys_and_no_others() -> None:
    assert FULL.to_dict() == {
        "path": "a.png",
        "predictions": [
            {"label": "cat", "score": 0.75, "index": 4},
            {"label": "dog", "score": 0.25, "index": 0},
        ],
        "zero_shot": {"label": "dog", "score": 0.5, "index": 0},
        "adapt": {"entropy_before": 0.5, "entropy_after": 0.25, "views_kept": 6, "ms": 12.0},
    }


def test_a_method_that_does_not_adapt_leaves_adapt_out() -> None:
    assert list(PLAIN.to_dict()) == ["path", "predictions", "zero_shot"]


def test_a_prediction_has_a_score_or_votes_and_never_both() -> None:
    assert VOTED.to_dict() == {
        "path": "a.png",
        "predictions": [
            {"label": "cat", "votes": 5, "index": 4},
            {"label": "dog", "votes": 1, "index": 0},
        ],
        "zero_shot": {"label": "dog", "score": 0.5, "index": 0},
        "adapt": {"entropy_before": 0.5, "entropy_after": None, "views_kept": 6, "ms": 12.0},
    }
    none = Record("a.png", 7, (Prediction("cat", None, 4, votes=0),)).to_dict()
    assert none["predictions"] == [{"label": "cat", "votes": 0, "index": 4}]


def test_only_an_image_that_was_left_alone_says_so() -> None:
    assert LEFT.to_dict()["adapt"] == {
        **{"entropy_before": None, "entropy_after": None, "views_kept": 1, "ms": 1.5},
        "skipped": True,
    }
    assert "skipped" not in FULL.to_dict()["adapt"]


def test_what_a_method_does_not_have_is_null_in_json() -> None:
    assert '"entropy_after": null' in VOTED.to_json()
    assert '"entropy_before": null, "entropy_after": null' in LEFT.to_json()
    assert '"skipped": true' in LEFT.to_json()


def test_an_error_stands_in_place_of_predictions() -> None:
    error = {"type": "ImageError", "message": "It is broken."}
    assert BAD.to_dict() == {"path": "a.png", "error": error}


@pytest.mark.parametrize("error", [None, Failure("ImageError", "It is broken.")])
def test_an_unnamed_image_is_told_by_its_place(error: Failure | None) -> None:
    data = Record(None, 7, (CAT,), CAT, error=error).to_dict()
    assert data["path"] is None
    assert data["index"] == 7


def test_numbers_have_six_places() -> None:
    record = Record(
        "a", 0, (Prediction("cat", 1 / 3, 0),), None, Adaptation(2 / 3, 1e-9, 1, 1234.56789012)
    )
    data = record.to_dict()
    assert data["predictions"][0]["score"] == 0.333333
    assert data["adapt"] == {
        "entropy_before": 0.666667,
        "entropy_after": 0.0,
        "views_kept": 1,
        "ms": 1234.56789,
    }


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_file_name_comes_back_from_one_line_of_json(name: str) -> None:
    line = Record(name, 0, (CAT,)).to_json()
    assert "\n" not in line
    assert json.loads(line.encode())["path"] == name


def test_json_is_readable_where_utf8_can_hold_it() -> None:
    assert "猫" in Record("猫", 0, (CAT,)).to_json()


# --- CSV ---


@pytest.mark.parametrize("top_k", [1, 2, 3, 5])
@pytest.mark.parametrize("record", [FULL, PLAIN, VOTED, LEFT, BAD])
def test_every_csv_row_is_as_wide_as_the_header(record: Record, top_k: int) -> None:
    assert len([*csv_cells(record.to_dict(), top_k)]) == len(csv_header(top_k))


def row_of(record: Record, top_k: int) -> dict[str, object]:
    """What is not empty in the record's row."""
    cells = zip(csv_header(top_k), csv_cells(record.to_dict(), top_k), strict=True)
    return {name: cell for name, cell in cells if cell != ""}


def test_a_csv_row_holds_what_the_json_holds() -> None:
    assert row_of(FULL, 2) == {
        **{"path": "a.png", "label": "cat", "score": 0.75, "index": 4},
        **{"label_2": "dog", "score_2": 0.25, "zero_shot_label": "dog", "zero_shot_score": 0.5},
        **{"entropy_before": 0.5, "entropy_after": 0.25, "views_kept": 6, "ms": 12.0},
    }


def test_votes_and_images_left_alone_have_csv_columns() -> None:
    assert row_of(VOTED, 2) == {
        **{"path": "a.png", "label": "cat", "index": 4, "label_2": "dog", "votes": 5},
        **{"zero_shot_label": "dog", "zero_shot_score": 0.5},
        **{"entropy_before": 0.5, "views_kept": 6, "ms": 12.0},
    }
    left = {"skipped": True, "views_kept": 1, "ms": 1.5}
    assert row_of(LEFT, 2) == row_of(replace(LEFT, adapt=None), 2) | left


def test_fewer_classes_than_columns_leave_the_last_ones_empty() -> None:
    assert "label_3" in csv_header(3)
    assert "label_3" not in row_of(FULL, 3)


def test_an_error_fills_only_the_error_columns_of_a_csv_row() -> None:
    row = {"path": "a.png", "error_type": "ImageError", "error_message": "It is broken."}
    assert row_of(BAD, 5) == row


def test_what_was_assumed_is_in_json_and_csv_only_where_it_is() -> None:
    told = replace(FULL, warning="Its floats do not say their range.")
    assert told.to_dict() == FULL.to_dict() | {"warning": "Its floats do not say their range."}
    assert row_of(told, 2) == row_of(FULL, 2) | {"warning": "Its floats do not say their range."}


def test_an_unnamed_image_is_numbered_in_csv() -> None:
    assert row_of(Record(None, 7, (CAT,)), 1)["path"] == "#7"


# --- any record ---

scores = st.one_of(st.none(), st.floats(0, 1, allow_nan=False))
words = st.text(st.characters(codec=None), max_size=12)
any_record = st.builds(
    Record,
    path=st.one_of(st.none(), words),
    index=st.integers(0, 99),
    predictions=st.lists(st.builds(Prediction, words, scores, st.integers(0, 9)), max_size=3).map(
        tuple
    ),
    zero_shot=st.one_of(st.none(), st.builds(Prediction, words, scores, st.integers(0, 9))),
    adapt=st.one_of(
        st.none(), st.builds(Adaptation, scores, scores, st.integers(1, 64), st.floats(0, 1e6))
    ),
    error=st.one_of(st.none(), st.builds(Failure, words, words)),
)


@given(any_record)
def test_any_record_is_one_line_that_comes_back(record: Record) -> None:
    line = record.to_json()
    assert "\n" not in line
    assert json.loads(line.encode()) == json.loads(json.dumps(record.to_dict()))
    assert len([*csv_cells(record.to_dict(), 3)]) == len(csv_header(3))
