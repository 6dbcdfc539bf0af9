"""Prompt files: every form is read back whole, and nothing in a file is ever executed."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tpt
from tpt.errors import OutputError, PromptError
from tpt.prompts.meta_network import NAMES, MetaNet
from tpt.prompts.prompt_info import Blend, PromptInfo

INFO = PromptInfo(
    model="ViT-B-16",
    pretrained="openai",
    classes=("猫", "cat's cradle", 'a "quoted" name', "naïve_café", "🦩", "new\nline"),
    words="a photo of a {} in the wild",
    dataset="birds",
    shots=16,
    seed=3,
)
FORMS = [".safetensors", ".pt"]
HEAD = {"format": "tpt-prompt", "format_version": 1, "position": "end", "before": 4}
VECTORS = torch.ones(4, 8)
BLEND = Blend(("a photo of a {}.", 'a "quoted" {}, naïve 🦩'), 0.3)
META = MetaNet.draw(32, 8, torch.Generator().manual_seed(0))


def random_vectors(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def meta_tensors() -> dict[str, Tensor]:
    """The meta-network's tensors by the names that files give them."""
    return {f"meta_net.{name}": tensor.clone() for name, tensor in META.tensors().items()}


def assert_same_meta(got: MetaNet | None, want: MetaNet | None) -> None:
    assert (got is None) is (want is None)
    if got is not None and want is not None:
        for name, tensor in want.tensors().items():
            assert torch.equal(got.tensors()[name], tensor.float()), name


