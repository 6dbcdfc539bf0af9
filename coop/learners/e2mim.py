"""E2MIM, a reconstruction: soft and hand-crafted prompts as two views that share information.

"Generalizable prompt tuning" (2410.03189) treats the learned ("soft") and the hand-crafted prompt
as two views of the text, maximises their mutual information, ensembles them, and ties pictures that
are mixed inside their class to the text by the same estimator. We could not obtain the paper's
equations, so this is a reconstruction from its description, not the published method:

    w_c, h_c   unit class features of the soft and of the hand-crafted prompt
    t_c        = norm(alpha w_c + (1 - alpha) h_c), what predicts, in training and after
    s(a, b)    = a . (I + W) b / tau, a bilinear critic with learned W (from 0) and tau (from 0.07)
    text       = symmetric InfoNCE of s over classes: the pair (w_c, h_c) against (w_c, h_c')
    image      = InfoNCE of s between x and the t_c, x a mixture of two pictures of one class:
                 x = norm(lam f_i + (1 - lam) f_j), lam ~ Beta(a, a)
    loss       = CE + mi_text * text + mi_image * image

log K - InfoNCE is a lower bound of the mutual information (van den Oord et al., 1807.03748), so
minimising the terms maximises the bounds. Pictures are mixed as features, not as pixels: the image
tower is frozen and then runs once a picture. The weights are round numbers, not tuned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from coop.learners.base import Batch, Loss, check_engine, learnable
from tpt.errors import MethodError
from tpt.prompts import Context, PromptEngine
from tpt.prompts.prompt_info import Blend
from tpt.prompts.sentences import encode_templates


@dataclass(frozen=True)
class E2MIMSettings:
    """Each term can be switched off by its own zero."""

    alpha: float = 0.5  # share of the soft prompt in the ensemble; 1 switches the ensemble off
    mi_text: float = 1.0  # weight of the text term
    mi_image: float = 1.0  # weight of the image term
    mixup: float = 0.4  # a of Beta(a, a); 0 leaves pictures unmixed
    critic: bool = True  # learn W; without it s is the cosine over tau
    temperature: float = 0.07  # tau at the start

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise MethodError(
                f"alpha is the share of the soft prompt, in (0, 1]; got {self.alpha}. At 1 the "
                "hand-crafted prompt has no say in the prediction."
            )
        for name in ("mi_text", "mi_image", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise MethodError(
                    f"{name} must be a number from 0 (off) on; got {getattr(self, name)}."
                )
        if not 0 < self.temperature < math.inf:
            raise MethodError(f"temperature must be a positive number; got {self.temperature}.")


class E2MIM:
    """Learn an engine's context beside hand-crafted templates.

    Args:
        engine: with the start context, without a blend; by default the words "a photo of a".
        templates: the hand-crafted prompt; several are averaged.
        settings: the terms' weights.
    """

    def __init__(
        self,
        engine: PromptEngine,
        templates: Sequence[str],
        settings: E2MIMSettings | None = None,
    ) -> None:
        check_engine(engine)
        self.engine, clip = engine, engine.clip
        self.templates, self.settings = tuple(templates), settings or E2MIMSettings()
        self.hand = encode_templates(clip, engine.classes, self.templates)  # (K, E)
        width = clip.embedding_width
        self.parameters: dict[str, Tensor] = {
            "vectors": learnable(engine.start, clip),
            "log_temperature": learnable(torch.tensor(math.log(self.settings.temperature)), clip),
        }
        if self.settings.critic:
            self.parameters["critic"] = learnable(torch.zeros(width, width), clip)

    def loss(self, batch: Batch) -> Loss:
        wanted = self.settings
        soft = self.engine.class_features(self.parameters["vectors"])  # (K, E)
        both = F.normalize(wanted.alpha * soft + (1 - wanted.alpha) * self.hand, dim=-1)
        logits = self.engine.logits(batch.features, both)
        fit = F.cross_entropy(logits, batch.labels)
        total, terms = fit, {"fit": fit}
        if wanted.mi_text:
            terms["text"] = self._text_term(soft)
            total = total + wanted.mi_text * terms["text"]
        if wanted.mi_image:
            mixed = mix_within_classes(batch, wanted.mixup)
            terms["image"] = F.cross_entropy(self._critic(mixed, both), batch.labels)
            total = total + wanted.mi_image * terms["image"]
        return Loss(total, logits, terms)

    def _text_term(self, soft: Tensor) -> Tensor:
        """Symmetric InfoNCE between soft and hand-crafted class features."""
        scores = self._critic(soft, self.hand)  # (K, K)
        own = torch.arange(len(scores), device=scores.device)
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2

    def _critic(self, left: Tensor, right: Tensor) -> Tensor:
        """s of every pair: (n, E) and (m, E) to (n, m)."""
        if self.settings.critic:
            left = left + left @ self.parameters["critic"]
        return left @ right.T / self.parameters["log_temperature"].exp()

    def context(self) -> Context:
        alpha = self.settings.alpha
        blend = Blend(self.templates, alpha) if alpha < 1 else None
        return replace(self.engine.context, vectors=self.parameters["vectors"], blend=blend)


def mix_within_classes(batch: Batch, a: float) -> Tensor:
    """Unit features (B, E), each mixed with that of a random picture of its class.

    A class of one picture is mixed with itself, which changes nothing. `a` = 0 mixes nothing.
    """
    if a == 0:
        return batch.features
    same = batch.labels.cpu().unsqueeze(1) == batch.pool_labels.cpu()  # (B, n)
    partner = torch.multinomial(same.float(), 1, generator=batch.rng).squeeze(1)
    share = _draw_beta(a, len(partner), batch.rng).to(batch.features).unsqueeze(1)
    other = batch.pool[partner.to(batch.pool.device)]
    return F.normalize(share * batch.features + (1 - share) * other, dim=-1)


def _draw_beta(a: float, count: int, rng: torch.Generator) -> Tensor:
    """Beta(a, a) from two Gamma(a) numbers, with a generator of our own."""
    pair = torch._standard_gamma(torch.full((2, count), a), generator=rng)
    return pair[0] / pair.sum(0).clamp_min(1e-30)
