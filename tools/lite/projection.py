"""Stage 3: where the image tower sees each concept: a projection to E, and a unit target a concept.

The projection starts from the singular vectors of the backbone's classifier and learns to say what
that classifier says, at a logit scale of 100 and between unit vectors, over leaves and over lists
of kinds. Then every style gets a map of targets: what "a foggy photo of a cat" should point at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lite.concepts import Concepts
from lite.development import report
from lite.distillation import (
    SCALE,
    Losses,
    Pictures,
    Student,
    Teacher,
    divergence,
    draw,
    load_student,
    read_concepts,
    read_pictures,
)
from lite.files import save, say
from lite.styles import STYLE_NAMES
from lite.wordnet import WordNet

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


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
                teacher.lookalikes(data.features[k][draw(len(data), min(5000, len(data)))])
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


def _numbers(student: Student, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: getattr(student, name).detach().clone() for name in names}
