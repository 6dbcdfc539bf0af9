"""Prompts as rows of token ids: what the tokenizer sees, where the vectors stand, what fits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tpt
from tpt.errors import PromptError
from tpt.prompts.token_rows import (
    build_rows,
    build_sentence_rows,
    check_template,
    clean_name,
    word_ids,
)

START, END, DOT = 49406, 49407, 269

NAMES = [
    "cat",
    "golden retriever",
    "German short-haired pointer",
    "cat's cradle",
    'the "quoted" one',
    "rock'n'roll & blues (1950s)!",
    "!",
    "x!y",
    "100% cotton; 3/4 inch",
    "naïve café",
    "猫",
    "🦩 flamingo",
    "a.b.c.",
    "{}",
]
HOSTILE = ["X", "Model X", "X X X", "photo", "a photo of the X", "the", "zebra", "x"]


def name_ids(clip: tpt.Clip, name: str) -> list[int]:
    """Ids of a name alone, by open_clip's tokenizer, end marks left out."""
    row = clip.tokenizer([name], context_length=200)[0].tolist()
    return row[1 : row.index(END)]


def expected_row(clip: tpt.Clip, name: str, before: int, behind: int) -> list[int | None]:
    """The design's layout, token by token; None where a context vector stands."""
    # The dot is written against what stands before it, so a name and its dot may be one token.
    tail = name_ids(clip, f"{name}.") if behind == 0 else [*name_ids(clip, name), *[None] * behind]
    return [START, *[None] * before, *tail, *([DOT] if behind else []), END]


def seen_row(ids: Tensor, slots: Tensor) -> list[int | None]:
    row: list[int | None] = ids.tolist()
    for column in slots.tolist():
        row[column] = None
    return row[: row.index(END) + 1]


@pytest.mark.parametrize("name", [*NAMES, *HOSTILE])
@pytest.mark.parametrize(
    ("position", "vectors", "before"),
    [("end", 4, 4), ("front", 4, 0), ("middle", 4, 2), ("middle", 5, 2), ("middle", 3, 3)],
)
def test_a_row_is_start_vectors_name_dot_end(
    tiny: tpt.Clip, name: str, position: str, vectors: int, before: int
) -> None:
    rows = build_rows(tiny, ["dog", name], vectors, before, position)
    assert rows.ids.shape == (2, 77)
    assert rows.slots.shape == (2, vectors)
    behind = vectors - before
    assert seen_row(rows.ids[1], rows.slots[1]) == expected_row(tiny, name, before, behind)
    assert seen_row(rows.ids[0], rows.slots[0]) == expected_row(tiny, "dog", before, behind)
    assert (rows.slots.diff() > 0).all()


@pytest.mark.parametrize("name", ["X", "X X X", "x-ray film X", "X photo the zebra quartz"])
@pytest.mark.parametrize(
    ("position", "before"), [("end", 3), ("middle", 1), ("middle", 2), ("front", 0)]
)
def test_any_words_may_be_in_names_the_placeholder_too(
    tiny: tpt.Clip, name: str, position: str, before: int
) -> None:
    rows = build_rows(tiny, [name, "cat", "photo"], 3, before, position)
    for row, slots, text in zip(rows.ids, rows.slots, [name, "cat", "photo"], strict=True):
        assert seen_row(row, slots) == expected_row(tiny, text, before, 3 - before)


def test_a_texts_first_word_may_be_another_token_than_a_later_one(tiny: tpt.Clip) -> None:
    """As with tokenizers that count the space in front of a word in."""

    def tokenize(texts: list[str], context_length: int) -> Tensor:
        ids = tiny.tokenizer(texts, context_length=context_length).clone()
        ids[:, 1] += (ids[:, 2] != END) * (ids[:, 1] != END)
        return ids

    clip = tpt.Clip(tiny.model, tokenize)
    rows = build_rows(clip, ["X X X X", "cat"], 3, 3, "end")
    assert rows.slots.tolist() == [[1, 2, 3], [1, 2, 3]]
    rows = build_rows(clip, ["X X X X", "cat"], 3, 0, "front")
    assert rows.slots.tolist() == [[5, 6, 7], [2, 3, 4]]


def test_a_tokenizer_whose_words_depend_on_their_neighbours_is_refused(tiny: tpt.Clip) -> None:
    """Every word is another token than the one before: no run of placeholders."""

    def tokenize(texts: list[str], context_length: int) -> Tensor:
        ids = tiny.tokenizer(texts, context_length=context_length).clone()
        words = (ids != 0) & (ids < END - 1)
        return torch.where(words, (ids + 1000 * words.cumsum(1)) % (END - 1), ids)

    clip = tpt.Clip(tiny.model, tokenize)
    with pytest.raises(PromptError, match="no word that can mark where 3"):
        build_rows(clip, ["X X X X"], 3, 3, "end")


@pytest.mark.parametrize(
    ("name", "clean"),
    [("passenger_car", "passenger car"), ("_cat_", "cat"), ("  cat ", "cat"), ("a__b", "a  b")],
)
def test_an_underscore_in_a_name_is_a_space(tiny: tpt.Clip, name: str, clean: str) -> None:
    assert clean_name(name) == clean
    rows = build_rows(tiny, [name, clean], 2, 2, "end")
    assert torch.equal(rows.ids[0], rows.ids[1])


def test_sentences_are_taken_word_for_word(tiny: tpt.Clip) -> None:
    sentences = ["a photo of a cat.", "itap of my_cat", "X"]
    rows = build_sentence_rows(tiny, sentences)
    assert torch.equal(rows.ids, tiny.tokenizer(sentences))
    assert rows.slots.shape == (3, 0)


