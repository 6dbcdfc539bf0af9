"""Stage 2: the names to teach, what each means, and what they are like in a sentence encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import open_clip
from open_clip.tokenizer import SimpleTokenizer

from lite.files import save, say
from lite.sentences import SentenceEncoder
from lite.wordnet import ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PLANT, VISIBLE, WordNet
from tpt.data.imagenet import imagenet_ids

ACT = 4  # lexicographer file of sports and games
LEAVES = [wnid[1:] for wnid in imagenet_ids()]
LEAF_NAMES = list(open_clip.IMAGENET_CLASSNAMES)


@dataclass(frozen=True)
class WordTokens:
    """The tokens of CLIP's vocabulary that are whole words."""

    words: list[str]
    ids: list[int]


def word_tokens(most: int | None = None) -> WordTokens:
    encoder = SimpleTokenizer().encoder
    end = "</w>"
    found = {
        token[: -len(end)]: number
        for token, number in encoder.items()
        if token.endswith(end) and number < 49406 and token[: -len(end)].isalpha()
    }
    return WordTokens(list(found)[:most], list(found.values())[:most])


def choose_names(wordnet: WordNet, single: set[str]) -> dict[str, str]:
    """Name -> synset: words of CLIP's vocabulary, hypernyms of ImageNet, common things, ImageNet.

    Later groups decide what a name means where groups share it.
    """
    above = {parent for leaf in LEAVES for parent in wordnet.ancestors(leaf)}
    names = {w: _likely_sense(wordnet, w, above) for w in sorted(single) if _teachable(wordnet, w)}
    for offset in sorted(above):
        if wordnet[offset].lexfile in VISIBLE:
            for word in wordnet[offset].words:
                name = word.replace("_", " ").lower()
                if len(name) < 30 and word.lower() in wordnet.senses:
                    names.setdefault(name, offset)
    for word, senses in wordnet.senses.items():
        if _common_thing(wordnet, word, senses[0], single):
            names.setdefault(word.replace("_", " "), senses[0])
    for offset, name in zip(LEAVES, LEAF_NAMES, strict=True):
        for word in wordnet[offset].words:
            names[word.replace("_", " ").lower()] = offset
        names[name.lower()] = offset
    return names


def _teachable(wordnet: WordNet, word: str) -> bool:
    return len(word) > 2 and word in wordnet.senses


def _likely_sense(wordnet: WordNet, word: str, above: set[str]) -> str:
    """The sense that a class name means: often used, of a visible thing, known to ImageNet."""

    def weight(number: int, offset: str) -> float:
        synset = wordnet[offset]
        value = (wordnet.uses.get((word, number + 1), 0) + 1) / (1 + 0.35 * number)
        if synset.lexfile not in VISIBLE:
            return value * 0.25
        value *= 1.2 if offset in above or offset in LEAVES else 1
        return value * (0.5 if synset.lexfile == 18 else 1)  # a person named after a thing

    senses = wordnet.senses[word]
    return max(enumerate(senses), key=lambda pair: weight(*pair))[1]


def _common_thing(wordnet: WordNet, word: str, offset: str, single: set[str]) -> bool:
    """Whether a word outside CLIP's vocabulary is worth a name of its own."""
    kind, used = wordnet[offset].lexfile, wordnet.uses.get((word, 1), 0) > 0
    if word not in wordnet[offset].words:  # a proper name, or another spelling
        return used and word.count("_") == 1 and kind in (ACT, ANIMAL, ARTIFACT, BODY, FOOD, PLANT)
    if word.count("_") == 1:
        if kind in (ANIMAL, ARTIFACT, FOOD) and single.issuperset(word.split("_")):
            return True
        return used and kind in (ACT, ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PLANT)
    if word.isalpha() and 3 < len(word) < 12 and word not in single:
        return kind in (ANIMAL, ARTIFACT, FOOD) or (used and kind in (BODY, PLANT))
    return False


def vocabulary(wordnet: WordNet, work: Path, most_tokens: int | None) -> None:
    """Write vocabulary.pt: `names` with `offsets` and `vectors` (n, 384); `synsets` with
    `glosses`; `leaves` (1000, 384) of ImageNet's names; `tokens` with `token_vectors`."""
    tokens = word_tokens(most_tokens)
    names = choose_names(wordnet, set(tokens.words))
    encode = SentenceEncoder()
    synsets = sorted({*names.values(), *LEAVES})
    say(f"{len(names)} names of {len(synsets)} meanings, {len(tokens.words)} word tokens")
    save(
        work / "vocabulary.pt",
        {
            "names": list(names),
            "offsets": list(names.values()),
            "vectors": encode(list(names)),
            "synsets": synsets,
            "glosses": encode([wordnet[offset].title for offset in synsets]),
            "leaves": encode(LEAF_NAMES),
            "tokens": tokens.words,
            "token_ids": tokens.ids,
            "token_vectors": encode(tokens.words),
        },
    )
