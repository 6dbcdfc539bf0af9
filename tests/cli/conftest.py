"""What the command's tests share: a runner that keeps models loaded, and small images."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny_model import name_tiny

import coop.train_job
from cli.main import main
from tpt.evaluate import runner
from tpt.model.load import load_clip
from tpt.streaming import batches
from tpt.streaming import predict_job as job

TESTS = Path(__file__).parents[1]
_load_once = functools.cache(load_clip)


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_in_process(*args: object, stdin: str | bytes | None = None) -> Result:
    words = name_tiny([str(arg) for arg in args])
    return CliRunner().invoke(main, words, input=stdin, catch_exceptions=False)


@pytest.fixture
def run_tpt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `tpt ARGS` in this process; an exception that the command lets through fails the test."""
    monkeypatch.setattr(job, "load_clip", _load_once)
    return run_in_process


@pytest.fixture
def train(run_tpt: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `tpt train ARGS` with the model that `run_tpt` keeps loaded."""
    monkeypatch.setattr(coop.train_job, "load_clip", _load_once)
    return lambda *args: run_tpt("train", *args)


@pytest.fixture(scope="module")
def run_tpt_once() -> Iterator[Callable[..., Result]]:
    """The same for runs that several tests of a module look at; they need absolute paths."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "load_clip", _load_once)
        yield run_in_process


@pytest.fixture
def command(tiny_folder: Path) -> list[str]:
    """The words that start `tpt` in a process of its own, open to Ctrl-C as in a terminal."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); "
        f"import tiny_model; tiny_model.main({str(tiny_folder)!r})"
    )
    return [sys.executable, "-c", program]


@pytest.fixture
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every "ms" is 0.0, so that whole files can be compared."""
    for place in (batches, runner):
        monkeypatch.setattr(place, "time", SimpleNamespace(perf_counter=lambda: 0.0))


@pytest.fixture(scope="session")
def make_images() -> Callable[..., list[str]]:
    """Write small different pictures under the given names, folders included."""

    def make(*names: str) -> list[str]:
        for number, name in enumerate(names):
            pixels = np.random.RandomState(number).randint(0, 256, (5, 6, 3), dtype=np.uint8)
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            # By its open file: Pillow's own path handling is not what is tested.
            with open(name, "wb") as file:
                Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC).save(file, "PNG")
        return list(names)

    return make


@pytest.fixture
def forget_ms() -> Callable[[bytes], bytes]:
    """Records without their timings."""
    return lambda data: re.sub(rb'"ms": [0-9.e-]+', b'"ms": 0', data)


@pytest.fixture
def no_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every forward pass of either tower fail."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a forward pass was run")

    for place in ("tpt.model.clip.Clip.encode_images", "tpt.prompts.PromptEngine.class_features"):
        monkeypatch.setattr(place, fail)
