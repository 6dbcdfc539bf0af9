"""Teacher, student and the losses between them, shared by projection, styles and realignment."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lite.backbone import load_backbone
from lite.concepts import Concepts, class_lists, class_name, find_concepts
from lite.files import load
from lite.styles import STYLE_NAMES
from lite.wordnet import WordNet

SCALE = 100.0  # of the logits, as CLIP's after training


RANK = 8  # of a style's map


SETS = ("cifar", "imagenette", "caltech", "pacs")


@dataclass(frozen=True)
class Pictures:
    """Features of stage 1 with their labels.

    Attributes:
        features: (3, n, 1280): clean, and twice styled.
        styles: (3, n) numbers of styles; the first row is 0.
        labels: (n,) concepts. sets: (n,) numbers in SETS.
        own: a set's concepts, ascending.
    """

    features: Tensor
    styles: Tensor
    labels: Tensor
    sets: Tensor
    own: list[Tensor]

    def __len__(self) -> int:
        return len(self.labels)


class Teacher:
    """The backbone's classifier, a linear map of features to 1,000 logits."""

    def __init__(self) -> None:
        classifier = load_backbone().classifier
        assert isinstance(classifier, nn.Linear)
        self.weight, self.bias = classifier.weight.detach(), classifier.bias.detach()

    def __call__(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + self.bias

    def lookalikes(self, features: Tensor) -> Tensor:
        """Features moved to another class, drawn at random, by a drawn margin: the pictures that no
        set has. Two rounds along the difference to the strongest other class."""
        rows = torch.arange(len(features))
        goal = torch.randint(0, 1000, (len(features),))
        for _ in range(2):
            logits = self(features)
            rival = logits.scatter(1, goal[:, None], -1e9).argmax(1)
            way = self.weight[goal] - self.weight[rival]
            gap = logits[rows, rival] - logits[rows, goal] + torch.rand(len(features)) * 8 - 1
            step = gap.clamp(min=0) / way.square().sum(1)
            features = (features + step[:, None] * way).clamp(0, 6)
        return features


class Student(nn.Module):
    """Projection, targets and style maps."""

    def __init__(self, embed_dim: int, concepts: int) -> None:
        super().__init__()
        self.projection = nn.Parameter(torch.zeros(embed_dim, 1280))
        self.bias = nn.Parameter(torch.zeros(embed_dim))
        self.targets = nn.Parameter(torch.zeros(concepts, embed_dim))
        styles = len(STYLE_NAMES)
        self.down = nn.Parameter(torch.randn(styles, embed_dim, RANK) * 0.02)
        self.up = nn.Parameter(torch.zeros(styles, embed_dim, RANK))
        self.shift = nn.Parameter(torch.zeros(styles, embed_dim))

    def image(self, features: Tensor) -> Tensor:
        return F.normalize(features @ self.projection.T + self.bias, dim=-1)

    def styled(self, targets: Tensor, style: int, strength: float = 1.0) -> Tensor:
        move = (targets @ self.down[style]) @ self.up[style].T + self.shift[style]
        return F.normalize(targets + strength * move, dim=-1)


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || softmax(logits)), (n,)."""
    return (teacher * (teacher.clamp(min=1e-8).log() - logits.log_softmax(-1))).sum(-1)


def read_pictures(work: Path, concepts: Concepts) -> Pictures:
    stored = load(work / "pictures.pt")
    clean = stored["clean"].float()[None]
    labels = torch.tensor([concepts.named[class_name(folder)] for _, _, folder in stored["rows"]])
    sets = torch.tensor([SETS.index(name) for _, name, _ in stored["rows"]])
    return Pictures(
        torch.cat([clean, stored["styled"].float()]),
        torch.cat([torch.zeros_like(stored["style"][:1]), stored["style"]]),
        labels,
        sets,
        [labels[sets == number].unique() for number in range(len(SETS))],
    )


def read_concepts(wordnet: WordNet, work: Path) -> Concepts:
    return find_concepts(wordnet, {folder for _, _, folder in load(work / "pictures.pt")["rows"]})


def kinds_teacher(leaves: Tensor, members: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """What the teacher says of a list of kinds, (n, list), and how sure it is that one is there.

    A sum of the leaves' probabilities lets a kind with a hundred leaves ("dog") take whatever is
    unclear; the norm of a higher power counts what is concentrated.
    """
    total = leaves @ members.T
    gathered = (leaves.pow(power) @ members.T).pow(1 / power).clamp(min=1e-9)
    return gathered / gathered.sum(1, keepdim=True), (2 * total.sum(1)).clamp(max=1)


class Losses:
    """The terms that projection and realignment share."""

    def __init__(
        self, wordnet: WordNet, concepts: Concepts, pictures: Pictures, seed: int, power: float
    ) -> None:
        self.concepts, self.pictures, self.power = concepts, pictures, power
        self.rng = random.Random(seed)
        self.lists = class_lists(wordnet, concepts, self.rng, 600)
        shown = pictures.labels.unique().tolist()
        self.related = {label: concepts.related(wordnet, label) for label in shown}

    def leaves_and_kinds(self, logits: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.rng.choice(self.lists)
        said, sure = kinds_teacher(teacher, self.concepts.members[chosen], self.power)
        leaves = divergence(logits[:, :1000], teacher).mean()
        return leaves, (divergence(logits[:, chosen], said) * sure).mean()

    def labelled(self, logits: Tensor, rows: Tensor, others: int = 60) -> Tensor:
        """Cross entropy among the names of the picture's set and leaves that it cannot show."""
        random_leaves, loss = torch.randint(0, 1000, (others,)), logits.new_zeros(())
        for number, own in enumerate(self.pictures.own):
            here = (self.pictures.sets[rows] == number).nonzero().flatten()
            if len(here) == 0:
                continue
            labels = self.pictures.labels[rows[here]]
            possible = torch.stack([self.related[int(label)][random_leaves] for label in labels])
            rest = logits[here][:, random_leaves].masked_fill(possible, -1e4)
            scores = torch.cat([logits[here][:, own], rest], 1)
            place = torch.searchsorted(own, labels)
            loss = loss + F.cross_entropy(scores, place, label_smoothing=0.02, reduction="sum")
        return loss / len(rows)


def load_student(work: Path) -> Student:
    """The projection, with its style maps where they are made."""
    stored = load(work / "projection.pt")
    student = Student(stored["projection"].shape[0], len(stored["targets"]))
    if (work / "styles.pt").exists():
        stored.update(load(work / "styles.pt"))
        stored.pop("strength")
    student.load_state_dict(stored, strict=False)
    return student


def draw(size: int, count: int) -> Tensor:
    return torch.randint(0, size, (count,))
