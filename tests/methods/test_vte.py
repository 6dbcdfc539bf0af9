"""VTE: the mean of the confident views."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import tpt


def test_only_the_confident_views_are_averaged(golden: SimpleNamespace) -> None:
    engine = tpt.PromptEngine(golden.clip, ["cat", "dog", "ice cream"])
    features = F.normalize(torch.randn(10, 32, generator=torch.Generator().manual_seed(1)), dim=-1)
    classes = engine.class_features()
    p = (100 * features @ classes.T).double().softmax(-1)
    kept = (-(p * p.log()).sum(-1)).argsort()[:4]
    mean = features[kept].mean(0)
    out = tpt.VTE(engine, keep=0.4).adapt_features(features)
    assert out.selected.tolist() == kept.tolist()
    want = 100 * (mean / mean.norm()) @ classes.T
    torch.testing.assert_close(out.logits, want, atol=1e-3, rtol=0)
    assert out.loss is out.final_loss is None
    marginal = p[kept].mean(0)
    entropy = -(marginal * marginal.log()).sum().float()
    torch.testing.assert_close(out.entropy, entropy, atol=1e-4, rtol=1e-4)
