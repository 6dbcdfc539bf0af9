"""The context: from words, from vectors, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import tpt
from tpt.errors import PromptError
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend, PromptInfo


def embed(clip: tpt.Clip, words: str) -> Tensor:
    """Token embeddings of some words, end marks left out, by open_clip's tokenizer alone."""
    ids = clip.tokenizer([words])[0]
    return clip.text.token_embedding.weight[ids[1 : int(ids.argmax())]]


def draw_meta(width: int) -> MetaNet:
    return MetaNet.draw(32, width, torch.Generator().manual_seed(0))


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
    meta, blend = draw_meta(8), Blend(("a {}",))
    context = tpt.Context(torch.ones(4, 8), position="middle", before=1, meta=meta, blend=blend)
    other = context.described(shots=16, dataset="birds")
    assert other.blend == blend
    assert other.meta is not None
    assert torch.equal(other.meta.weight_1, meta.weight_1)
    assert other.info == PromptInfo(shots=16, dataset="birds")
    assert context.info == PromptInfo()
    assert torch.equal(other.vectors, context.vectors)
    assert (other.position, other.before) == ("middle", 1)


def test_a_context_is_frozen() -> None:
    context = tpt.Context(torch.ones(4, 8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.position = "front"  # type: ignore[misc]


# --- a meta-network, a blend ---


def test_a_context_with_a_meta_network_is_conditional() -> None:
    assert tpt.Context(torch.ones(4, 8), meta=draw_meta(8)).conditional
    assert not tpt.Context(torch.ones(4, 8)).conditional


@pytest.mark.parametrize("shape", [(4, 9), (3, 4, 8)])
def test_a_meta_network_that_does_not_go_with_the_vectors_is_refused(
    shape: tuple[int, ...],
) -> None:
    with pytest.raises(PromptError, match=r"shifts vectors of width 8 ") as caught:
        tpt.Context(torch.ones(shape), meta=draw_meta(8))
    assert f"of shape {shape}; expected (M, 8)." in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_meta_network_is_kept_as_plain_float32(dtype: torch.dtype) -> None:
    given = [tensor.to(dtype) for tensor in draw_meta(8).tensors().values()]
    meta = tpt.Context(torch.ones(4, 8), meta=MetaNet(*given)).meta
    assert meta is not None
    for tensor, source in zip(meta.tensors().values(), given, strict=True):
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, source.float())


def test_a_blend_is_half_and_half_unless_said() -> None:
    assert Blend(("a photo of a {}.",)).weight == 0.5


@pytest.mark.parametrize("weight", [0, 0.3, 1])
def test_any_weight_from_nothing_to_all_is_a_blend(weight: float) -> None:
    assert Blend(("a {}",), weight).weight == weight


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(PromptError, match=r"within \[0, 1\]; got 1 templates") as caught:
        Blend(("a {}",), weight)
    assert str(caught.value).endswith(f"and weight {weight}.")


def test_a_blend_without_templates_is_refused() -> None:
    with pytest.raises(PromptError, match=r"at least one template .* got 0 templates"):
        Blend(())


def test_a_blend_of_a_single_string_is_refused() -> None:
    with pytest.raises(PromptError, match=r'Write \["a photo of a \{\}\."\]'):
        Blend("a photo of a {}.")  # type: ignore[arg-type]


def test_words_that_are_no_text_are_refused(tiny: tpt.Clip) -> None:
    engine = tpt.PromptEngine(tiny, ["cat", "dog"])
    for make in (
        lambda: tpt.Context.from_words(tiny, "a \udcff of a"),
        lambda: tpt.ZeroShot(engine, ["a \udcff of a {}."]),
    ):
        with pytest.raises(PromptError, match="not UTF-8 text; a tokenizer cannot read"):
            make()
