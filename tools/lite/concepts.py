"""The things that the image tower is known to tell apart: ImageNet's 1,000 classes ("leaves"), the
kinds above them ("hypernyms"), and what the labelled pictures show beside those ("extra")."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from lite.vocabulary import LEAF_NAMES, LEAVES
from lite.wordnet import WordNet

MOST_LEAVES = 400  # of a hypernym; above it stand words such as "object"
CALTECH = {
    "Faces": "face",
    "Faces_easy": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorcycle",
    "airplanes": "airplane",
    "car_side": "car",
    "cougar_body": "cougar",
    "cougar_face": "cougar",
    "crocodile_head": "crocodile",
    "flamingo_head": "flamingo",
    "inline_skate": "roller skate",
}


def class_name(folder: str) -> str:
    """What a class folder of the training sets shows; a wnid stays one."""
    return folder if folder[1:].isdigit() else CALTECH.get(folder, folder.replace("_", " ").lower())


@dataclass(frozen=True)
class Concepts:
    """Offsets of leaves and hypernyms, then (name, offset or None) of the extra ones.

    Attributes:
        members: (leaves + hypernyms, 1000), 1 where a leaf is of that kind.
        named: concept of a picture's class name.
    """

    offsets: list[str]
    extra: list[tuple[str, str | None]]
    members: Tensor
    named: dict[str, int]

    def __len__(self) -> int:
        return len(self.offsets) + len(self.extra)

    def offset(self, concept: int) -> str | None:
        known = len(self.offsets)
        return self.offsets[concept] if concept < known else self.extra[concept - known][1]

    def prompt_name(self, wordnet: WordNet, concept: int) -> str:
        """The name that a person would type for it."""
        for name, number in self.named.items():
            if number == concept and not name[1:].isdigit():
                return name
        return LEAF_NAMES[concept] if concept < 1000 else wordnet[self.offsets[concept]].name

    def sizes(self) -> Tensor:
        """Leaves under each concept; 1 for the extra ones."""
        return torch.cat([self.members.sum(1), torch.ones(len(self.extra))])

    def related(self, wordnet: WordNet, concept: int) -> Tensor:
        """(n,) of all concepts: those that may be right for a picture of this one."""
        known, answer = len(self.offsets), torch.zeros(len(self), dtype=torch.bool)
        if concept < known:
            answer[:known] = self.members @ self.members[concept] > 0
        elif offset := self.offset(concept):
            above = wordnet.ancestors(offset)
            answer[:known] = torch.tensor([other in above for other in self.offsets])
        return answer


def find_concepts(wordnet: WordNet, folders: set[str]) -> Concepts:
    """The concepts of ImageNet and of the training pictures' class folders."""
    leaf_number = {offset: number for number, offset in enumerate(LEAVES)}
    below = defaultdict(set)
    for leaf, number in leaf_number.items():
        for parent in wordnet.ancestors(leaf):
            below[parent].add(number)
    kinds = [o for o in sorted(below) if o not in leaf_number and len(below[o]) <= MOST_LEAVES]
    offsets = LEAVES + kinds
    members = torch.eye(1000)
    members = torch.cat([members, torch.zeros(len(kinds), 1000)])
    for row, kind in enumerate(kinds, start=1000):
        members[row, sorted(below[kind])] = 1
    concept_of = {offset: concept for concept, offset in enumerate(offsets)}
    extra: list[tuple[str, str | None]] = []
    named = {}
    for name in sorted({class_name(folder) for folder in folders}):
        offset = name[1:] if name[1:].isdigit() else wordnet.visible_sense(name)
        if offset in concept_of:
            named[name] = concept_of[offset]
        else:
            named[name] = len(offsets) + len(extra)
            extra.append((name, offset))
    return Concepts(offsets, extra, members, named)


def class_lists(
    wordnet: WordNet, concepts: Concepts, rng: random.Random, count: int
) -> list[Tensor]:
    """Lists of concepts of which no two share a leaf, as people type them.

    A third are the kinds directly under one synset ("mammal, bird, reptile"), the rest random kinds
    of any level; leaves under none of them may join.
    """
    number = {offset: concept for concept, offset in enumerate(concepts.offsets)}
    families = [
        kinds
        for _, below in sorted(wordnet.children.items())
        if len(kinds := [number[offset] for offset in below if offset in number]) > 1
    ]
    lists = []
    for turn in range(count):
        if turn % 3 == 0:
            family = rng.choice(families)
            order = rng.sample(family, len(family))
            chosen, covered = _disjoint(concepts, order, len(order))
            more = rng.choice([0, 0, 5, 20])
        else:
            order = rng.sample(range(1000, len(concepts.offsets)), len(concepts.offsets) - 1000)
            chosen, covered = _disjoint(concepts, order, rng.choice([4, 10, 30, 80]))
            more = rng.choice([0, 20, 200])
        free = (covered == 0).nonzero().flatten().tolist()
        chosen += rng.sample(free, min(more, len(free)))
        if len(chosen) > 1:
            lists.append(torch.tensor(chosen))
    return lists


def _disjoint(concepts: Concepts, order: list[int], most: int) -> tuple[list[int], Tensor]:
    """The first `most` of `order` that share no leaf with one before, and the leaves they cover."""
    chosen: list[int] = []
    covered = torch.zeros(1000)
    for concept in order:
        if len(chosen) == most:
            break
        if not (concepts.members[concept] * covered).any():
            chosen.append(concept)
            covered = covered + concepts.members[concept]
    return chosen, covered
