"""Fits a few-shot head to a run's pictures and stores it beside the words of a prompt."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from coop.heads import GDA, LPPlusPlus, Pictures, TipAdapter
from coop.recipes import WORDS
from coop.run import Run, Watch, epoch_views, measure
from tpt.errors import PromptError
from tpt.prompts import Context
from tpt.prompts.head import Head
from tpt.prompts.sentences import encode_templates


def fit_head(run: Run, watch: Watch) -> Context:
    """Fit a head on the run's pictures; return the context that holds it.

    Raises:
        SourceError: a picture can no longer be read.
    """
    job, classes = run.job, run.draw.classes
    text = encode_templates(job.clip, classes, job.templates).cpu()
    found = measure(job.bank, run.draw.val, watch, "validation pictures")
    head = _fit(run, text, (found.features, found.labels), watch)
    # A prompt file needs a context, though the head does not read it.
    words = job.templates[0] if len(job.templates) == 1 else WORDS
    try:
        context = Context.from_words(job.clip, words)
    except PromptError:  # a template without words, "{}"
        context = Context.from_words(job.clip, WORDS)
    return replace(context, head=head).described(
        classes=classes, dataset=job.dataset.name, shots=run.shots, seed=run.seed
    )


def _fit(run: Run, text: Tensor, val: Pictures, watch: Watch) -> Head:
    recipe, plain, scale = run.recipe, run.plain, run.job.clip.logit_scale
    alpha, beta = recipe.extras.get("weight"), recipe.extras.get("beta")
    if recipe.method == "lpp":
        return LPPlusPlus(text, recipe.epochs).fit(plain.features, plain.labels, val)
    views = epoch_views(run.job.bank, run.train, run.seed, recipe, watch)  # (R, n, E)
    if recipe.method == "gda":
        labels = plain.labels.repeat(len(views))
        return GDA(text, alpha, scale).fit(views.flatten(0, 1), labels, val)
    cache = TipAdapter(
        text,
        *(alpha, beta, recipe.epochs, recipe.lr or 1e-3, recipe.batch_size or 256),
        scale=scale,
        seed=run.seed % 2**63,
    )
    with torch.inference_mode(False):
        return cache.fit(plain.features, plain.labels, val, views)
