"""What `auto` means on a device, and that TF32 is switched for a computation alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tpt
from tpt.model import precision as module
from tpt.model._building import build_model
from tpt.model.load import _config
from tpt.model.precision import choose_precision, multiplying

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(("units", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_on_a_cpu_that_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, units: bool, chosen: str
) -> None:
    monkeypatch.setattr(module, "has_bf16_units", lambda: units)
    assert choose_precision("auto", CPU) == chosen
    clip = tpt.load_clip("tiny", device="cpu")
    assert clip.precision == chosen
    assert clip.dtype == clip.image_dtype == (torch.bfloat16 if units else torch.float32)


@pytest.mark.parametrize(
    ("generation", "chosen"), [(9, "bf16"), (8, "bf16"), (7, "fp16"), (6, "fp32")]
)
def test_auto_on_a_gpu_depends_on_its_generation(
    monkeypatch: pytest.MonkeyPatch, generation: int, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (generation, 0))
    assert choose_precision("auto", CUDA) == chosen


def test_auto_is_fp32_elsewhere_and_a_word_is_itself() -> None:
    assert choose_precision("auto", MPS) == "fp32"
    for word in ("fp32", "tf32", "bf16", "fp16"):
        assert choose_precision(word, CUDA) == word


def test_tf32_without_a_gpu_is_refused() -> None:
    with pytest.raises(tpt.ModelError, match=r'tf32 needs an NVIDIA GPU.*"cpu". Use bf16 or fp32'):
        tpt.load_clip("tiny", device="cpu", precision="tf32")


@pytest.mark.parametrize(
    ("flags", "units"),
    [("fpu avx512_bf16 sse", True), ("fpu amx_bf16", True), ("fpu avx512f", False)],
)
def test_units_are_read_from_the_kernels_list(
    monkeypatch: pytest.MonkeyPatch, read_units: Callable[[], bool], flags: str, units: bool
) -> None:
    text = f"processor : 0\nflags\t\t: {flags}\n"
    monkeypatch.setattr(module.Path, "read_text", lambda *_, **__: text)
    assert read_units() is units


def test_where_the_kernel_lists_nothing_there_are_no_units(
    monkeypatch: pytest.MonkeyPatch, read_units: Callable[[], bool]
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError

    monkeypatch.setattr(module.Path, "read_text", fail)
    assert read_units() is False


@pytest.fixture
def read_units(pytestconfig: pytest.Config) -> Callable[[], bool]:
    """The look itself, which all tests go without."""
    found: Callable[[], bool] = pytestconfig.stash["has_bf16_units"].__wrapped__
    return found


def test_tf32_is_switched_on_a_gpu_alone_and_back() -> None:
    def read() -> list[Any]:
        backends = torch.backends
        if hasattr(backends.cudnn, "conv"):
            return [s.fp32_precision for s in (backends.cuda.matmul, backends.cudnn.conv)]
        return [s.allow_tf32 for s in (backends.cuda.matmul, backends.cudnn)]

    before = read()
    with multiplying("fp32", CUDA):
        assert read() in (["ieee"] * 2, [False] * 2)
    with multiplying("tf32", CUDA):
        assert read() in (["tf32"] * 2, [True] * 2)
        with multiplying("tf32", CPU):
            pass
    with pytest.raises(KeyError), multiplying("tf32", CUDA):
        raise KeyError
    assert read() == before


def test_fp16_is_for_the_image_tower_alone() -> None:
    model, _ = build_model(_config("tiny"), None, "fp16", CPU, seed=0)
    clip = tpt.Clip(model, tpt.load_clip("tiny", device="cpu").tokenizer)
    assert clip.image_dtype == torch.float16
    assert {p.dtype for p in model.transformer.parameters()} == {torch.float32}
    engine = tpt.PromptEngine(clip, ["cat", "dog"])
    vectors = engine.start.requires_grad_()
    (gradient,) = torch.autograd.grad(engine.class_features(vectors)[0, 0], vectors)
    assert gradient.dtype == torch.float32
    assert clip.encode_images(torch.zeros(1, 3, 64, 64)).isfinite().all()


def test_what_is_built_by_the_caller_says_what_its_weights_are(tiny: tpt.Clip) -> None:
    assert tpt.Clip(tiny.model, tiny.tokenizer).precision == "fp32"
