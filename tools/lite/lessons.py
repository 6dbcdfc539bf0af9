"""What the text tower is taught: names, templates and targets, drawn in batches."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from lite.distillation import load_student
from lite.files import load
from lite.styles import STYLE_NAMES
from lite.targets import HYPERNYM, LEAF, OTHER, PICTURE
from lite.templates import Mix, templates

SOT, EOT = 49406, 49407


SHARES = {LEAF: 0.5, HYPERNYM: 0.24, PICTURE: 0.05, OTHER: 0.21}


HELD_OUT = 500  # names that no step sees


FUNCTION_WORDS = (
    "a an the photo of picture image my one many this that it in on , . and to with large small "
    "good bad"
)


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts on one template: compact token ids, padded behind the end token.

    Attributes:
        prefix: (P,), suffixes: (n, S), end: (n,) place of the end token in the suffix.
        targets: (n, E), unit.
    """

    prefix: Tensor
    suffixes: Tensor
    end: Tensor
    targets: Tensor


class Lessons:
    """Names, templates and targets; draws batches."""

    def __init__(self, work: Path, seed: int) -> None:
        stored = load(work / "targets.pt")
        self.names, self.kind, self.targets = stored["names"], stored["kind"], stored["targets"]
        self.mean = stored["mean"]
        self._tokenizer = open_clip.get_tokenizer("ViT-B-32")
        self._student, self._strength = load_student(work), load(work / "styles.pt")["strength"]
        self.templates = templates()
        self._tokens = [self._tokenizer.encode(name) for name in self.names]
        parts = [
            [self._tokenizer.encode(part) for part in t.split("{}")] for t, _ in self.templates
        ]
        used = {SOT, EOT, *stored["token_ids"], *self._tokenizer.encode(FUNCTION_WORDS)}
        used.update(*self._tokens, *(tokens for pair in parts for tokens in pair))
        self.used = sorted(used)
        self._number = {token: number for number, token in enumerate(self.used)}
        self._parts = [([SOT, *before], [*after, EOT]) for before, after in parts]
        self.rng = random.Random(seed)
        self.groups = {kind: self._group(kind) for kind in SHARES}
        held = random.Random(1).sample(
            self.groups[OTHER], min(HELD_OUT, len(self.groups[OTHER]) // 4)
        )
        self.groups[OTHER] = [n for n in self.groups[OTHER] if n not in set(held)]
        self.held_out = held
        self._waiting: dict[int, list[int]] = {kind: [] for kind in SHARES}
        self.neutral = [n for n, (_, mix) in enumerate(self.templates) if not mix]
        self.styled = [n for n, (_, mix) in enumerate(self.templates) if mix]

    def _group(self, kind: int) -> list[int]:
        names = (self.kind == kind).nonzero().flatten().tolist()
        return [n for n in names if kind != OTHER or len(self._tokens[n]) <= 4]

    def table_start(self, embed_dim: int, work: Path) -> Tensor:
        """Embeddings of used tokens; a whole word starts as its target, a function word small."""
        stored = load(work / "targets.pt")
        table = torch.randn(len(self.used), embed_dim) * 0.006
        start = stored["token_start"] / stored["token_start"].std() * 0.02
        table[[self._number[token] for token in stored["token_ids"]]] = start
        plain = [self._number[t] for t in (SOT, EOT, *self._tokenizer.encode(FUNCTION_WORDS))]
        table[plain] = torch.randn(len(plain), embed_dim) * 0.01
        return table

    def draw(self, count: int) -> list[int]:
        """Names, each group's share; a group is shuffled through before a name comes again."""
        chosen = []
        for kind, share in SHARES.items():
            waiting, size = self._waiting[kind], round(count * share)
            while len(waiting) < size and self.groups[kind]:
                waiting.extend(self.rng.sample(self.groups[kind], len(self.groups[kind])))
            chosen += waiting[:size]
            del waiting[:size]
        return sorted(chosen, key=lambda n: len(self._tokens[n]))

    def prompts(self, names: list[int], template: int) -> Prompts:
        before, after = self._parts[template]
        rows = [[self._number[t] for t in (*self._tokens[n], *after)] for n in names]
        longest = max(map(len, rows))
        padded = [row + [self._number[EOT]] * (longest - len(row)) for row in rows]
        return Prompts(
            torch.tensor([self._number[token] for token in before]),
            torch.tensor(padded),
            torch.tensor([len(row) - 1 for row in rows]),
            self.styled_targets(self.targets[names], self.templates[template][1]),
        )

    def styled_targets(self, targets: Tensor, mix: Mix) -> Tensor:
        move = torch.zeros_like(targets)
        with torch.no_grad():
            for style, weight in mix.items():
                number = STYLE_NAMES.index(style)
                strength = float(self._strength[number]) * weight
                move += self._student.styled(targets, number, strength) - targets
        return F.normalize(targets + move, dim=1)

    def state(self) -> dict[str, Any]:
        version, numbers, _ = self.rng.getstate()
        return {"rng": [version, list(numbers)], "waiting": self._waiting}

    def restore(self, state: dict[str, Any]) -> None:
        version, numbers = state["rng"]
        self.rng.setstate((version, tuple(numbers), None))
        self._waiting = state["waiting"]