def write_prompt(path: Path, head: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """A prompt file of our own form, `.safetensors` or `.pt`, with whatever in it."""
    if path.suffix == ".pt":
        torch.save({**head, **tensors}, path)
    else:
        meta = {key: json.dumps(value) for key, value in head.items()}
        safetensors.torch.save_file(tensors, path, metadata=meta)


def read_head(path: Path) -> dict[str, Any]:
    """What a file of our own form says beside its tensors."""
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        return {key: value for key, value in content.items() if not isinstance(value, Tensor)}
    with safetensors.safe_open(path, framework="pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}


def message_of(path: Path) -> str:
    """The message of the PromptError on reading, checked to be one line that names the file."""
    with pytest.raises(PromptError) as caught:
        tpt.Context.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert message.endswith(".")
    assert str(path) in message
    return message


# --- our own forms ---


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize(
    "context",
    [
        tpt.Context(random_vectors(4, 8), info=INFO),
        tpt.Context(random_vectors(6, 5, 8), position="middle", info=INFO),
        tpt.Context(random_vectors(5, 8), position="middle", before=1),
        tpt.Context(random_vectors(1, 8), position="front", info=PromptInfo(seed=0, shots=0)),
        tpt.Context(random_vectors(4, 8), info=INFO, meta=META),
        tpt.Context(random_vectors(4, 8), blend=BLEND),
        tpt.Context(random_vectors(6, 5, 8), info=INFO, blend=Blend(("{}",), 0)),
        tpt.Context(random_vectors(4, 8), "middle", 1, INFO, META, BLEND),
    ],
)
def test_what_is_saved_comes_back_whole(tmp_path: Path, context: tpt.Context, suffix: str) -> None:
    path = tmp_path / f"prompt{suffix}"
    context.save(path)
    back = tpt.Context.load(str(path))
    assert torch.equal(back.vectors, context.vectors)
    for name in ("position", "before", "class_specific", "conditional", "info", "blend"):
        assert getattr(back, name) == getattr(context, name), name
    assert_same_meta(back.meta, context.meta)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_file_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    tpt.Context(random_vectors(5, 8), position="middle", before=1, info=INFO).save(path)
    head = read_head(path)
    tool = head.pop("tool")
    assert tool == f"tpt-runtime {tpt.__version__}"
    assert head == {
        "format": "tpt-prompt",
        "format_version": 1,
        "position": "middle",
        "before": 1,
        "class_specific": False,
        "context_length": 5,
        "width": 8,
        **json.loads(json.dumps(dataclasses.asdict(INFO))),
    }


@pytest.mark.parametrize("suffix", FORMS)
def test_a_file_says_that_it_holds_a_blend_and_a_meta_network(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"prompt{suffix}"
    tpt.Context(random_vectors(4, 8), meta=META, blend=BLEND).save(path)
    assert read_head(path)["blend"] == {"templates": list(BLEND.templates), "weight": 0.3}
    if suffix == ".safetensors":
        assert set(safetensors.torch.load_file(path)) == {"vectors", *meta_tensors()}


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize(
    ("extra", "version"), [({}, 1), ({"meta": META}, 2), ({"blend": BLEND}, 2)]
)
def test_a_program_that_knows_plain_contexts_alone_reads_plain_contexts_alone(
    tmp_path: Path, extra: dict[str, Any], version: int, suffix: str
) -> None:
    path = tmp_path / f"prompt{suffix}"
    tpt.Context(random_vectors(4, 8), info=INFO, **extra).save(path)
    assert read_head(path)["format_version"] == version


@pytest.mark.parametrize("suffix", FORMS)
def test_a_meta_network_is_saved_however_its_tensors_lie_in_memory(
    tmp_path: Path, suffix: str
) -> None:
    both = torch.arange(16.0)  # two biases that are views of one tensor, a transposed weight
    shared = MetaNet(random_vectors(32, 8).T, both[:8], torch.ones(8, 8), both[8:])
    path = tmp_path / f"prompt{suffix}"
    tpt.Context(random_vectors(4, 8), meta=shared).save(path)
    assert_same_meta(tpt.Context.load(path).meta, shared)


@pytest.mark.parametrize("suffix", FORMS)
def test_the_form_is_told_by_the_content_and_not_by_the_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"prompt{suffix}"
    tpt.Context(random_vectors(4, 8)).save(path)
    other = path.rename(tmp_path / "model.pth.tar-50")
    assert torch.equal(tpt.Context.load(other).vectors, random_vectors(4, 8))


def test_a_saved_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    tpt.Context(random_vectors(4, 8)).save(tmp_path / "prompt.pt")
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "prompt.pt")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("name", ["prompt", "prompt.bin", "prompt.pt.gz", "prompt.pth"])
def test_another_suffix_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(PromptError, match=r"ends in \.safetensors \(preferred\) or \.pt"):
        tpt.Context(random_vectors(4, 8)).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", FORMS)
def test_saving_into_a_missing_folder_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "missing" / f"prompt{suffix}"
    with pytest.raises(OutputError, match="could not be saved") as caught:
        tpt.Context(random_vectors(4, 8)).save(path)
    assert "No such file or directory" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_saving_over_a_folder_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "prompt.pt"
    path.mkdir()
    with pytest.raises(OutputError, match="could not be saved"):
        tpt.Context(random_vectors(4, 8)).save(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, step: str
) -> None:
    path = tmp_path / f"prompt{suffix}"
    tpt.Context(random_vectors(4, 8)).save(path)
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OutputError, match="No space left on device"):
        tpt.Context(random_vectors(2, 8)).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prompt.pt"
    tpt.Context(random_vectors(4, 8)).save(path)
    before = path.read_bytes()

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tpt.Context(random_vectors(2, 8)).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- files of other programs ---


@pytest.mark.parametrize("key", ["vectors", "ctx"])
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": '"pt"', "note": "mine"}])
def test_plain_safetensors_are_read(tmp_path: Path, key: str, metadata: dict | None) -> None:
    path = tmp_path / "prompt.safetensors"
    tensors = {key: random_vectors(4, 8), "token_prefix": torch.ones(3, 1, 8)}
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    context = tpt.Context.load(path)
    assert torch.equal(context.vectors, random_vectors(4, 8))
    assert (context.position, context.info) == ("end", PromptInfo())


@pytest.mark.parametrize(
    "wrap", [lambda v: v, lambda v: {"ctx": v}, lambda v: {"state_dict": {"ctx": v}}]
)
def test_plain_torch_files_are_read(tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "prompt.pt"
    torch.save(wrap(nn.Parameter(random_vectors(4, 8))), path)
    assert torch.equal(tpt.Context.load(path).vectors, random_vectors(4, 8))


@pytest.fixture
def dassl(monkeypatch: pytest.MonkeyPatch) -> type:
    """Dassl's warm-up scheduler, under the name by which checkpoints know it."""
    for name in ("dassl", "dassl.optim", "dassl.optim.lr_scheduler"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    class ConstantWarmupScheduler(torch.optim.lr_scheduler.LRScheduler):
        def __init__(self, optimizer: torch.optim.Optimizer, successor: Any) -> None:
            self.successor, self.warmup_epoch, self.cons_lr = successor, 1, 1e-5
            super().__init__(optimizer)

        def get_lr(self) -> list[float]:
            return [self.cons_lr for _ in self.base_lrs]

    ConstantWarmupScheduler.__module__ = "dassl.optim.lr_scheduler"
    ConstantWarmupScheduler.__qualname__ = "ConstantWarmupScheduler"
    sys.modules["dassl.optim.lr_scheduler"].ConstantWarmupScheduler = ConstantWarmupScheduler
    return ConstantWarmupScheduler


def make_checkpoint(dassl: type, vectors: Tensor, scheduler: str = "state") -> dict[str, Any]:
    """What CoOp's trainer saves, with one optimiser step behind it."""
    leaf = nn.Parameter(vectors)
    optimizer = torch.optim.SGD([leaf], lr=0.002, momentum=0.9, weight_decay=5e-4)
    leaf.grad = torch.zeros_like(leaf)
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50.0)
    warm = dassl(optimizer, successor)
    optimizer.step()
    warm.step()
    return {
        "state_dict": {
            "ctx": vectors,
            "token_prefix": torch.ones(3, 1, 8),
            "token_suffix": torch.ones(3, 72, 8),
        },
        "epoch": 50,
        "optimizer": optimizer.state_dict(),
        "scheduler": warm.state_dict() if scheduler == "state" else warm,
        "val_result": np.float64(71.5),
    }


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
@pytest.mark.parametrize("scheduler", ["state", "object"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(4, 8), (16, 8), (3, 4, 8)])
def test_official_coop_checkpoints_are_read(
    tmp_path: Path, dassl: type, shape: tuple, dtype: torch.dtype, zipped: bool, scheduler: str
) -> None:
    vectors = random_vectors(*shape).to(dtype)
    path = tmp_path / "model.pth.tar-50"
    content = make_checkpoint(dassl, vectors, scheduler)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    context = tpt.Context.load(path)
    assert torch.equal(context.vectors, vectors.float())
    assert context.class_specific is (len(shape) == 3)
    assert (context.position, context.info) == ("end", PromptInfo())


@pytest.mark.parametrize(
    "value", [np.float32(1), np.float64(1), np.int64(1), np.bool_(True), 71.5, None]
)
def test_a_numpy_scalar_beside_the_vectors_does_no_harm(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "model.pth.tar-50"
    torch.save({"state_dict": {"ctx": random_vectors(4, 8)}, "val_result": value}, path)
    assert torch.equal(tpt.Context.load(path).vectors, random_vectors(4, 8))


def test_reading_a_checkpoint_leaves_torchs_own_list_of_safe_classes_alone(
    tmp_path: Path, dassl: type
) -> None:
    path = tmp_path / "model.pth.tar-50"
    torch.save(make_checkpoint(dassl, random_vectors(4, 8)), path)
    before = set(torch.serialization.get_safe_globals())  # torch keeps a set; its order is chance
    tpt.Context.load(path)
    assert set(torch.serialization.get_safe_globals()) == before


# --- official checkpoints with a meta-network ---


def save_state(path: Path, state: dict[str, Any], form: str) -> None:
    """`state` as an official checkpoint, or converted to safetensors by its owner."""
    if form == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=form == "zip")


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_official_cocoop_checkpoints_are_read_with_their_meta_network(
    tmp_path: Path, dassl: type, dtype: torch.dtype, zipped: bool
) -> None:
    vectors = random_vectors(4, 8).to(dtype)
    tensors = {key: tensor.to(dtype) for key, tensor in meta_tensors().items()}
    content = make_checkpoint(dassl, vectors)
    content["state_dict"] |= tensors
    path = tmp_path / "model.pth.tar-10"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    context = tpt.Context.load(path)
    assert torch.equal(context.vectors, vectors.float())
    assert context.conditional
    assert_same_meta(context.meta, MetaNet(*tensors.values()))
    assert (context.position, context.info) == ("end", PromptInfo())


def test_a_cocoop_checkpoint_converted_to_safetensors_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    save_state(path, {"ctx": random_vectors(4, 8), **meta_tensors()}, ".safetensors")
    assert_same_meta(tpt.Context.load(path).meta, META)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("form", ["zip", "legacy", ".safetensors"])
def test_kgcoop_checkpoints_are_read_as_fixed_contexts(
    tmp_path: Path, form: str, dtype: torch.dtype
) -> None:
    """The public program builds the first layer of a meta-network and never uses it."""
    vectors = random_vectors(4, 8).to(dtype)
    first = {k: t.to(dtype) for k, t in meta_tensors().items() if ".linear1." in k}
    state = {
        **{"ctx": vectors, "bias_vectors": torch.ones(1, 8, dtype=dtype)},
        **{"token_prefix": torch.ones(3, 1, 8), "token_suffix": torch.ones(3, 72, 8)},
        **first,
    }
    path = tmp_path / "model.pth.tar-100"
    save_state(path, state, form)
    context = tpt.Context.load(path)
    assert torch.equal(context.vectors, vectors.float())
    assert not context.conditional


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["zip", "legacy", ".safetensors", *(f"our {s}" for s in FORMS)])
def test_half_a_meta_network_is_refused_with_what_it_lacks(
    tmp_path: Path, form: str, name: str
) -> None:
    tensors = meta_tensors()
    del tensors[f"meta_net.{name}"]
    path = tmp_path / f"prompt{form.removeprefix('our ') if 'our' in form else ''}"
    if "our" in form:
        write_prompt(path, {**HEAD, "format_version": 2}, {"vectors": VECTORS, **tensors})
    else:
        save_state(path, {"ctx": VECTORS, **tensors}, form)
    assert f"cannot be used. The meta-network lacks {name}; expected" in message_of(path)


@pytest.mark.parametrize("form", ["zip", "legacy", ".safetensors"])
def test_a_meta_network_of_other_layers_is_never_left_out_in_silence(
    tmp_path: Path, form: str
) -> None:
    path = tmp_path / "model.pth.tar-10"
    save_state(path, {"ctx": VECTORS, "meta_net.0.weight": torch.ones(2, 8)}, form)
    assert "The meta-network lacks linear1.weight" in message_of(path)


@pytest.mark.parametrize("form", ["zip", "legacy", ".safetensors"])
@pytest.mark.parametrize(
    ("name", "tensor", "text"),
    [
        ("linear1.weight", torch.ones(2, 32)[:1], "The meta-network's tensors have shapes (1, 32)"),
        ("linear2.bias", torch.ones(9), "The meta-network's tensors have shapes"),
        ("linear1.bias", torch.tensor(1.0), "The meta-network's tensors have shapes"),
        ("linear2.weight", torch.full((8, 2), float("nan")), "holds numbers that are NaN"),
        ("linear1.bias", torch.tensor([1.0, float("inf")]), "holds numbers that are NaN"),
    ],
)
def test_a_bad_meta_network_is_refused_with_the_files_name(
    tmp_path: Path, name: str, tensor: Tensor, text: str, form: str
) -> None:
    path = tmp_path / "model.pth.tar-10"
    save_state(path, {"ctx": VECTORS, **meta_tensors(), f"meta_net.{name}": tensor.clone()}, form)
    assert f'The prompt file "{path}" cannot be used. ' in message_of(path)
    assert text in message_of(path)


@pytest.mark.parametrize("shape", [(4, 9), (3, 4, 8)])
def test_vectors_that_do_not_go_with_the_meta_network_are_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "model.pth.tar-10"
    save_state(path, {"ctx": torch.ones(shape), **meta_tensors()}, "zip")
    assert f"width 8 came with context vectors of shape {shape}" in message_of(path)


@pytest.mark.parametrize("form", ["zip", "legacy", ".safetensors"])
@pytest.mark.parametrize("bad", ["shape", "nan"])
def test_bad_vectors_are_refused_with_the_files_name(tmp_path: Path, form: str, bad: str) -> None:
    path = tmp_path / "prompt"
    vectors = torch.ones(8) if bad == "shape" else torch.full((4, 8), float("nan"))
    if form == ".safetensors":
        safetensors.torch.save_file({"ctx": vectors}, path)
    else:
        state = {"state_dict": {"ctx": vectors}}
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    message = message_of(path)
    assert ("have shape (8,)" if bad == "shape" else "NaN or infinite") in message


# --- relatives of CoOp whose ctx means something else ---

RELATIVES = {
    "MaPLe": {"compound_prompts_text.0": torch.ones(2, 8), "proj.weight": torch.ones(9, 8)},
    "variational": {"vpt_net.mu.weight": torch.ones(8, 8)},
    "another meta-network": {**meta_tensors(), "meta_net.linear3.weight": torch.ones(8, 8)},
    "deep prompts in a tower": {"text_encoder.transformer.resblocks.1.VPT_shallow": VECTORS},
    "prompts at the pictures": {"image_encoder.VPT": VECTORS},
    "a second context": {"ctx_negative": VECTORS},
    "both names": {"vectors": VECTORS},
    "a projection of its own": {"proj": torch.ones(8, 8)},
}


@pytest.mark.parametrize("form", ["zip", "legacy", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "prompt_learner."])
@pytest.mark.parametrize("kind", RELATIVES)
def test_other_learned_tensors_are_refused_by_name(
    tmp_path: Path, kind: str, prefix: str, form: str
) -> None:
    path = tmp_path / "model.pth.tar-50"
    more = {k if "encoder" in k else prefix + k: t.clone() for k, t in RELATIVES[kind].items()}
    save_state(path, {f"{prefix}ctx": VECTORS.clone(), **more}, form)
    message = message_of(path)
    assert "holds other learned tensors beside the context vectors" in message
    assert list(RELATIVES[kind])[-1].removeprefix("prompt_learner.") in message


def test_a_learned_tensor_beside_the_state_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "model.pth.tar-50"
    content = {"state_dict": {"ctx": VECTORS}, "best": torch.tensor(71.5), "epoch": 5}
    torch.save(content, path)
    assert torch.equal(tpt.Context.load(path).vectors, VECTORS)
    torch.save({**content, "visual_prompt": VECTORS}, path)
    assert "other learned tensors beside the context vectors (visual_prompt)" in message_of(path)


@pytest.mark.parametrize("form", ["zip", ".safetensors"])
@pytest.mark.parametrize(("contexts", "rows"), [(4, 16), (3, 4), (4, 0)])
def test_several_contexts_for_all_classes_are_no_class_specific_ones(
    tmp_path: Path, contexts: int, rows: int, form: str
) -> None:
    path = tmp_path / "model.pth.tar-50"
    prefix = torch.ones(rows, 1, 8)
    save_state(path, {"ctx": torch.ones(contexts, 4, 8), "token_prefix": prefix}, form)
    message = message_of(path)
    assert f"holds {contexts} contexts for {rows} rows of class tokens (token_prefix)" in message


@pytest.mark.parametrize(
    "prefix", ["module.", "prompt_learner.", "module.prompt_learner.", "prompt_learner.module."]
)
def test_names_may_follow_the_modules_that_held_them(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "model.pth.tar-50"
    state = {"ctx": torch.ones(3, 4, 8), "token_prefix": torch.ones(3, 1, 8), **meta_tensors()}
    del state["meta_net.linear1.weight"]  # half a meta-network, under the prefix too
    save_state(path, {prefix + key: tensor for key, tensor in state.items()}, "zip")
    assert "The meta-network lacks linear1.weight" in message_of(path)
    save_state(path, {f"{prefix}ctx": torch.ones(3, 4, 8)}, "zip")
    assert tpt.Context.load(path).class_specific


def test_the_frozen_clip_in_a_whole_models_checkpoint_is_dropped(
    tmp_path: Path, golden: SimpleNamespace
) -> None:
    state = dict(golden.clip.model.state_dict())
    towers = {
        f"{'image' if k.startswith('visual.') else 'text'}_encoder.{k.removeprefix('visual.')}": t
        for k, t in state.items()
    }
    path = tmp_path / "model.pth.tar-50"
    save_state(
        path, {"prompt_learner.ctx": VECTORS, "logit_scale": torch.ones(()), **towers}, "zip"
    )
    assert torch.equal(tpt.Context.load(path).vectors, VECTORS)


@pytest.mark.parametrize("form", ["zip", ".safetensors", "bare"])
def test_an_unknown_place_of_the_class_name_is_told(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.pth.tar-50"
    if form == "bare":
        torch.save(VECTORS, path)
    else:
        save_state(path, {"ctx": VECTORS}, form)
    assert tpt.Context.load(path).position == "end"
    assert f'"{path}" does not say where the class name stands' in caplog.text
    caplog.clear()
    ours = tmp_path / "ours.safetensors"
    tpt.Context(VECTORS).save(ours)
    tpt.Context.load(ours)
    assert caplog.text == ""


# --- sizes ---


def test_a_file_larger_than_any_prompt_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "prompt.pt"
    with path.open("wb") as file:
        file.truncate(2**33)  # takes no room on the disk
    assert "its file is 8,589,934,592 bytes long" in message_of(path)


def test_a_header_larger_than_any_prompts_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    with path.open("wb") as file:
        file.write((2**27).to_bytes(8, "little") + b"{")
        file.truncate(2**28)
    assert "its header is 134,217,728 bytes long" in message_of(path)


def test_a_small_file_that_unpacks_to_much_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "prompt.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**27))
        archive.writestr("archive/version", "3")
    assert path.stat().st_size < 2**20
    assert "unpacks to more than a prompt can be" in message_of(path)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.filterwarnings("ignore:.*sparse tensor")
@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(1).expand(2**20, 2**20),  # four numbers in the file, four TB in memory
        torch.ones(4, 8).to_sparse(),
        torch.ones(4, 8, dtype=torch.complex64),
        torch.ones(4, 8, device="meta"),
    ],
)
def test_a_tensor_that_is_no_plain_array_is_refused(tmp_path: Path, tensor: Tensor) -> None:
    path = tmp_path / "prompt.pt"
    torch.save({"ctx": tensor}, path)
    assert 'a tensor "ctx" that is not a plain real array' in message_of(path)


# --- files that would run code ---


class Evil:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class EvilState(Evil):
    """Unpickling it would make a folder too, by way of a class and its state."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('os').mkdir({str(self.path)!r})",)


def hide(place: str, vectors: Tensor, evil: Evil) -> Any:
    state = {"state_dict": {"ctx": vectors}, "epoch": 50, "scheduler": {"base_lrs": [0.002]}}
    if place == "alone":
        return evil
    if place == "scheduler":
        state["scheduler"] = {"successor": evil}
    elif place == "beside ctx":
        state["state_dict"]["extra"] = evil
    elif place == "key":
        state[evil] = 1
    return state


@pytest.mark.parametrize("kind", [Evil, EvilState])
@pytest.mark.parametrize("place", ["alone", "scheduler", "beside ctx", "key"])
@pytest.mark.parametrize("form", ["zip", "legacy", *range(pickle.HIGHEST_PROTOCOL + 1)])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, form: str | int, place: str, kind: type[Evil]
) -> None:
    path, mark = tmp_path / "prompt.pt", tmp_path / "executed"
    content = hide(place, random_vectors(4, 8), kind(mark))
    if isinstance(form, int):
        path.write_bytes(pickle.dumps(content, protocol=form))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    message = message_of(path)
    assert not mark.exists()
    if not isinstance(form, int):
        assert "was refused" in message
        torch.load(path, weights_only=False)  # the trap itself works
        assert mark.exists()


def test_a_stand_in_never_runs_the_class_it_stands_for(
    tmp_path: Path, dassl: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pth.tar-50"
    torch.save(make_checkpoint(dassl, random_vectors(4, 8), "object"), path)

    def explode(*args: Any, **options: Any) -> None:
        raise AssertionError("a class from the file was used")

    for kind in (dassl, torch.optim.SGD, torch.optim.lr_scheduler.CosineAnnealingLR):
        monkeypatch.setattr(kind, "__init__", explode)
        monkeypatch.setattr(kind, "__setstate__", explode, raising=False)
    assert torch.equal(tpt.Context.load(path).vectors, random_vectors(4, 8))


# --- files that are damaged, or something else ---


def valid_files(folder: Path) -> Iterator[Path]:
    plain = tpt.Context(random_vectors(4, 8), info=INFO)
    whole = dataclasses.replace(plain, meta=META, blend=BLEND)
    for name, context in (("plain", plain), ("whole", whole)):
        for suffix in FORMS:
            context.save(folder / f"{name}{suffix}")
            yield folder / f"{name}{suffix}"
    for zipped in (True, False):
        path = folder / f"official-{zipped}.pth"
        state = {"ctx": random_vectors(4, 8), **meta_tensors()}
        content = {"state_dict": state, "val_result": np.float64(1)}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        yield path


def test_a_truncated_file_is_an_error_at_any_length(tmp_path: Path) -> None:
    for path in list(valid_files(tmp_path)):
        whole = path.read_bytes()
        for length in sorted({0, 1, 7, 8, 9, 16, 100, len(whole) - 1, *range(0, len(whole), 97)}):
            path.write_bytes(whole[:length])
            message = message_of(path)
            assert any(word in message for word in ("empty", "damaged", "refused")), message


def test_a_damaged_file_is_read_or_refused_and_never_a_traceback(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    outcomes = {"read": 0, "refused": 0}
    for path in list(valid_files(tmp_path)):
        whole = path.read_bytes()
        for _ in range(60):
            broken = bytearray(whole)
            for place in random.randint(0, len(whole), 3):
                broken[place] = random.randint(256)
            path.write_bytes(broken)
            try:
                tpt.Context.load(path)
                outcomes["read"] += 1
            except PromptError:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 0  # padding may be damaged unseen; a header may not


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"a photo of a\n", "something else than a prompt"),
        ("приве́т, мир\n".encode() * 9, "was refused"),
        (b"\0" * 64, "was refused"),
        (b"12345678{not json", "damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "was refused"),
        (pickle.dumps([1, 2]), "was refused"),
        (pickle.dumps({"ctx": [1.0]}, protocol=2), "damaged or truncated"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_is_no_prompt_says_why(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "prompt.pt"
    path.write_bytes(content)
    assert text in message_of(path)


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with io.BytesIO() as buffer:
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), buffer)
        path.write_bytes(buffer.getvalue())
    assert "TorchScript archives" in message_of(path)


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"weight": torch.ones(2)}},
        {"state_dict": {"weight": torch.ones(2)}},
        {"state_dict": [torch.ones(2)]},
        {"ctx": [1.0, 2.0]},
        {"format": "tpt-prompt", "format_version": 1},
        {"format": "tpt-prompt", "vectors": [1.0]},
        {},
        [torch.ones(2, 2)],
        7,
        None,
        "text",
    ],
)
def test_a_torch_file_without_vectors_is_no_prompt(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "prompt.pt"
    torch.save(content, path)
    assert "is not a prompt file: expected context vectors" in message_of(path)


def test_safetensors_without_vectors_are_no_prompt(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"weight": torch.ones(2)}, path)
    assert "is not a prompt file" in message_of(path)


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format_version": 4}, "format version 4, but this version of tpt-runtime reads up to 3"),
        ({"format_version": "1"}, "format version 1"),
        ({"format_version": None}, "format version None"),
        ({"position": "behind"}, 'Unknown position "behind"'),
        ({"position": None}, 'Unknown position "None"'),
        ({"before": 7}, "7 vectors ahead"),
        ({"before": "some"}, "damaged"),
        ({"before": [1]}, "damaged"),
        ({"classes": 7}, "damaged"),
    ],
)
def test_a_head_that_makes_no_sense_is_an_error(
    tmp_path: Path, suffix: str, change: dict, text: str
) -> None:
    path = tmp_path / f"prompt{suffix}"
    write_prompt(path, {**HEAD, **change}, {"vectors": VECTORS})
    assert text in message_of(path)


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize("extra", [{}, {"blend": BLEND}])
def test_a_version_from_the_future_is_refused_whatever_it_holds(
    tmp_path: Path, suffix: str, extra: dict[str, Any]
) -> None:
    path = tmp_path / f"prompt{suffix}"
    head = {**HEAD, "format_version": 4, **{k: dataclasses.asdict(v) for k, v in extra.items()}}
    write_prompt(path, head, {"vectors": VECTORS, **meta_tensors()})
    assert "has format version 4" in message_of(path)
    assert message_of(path).endswith("Upgrade tpt-runtime.")


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize(
    ("blend", "text"),
    [
        (7, "is damaged"),
        ("a {}", "is damaged"),
        ([["a {}"], 0.5], "is damaged"),
        ({}, "is damaged"),
        ({"templates": ["a {}"]}, "is damaged"),
        ({"weight": 0.5}, "is damaged"),
        ({"templates": None, "weight": 0.5}, "is damaged"),
        ({"templates": 7, "weight": 0.5}, "is damaged"),
        ({"templates": ["a {}"], "weight": None}, "is damaged"),
        ({"templates": ["a {}"], "weight": "half"}, "is damaged"),
        ({"templates": ["a {}"], "weight": [0.5]}, "is damaged"),
        ({"templates": ["a {}"], "weight": 1.5}, "got 1 templates and weight 1.5."),
        ({"templates": ["a {}"], "weight": float("nan")}, "got 1 templates and weight nan."),
        ({"templates": [], "weight": 0.5}, "got 0 templates and weight 0.5."),
        ({"templates": "a {}", "weight": 0.5}, 'the single string "a {}" came'),
    ],
)
def test_a_blend_that_makes_no_sense_is_an_error(
    tmp_path: Path, blend: Any, text: str, suffix: str
) -> None:
    path = tmp_path / f"prompt{suffix}"
    write_prompt(path, {**HEAD, "format_version": 2, "blend": blend}, {"vectors": VECTORS})
    assert text in message_of(path)


def test_whatever_else_a_file_of_ours_holds_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "prompt.pt"
    torch.save({**HEAD, "vectors": VECTORS, 7: "a key that is no text", "note": [1]}, path)
    assert torch.equal(tpt.Context.load(path).vectors, VECTORS)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory" in message_of(tmp_path / "prompt.pt")


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    assert "cannot be read: it is a folder without a checkpoint" in message_of(tmp_path)


# --- whatever is in a file ---

TEXTS = st.text(max_size=12).filter(lambda text: text.isprintable())
NUMBERS = st.integers(-(2**40), 2**40)


@settings(deadline=None, max_examples=40)
@given(
    classes=st.lists(TEXTS, max_size=4),
    words=st.none() | TEXTS,
    dataset=st.none() | TEXTS,
    seed=st.none() | NUMBERS,
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    suffix=st.sampled_from(FORMS),
)
def test_any_facts_come_back_as_they_were(
    classes: list[str], words: Any, dataset: Any, seed: Any, shape: Any, suffix: str
) -> None:
    info = PromptInfo("m", None, tuple(classes) or None, words, dataset, seed=seed, digest="ab")
    context = tpt.Context(random_vectors(*shape), info=info)
    with TemporaryDirectory() as folder:
        path = Path(folder, f"prompt{suffix}")
        context.save(path)
        back = tpt.Context.load(path)
    assert back.info == info
    assert back.info.digest == "ab"
    assert torch.equal(back.vectors, context.vectors)


KNOWN = {"ctx", "token_prefix", "token_suffix", "bias_vectors"}
KEYS = st.sampled_from([*KNOWN, "vectors", "ctx_2", "proj", "logit_scale", "a.b"]) | st.text(
    "abc_.", min_size=1, max_size=8
)


@settings(deadline=None, max_examples=60)
@given(names=st.sets(KEYS, max_size=5), prefix=st.sampled_from(["", "module.", "prompt_learner."]))
def test_a_checkpoint_is_read_only_if_every_tensor_is_known(names: set[str], prefix: str) -> None:
    state = {prefix + name: torch.ones(2, 8) for name in names}
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.pth.tar-50")
        torch.save({"state_dict": state}, path)
        if "ctx" in names and names <= KNOWN | {"logit_scale"}:
            assert torch.equal(tpt.Context.load(path).vectors, torch.ones(2, 8))
        elif "ctx" in names or "vectors" not in names:
            with pytest.raises(PromptError):
                tpt.Context.load(path)


# --- any bytes ---


@given(st.binary(max_size=80), st.sampled_from([".safetensors", ".pt", ""]), st.data())
def test_any_bytes_are_a_prompt_or_one_sentence(
    tmp_path: Path, noise: bytes, extension: str, data: st.DataObject
) -> None:
    path = tmp_path / f"any{extension}"
    good = tmp_path / f"good{extension or '.pt'}"
    if not good.exists():
        tpt.Context(torch.ones(2, 8)).save(good)
    whole = good.read_bytes()
    place = data.draw(st.integers(0, len(whole)))
    for content in (noise, whole[:place], whole[:place] + noise + whole[place + len(noise) :]):
        path.write_bytes(content)
        try:
            context = tpt.Context.load(path)
        except PromptError:
            continue
        assert context.vectors.isfinite().all()
        assert context.vectors.ndim in (2, 3)


def test_whole_numbers_are_no_context(tmp_path: Path) -> None:
    """Token ids, say."""
    path = tmp_path / "ids.pt"
    torch.save({"ctx": torch.ones(4, 512, dtype=torch.int64)}, path)
    with pytest.raises(PromptError, match=r"found whole numbers \(torch.int64\)"):
        tpt.Context.load(path)
