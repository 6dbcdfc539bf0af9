"""How right a set of text directions is on the development pictures; printed after each long stage.

Nothing here is trained on. Accuracies on ImageNet samples and Imagenette are optimistic: most of
these pictures were in the backbone's own training set.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lite.concepts import Concepts, class_name
from lite.files import load, say
from lite.vocabulary import LEAVES
from lite.wordnet import WordNet

KINDS = {
    "animal kinds": "mammal, bird, reptile, amphibian, fish, insect, arachnid, crustacean",
    "everyday kinds": (
        "animal, vehicle, furniture, clothing, musical instrument, tool, food, building, container"
    ),
    "mammals": "dog, feline, bear, monkey, rodent, ungulate, marsupial, whale, weasel",
}
"""Lists of kinds as a person types them."""


def report(
    wordnet: WordNet,
    concepts: Concepts,
    work: Path,
    image: Callable[[Tensor], Tensor],
    texts: Callable[[list[int]], Tensor],
) -> dict[str, float]:
    """Accuracies in percent by set: `image` makes unit vectors of backbone features, `texts` unit
    vectors of concepts."""
    stored = load(work / "development.pt")
    images = image(stored["clean"].float())
    sets = [name for _, name, _ in stored["rows"]]
    names = [class_name(folder) for _, _, folder in stored["rows"]]
    scores = {}
    for title in ("cifar", "caltech", "pacs", "sketch", "imagenette"):
        rows = [n for n, name in enumerate(sets) if name == title]
        if rows:
            shown = sorted({names[n] for n in rows} & set(concepts.named))
            right = [shown.index(names[n]) if names[n] in shown else -1 for n in rows]
            said = images[rows] @ texts([concepts.named[name] for name in shown]).T
            scores[title] = _percent(said.argmax(1), right)
    rows = [n for n, name in enumerate(sets) if name == "samples"]
    leaves = [LEAVES.index(names[n][1:]) for n in rows]
    scores["samples of 1,000"] = _percent(
        (images[rows] @ texts(list(range(1000))).T).argmax(1), leaves
    )
    for title, kinds in KINDS.items():
        offsets = [wordnet.visible_sense(kind) for kind in kinds.split(", ")]
        members = [o for o in offsets if o in concepts.offsets]
        if len(members) < 2:
            continue
        said = (images[rows] @ texts([concepts.offsets.index(o) for o in members]).T).argmax(1)
        right = [_kind_of(wordnet, LEAVES[leaf], members) for leaf in leaves]
        known = [n for n, kind in enumerate(right) if kind >= 0]
        scores[title] = _percent(said[known], [right[n] for n in known])
    say(", ".join(f"{title} {score:.1f}" for title, score in scores.items()))
    return scores


def _kind_of(wordnet: WordNet, leaf: str, kinds: list[str]) -> int:
    """Which kind the leaf is of; -1 if none."""
    above = wordnet.ancestors(leaf) | {leaf}
    return next((number for number, kind in enumerate(kinds) if kind in above), -1)


def _percent(said: Tensor, right: list[int]) -> float:
    return float((said == torch.tensor(right)).float().mean() * 100)
