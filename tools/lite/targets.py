"""Stage 4: a unit target for every name of the vocabulary, and a start for every whole-word token.

A name of a known concept gets that concept's target. Any other gets a mean over the known ones,
weighted by how alike they are: in name and in gloss (sentence vectors) and in WordNet (Resnik 1995:
the information content of the lowest common hypernym). The three constants are those with the best
cosine when every fourth ImageNet class is left out and guessed from the rest.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from lite.concepts import Concepts
from lite.distillation import read_concepts
from lite.files import load, save, say
from lite.sentences import SentenceEncoder
from lite.wordnet import WordNet

NAME_SHARE, TREE_SHARE, TEMPERATURE = 0.3, 0.3, 0.08
TOKEN_TEMPERATURE = 0.05
OTHER, LEAF, HYPERNYM, PICTURE = range(4)
"""How a name's target was found: guessed, or the concept's own."""


class Anchors:
    """The known concepts with their targets, as a guess sees them."""

    def __init__(self, wordnet: WordNet, concepts: Concepts, words: dict[str, Any], work: Path):
        self.wordnet = wordnet
        targets = load(work / "projection.pt")["targets"]
        self.mean = targets.mean(0)
        self.moves = targets - self.mean
        self.length = float(self.moves[:1000].norm(dim=1).mean())
        self.offsets = [concepts.offset(concept) for concept in range(len(concepts))]
        titles, names = [], []
        for concept, offset in enumerate(self.offsets):
            name = concepts.prompt_name(wordnet, concept)
            names.append(wordnet[offset].name if offset else name)
            titles.append(wordnet[offset].title if offset else name)
        encode = SentenceEncoder()
        self.names, self.glosses = encode(names), encode(titles)
        self.names[:1000] = F.normalize(self.names[:1000] + words["leaves"], dim=1)
        sizes, kinds = concepts.sizes(), slice(1000, len(concepts.offsets))
        self.weight = torch.ones(len(concepts))
        self.weight[kinds] = 0.5 / (1 + sizes[kinds].log())
        self._prepare_tree(words["synsets"])

    def guess(self, names: Tensor, glosses: Tensor, offsets: list[str]) -> Tensor:
        """Centred targets (n, E) from name vectors and gloss vectors (n, 384)."""
        alike = NAME_SHARE * names @ self.names.T + (1 - NAME_SHARE) * glosses @ self.glosses.T
        return self._blend((alike + TREE_SHARE * self._tree(offsets)) / TEMPERATURE)

    def guess_from_name(self, names: Tensor) -> Tensor:
        return self._blend(names @ self.names.T / TOKEN_TEMPERATURE)

    def _blend(self, logits: Tensor) -> Tensor:
        share = logits.softmax(1) * self.weight
        return F.normalize(share / share.sum(1, keepdim=True) @ self.moves, dim=1)

    def _lineage(self, offset: str) -> frozenset[str]:
        return self.wordnet.ancestors(offset) | {offset}

    def _prepare_tree(self, synsets: list[str]) -> None:
        """Which anchors stand under which synset, and its information content."""
        counts = Counter(above for offset in synsets for above in self._lineage(offset))
        known = sorted({a for o in self.offsets if o for a in self._lineage(o)})
        self._column = {offset: number for number, offset in enumerate(known)}
        self._under = torch.zeros(len(self.offsets), len(known))
        for row, offset in enumerate(self.offsets):
            if offset:
                self._under[row, [self._column[above] for above in self._lineage(offset)]] = 1
        content = [-math.log(counts[o] / len(synsets)) if counts[o] else 0.0 for o in known]
        self._content = torch.tensor(content)

    def _tree(self, offsets: list[str]) -> Tensor:
        """Information content of the lowest common hypernym with each anchor, about 0 to 1."""
        rows = torch.zeros(len(offsets), len(self.offsets))
        for row, offset in enumerate(offsets):
            shared = [self._column[a] for a in self._lineage(offset) if a in self._column]
            if shared:
                rows[row] = (self._under[:, shared] * self._content[shared]).amax(1)
        return rows / 8


def name_targets(wordnet: WordNet, work: Path) -> None:
    """Write targets.pt: `names`, `kind` (n,), unit `targets` (n, E), their `mean` (E,), and
    `token_ids` with `token_start` (t, E), centred."""
    words = load(work / "vocabulary.pt")
    concepts = read_concepts(wordnet, work)
    anchors = Anchors(wordnet, concepts, words, work)
    row_of = {offset: row for row, offset in enumerate(words["synsets"])}
    moves = []
    for start in range(0, len(words["names"]), 512):
        offsets = words["offsets"][start : start + 512]
        glosses = words["glosses"][[row_of[offset] for offset in offsets]]
        moves.append(anchors.guess(words["vectors"][start : start + 512], glosses, offsets))
    guessed = dict(zip(words["names"], torch.cat(moves) * anchors.length * 0.9, strict=True))
    targets = {name: (OTHER, move) for name, move in guessed.items()}
    targets.update(_known(anchors, concepts, words))
    kinds, known_moves = zip(*targets.values(), strict=True)
    say(f"names by kind of target: {sorted(Counter(kinds).items())}")
    start_moves = torch.cat(
        [anchors.guess_from_name(part) for part in words["token_vectors"].split(2048)]
    )
    start_moves *= anchors.length * 0.8
    for row, token in enumerate(words["tokens"]):
        if token in targets:
            start_moves[row] = targets[token][1]
    save(
        work / "targets.pt",
        {
            "names": list(targets),
            "kind": torch.tensor(kinds),
            "targets": F.normalize(anchors.mean + torch.stack(known_moves), dim=1),
            "mean": anchors.mean,
            "token_ids": words["token_ids"],
            "token_start": start_moves,
        },
    )


def _known(
    anchors: Anchors, concepts: Concepts, words: dict[str, Any]
) -> dict[str, tuple[int, Tensor]]:
    """The names whose concept is known, with that concept's target, centred."""
    number = {offset: c for c, offset in enumerate(anchors.offsets) if offset}
    found = {}
    for name, offset in zip(words["names"], words["offsets"], strict=True):
        if offset in number:
            concept = number[offset]
            kind = LEAF if concept < 1000 else HYPERNYM
            kind = PICTURE if concept >= len(concepts.offsets) else kind
            found[name] = (kind, anchors.moves[concept])
    shown = {name: c for name, c in concepts.named.items() if not name[1:].isdigit()}
    for name, concept in shown.items():
        found[name] = (PICTURE, anchors.moves[concept])
    for concept, title in enumerate(open_clip.IMAGENET_CLASSNAMES):
        name = title.lower()
        if shown.get(name, concept) == concept:
            found[name] = (LEAF, anchors.moves[concept])
    return found
