"""The shortened image tower against open_clip's own, and the towers it leaves alone."""

from __future__ import annotations

from functools import partial

import open_clip
import pytest
import torch
import torch.nn.functional as F
from conftest import build_seeded_model, fill_from_seed, make_views
from open_clip.modified_resnet import ModifiedResNet

import tpt
from tpt.model._image_tower import find_image_tower

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 3, "width": 64, "patch_size": 8}

SHORTENED = {
    "plain": {},
    "layer scale": {"ls_init_value": 0.1},
    "no norm before": {"no_ln_pre": True},
    "norm after pooling": {"final_ln_after_pool": True},
}
LEFT_ALONE = {
    "mean of patches": {"pool_type": "avg"},
    "attentional pool": {"attentional_pool": True},
    "residual network": {"layers": [1, 1, 1, 1], "width": 32, "patch_size": None},
}


def build(**vision: object) -> open_clip.CLIP:
    model = open_clip.CLIP(32, VISION | vision, TEXT)
    if not isinstance(model.visual, ModifiedResNet):  # a variance has to be positive
        fill_from_seed(model)
    return model.eval()


def is_shortened(model: torch.nn.Module) -> bool:
    return isinstance(find_image_tower(model), partial)


@pytest.mark.parametrize("kind", SHORTENED)
@torch.no_grad()
def test_the_class_token_alone_gives_the_same_features(kind: str) -> None:
    model = build(**SHORTENED[kind])
    assert is_shortened(model)
    views = make_views(5, 6)
    want = model.encode_image(views)
    torch.testing.assert_close(find_image_tower(model)(views), want, atol=2e-5, rtol=1e-5)
    got = tpt.Clip(model, open_clip.tokenize).encode_images(views)
    torch.testing.assert_close(got, F.normalize(want, dim=-1), atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", LEFT_ALONE)
def test_other_towers_run_as_they_are(kind: str) -> None:
    model = build(**LEFT_ALONE[kind])
    assert not is_shortened(model)
    want = F.normalize(model.encode_image(make_views(5, 2)), dim=-1)
    got = tpt.Clip(model, open_clip.tokenize).encode_images(make_views(5, 2))
    torch.testing.assert_close(got, want.detach(), atol=1e-6, rtol=0)


def test_low_precision_stays_close() -> None:
    model = build_seeded_model()
    high = tpt.Clip(build_seeded_model(), open_clip.tokenize).encode_images(make_views(1, 4))
    open_clip.model.convert_weights_to_lp(model, torch.bfloat16)
    low = tpt.Clip(model, open_clip.tokenize).encode_images(make_views(1, 4))
    assert F.cosine_similarity(low, high).min() > 0.99
