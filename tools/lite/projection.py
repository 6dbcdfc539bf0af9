"""Stage 3: where the image tower sees each concept: a projection to E, and a unit target a concept.

The projection starts from the singular vectors of the backbone's classifier and learns to say what
that classifier says, at a logit scale of 100 and between unit vectors, over leaves and over lists
of kinds. Then every style gets a map of targets: what "a foggy photo of a cat" should point at.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lite.backbone import load_backbone
from lite.concepts import Concepts, class_lists, class_name, find_concepts
from lite.development import report
from lite.files import load, save, say
from lite.styles import STYLE_NAMES
from lite.wordnet import WordNet

SCALE = 100.0  # of the logits, as CLIP's after training
RANK = 8  # of a style's map
SETS = ("cifar", "imagenette", "caltech", "pacs")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


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


def start_from_classifier(student: Student, teacher: Teacher, data: Pictures, c: Concepts) -> None:
    """Projection and targets whose cosines are close to the classifier's logits (its SVD); the last
    axis is a constant that keeps the vectors' lengths alike."""
    rank = student.bias.shape[0] - 1
    weight = teacher.weight - teacher.weight.mean(0)
    left, singular, right = torch.linalg.svd(weight, full_matrices=False)
    root = singular[:rank].sqrt()
    leaves = F.pad(left[:, :rank] * root, (0, 1))
    rows, mean = root[:, None] * right[:rank], data.features[0].mean(0)
    length = ((data.features[0] - mean) @ rows.T).norm(dim=1).mean()
    members = c.members[1000:]
    known = torch.cat([leaves, members @ leaves / members.sum(1, keepdim=True)])
    known[:, -1] = leaves.norm(dim=1).mean() * 1.5
    with torch.no_grad():
        student.projection.copy_(F.pad(rows, (0, 0, 0, 1)))
        student.bias.copy_(torch.cat([-(rows @ mean), length[None] * 1.5]))
        for number in range(len(c.extra)):
            mine = data.features[0][data.labels == len(c.offsets) + number]
            student.targets[len(c.offsets) + number] = student.image(mine).mean(0)
        student.targets[: len(c.offsets)] = known
        student.targets.copy_(F.normalize(student.targets, dim=1))


def train_projection(
    wordnet: WordNet, work: Path, *, embed_dim: int, steps: int, power: float, seed: int
) -> None:
    """Write projection.pt: `projection` (E, 1280), `bias`, unit `targets` (concepts, E)."""
    torch.manual_seed(seed)
    concepts = read_concepts(wordnet, work)
    data, teacher = read_pictures(work, concepts), Teacher()
    say(f"{len(concepts)} concepts, {len(data)} pictures, three features each")
    student = Student(embed_dim, len(concepts))
    start_from_classifier(student, teacher, data, concepts)
    losses = Losses(wordnet, concepts, data, seed, power)
    said = teacher(data.features)
    with torch.no_grad():
        made = torch.cat(
            [
                teacher.lookalikes(data.features[k][draw(len(data), 5000)])
                for k in (0, 0, 0, 0, 1, 2)
            ]
        )
    optimiser = torch.optim.Adam(_groups(student), betas=(0.9, 0.98))
    for step in schedule(optimiser, steps):
        clean, styled = draw(len(data), 192), draw(len(data), 96)
        k, drawn = int(torch.randint(1, 3, ())), draw(len(made), 320)
        features = torch.cat([data.features[0, clean], data.features[k, styled], made[drawn]])
        probabilities = torch.cat([said[0, clean], said[k, styled], teacher(made[drawn])]).softmax(
            1
        )
        targets = F.normalize(student.targets, dim=1)
        logits = SCALE * student.image(features) @ targets.T
        leaves, kinds = losses.leaves_and_kinds(logits, probabilities)
        labelled = losses.labelled(logits[: len(clean)], clean)
        style = int(torch.randint(1, len(STYLE_NAMES), ()))
        seen, shown = _style_loss(student, losses, said, style, data, 160)
        penalty = student.shift[style].square().sum() + student.up[style].square().sum()
        loss = leaves + 0.7 * kinds + 0.5 * labelled + 0.3 * (seen + shown) + 1e-3 * penalty
        descend(optimiser, loss)
        with torch.no_grad():
            student.targets.copy_(F.normalize(student.targets, dim=1))
        if step % 200 == 0:
            say(
                f"projection {step} of {steps}: leaves {leaves:.3f}, kinds {kinds:.3f}, "
                f"labelled {labelled:.3f}, styled {seen:.3f}"
            )
    save(work / "projection.pt", _numbers(student, ("projection", "bias", "targets")))
    with torch.no_grad():
        report(wordnet, concepts, work, student.image, lambda chosen: student.targets[chosen])


