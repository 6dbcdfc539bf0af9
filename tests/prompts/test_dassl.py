"""Folders and logs that CoOp and its relatives leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tpt
from tpt.errors import PromptError
from tpt.prompts import dassl
from tpt.prompts.prompt_info import PromptInfo

LOG = """***************
** Arguments **
***************
backbone: ViT-B/16
seed: 7
***************
** Config **
***************
DATALOADER:
  NUM_WORKERS: 8
  TEST:
    BATCH_SIZE: 100
DATASET:
  NAME: Caltech101
  NUM_SHOTS: 16
  ROOT: /data
INPUT:
  TRANSFORMS: ('random_resized_crop', 'random_flip', 'normalize')
MODEL:
  BACKBONE:
    NAME: {backbone}
    PRETRAINED: True
  INIT_WEIGHTS:{space}
SEED: 2
TRAINER:
  COCOOP:
    CTX_INIT: other words
    N_CTX: 16
  COOP:
    CLASS_TOKEN_POSITION: {position}
    CSC: False
    CTX_INIT: {words}
    N_CTX: 4
  NAME: {trainer}
USE_CUDA: True
Collecting env info ...
"""


def write_run(folder: Path, log: str | None = None, learner: str = "prompt_learner", **more: Any):
    """A run's folder with checkpoints of epochs 10, 9 and 50, of which the last is the true one."""
    home = folder / learner
    home.mkdir(parents=True)
    for epoch in (10, 9, 50):
        ctx = torch.full((4, 8), float(epoch))
        rows = torch.ones(3, 1, 8)
        state = {"ctx": ctx, "token_prefix": rows, "token_suffix": rows, **more}
        torch.save({"state_dict": state, "epoch": epoch}, home / f"model.pth.tar-{epoch}")
    (home / "checkpoint").write_text("model.pth.tar-50\n")
    if log is not None:
        (folder / "log.txt").write_text(log)
    return folder


def make_log(**changes: str) -> str:
    values = {"backbone": "ViT-B/16", "position": "middle", "words": "", "trainer": "CoOp"}
    return LOG.format(space=" ", **{**values, **changes})


@pytest.mark.parametrize("trainer", ["CoOp", "KgCoOp", "ProGrad"])
@pytest.mark.parametrize("asked", ["folder", "learner", "file"])
def test_a_folder_gives_its_latest_checkpoint_with_what_the_log_says(
    tmp_path: Path, asked: str, trainer: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_run(tmp_path / "seed2", make_log(trainer=trainer, words="a_photo of a"))
    learner = run / "prompt_learner"
    path = {"folder": run, "learner": learner, "file": learner / "model.pth.tar-50"}[asked]
    context = tpt.Context.load(path)
    assert torch.equal(context.vectors, torch.full((4, 8), 50.0))
    assert (context.position, context.before) == ("middle", 2)
    expected = PromptInfo(words="a photo of a", dataset="Caltech101", shots=16, seed=2)
    assert context.info == expected
    assert caplog.text == ""  # that the position is unknown need not be said


def test_cocoop_has_settings_and_a_position_of_its_own(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_log(trainer="CoCoOp"))
    context = tpt.Context.load(run)
    assert (context.position, context.info.words) == ("end", "other words")


def test_without_a_log_nothing_is_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    context = tpt.Context.load(write_run(tmp_path))
    assert (context.position, context.info) == ("end", PromptInfo())
    assert "does not say where the class name stands" in caplog.text


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        *(("ViT-B/16", "ViT-B-16"), ("ViT-L/14@336px", "ViT-L-14-336"), ("RN50x4", "RN50x4")),
        *(("vit_tiny", None), ("../../etc", None), ("", None)),
    ],
)
def test_the_backbone_is_one_of_openais(tmp_path: Path, backbone: str, name: str | None) -> None:
    run = write_run(tmp_path, make_log(backbone=backbone))
    assert dassl.find_backbone(dassl.find_checkpoint(run)) == name


def test_values_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    log = make_log(position="sideways", words="\x1b[31m").replace("NUM_SHOTS: 16", "NUM_SHOTS: -1")
    log = log.replace("SEED: 2", "SEED: 99999999999").replace("NAME: Caltech101", "NAME:")
    run = write_run(tmp_path, log)
    context = tpt.Context.load(run)
    assert (context.position, context.info) == ("end", PromptInfo())


def test_a_log_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "elsewhere").write_text(make_log())
    (run / "log.txt").symlink_to(tmp_path / "elsewhere")
    assert tpt.Context.load(run).info == PromptInfo()


def test_a_long_log_is_read_at_its_beginning(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_log() + "epoch [1/50]\n" * 200_000)
    assert tpt.Context.load(run).info.seed == 2


@given(st.text(st.sampled_from("ABC: \n-'x") | st.characters(), max_size=300))
def test_any_text_is_a_log(text: str) -> None:
    assert isinstance(dassl._parse(text), dict)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="is a folder without a checkpoint"):
        tpt.Context.load(tmp_path)


# --- relatives ---

ROWS = {"token_prefix": torch.ones(12, 1, 8)}
DEEP = "text_encoder.transformer.resblocks.1.VPT_shallow"
IMAGE = "image_encoder.transformer.resblocks.1.VPT_shallow"


@pytest.mark.parametrize(
    ("learner", "tensors", "texts"),
    [
        (
            "MultiModalPromptLearner",
            {
                "prompt_learner.proj.weight": torch.ones(9, 8),
                "prompt_learner.compound_prompts_text.0": torch.ones(2, 8),
            },
            ["of MaPLe: ", "text tower's deeper layers and the prompts of the image tower"],
        ),
        (
            "MultiModalPromptLearner",
            {"prompt_learner.proj.weight": torch.ones(9, 8)},
            ["of MaPLe: the prompts of the image tower cannot be used here"],
        ),
        (
            "VLPromptLearner",
            {DEEP: torch.ones(4, 8), IMAGE: torch.ones(4, 9)},
            ["of PromptSRC", "deeper layers and the prompts of the image tower cannot be used"],
        ),
        ("VLPromptLearner", {"image_encoder.VPT": torch.ones(4, 9)}, ["of PromptSRC", "image"]),
        ("prompt_learner", {"bonus": torch.ones(2)}, ["a method that this version does not read"]),
    ],
)
def test_a_method_that_is_more_than_its_text_context_is_refused_by_name(
    tmp_path: Path, learner: str, tensors: dict[str, Any], texts: list[str]
) -> None:
    run = write_run(tmp_path, make_log(), learner, **tensors)
    with pytest.raises(PromptError) as caught:
        tpt.Context.load(run)
    assert "holds other learned tensors beside the context vectors" in str(caught.value)
    for text in texts:
        assert text in str(caught.value)


def test_plot_is_refused_by_name(tmp_path: Path) -> None:
    home = tmp_path / "prompt_learner"
    home.mkdir()
    torch.save({"state_dict": {"ctx": torch.ones(4, 2, 8), **ROWS}}, home / "model.pth.tar-50")
    with pytest.raises(PromptError, match="PLOT compares each of them with parts of a picture"):
        tpt.Context.load(tmp_path)


def test_promptsrc_without_prompts_in_the_towers_is_a_plain_context(tmp_path: Path) -> None:
    """Text prompts of depth one and none at the pictures: what is left is CoOp's."""
    frozen = {"prompt_learner.ZS_image_encoder.conv1.weight": torch.ones(2, 3, 4, 4)}
    run = write_run(tmp_path, make_log(), "VLPromptLearner", **frozen)
    assert tpt.Context.load(run).vectors.shape == (4, 8)
