"""What many tests share: the seeded model of the golden values, and the embedded model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import HealthCheck, settings
from tiny_model import fill_from_seed, write_tiny

import tpt
from tpt.model import precision
from tpt.model.load import EMBEDDED

# The same inputs in every run, however slow the machine is.
settings.register_profile(
    "tests",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")

PARITY = Path(__file__).parent / "parity"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: no process shall be alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def make_views(seed: int, count: int) -> torch.Tensor:
    """The golden cases' normalised views (N, 3, 32, 32)."""
    random = np.random.RandomState(seed)
    base = random.standard_normal((1, 3, 32, 32))
    low = random.standard_normal((count, 3, 4, 4)).repeat(8, axis=2).repeat(8, axis=3)
    views = 0.8 * base + 0.7 * low + 0.3 * random.standard_normal((count, 3, 32, 32))
    return torch.from_numpy(views.astype(np.float32))


def build_seeded_model(**text_changes: object) -> torch.nn.Module:
    config = json.loads((PARITY / "reference.json").read_text())["model"]
    config["text_cfg"].update(text_changes)
    model = open_clip.model.CLIP(**config)
    fill_from_seed(model)
    return model.eval()


@pytest.fixture(scope="session")
def golden() -> SimpleNamespace:
    """The golden cases by name, their arrays, and the model they were computed with."""
    cases = json.loads((PARITY / "reference.json").read_text())["cases"]
    clip = tpt.Clip(build_seeded_model(), open_clip.get_tokenizer("ViT-B-16"))
    with np.load(PARITY / "reference.npz") as arrays:
        values = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return SimpleNamespace(
        clip=clip, cases={case["name"]: case for case in cases}, values=values, views=make_views
    )


@pytest.fixture(scope="session", autouse=True)
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model "tiny", which this process loads as if it were embedded."""
    folder = tmp_path_factory.mktemp("embedded") / "tiny"
    write_tiny(folder)
    EMBEDDED["tiny"] = folder
    return folder


@pytest.fixture(scope="session", autouse=True)
def exact_precision(pytestconfig: pytest.Config) -> Iterator[None]:
    """Digits are compared, so `auto` is fp32 here on every machine; bf16 has tests of its own."""
    pytestconfig.stash["has_bf16_units"] = precision.has_bf16_units
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tpt.model.precision.has_bf16_units", lambda: False)
        yield


@pytest.fixture(scope="session")
def lite() -> tpt.Clip:
    """The embedded model: for tests of which the answer matters."""
    return tpt.load_clip("lite", device="cpu")


@pytest.fixture(scope="session")
def tiny() -> tpt.Clip:
    return tpt.load_clip("tiny", device="cpu")
