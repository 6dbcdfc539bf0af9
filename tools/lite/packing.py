"""Stages 6 and 7: the image side learns what the text side really says; then one small file.

The residual stream of the text tower is scaled by `ALPHA`: every normalised sum keeps its
direction, so the function stays, but a step of 5e-3 on the context, the published one, weighs
1/ALPHA as much and moves this model as it moves CLIP.
"""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save as to_bytes
from torch import Tensor

import tpt
from lite.backbone import load_backbone
from lite.development import report
from lite.distillation import (
    SCALE,
    Losses,
    Teacher,
    draw,
    load_student,
    read_concepts,
    read_pictures,
)
from lite.files import load, save, say
from lite.projection import descend, schedule
from lite.text_tower import config
from lite.wordnet import WordNet
from tpt.runs.whole_files import write_whole

ALPHA = 0.15
TEMPLATES = ("a photo of a {}.", "{}", "an image of the {}.")
SMALL_TABLE = torch.float8_e5m2  # of the token embeddings, half of the file


def realign(wordnet: WordNet, work: Path, *, steps: int, power: float, seed: int) -> None:
    """Write aligned.pt: `projection` (E, 1280) and `bias`, turned by a learned (E, E) matrix so
    that pictures meet the text features of the tower in place of the targets it was taught."""
    torch.manual_seed(seed)
    concepts = read_concepts(wordnet, work)
    data, teacher, student = read_pictures(work, concepts), Teacher(), load_student(work)
    model = build(work, student.projection, student.bias)
    names = [concepts.prompt_name(wordnet, concept) for concept in range(len(concepts))]
    texts = [text_features(model, names, template) for template in TEMPLATES]
    losses = Losses(wordnet, concepts, data, seed, power)
    with torch.no_grad():
        sources = [0, 0, 0, 1, 2]
        made = torch.cat(
            [teacher.lookalikes(data.features[k][draw(len(data), 5000)]) for k in sources]
        )
        seen = data.features @ student.projection.T + student.bias
        seen_made, said = made @ student.projection.T + student.bias, teacher(data.features)
    eye = torch.eye(len(student.bias))
    turn = eye.clone().requires_grad_()
    optimiser = torch.optim.Adam([turn], lr=2e-3, betas=(0.9, 0.98))
    for step in schedule(optimiser, steps, warm=1):
        clean, styled = draw(len(data), 192), draw(len(data), 64)
        k, drawn = int(torch.randint(1, 3, ())), draw(len(made), 256)
        vectors = torch.cat([seen[0, clean], seen[k, styled], seen_made[drawn]])
        probabilities = torch.cat([said[0, clean], said[k, styled], teacher(made[drawn])]).softmax(
            1
        )
        text = texts[losses.rng.choice([0, 0, 0, 1, 2])]
        logits = SCALE * F.normalize(vectors @ turn.T, dim=1) @ text.T
        leaves, kinds = losses.leaves_and_kinds(logits, probabilities)
        labelled = losses.labelled(logits[: len(clean)], clean)
        stay = 2e-3 * (turn - eye).square().sum()
        descend(optimiser, leaves + 0.5 * kinds + 0.5 * labelled + stay)
        if step % 50 == 0:
            say(f"realign {step} of {steps}: leaves {leaves:.3f}, labelled {labelled:.3f}")
    with torch.no_grad():
        aligned = {"projection": turn @ student.projection, "bias": turn @ student.bias}
        report(
            wordnet,
            concepts,
            work,
            lambda x: F.normalize(x @ aligned["projection"].T + aligned["bias"], dim=1),
            lambda chosen: texts[0][chosen],
        )
    save(work / "aligned.pt", aligned)


def pack(work: Path, output: Path) -> None:
    """Write the model folder: fp16, and the token table in eight bits (float8 e5m2)."""
    aligned = load(work / "aligned.pt")
    model = build(work, aligned["projection"], aligned["bias"])
    state = {name: _stored(name, value) for name, value in scaled(model.state_dict()).items()}
    output.mkdir(parents=True, exist_ok=True)
    content = to_bytes(state, {"format": "pt"})
    write_whole(output / "open_clip_model.safetensors", content, "the model")
    text = json.dumps(config(model.text_projection.shape[1]), indent=2) + "\n"
    (output / "open_clip_config.json").write_text(text, encoding="utf-8")
    say(f"{output}: {len(content) / 1e6:.1f} MB")


def build(work: Path, projection: Tensor, bias: Tensor) -> open_clip.CLIP:
    """open_clip's model of the stages so far, in fp32."""
    model = open_clip.CLIP(**config(len(bias))["model_cfg"])
    trunk = load_backbone()
    trunk.reset_classifier(0)  # type: ignore[operator]
    model.visual.trunk.load_state_dict(trunk.state_dict())
    head = {"visual.head.proj.weight": projection.detach(), "visual.head.proj.bias": bias.detach()}
    missing = model.load_state_dict({**load(work / "text.pt")["state"], **head}, strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("visual.trunk.") for key in missing.missing_keys)
    return model.eval()


def text_features(model: open_clip.CLIP, names: list[str], template: str) -> Tensor:
    """Unit features (n, E) of a template with each name."""
    clip = tpt.Clip(model, open_clip.get_tokenizer("ViT-B-32"))
    return tpt.PromptEngine(clip, names).template_features([template])


def scaled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function with a residual stream ALPHA times as long."""

    def writes_to_stream(name: str) -> bool:
        if name in ("token_embedding.weight", "positional_embedding"):
            return True
        return name.startswith("transformer.") and ("out_proj" in name or "c_proj" in name)

    return {n: v * ALPHA if writes_to_stream(n) else v for n, v in state.items()}


def _stored(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.contiguous()
    kind = SMALL_TABLE if name == "token_embedding.weight" else torch.float16
    small = value.to(kind).contiguous()
    if not small.float().isfinite().all():
        raise SystemExit(f"{name} has a value that {kind} cannot hold; the file was not written.")
    return small