def train_styles(wordnet: WordNet, work: Path, *, steps: int, seed: int) -> None:
    """Write styles.pt: the maps `down`, `up` (styles, E, rank) and `shift` (styles, E), and
    `strength` (styles,), chosen on the fifth of the pictures that the maps were not fitted to."""
    torch.manual_seed(seed)
    concepts = read_concepts(wordnet, work)
    data, teacher = read_pictures(work, concepts), Teacher()
    student = load_student(work)
    for name in ("projection", "bias", "targets"):
        getattr(student, name).requires_grad_(False)
    losses = Losses(wordnet, concepts, data, seed, 1.0)
    said, fitted = teacher(data.features), torch.arange(len(data)) % 5 != 0
    optimiser = torch.optim.Adam([student.down, student.up, student.shift], 3e-3, (0.9, 0.98))
    for step in schedule(optimiser, steps):
        loss = 0.1 * student.shift.square().sum()
        for style in range(1, len(STYLE_NAMES)):
            seen, shown = _style_loss(student, losses, said, style, data, 128, fitted)
            loss = loss + 0.5 * seen + shown
        descend(optimiser, loss)
        if step % 20 == 0:
            say(f"styles {step} of {steps}: {float(loss.detach()) / (len(STYLE_NAMES) - 1):.3f}")
    strength = torch.tensor(
        [_best_strength(student, data, ~fitted, s) for s in range(len(STYLE_NAMES))]
    )
    save(work / "styles.pt", {**_numbers(student, ("down", "up", "shift")), "strength": strength})


def load_student(work: Path) -> Student:
    """The projection, with its style maps where they are made."""
    stored = load(work / "projection.pt")
    student = Student(stored["projection"].shape[0], len(stored["targets"]))
    if (work / "styles.pt").exists():
        stored.update(load(work / "styles.pt"))
        stored.pop("strength")
    student.load_state_dict(stored, strict=False)
    return student


def _style_loss(
    student: Student,
    losses: Losses,
    said: Tensor,
    style: int,
    data: Pictures,
    count: int,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A styled picture under styled targets says what the clean one says, and what it shows."""
    k = int(torch.randint(1, 3, ()))
    pool = data.styles[k] == style
    pool = (pool if allowed is None else pool & allowed).nonzero().flatten()
    if len(pool) == 0:
        return torch.zeros(()), torch.zeros(())
    rows = pool[draw(len(pool), count)]
    targets = student.styled(F.normalize(student.targets, dim=1), style)
    logits = SCALE * student.image(data.features[k, rows]) @ targets.T
    seen = divergence(logits[:, :1000], said[0, rows].softmax(1)).mean()
    return seen, losses.labelled(logits, rows, others=0)


@torch.no_grad()
def _best_strength(student: Student, data: Pictures, kept_back: Tensor, style: int) -> float:
    """How far to move along a style's map: the strength with the lowest cross entropy."""
    if style == 0:
        return 0.0
    costs = []
    for strength in STRENGTHS:
        targets, cost, count = student.styled(student.targets, style, strength), 0.0, 0
        for k in (1, 2):
            for number, own in enumerate(data.own):
                rows = (data.styles[k] == style) & kept_back & (data.sets == number)
                logits = SCALE * student.image(data.features[k, rows]) @ targets[own].T
                place = torch.searchsorted(own, data.labels[rows])
                cost += float(F.cross_entropy(logits, place, reduction="sum"))
                count += int(rows.sum())
        costs.append(cost / max(count, 1))
    best = STRENGTHS[costs.index(min(costs))]
    say(f"style {STYLE_NAMES[style]}: strength {best}, costs {[round(c, 3) for c in costs]}")
    return best


def _groups(student: Student) -> list[dict[str, Any]]:
    scale = float(student.projection.detach().std())
    return [
        {"params": [student.targets], "lr": 2e-3},
        {"params": [student.projection], "lr": 4e-3 * scale},
        {"params": [student.bias], "lr": 1e-2},
        {"params": [student.down, student.up, student.shift], "lr": 2e-3},
    ]


def schedule(optimiser: torch.optim.Optimizer, steps: int, warm: int = 50) -> Iterator[int]:
    """Steps from 1, the learning rates rising in `warm` steps, then falling to 0 linearly."""
    start = [group["lr"] for group in optimiser.param_groups]
    for step in range(1, steps + 1):
        share = min(step / min(warm, steps), 1.0) * (1 - (step - 1) / steps)
        for group, lr in zip(optimiser.param_groups, start, strict=True):
            group["lr"] = lr * share
        yield step


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def draw(size: int, count: int) -> Tensor:
    return torch.randint(0, size, (count,))


def _numbers(student: Student, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: getattr(student, name).detach().clone() for name in names}
