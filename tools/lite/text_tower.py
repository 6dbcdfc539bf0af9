"""Stage 5: open_clip's own causal text tower, taught to say a prompt's target.

The words before a class name are the same for a whole batch, so their keys and values are computed
once a layer; the last layer is computed at the end token only. Training is by a number of steps,
not by time, and goes on from its last checkpoint with the same draws.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lite.backbone import MEAN, SIZE, STD, TIMM_NAME
from lite.distillation import SCALE, load_student
from lite.files import load, save, say
from lite.lessons import Lessons, Prompts
from lite.targets import HYPERNYM, LEAF, OTHER, PICTURE

LAYERS, HEADS, VOCABULARY = 3, 5, 49408

BATCH = 320  # names a template; two templates a step, one neutral and one styled
LR, TABLE_LR, WARM = 1.5e-3, 3e-3, 100
CHECKPOINT = 200  # steps


def config(embed_dim: int) -> dict[str, Any]:
    """open_clip's configuration of the model."""
    return {
        "model_cfg": {
            "embed_dim": embed_dim,
            "vision_cfg": {
                "timm_model_name": TIMM_NAME,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "linear",
                "timm_proj_bias": True,
                "image_size": SIZE,
            },
            "text_cfg": {
                "context_length": 77,
                "vocab_size": VOCABULARY,
                "width": embed_dim,
                "heads": HEADS,
                "layers": LAYERS,
            },
        },
        "preprocess_cfg": {
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


class TextTower(nn.Module):
    """open_clip's model with a table of the used tokens only."""

    def __init__(self, embed_dim: int, table: Tensor) -> None:
        super().__init__()
        self.clip = open_clip.CLIP(**config(embed_dim)["model_cfg"])
        for parameter in (*self.clip.visual.parameters(), self.clip.token_embedding.weight):
            parameter.requires_grad_(False)
        self.clip.logit_scale.requires_grad_(False)
        self.table = nn.Parameter(table)

    def forward(self, prompts: Prompts) -> Tensor:
        """Text features (n, E), not normalised."""
        place, count = self.clip.positional_embedding, len(prompts.prefix)
        length = prompts.suffixes.shape[1]
        before = (self.table[prompts.prefix] + place[:count])[None]
        after = self.table[prompts.suffixes] + place[count : count + length]
        seen = torch.ones(length, count + length, dtype=torch.bool).tril(count)
        earlier = torch.ones(count, count, dtype=torch.bool).tril()
        *blocks, last = self.clip.transformer.resblocks
        for block in blocks:
            q, k, v = _heads(block, before)
            queries, keys, values = self._join(block, after, k, v)
            after = _finish(block, after, _attend(queries, keys, values, seen))
            before = _finish(block, before, _attend(q, k, v, earlier))
        rows = torch.arange(len(after))
        _, k, v = _heads(last, before)
        queries, keys, values = self._join(last, after, k, v)
        at_end = queries[rows, :, prompts.end][:, :, None]
        mixed = _attend(at_end, keys, values, seen[prompts.end][:, None, None])[:, 0]
        ended = _finish(last, after[rows, prompts.end], mixed)
        return self.clip.ln_final(ended) @ self.clip.text_projection

    @staticmethod
    def _join(block: Any, after: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The suffixes' queries; keys and values of prefix and suffix."""
        queries, keys, values = _heads(block, after)
        wide = (len(after), -1, -1, -1)
        keys, values = torch.cat([k.expand(wide), keys], 2), torch.cat([v.expand(wide), values], 2)
        return queries, keys, values


def _heads(block: Any, x: Tensor) -> tuple[Tensor, ...]:
    joined = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    return tuple(part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in joined.chunk(3, -1))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    # In fp32 always: in bf16 torch's backward pass takes 12 times as long on a CPU.
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return mixed.transpose(1, 2).flatten(-2)


def _finish(block: Any, x: Tensor, mixed: Tensor) -> Tensor:
    x = x + block.attn.out_proj(mixed)
    return x + block.mlp(block.ln_2(x))


def train_text(work: Path, *, embed_dim: int, steps: int, seed: int) -> None:
    """Write text.pt: the model's state dict without the image tower, whole table included."""
    torch.manual_seed(seed)
    lessons = Lessons(work, seed)
    tower = TextTower(embed_dim, lessons.table_start(embed_dim, work))
    images = _image_vectors(work)
    optimiser = _optimiser(tower)
    base = [group["lr"] for group in optimiser.param_groups]
    fast = has_bf16_units()
    say(f"{len(lessons.names)} names, {len(lessons.used)} tokens, {'bf16' if fast else 'fp32'}")
    checkpoint = work / "text-checkpoint.pt"
    done = _resume(checkpoint, tower, optimiser, lessons, steps)
    for step in range(done + 1, steps + 1):
        share = min(step / WARM, 1) * (0.51 + 0.49 * math.cos(math.pi * (step - 1) / steps))
        for group, lr in zip(optimiser.param_groups, base, strict=True):
            group["lr"] = lr * share
        neutral = lessons.rng.choice(lessons.neutral) if lessons.rng.random() < 0.75 else 0
        loss = torch.zeros(())
        for template in (neutral, lessons.rng.choice(lessons.styled)):
            prompts = lessons.prompts(lessons.draw(BATCH), template)
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                features = tower(prompts)
            loss = loss + _lesson_loss(features.float(), prompts.targets, lessons.mean, images)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in tower.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        if step % 50 == 0:
            say(f"text {step} of {steps}: loss {float(loss.detach()):.3f}")
        if step % CHECKPOINT == 0:
            say(measure(tower, lessons))
            _keep(checkpoint, step, steps, tower, optimiser, lessons)
    say(measure(tower, lessons))
    save(work / "text.pt", {"state": full_state(tower, lessons), "steps": steps})


def has_bf16_units() -> bool:
    """Whether this processor multiplies bf16 matrices faster than fp32 ones."""
    return torch.cpu._is_avx512_bf16_supported()


def _lesson_loss(features: Tensor, targets: Tensor, mean: Tensor, images: Tensor) -> Tensor:
    """Direction (centred and not), and what 96 pictures say among these prompts."""
    unit = F.normalize(features, dim=1)
    centred = 1 - F.cosine_similarity(unit - mean, targets - mean).mean()
    distance = (unit - targets).square().sum(1).mean()
    some = images[torch.randint(0, len(images), (96,))]
    right, said = (SCALE * some @ targets.T), (SCALE * some @ unit.T)
    gap = (right.softmax(1) * (right.log_softmax(1) - said.log_softmax(1))).sum(1).mean()
    length = (features.norm(dim=1) - 10).square().mean()
    return centred + 2 * distance + 0.5 * gap + 0.002 * length


def _image_vectors(work: Path) -> Tensor:
    """Unit image features of all training pictures, clean and styled."""
    stored, student = load(work / "pictures.pt"), load_student(work)
    features = torch.cat([stored["clean"], *stored["styled"]]).float()
    with torch.no_grad():
        return student.image(features)


def _optimiser(tower: TextTower) -> torch.optim.AdamW:
    text = [p for name, p in tower.named_parameters() if p.requires_grad and name != "table"]
    return torch.optim.AdamW(
        [
            {"params": [p for p in text if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in text if p.ndim <= 1], "weight_decay": 0.0},
            {"params": [tower.table], "weight_decay": 0.0, "lr": TABLE_LR},
        ],
        lr=LR,
        betas=(0.9, 0.98),
        fused=True,
    )


@torch.no_grad()
def measure(tower: TextTower, lessons: Lessons) -> str:
    """Centred cosine to the target by group of names, for a neutral and for a styled template."""
    foggy = [t for t, _ in lessons.templates].index("a foggy photo of a {}.")
    groups = {
        "leaves": lessons.groups[LEAF],
        "hypernyms": lessons.groups[HYPERNYM],
        "picture names": lessons.groups[PICTURE],
        "others": lessons.groups[OTHER],
        "held out": lessons.held_out,
    }
    said = []
    for title, names in groups.items():
        values: list[float] = []
        if not names:
            continue
        for template in (0, foggy):
            prompts = lessons.prompts(names[:300], template)
            unit = F.normalize(tower(prompts), dim=1) - lessons.mean
            values.append(float(F.cosine_similarity(unit, prompts.targets - lessons.mean).mean()))
        said.append(f"{title} {values[0]:.3f} {values[1]:.3f}")
    return "cosine to target (plain, foggy): " + ", ".join(said)


def full_state(tower: TextTower, lessons: Lessons) -> dict[str, Tensor]:
    """open_clip's text parameters; a token that no lesson used keeps a small random embedding."""
    state = {
        k: v.clone() for k, v in tower.clip.state_dict().items() if not k.startswith("visual.")
    }
    state["token_embedding.weight"] *= 0.3
    state["token_embedding.weight"][lessons.used] = tower.table.detach()
    state["logit_scale"].fill_(math.log(SCALE))
    return state


def _trained(tower: TextTower) -> dict[str, Tensor]:
    return {k: v for k, v in tower.state_dict().items() if not k.startswith("clip.visual.")}


def _keep(
    path: Path,
    step: int,
    steps: int,
    tower: TextTower,
    optimiser: torch.optim.Optimizer,
    lessons: Lessons,
) -> None:
    state = {"tower": _trained(tower), "optimiser": optimiser.state_dict(), "step": step}
    state.update(steps=steps, lessons=lessons.state(), torch_rng=torch.get_rng_state())
    save(path, state)


def _resume(
    path: Path, tower: TextTower, optimiser: torch.optim.Optimizer, lessons: Lessons, steps: int
) -> int:
    """The step to go on from; 0 without a checkpoint of a run of as many steps."""
    if not path.exists() or (state := load(path))["steps"] != steps:
        return 0
    tower.load_state_dict(state["tower"], strict=False)
    optimiser.load_state_dict(state["optimiser"])
    lessons.restore(state["lessons"])
    torch.set_rng_state(state["torch_rng"])
    say(f"text: goes on from step {state['step']}")
    return int(state["step"])
