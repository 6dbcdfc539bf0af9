"""Prompts as rows of token ids, with the places where context vectors stand.

The tokenizer is asked for the whole sentence, with a placeholder word for every context vector,
exactly as the public CoOp and TPT programs do; so punctuation, casing and end marks are the
tokenizer's own business, whichever tokenizer it is. Nothing is ever cut: a prompt that does not
fit is an error that names the class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tpt.errors import PromptError
from tpt.model.clip import Clip
from tpt.text import drop_invisible, is_utf8

_FOREIGN_MARK = re.compile(
    r"[$#]?[{\uff5b]+[^{}\uff5b\uff5d]*[}\uff5d]+|[{}\uff5b\uff5d]"  # {c}, {0}, {{}}, ${name}
    r"|%(?:\(\w+\)|\d\$)?[sdrc](?![a-zA-Z])"  # %s, %(name)s
    r"|\$[A-Za-z_]\w*"  # $name
    r"|<[^<>]*>|\[[^\[\]]*\]"  # <class>, [CLASS]
    r"|(@+|#+|__)(?i:class|classname|label|name|object)\1|_{2,}"  # @class@, a blank to fill in
    r"|\bCLASS\b|\b(?i:class_?name)\b|(?<!\S)\*(?!\S)"
)
"""How other programs write the place of the class name."""

_CODE = re.compile(
    r"""^[rfbuRFBU]{1,2}["']|["']\s*[,;)]\s*$|\.format\b|\blambda\b|\\[nrt](?![a-zA-Z])"""
)
"""What is left of a program that a template was copied from."""

_PLACEHOLDERS = ("X", "photo", "the", "zebra", "quartz")


@dataclass(frozen=True)
class PromptRows:
    """Token ids of K prompts, full length, and the columns of their context vectors."""

    ids: Tensor  # (K, L)
    slots: Tensor  # (K, M); M = 0 for plain sentences


def clean_name(name: str) -> str:
    """A class name as it enters a prompt: `_` is a space, ends are trimmed."""
    return name.replace("_", " ").strip()


def build_rows(
    clip: Clip, names: Sequence[str], vectors: int, before: int, position: str
) -> PromptRows:
    """Rows for `[context] name .`, with `before` of the `vectors` ahead of the class name.

    Raises:
        PromptError: a prompt has more tokens than the model's context length, or the tokenizer
            offers no word that could mark the context's place.
    """
    cleaned = [clean_name(name) for name in names]

    def mark(placeholder: str) -> tuple[Tensor, Tensor]:
        """Ids (K, L) with this word in the context's place, and where it stands."""
        ahead, behind = [placeholder] * before, [placeholder] * (vectors - before)
        sentences = [" ".join([*ahead, name, *behind]) + "." for name in cleaned]
        ids = tokenize(clip, sentences, names, vectors)
        return ids, torch.isin(ids, _single_token(clip, placeholder))

    known = [word for word in _PLACEHOLDERS if len(_single_token(clip, word))]
    for place, placeholder in enumerate(known):
        ids, hits = mark(placeholder)
        if bool((hits.sum(1) != vectors).any()):  # some name holds the word itself
            hits &= mark(known[place - 1])[1]  # with another word there, the name's own stays
        if bool((hits.sum(1) == vectors).all()):
            return PromptRows(ids, hits.nonzero()[:, 1].view(len(ids), vectors))
    raise PromptError(
        f"The tokenizer of {clip.name or 'this model'} has no word that can mark where {vectors} "
        f'context vectors stand (position "{position}"). Use a model with another tokenizer.'
    )


def build_sentence_rows(clip: Clip, sentences: Sequence[str]) -> PromptRows:
    """Rows for plain sentences, without context vectors."""
    ids = tokenize(clip, sentences, sentences, 0)
    return PromptRows(ids, torch.zeros(len(ids), 0, dtype=torch.long))


def tokenize(clip: Clip, sentences: Sequence[str], names: Sequence[str], vectors: int) -> Tensor:
    """Ids (n, L) of sentences that fit; `names` and `vectors` are for the error's text."""
    length = clip.context_length
    ids = clip.tokenizer(list(sentences), context_length=length)
    roomy = clip.tokenizer(list(sentences), context_length=_roomy_length(clip, sentences))
    pad = _pad_id(clip)
    needed, found = (roomy != pad).sum(1), (ids != pad).sum(1)
    for row in (needed != found).nonzero().flatten().tolist()[:1]:
        room = f", of which {vectors} are context vectors" if vectors else ""
        raise PromptError(
            f'The prompt of class "{names[row]}" has {int(needed[row])} tokens{room}, but the '
            f"model reads at most {length}. Shorten the class name or use a shorter context."
        )
    return ids


