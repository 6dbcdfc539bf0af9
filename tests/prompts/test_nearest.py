"""Nearest words: the true ones, at their true distances, and readable."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tpt
from tpt.errors import PromptError
from tpt.prompts import nearest
from tpt.prompts.nearest import NearWord, find_reader, nearest_words


def random_vectors(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def make_clip(table: Tensor, tokenizer: Any = None) -> Any:
    """As much of a model as its token embedding."""
    embedding = nn.Embedding.from_pretrained(table)
    return SimpleNamespace(
        text=SimpleNamespace(token_embedding=embedding),
        width=table.shape[1],
        name="stub",
        tokenizer=tokenizer,
    )


@pytest.mark.parametrize("words", ["a photo of a", "a sketch of the", "in the wild !"])
def test_the_nearest_words_of_words_are_those_words_at_distance_0(
    tiny: tpt.Clip, words: str
) -> None:
    found = nearest_words(tiny, tpt.Context.from_words(tiny, words).vectors, 2)
    assert [near[0].word for near in found] == words.split()
    assert [near[0].distance for near in found] == [0.0] * len(found)
    assert all(near[1].distance > 0.1 for near in found)


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_words_and_distances_are_those_of_an_exhaustive_search(
    tiny: tpt.Clip, scale: float
) -> None:
    vectors = scale * random_vectors(6, 128)
    table = tiny.text.token_embedding.weight.double()
    distances = (table - vectors.double().unsqueeze(1)).norm(dim=-1)  # (6, V)
    best = distances.topk(5, dim=1, largest=False)
    found = nearest_words(tiny, vectors, 5)
    assert [[near.id for near in row] for row in found] == best.indices.tolist()
    got = torch.tensor([[near.distance for near in row] for row in found], dtype=torch.float64)
    torch.testing.assert_close(got, best.values, rtol=1e-12, atol=0)


def test_many_vectors_are_searched_a_few_at_a_time_with_the_same_result(
    tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = random_vectors(5, 128)
    whole = nearest_words(tiny, vectors, 3)
    sizes = []
    measure = nearest._measure

    def watch(part: Tensor, *rest: Any) -> Any:
        sizes.append(len(part))
        return measure(part, *rest)

    monkeypatch.setattr(nearest, "_measure", watch)
    monkeypatch.setattr(nearest, "_ROOM", 2 * 49408)
    assert nearest_words(tiny, vectors, 3) == whole
    assert sizes == [2, 2, 1]


def test_equally_near_words_come_by_their_ids() -> None:
    clip = make_clip(torch.tensor([[9.0, 0], [1, 0], [0, 1], [-1, 0]]))
    (found,) = nearest_words(clip, torch.zeros(1, 2), 3)
    assert found == [NearWord("1", 1.0, 1), NearWord("2", 1.0, 2), NearWord("3", 1.0, 3)]


def test_all_words_come_where_more_are_asked_for_than_there_are() -> None:
    clip = make_clip(random_vectors(3, 2))
    (found,) = nearest_words(clip, torch.zeros(1, 2), 9)
    assert {near.id for near in found} == {0, 1, 2}
    assert sorted(found, key=lambda near: near.distance) == found


# --- what a person reads ---


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        ("photo</w>", "photo"),
        ("arro", "arro-"),
        ("<end_of_text>", "<end_of_text>"),
        ("!</w>", "!"),
        ("âĤ¬</w>", "€"),
        ("âĤ", "\\xe2\\x82-"),
    ],
)
def test_a_piece_of_clips_tokenizer_is_read_as_text(tiny: tpt.Clip, piece: str, text: str) -> None:
    assert find_reader(tiny.tokenizer)(tiny.tokenizer.encoder[piece]) == text


def test_an_id_that_clips_tokenizer_lacks_is_read_as_itself(tiny: tpt.Clip) -> None:
    assert find_reader(tiny.tokenizer)(49408) == "49408"


class Wrapped:
    """As a Hugging Face tokenizer."""

    def decode(self, ids: list[int]) -> str:
        return {0: "<pad>", 1: " photo", 2: ""}[ids[0]]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [{2: "▁"}[id] for id in ids]


@pytest.mark.parametrize(
    ("tokenizer", "texts"),
    [
        (SimpleNamespace(tokenizer=Wrapped()), ["<pad>", "photo", "▁", "3"]),
        (SimpleNamespace(tokenizer=object()), ["0", "1", "2", "3"]),
        (lambda texts: None, ["0", "1", "2", "3"]),
    ],
)
def test_other_tokenizers_are_asked_and_ids_stand_in_for_what_they_do_not_say(
    tokenizer: Any, texts: list[str]
) -> None:
    clip = make_clip(torch.arange(4.0).unsqueeze(1), tokenizer)
    (found,) = nearest_words(clip, torch.zeros(1, 1), 4)
    assert [near.word for near in found] == texts


# --- errors ---


@pytest.mark.parametrize("shape", [(4, 8), (128,), (3, 4, 128)])
def test_vectors_of_another_width_or_shape_are_refused(
    tiny: tpt.Clip, shape: tuple[int, ...]
) -> None:
    with pytest.raises(PromptError, match=r"tokens have width 128; expected \(n, 128\)") as caught:
        nearest_words(tiny, torch.ones(shape), 1)
    assert f"Vectors of shape {shape} have no nearest words in tiny" in str(caught.value)


@pytest.mark.parametrize("count", [0, -1])
def test_no_words_at_all_cannot_be_asked_for(tiny: tpt.Clip, count: int) -> None:
    with pytest.raises(PromptError, match=rf"^{count} nearest words were asked for; expected at"):
        nearest_words(tiny, torch.ones(1, 128), count)