# --- what fits ---


@pytest.mark.parametrize("vectors", [1, 4, 16])
def test_the_longest_name_that_fits_is_kept_whole(tiny: tpt.Clip, vectors: int) -> None:
    words = 77 - 3 - vectors  # start, dot and end
    rows = build_rows(tiny, [" ".join(["cat"] * words)], vectors, vectors, "end")
    assert rows.ids[0, -2:].tolist() == [DOT, END]


@pytest.mark.parametrize("more", [1, 2, 50, 400])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_name_that_does_not_fit_is_named_and_never_cut(
    tiny: tpt.Clip, more: int, position: str
) -> None:
    name = " ".join(["cat"] * (77 - 3 - 4 + more))
    before = {"end": 4, "middle": 2, "front": 0}[position]
    with pytest.raises(PromptError) as caught:
        build_rows(tiny, ["dog", name, "bird"], 4, before, position)
    message = str(caught.value)
    assert f'The prompt of class "{name}" has {77 + more} tokens' in message
    assert "of which 4 are context vectors" in message
    assert "reads at most 77" in message


@pytest.mark.parametrize("name", ["! " * 80, "x!y " * 40, "x!yz" * 40, "🦩" * 60, "é" * 90])
def test_a_name_of_unusual_tokens_is_not_cut_either(tiny: tpt.Clip, name: str) -> None:
    assert len(name_ids(tiny, name)) > 77 - 3 - 4
    with pytest.raises(PromptError, match="reads at most 77"):
        build_rows(tiny, [name], 4, 4, "end")


def test_a_sentence_that_does_not_fit_is_an_error_without_talk_of_vectors(tiny: tpt.Clip) -> None:
    with pytest.raises(PromptError, match="has 102 tokens, but the model reads at most 77"):
        build_sentence_rows(tiny, ["a cat " * 50])


# --- the ids of words ---


@pytest.mark.parametrize(
    "words", ["a photo of a", "cat", "", "x!y", "!", "hello!", "a cat's cradle, 3/4 inch", "🦩"]
)
def test_word_ids_are_those_of_the_words_alone(tiny: tpt.Clip, words: str) -> None:
    assert word_ids(tiny, words).tolist() == name_ids(tiny, words)


def test_word_ids_are_never_cut(tiny: tpt.Clip) -> None:
    assert len(word_ids(tiny, "cat " * 700)) == 700


# --- templates ---


@pytest.mark.parametrize(
    ("template", "mark", "right"),
    [
        ("a photo of a {c}.", "{c}", "a photo of a {}."),
        ("a photo of a {0}", "{0}", "a photo of a {}"),
        ("a photo of a {classname}", "{classname}", "a photo of a {}"),
        ("a { } b", "{ }", "a {} b"),
        ("a {:s}", "{:s}", "a {}"),
        ("a {{}}", "{{}}", "a {}"),
        ("a {{c}}", "{{c}}", "a {}"),
        ("a ${class}", "${class}", "a {}"),
        ("a \uff5bc\uff5d", "\uff5bc\uff5d", "a {}"),
        ("a %s.", "%s", "a {}."),
        ("a %(name)s.", "%(name)s", "a {}."),
        ("a $c", "$c", "a {}"),
        ("a [CLASS].", "[CLASS]", "a {}."),
        ("a <class>", "<class>", "a {}"),
        ("a CLASS", "CLASS", "a {}"),
        ("a class_name", "class_name", "a {}"),
        ("a @class@", "@class@", "a {}"),
        ("a ____.", "____", "a {}."),
        ("a *", "*", "a {}"),
        ("a {c} of {}", "{c}", "a {} of "),
    ],
)
def test_marks_of_other_programs_are_refused_everywhere(
    tiny: tpt.Clip, template: str, mark: str, right: str
) -> None:
    expected = (
        f'The template "{template}" holds "{mark}"; the place of the class name is written {{}}, '
        f'for example "{right}".'
    )
    engine = tpt.PromptEngine(tiny, ["cat"])
    for refuse in (
        lambda: check_template(template),
        lambda: tpt.Context.from_words(tiny, template),
        lambda: tpt.ZeroShot(engine, templates=[template]),
        lambda: engine.template_features([template]),
    ):
        with pytest.raises(PromptError) as caught:
            refuse()
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    "template", ["a {}.", "100% silk {}", "{}, 5% off", "a class of {}", "{} (wild)", "a {}: $5"]
)
def test_words_that_look_a_little_like_marks_are_words(template: str) -> None:
    check_template(template)


@pytest.mark.parametrize("template", ['"a {}."', "'a {}.',", "`a {}`"])
def test_a_template_in_quotes_is_refused(template: str) -> None:
    with pytest.raises(PromptError, match="stands in quotes"):
        check_template(template)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a photo of a {}.format", "'.format', which is of a program"),
        ("f'a {}'", "which is of a program"),
        ("a photo of a {}.',", "which is of a program"),
        ("a photo of a {}.\\n", "which is of a program"),
        ("a photo of a {}\u200b.", "a character that cannot be seen"),
    ],
)
def test_what_a_program_or_an_editor_left_is_refused(template: str, words: str) -> None:
    with pytest.raises(PromptError, match=words.replace(".", r"\.")):
        check_template(template)


def test_a_template_that_is_no_text_is_told_as_what_it_is() -> None:
    with pytest.raises(PromptError, match="expected as text, but a function came"):
        check_template(lambda name: f"a {name}")  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_any_template_is_fine_or_one_sentence(template: str) -> None:
    try:
        check_template(template)
    except PromptError:
        return
    assert not set(template.replace("{}", "")) & set("{}")
