"""The context: from words, from vectors, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import tpt
from tpt.errors import PromptError
from tpt.prompts.context import PromptInfo


def embed(clip: tpt.Clip, words: str) -> Tensor:
    """Token embeddings of some words, end marks left out, by open_clip's tokenizer alone."""
    ids = clip.tokenizer([words])[0]
    return clip.text.token_embedding.weight[ids[1 : int(ids.argmax())]]


# --- from words ---


@pytest.mark.parametrize(
    ("words", "position", "before", "same_as"),
    [
        ("a photo of a", "end", 4, "a photo of a"),
        ("a photo of a {}", "end", 4, "a photo of a"),
        ("a photo of a {}.", "end", 4, "a photo of a"),
        ("a photo of a.", "end", 4, "a photo of a"),
        ("a photo of a . ", "end", 4, "a photo of a"),
        ("a_photo_of_a", "end", 4, "a photo of a"),
        ("a_photo_of_a_{}.", "end", 4, "a photo of a"),
        ("  a   photo  of a  ", "end", 4, "a photo of a"),
        ("A Photo of A", "end", 4, "a photo of a"),
        ("a photo of a {} in the wild", "middle", 4, "a photo of a in the wild"),
        ("a {} photo", "middle", 1, "a photo"),
        ("{} in the wild", "front", 0, "in the wild"),
        ("{} texture.", "front", 0, "texture"),
        ("photo", "end", 1, "photo"),
        ("a centered, wide-angle photo of {}", "end", 8, "a centered, wide-angle photo of"),
    ],
)
def test_words_become_their_token_embeddings(
    tiny: tpt.Clip, words: str, position: str, before: int, same_as: str
) -> None:
    context = tpt.Context.from_words(tiny, words)
    assert (context.position, context.before) == (position, before)
    assert not context.class_specific
    assert torch.equal(context.vectors, embed(tiny, same_as))
    assert context.info == PromptInfo(model="tiny", words=words)


def test_words_do_not_tie_the_context_to_the_models_weights(tiny: tpt.Clip) -> None:
    context = tpt.Context.from_words(tiny, "a photo")
    before = tiny.text.token_embedding.weight.clone()
    context.vectors.add_(1)
    assert torch.equal(tiny.text.token_embedding.weight, before)


@pytest.mark.parametrize("words", ["{} and {}", "{}{}", "a {} b {} c {}"])
def test_more_than_one_place_for_the_name_is_refused(tiny: tpt.Clip, words: str) -> None:
    with pytest.raises(PromptError, match=r"expected exactly one \{\}") as caught:
        tpt.Context.from_words(tiny, words)
    assert f'"{words}" holds {words.count("{}")} places' in str(caught.value)


@pytest.mark.parametrize("words", ["", " ", "{}", " {} ", "{}.", ".", "_", "_{}_"])
def test_a_template_without_words_is_refused(tiny: tpt.Clip, words: str) -> None:
    with pytest.raises(PromptError, match="nothing to tune"):
        tpt.Context.from_words(tiny, words)


# --- from vectors ---


@pytest.mark.parametrize("shape", [(1, 8), (4, 8), (5, 4, 8), (1, 1, 1)])
def test_two_or_three_axes_make_a_context(shape: tuple[int, ...]) -> None:
    context = tpt.Context(torch.ones(shape))
    assert context.class_specific is (len(shape) == 3)
    assert context.position == "end"
    assert context.before == shape[-2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
def test_vectors_are_kept_as_plain_float32(dtype: torch.dtype) -> None:
    given = torch.randn(2, 4, dtype=dtype).requires_grad_()
    vectors = tpt.Context(given).vectors
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    assert torch.equal(vectors, given.detach().float())


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4, 5), (0, 4), (4, 0), (0, 2, 4), (2, 0, 4)])
def test_any_other_shape_is_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(PromptError, match="expected \\(M, D\\), or \\(K, M, D\\)") as caught:
        tpt.Context(torch.ones(shape))
    assert f"have shape {shape}" in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_vectors_that_are_not_finite_are_refused_and_counted(bad: float) -> None:
    vectors = torch.ones(4, 8)
    vectors[1, :3] = bad
    with pytest.raises(PromptError, match="3 of the 32 numbers"):
        tpt.Context(vectors)


def test_a_float64_that_overflows_float32_is_refused() -> None:
    with pytest.raises(PromptError, match="NaN or infinite"):
        tpt.Context(torch.full((1, 2), 1e300, dtype=torch.float64))


@pytest.mark.parametrize("position", ["", "End", "back", "start"])
def test_an_unknown_position_is_refused(position: str) -> None:
    with pytest.raises(PromptError, match="expected end, middle or front") as caught:
        tpt.Context(torch.ones(4, 8), position=position)
    assert f'"{position}"' in str(caught.value)


@pytest.mark.parametrize(
    ("count", "position", "before"),
    [(4, "end", 4), (4, "front", 0), (4, "middle", 2), (5, "middle", 2), (1, "middle", 0)],
)
def test_the_default_share_of_vectors_ahead_of_the_name(
    count: int, position: str, before: int
) -> None:
    assert tpt.Context(torch.ones(count, 8), position=position).before == before


@pytest.mark.parametrize("before", range(5))
def test_the_middle_may_be_anywhere(before: int) -> None:
    context = tpt.Context(torch.ones(4, 8), position="middle", before=before)
    assert context.before == before


@pytest.mark.parametrize(("position", "before"), [("middle", 5), ("end", 2), ("front", 1)])
def test_a_share_that_contradicts_the_position_is_refused(position: str, before: int) -> None:
    with pytest.raises(PromptError, match=f"{before} vectors ahead of the class name"):
        tpt.Context(torch.ones(4, 8), position=position, before=before)


@pytest.mark.parametrize("count", [2, 4])
def test_class_specific_vectors_need_as_many_class_names(count: int) -> None:
    info = PromptInfo(classes=tuple("abcd"[:count]))
    with pytest.raises(PromptError, match=f"for 3 classes, but {count} class names"):
        tpt.Context(torch.ones(3, 2, 8), info=info)


def test_a_unified_context_may_come_from_any_number_of_classes() -> None:
    info = PromptInfo(classes=("a", "b", "c"))
    assert tpt.Context(torch.ones(2, 8), info=info).info.classes == ("a", "b", "c")


def test_described_changes_the_facts_alone() -> None:
    context = tpt.Context(torch.ones(4, 8), position="middle", before=1)
    other = context.described(shots=16, dataset="birds")
    assert other.info == PromptInfo(shots=16, dataset="birds")
    assert context.info == PromptInfo()
    assert torch.equal(other.vectors, context.vectors)
    assert (other.position, other.before) == ("middle", 1)


def test_a_context_is_frozen() -> None:
    context = tpt.Context(torch.ones(4, 8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.position = "front"  # type: ignore[misc]