def word_ids_after(clip: Clip, words: str) -> Tensor:
    """Ids (M,) of some words that follow another word: some tokenizers count the space in."""
    ids = word_ids(clip, words)
    for lead in _PLACEHOLDERS if len(ids) else ():
        alone, both = word_ids(clip, lead), word_ids(clip, f"{lead} {words}")
        if torch.equal(both[: len(alone)], alone):
            return both[len(alone) :]
    return ids


def word_ids(clip: Clip, words: str) -> Tensor:
    """Ids (M,) of some words alone, without start and end marks."""
    pad = _pad_id(clip)
    length = _roomy_length(clip, [words])
    row, empty = (_unpad(r, pad) for r in clip.tokenizer([words, ""], context_length=length))
    start = 0
    while start < len(empty) and row[start] == empty[start]:
        start += 1
    end = len(empty) - start
    return torch.tensor(row[start : len(row) - end] if end else row[start:], dtype=torch.long)


def pooled_columns(clip: Clip, ids: Tensor) -> Tensor:
    """Columns (K,) at which a causal text tower's feature is read: the end token's."""
    if clip.text.pool == "argmax":
        return ids.argmax(1)
    return ids.eq(clip.text.eos_id or 0).int().argmax(1)


def _unpad(row: Tensor, pad: int) -> list[int]:
    """The ids of a row without its padding. Id 0 is both CLIP's padding and its "!"."""
    kept = row != pad
    if int(row[-1]) == pad:  # padded at the end, as nearly everywhere
        return row[: int(kept.nonzero().max()) + 1].tolist() if bool(kept.any()) else []
    return row[kept].tolist()


def check_template(template: str) -> None:
    """Refuse words that no tokenizer can read, and another program's mark for the class name.

    Raises:
        PromptError: no text, bytes that are not UTF-8, quotes around it all, or such a mark.
    """
    if not isinstance(template, str):
        raise PromptError(
            f"A template is expected as text, but a {type(template).__name__} came. Write it with "
            '{} for the class name: "a photo of a {}."'
        )
    if not is_utf8(template):
        shown = template.encode("utf-8", "backslashreplace").decode()
        raise PromptError(
            f'The template "{shown}" holds bytes that are not UTF-8 text; a tokenizer cannot read '
            "them. Write it in UTF-8."
        )
    words = template.replace("{}", "\0")  # no other mark holds the right one
    mark = _FOREIGN_MARK.search(words)
    if mark is not None:
        shown = mark[0].replace("\0", "{}")
        right = _FOREIGN_MARK.sub("{}", words, count=1).replace("\0", "")
        raise PromptError(
            f'The template "{template}" holds "{shown}"; the place of the class name is written '
            f'{{}}, for example "{right}".'
        )
    if re.fullmatch(r"""\s*(["'`]).*\1\s*,?\s*""", template):
        raise PromptError(
            f"The template {template.strip()} stands in quotes, which would be read as a part of "
            "the prompt. Leave them out."
        )
    code = _CODE.search(template)
    if code is not None:
        raise PromptError(
            f'The template "{template}" holds {code[0]!r}, which is of a program and would be read '
            'as a part of the prompt. Write the words alone: "a photo of a {}."'
        )
    if drop_invisible(template) != template:
        raise PromptError(
            f"The template {template!a} holds a character that cannot be seen, which a tokenizer "
            "reads all the same. Type it anew."
        )


def _roomy_length(clip: Clip, sentences: Sequence[str]) -> int:
    """A length at which no tokenizer cuts any of the sentences: a token is at least a byte."""
    return max(2 * clip.context_length, 16 + max(len(sentence.encode()) for sentence in sentences))


def _pad_id(clip: Clip) -> int:
    """The id that fills a short sentence up."""
    row = clip.tokenizer(["a"], context_length=clip.context_length)[0]
    return int(row.mode().values)


def _single_token(clip: Clip, word: str) -> Tensor:
    """The one token of a word, as a text's first word and as a later one, or nothing (0,)."""
    ids = word_ids(clip, f"{word} {word}")
    return ids if len(ids) == 2 else ids[:0]
