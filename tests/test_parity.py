"""Every golden case of the public TPT, CoOp and CoCoOp programs, through the public names."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import PARITY
from torch import Tensor

import tpt
from tpt.prompts.meta_network import NAMES, MetaNet

CASES = json.loads((PARITY / "reference.json").read_text())["cases"]


def names(kind: str) -> list[str]:
    return [case["name"] for case in CASES if case["kind"] == kind]


def read(golden: SimpleNamespace, name: str) -> tuple[SimpleNamespace, dict[str, Tensor]]:
    arrays = {
        key.split("/", 1)[1]: value
        for key, value in golden.values.items()
        if key.startswith(f"{name}/")
    }
    return SimpleNamespace(**golden.cases[name]), arrays


def make_context(golden: SimpleNamespace, case: SimpleNamespace, want: dict) -> tpt.Context:
    if case.ctx_words:
        context = tpt.Context.from_words(golden.clip, case.ctx_words.replace("[CLS]", "{}"))
        assert context.position == getattr(case, "position", "end")
    else:
        start = want["ctx_init"] if "ctx_init" in want else want["ctx"]
        context = tpt.Context(start, position=case.position)
    return context


def assert_close_gradient(got: Tensor, want: Tensor) -> None:
    assert (got - want).norm() <= 1e-3 * want.norm()


def assert_close_context(got: Tensor, want: Tensor, gradient: Tensor) -> None:
    # AdamW's first step is nearly lr * sign(gradient): where that is zero, so is the agreement.
    sure = gradient.abs() > 1e-6 * gradient.abs().max()
    torch.testing.assert_close(got[sure], want[sure], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("jacobian", [False, True])
@pytest.mark.parametrize("path", ["packed", "full"])
@pytest.mark.parametrize("name", names("tpt"))
def test_tpt_agrees_with_the_public_program(
    golden: SimpleNamespace, name: str, path: str, jacobian: bool
) -> None:
    case, want = read(golden, name)
    context = make_context(golden, case, want)
    torch.testing.assert_close(context.vectors, want["ctx_init"].float(), atol=1e-6, rtol=0)
    engine = tpt.PromptEngine(golden.clip, case.classes, context, path=path)
    torch.testing.assert_close(engine.class_features(), want["text_features"], atol=2e-5, rtol=0)
    if jacobian:
        engine.build_jacobian()
    method = tpt.TPT(engine, keep=case.rho, steps=case.steps, lr=case.lr)
    views = golden.views(case.views_seed, case.n_views)
    out = method.adapt(views)

    view_logits = engine.logits(golden.clip.encode_images(views), engine.class_features())
    torch.testing.assert_close(view_logits, want["view_logits"], atol=2e-3, rtol=0)
    torch.testing.assert_close(out.view_entropy, want["view_entropy"], atol=1e-4, rtol=1e-4)
    assert out.selected.tolist() == want["selected"].tolist()
    torch.testing.assert_close(out.loss, want["loss"].view(()), atol=0, rtol=1e-4)
    assert_close_gradient(out.gradient, want["grad"])
    assert_close_context(out.vectors, want["ctx_final"], want["grad"])
    torch.testing.assert_close(out.logits, want["logits"].view(-1), atol=2e-3, rtol=0)
    assert out.logits.argmax() == want["logits"].argmax()


@pytest.mark.parametrize("path", ["packed", "full"])
@pytest.mark.parametrize("name", names("coop"))
def test_coop_training_agrees_with_the_public_program(
    golden: SimpleNamespace, name: str, path: str
) -> None:
    case, want = read(golden, name)
    start = want["ctx_init"]
    context = tpt.Context(start, position=case.position)
    if case.ctx_words:
        words = tpt.Context.from_words(golden.clip, case.ctx_words)
        torch.testing.assert_close(words.vectors, start, atol=1e-6, rtol=0)
    engine = tpt.PromptEngine(golden.clip, case.classes, context, path=path)
    features = golden.clip.encode_images(golden.views(case.views_seed, case.batch))
    vectors = start.clone().requires_grad_()
    optimizer = torch.optim.SGD(
        [vectors], lr=case.lr, momentum=case.momentum, weight_decay=case.weight_decay
    )
    for step in range(case.steps):
        logits = engine.logits(features, engine.class_features(vectors))
        loss = F.cross_entropy(logits, want["labels"].long())
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            torch.testing.assert_close(logits, want["logits"], atol=2e-3, rtol=0)
            torch.testing.assert_close(loss, want["loss"].view(()), atol=0, rtol=1e-4)
            assert vectors.grad is not None
            assert_close_gradient(vectors.grad, want["grad"])
        optimizer.step()
    torch.testing.assert_close(loss, want["loss_final"].view(()), atol=0, rtol=1e-4)
    torch.testing.assert_close(vectors.detach(), want["ctx_final"], atol=2e-5, rtol=1e-4)


def cocoop_state(want: dict[str, Tensor]) -> dict[str, Tensor]:
    """What an official checkpoint of the golden CoCoOp case holds."""
    return {key: value for key, value in want.items() if key.startswith(("ctx", "meta_net."))}


@pytest.mark.parametrize("path", ["packed", "full"])
def test_cocoop_agrees_with_the_public_program(golden: SimpleNamespace, path: str) -> None:
    case, want = read(golden, "cocoop_words")
    net = {name: want[f"meta_net.{name}"].clone().requires_grad_() for name in NAMES}
    words = tpt.Context.from_words(golden.clip, case.ctx_words)
    torch.testing.assert_close(words.vectors, want["ctx"], atol=1e-6, rtol=0)
    context = tpt.Context(want["ctx"], meta=MetaNet.from_tensors(net))
    engine = tpt.PromptEngine(golden.clip, case.classes, context, path=path)
    features = golden.clip.encode_images(golden.views(case.views_seed, case.batch))
    vectors = want["ctx"].clone().requires_grad_()
    starts = vectors + MetaNet(*net.values())(features).unsqueeze(1)  # (B, M, D)
    torch.testing.assert_close(engine.start_for(features), starts.detach())
    classes = engine.class_features(starts)  # (B, K, E)
    logits = engine.logits(features.unsqueeze(1), classes).squeeze(1)
    loss = F.cross_entropy(logits, want["labels"].long())
    loss.backward()
    torch.testing.assert_close(logits, want["logits"], atol=2e-3, rtol=0)
    torch.testing.assert_close(loss, want["loss"].view(()), atol=0, rtol=1e-4)
    assert vectors.grad is not None
    assert_close_gradient(vectors.grad, want["grad_ctx"])
    for name, value in net.items():
        assert value.grad is not None
        assert_close_gradient(value.grad, want[f"grad_meta_net.{name}"])


@pytest.mark.parametrize("path", ["packed", "full"])
def test_a_cocoop_checkpoint_predicts_what_the_public_program_predicts(
    golden: SimpleNamespace, path: str, tmp_path: Path
) -> None:
    case, want = read(golden, "cocoop_words")
    torch.save({"state_dict": cocoop_state(want), "epoch": 10}, tmp_path / "model.pth.tar-10")
    context = tpt.Context.load(tmp_path / "model.pth.tar-10")
    method = tpt.ZeroShot(tpt.PromptEngine(golden.clip, case.classes, context, path=path))
    images = golden.views(case.views_seed, case.batch).unsqueeze(1)  # (B, 1, 3, H, W)
    together = method.adapt(images).logits
    torch.testing.assert_close(together, want["logits"], atol=2e-3, rtol=0)
    assert together.argmax(-1).tolist() == want["logits"].argmax(-1).tolist()
    for image, logits in zip(images, want["logits"], strict=True):
        torch.testing.assert_close(method.adapt(image).logits, logits, atol=2e-3, rtol=0)
