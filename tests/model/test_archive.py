"""OpenAI's archives: the scripted model's own features, and nothing of the archive is run."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from archives import RESNET, TEXT, VIT, build, script
from safetensors.torch import save_file

import tpt
from tpt.errors import ModelError
from tpt.model._archive import is_archive, read_archive, read_archive_config


@pytest.fixture(scope="module", params=["ViT", "RN"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(a model, its archive)"""
    path = tmp_path_factory.mktemp("clip") / f"{request.param}.pt"
    model = build(VIT if request.param == "ViT" else RESNET)
    return model, script(model, path)


def test_the_features_are_the_scripted_models_own(archive: Any) -> None:
    _, path = archive
    clip = tpt.load_clip(str(path), device="cpu")
    size = clip.preprocess.size
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    ids = clip.tokenizer(["a photo of a cat.", "naïve 猫"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.load(str(path)).float()
        with torch.no_grad():
            image, text, scale = scripted(images, ids)
            torch.testing.assert_close(clip.encode_images(images), image, atol=1e-5, rtol=0)
            ours = clip.model.encode_text(ids, normalize=True)
    torch.testing.assert_close(ours, text, atol=1e-5, rtol=0)
    assert clip.logit_scale == pytest.approx(float(scale), rel=1e-6)
    assert (clip.name, clip.pretrained) == (str(path), None)
    assert tpt.TPT(tpt.PromptEngine(clip, ["cat", "dog"]), keep=0.5).adapt(images).loss.isfinite()


def test_the_config_is_read_from_the_shapes(archive: Any) -> None:
    _, path = archive
    model = read_archive_config(path, "x").model
    assert (model["embed_dim"], model["quick_gelu"], model["text_cfg"]) == (48, True, TEXT)
    for key, value in (VIT if path.stem == "ViT" else RESNET).items():
        assert model["vision_cfg"][key] == value


def test_an_archive_is_the_same_model_as_its_state_dict(
    archive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a model's name too, where QuickGELU need not be asked for."""
    _, path = archive
    vision = VIT if path.stem == "ViT" else RESNET
    config = {"embed_dim": 48, "vision_cfg": dict(vision), "text_cfg": dict(TEXT)}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-Test", config)
    named = tpt.load_clip("Small-Test", str(path), device="cpu")
    alone = tpt.load_clip(str(path), device="cpu")
    assert type(named.model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    state = {name: tensor.contiguous() for name, tensor in read_archive(path).items()}
    save_file(state, tmp_path / "state.safetensors")
    plain = tpt.load_clip("Small-Test", str(tmp_path / "state.safetensors"), device="cpu")
    assert named.digest == alone.digest == plain.digest
    tpt.Context.from_words(named, "a photo of a").save(tmp_path / "prompt.safetensors")
    tpt.PromptEngine(alone, ["cat"], tpt.Context.load(tmp_path / "prompt.safetensors"))


# --- hostile and broken archives ---


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def rewrite(path: Path, target: Path, **members: bytes | None) -> Path:
    """The archive with some members, by the end of their names, exchanged or left out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            last = info.filename.split("/", 1)[1].replace(".", "_").replace("/", "_")
            content = members.get(last, old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
    return target


def refusal(path: Path, *pretrained: str) -> str:
    with pytest.raises(ModelError) as caught:
        tpt.load_clip(str(path), *pretrained, device="cpu")
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (pickle.dumps({"a": Evil()}, protocol=2), "is damaged"),
        (pickle.dumps({"a": Evil()}, protocol=4), "holds the instruction MEMOIZE"),
        (b"cos\nsystem\n(S'touch executed'\ntR.", "holds the instruction STRING"),
        (b"\x80\x02}q\x00.", "is damaged"),
        (b"", "is damaged"),
        (b"\x80\x02", "is damaged"),
        (b"\xff" * 9, "is damaged"),
        (b"\x80\x02h\x05.", "is damaged"),
        (b"\x80\x02c__torch__ M\nM\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub.", "is damaged"),
        (b"\x80\x02c__torch__ M\nM\n)\x81}b.", "is not one of OpenAI's CLIPs"),
        (b"N" * (2**24 + 1), "no layout of its modules, or a very large one"),
        (None, "no layout of its modules"),
    ],
)
def test_a_hostile_layout_is_refused_and_nothing_is_run(
    archive: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewrite(archive[1], tmp_path / "evil.pt", data_pkl=content)
    assert is_archive(path)
    message = refusal(path)
    assert message.startswith(f'The archive "{path}" could not be read: ')
    assert text in message
    assert not (tmp_path / "executed").exists()


def test_the_archives_code_is_not_looked_at(archive: Any, tmp_path: Path) -> None:
    code = [n for n in zipfile.ZipFile(archive[1]).namelist() if n.endswith(".py")]
    assert code
    wrong = {n.split("/", 1)[1].replace(".", "_").replace("/", "_"): b"raise" for n in code}
    path = rewrite(archive[1], tmp_path / "a.pt", **wrong)  # type: ignore[arg-type]
    assert tpt.load_clip(str(path), device="cpu").embedding_width == 48


def test_a_missing_short_or_packed_tensor_is_an_error(archive: Any, tmp_path: Path) -> None:
    assert "damaged" in refusal(rewrite(archive[1], tmp_path / "a.pt", data_0=None))
    assert "not of the size" in refusal(rewrite(archive[1], tmp_path / "b.pt", data_0=b"12"))
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(archive[1]) as old, zipfile.ZipFile(packed, "w", 8) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    assert "is packed" in refusal(packed)
    shutil.copy(archive[1], tmp_path / "cut.pt")
    os.truncate(tmp_path / "cut.pt", 10_000)
    assert "is a file; only OpenAI's archives" in refusal(tmp_path / "cut.pt")


def test_an_archive_of_another_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"embed_dim": 48, "vision_cfg": dict(VIT), "text_cfg": dict(TEXT)}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-Test", config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "linear.pt"))
    assert "is not one of OpenAI's CLIPs" in refusal(tmp_path / "linear.pt")
    message = refusal(Path("Small-Test"), str(tmp_path / "linear.pt"))
    assert "it lacks: " in message
    assert "could not be loaded into Small-Test" in message


def test_a_file_that_says_not_what_it_is_is_refused(archive: Any, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    assert "--model NAME --pretrained FILE" in refusal(tmp_path / "weights.safetensors")
    assert 'pretrained="openai" does not apply' in refusal(archive[1], "openai")
