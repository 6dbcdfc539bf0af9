"""Unit text features of plain sentences, and of ensembles of templates, without a context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.model.clip import Clip
from tpt.model.surroundings import steady
from tpt.prompts._full_length import FullEncoder
from tpt.prompts._shared_prefix import PackedEncoder
from tpt.prompts.checks import check_templates
from tpt.prompts.token_rows import build_sentence_rows, clean_name


@steady()
@torch.no_grad()
def encode_sentences(clip: Clip, sentences: Sequence[str]) -> Tensor:
    """Unit text features (n, E) of plain sentences, taken word for word.

    Raises:
        PromptError: a sentence longer than the model reads.
    """
    rows = build_sentence_rows(clip, sentences)
    no_vectors = torch.zeros(1, 0, clip.width, device=clip.device)
    encoder = PackedEncoder(clip, rows, False) if clip.text.packable else FullEncoder(clip, rows)
    return encoder(no_vectors).squeeze(0)


def encode_templates(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Unit class features (K, E) of hand-crafted templates, averaged if there are several.

    Alec Radford et al. (2103.00020), section 3.1.4: the unit features of a class are averaged and
    normalised again. Templates are taken word for word.

    Raises:
        PromptError: a template without exactly one `{}`, or too long with some class name.
    """
    check_templates(templates)
    names = [clean_name(name) for name in classes]
    each = [encode_sentences(clip, [t.replace("{}", name) for name in names]) for t in templates]
    return each[0] if len(each) == 1 else F.normalize(torch.stack(each).mean(0), dim=-1)
