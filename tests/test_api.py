"""The names that scripts rely on, and the ten lines of the design's contract."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tpt

EXAMPLES = sorted((Path(__file__).parent.parent / "examples" / "images").glob("*.jpg"))
CONTRACT = [
    *("Adapted", "Clip", "Context", "PromptEngine", "TPT", "Views", "ZeroShot", "load_clip"),
    *("Prediction", "Record", "stream"),
    *("VTE", "ZERO", "MTA", "TPS", "CTPT", "TDA", "Gate"),
    *("TptError", "ImageError", "MethodError", "ModelError", "OutputError", "PromptError"),
    "SourceError",
]


def run_python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", tpt.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(tpt, name)
    if name != "__version__":
        assert inspect.getdoc(value)
        assert value.__module__.startswith("tpt.")


def test_the_contracts_names_are_public() -> None:
    assert set(CONTRACT) <= set(tpt.__all__)
    assert set(tpt.__all__) <= set(dir(tpt))


def test_all_errors_are_one_family() -> None:
    errors = [value for name in CONTRACT if inspect.isclass(value := getattr(tpt, name))]
    errors = [value for value in errors if issubclass(value, Exception)]
    assert len(errors) == 7
    assert all(issubclass(error, tpt.TptError) for error in errors)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No tpt attribute Tpt"):
        _ = tpt.Tpt


def test_importing_the_package_does_not_wait_for_torch() -> None:
    program = "import sys, tpt, tpt.errors; dir(tpt); print(*sys.modules)"
    loaded = run_python(program).split()
    assert "tpt" in loaded
    heavy = {"torch", "torchvision", "open_clip", "kornia", "numpy", "PIL"}
    assert not heavy & set(loaded)


def test_a_star_import_brings_every_public_name() -> None:
    names: dict[str, object] = {}
    exec("from tpt import *", names)
    assert set(tpt.__all__) <= set(names)


# --- the ten lines ---


@pytest.fixture
def method(tiny: tpt.Clip) -> tpt.TPT:
    return tpt.TPT(tpt.PromptEngine(tiny, ["camera", "cat", "cup", "person"]), keep=0.25)


def test_the_contracts_ten_lines_run(tmp_path: Path) -> None:
    clip = tpt.load_clip("tiny")
    context = tpt.Context.from_words(clip, "a photo of a")
    context.save(tmp_path / "coop.safetensors")
    context = tpt.Context.load(tmp_path / "coop.safetensors")
    engine = tpt.PromptEngine(clip, ["camera", "cat", "cup", "person"], context)
    classes = engine.class_features(context.vectors)
    assert classes.shape == (4, 128)
    method = tpt.TPT(engine, keep=0.1, steps=1, lr=5e-3)
    make = tpt.Views(clip, n=16, kind="crop")
    views = make(EXAMPLES[:2])
    assert views.shape == (2, 16, 3, 64, 64)
    out = method.adapt(views)
    again = method.adapt_features(clip.encode_views(views))
    assert out.logits.shape == (2, 4)
    assert torch.equal(again.logits, out.logits)
    records = list(tpt.stream(EXAMPLES[:2], method, views=make))
    for record, logits in zip(records, out.logits, strict=True):
        scores = {p.index: p.score for p in record.predictions}
        expected = dict(enumerate(logits.softmax(-1).tolist()))
        assert scores == pytest.approx(expected, abs=1e-5)


def test_a_stream_is_lazy_and_takes_any_mixture_of_images(method: tpt.TPT) -> None:
    pixels = np.array(Image.open(EXAMPLES[0]))
    pulled = []

    def images() -> Iterator[object]:
        for image in (str(EXAMPLES[0]), EXAMPLES[0], Image.open(EXAMPLES[0]), pixels):
            pulled.append(image)
            yield image
        while True:
            pulled.append(None)
            yield torch.from_numpy(pixels).permute(2, 0, 1)

    views = tpt.Views(method.engine.clip, n=4)
    stream = tpt.stream(images(), method, views=views, num_workers=1)
    assert not pulled
    records = [next(stream) for _ in range(6)]
    stream.close()
    assert len(pulled) < 12
    assert [record.index for record in records] == list(range(6))
    assert len({record.zero_shot.label for record in records}) == 1
    assert records[0].to_json() != records[2].to_json()


def test_the_errors_can_be_reached_from_the_package_alone() -> None:
    program = "import sys, tpt; assert tpt.errors.TptError and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
