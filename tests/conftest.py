"""What many tests share: the seeded model of the golden values, and the embedded model."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
<<<<<<< HEAD
from hypothesis import HealthCheck, settings
=======
from open_clip.constants import OPENAI_DATASET_MEAN as MEAN
from open_clip.constants import OPENAI_DATASET_STD as STD
from safetensors.torch import save_file
>>>>>>> 9e5ef48 (A small CLIP that knows ImageNet's classes ships in place of tiny; the program that makes such a model)

import tpt
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


def fill_from_seed(model: torch.nn.Module) -> None:
    """Fill every weight from its name, by the rules of the golden values (parity/README.md)."""
    state = {}
    for name, old in model.state_dict().items():
        if not old.is_floating_point():
            continue
        random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
        z = random.standard_normal(tuple(old.shape))
        if name == "logit_scale":
            value = np.array(np.log(100.0))
        elif name.endswith(".bias"):
            value = 0.1 * z
        elif ".ln_" in name or name == "ln_final.weight":
            value = 1 + 0.1 * z
        elif name.endswith("positional_embedding"):
            value = 0.1 * z
        elif name == "token_embedding.weight":
            value = 0.2 * z
        elif name.endswith("class_embedding"):
            value = 0.5 * z
        elif name in ("text_projection", "visual.proj"):
            value = z / np.sqrt(z.shape[0])
        else:
            value = z / np.sqrt(np.prod(z.shape[1:]))
        state[name] = torch.from_numpy(np.asarray(value)).to(old.dtype)
    model.load_state_dict(state, strict=False)


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


TINY = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}
"""A model that knows nothing: for tests that need an answer and do not mind which."""


@pytest.fixture(scope="session", autouse=True)
def _tiny_is_embedded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`load_clip("tiny")` in this process: the seeded weights of `TINY`, as embedded models lie."""
    folder = tmp_path_factory.mktemp("embedded") / "tiny"
    folder.mkdir()
    model = open_clip.model.CLIP(**TINY)
    fill_from_seed(model)
    state = {name: value.half() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    config = {"model_cfg": TINY, "preprocess_cfg": {"mean": list(MEAN), "std": list(STD)}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    EMBEDDED["tiny"] = folder


@pytest.fixture(scope="session")
def tiny() -> tpt.Clip:
    return tpt.load_clip("tiny", device="cpu")
