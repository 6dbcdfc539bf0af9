"""`load_clip`: every kind of name and weights, and what is said where they are missing."""

from __future__ import annotations

import copy
import json
import os
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from open_clip.model import _build_text_tower
from torch import Tensor

import tpt
import tpt.model.load
from tpt.errors import ModelError
from tpt.model._config import ModelConfig
from tpt.model._text_tower import find_text_tower
from tpt.model.load import EMBEDDED, list_models

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
OTHER = {**SMALL, "embed_dim": 24}


def message_of(*args: Any, **options: Any) -> str:
    """The message of the ModelError, checked to be one full line."""
    with pytest.raises(ModelError) as caught:
        tpt.load_clip(*args, device=options.pop("device", "cpu"), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert message.endswith((".", "?"))
    return message


def weights_of(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return dict(open_clip.model.CLIP(**copy.deepcopy(config)).state_dict())


def views() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return weights_of(SMALL, seed=1)


@pytest.fixture
def folder(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    """What `local-dir:` expects: a config and weights."""
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    config = {"model_cfg": SMALL, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(weights, tmp_path / "open_clip_model.safetensors")
    return tmp_path


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    """An open_clip name "Small-Test" with the tags "plain_tag" and "quick_tag"; its weights."""
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    tags = {
        "plain_tag": {"file": str(path), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)},
        "quick_tag": {"file": str(path), "quick_gelu": True},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-Test", copy.deepcopy(SMALL))
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Small-Test", tags)
    return path


# --- names ---


@pytest.mark.parametrize(
    ("name", "close"),
    [("ViT-B-61", "ViT-B-16"), ("vit-b-16", "ViT-B-16"), ("RN5O", "RN50"), ("tini", "tiny")],
)
def test_an_unknown_name_is_answered_with_the_nearest_ones(name: str, close: str) -> None:
    message = message_of(name, "openai")
    assert f'Unknown model "{name}". Did you mean ' in message
    assert f'"{close}"' in message
    assert "`tpt models`" in message


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    message = message_of("qqqqqqqq")
    assert "Did you mean" not in message
    assert "hf-hub:org/repo" in message


def test_a_folder_without_local_dir_is_told_how_to_write_it(folder: Path) -> None:
    assert f"write local-dir:{folder} " in message_of(str(folder))


def test_a_folder_that_happens_to_be_called_like_a_model_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert tpt.load_clip("tiny", device="cpu").name == "tiny"


def test_a_slash_in_a_name_is_a_hyphen() -> None:
    assert message_of("ViT-B/16") == message_of("ViT-B-16")


# --- tags ---


def test_missing_weights_are_an_error_that_lists_the_tags() -> None:
    message = message_of("ViT-B-16")
    assert "openai" in message
    assert "laion2b_s34b_b88k" in message
    assert "pretrained=random" in message


def test_a_model_without_published_weights_says_so() -> None:
    assert "none are published" in message_of("ViT-B-16-plus")


def test_an_unknown_tag_is_answered_with_the_nearest_and_all_of_them() -> None:
    message = message_of("ViT-B-16", "opnai")
    assert '"opnai" is neither a weight file nor a tag of "ViT-B-16".' in message
    assert 'Did you mean "openai"' in message
    assert "laion2b_s34b_b88k" in message


@pytest.mark.parametrize("missing", ["", "/no/such/file.safetensors", "no-such-file.pt"])
def test_a_missing_weight_file_is_an_error(missing: str) -> None:
    assert f'"{missing}" is neither a weight file nor a tag' in message_of("ViT-B-16", missing)


@pytest.mark.parametrize("tag", ["plain_tag", "plain-tag", "Plain_Tag"])
def test_a_tag_is_stored_as_open_clip_lists_it(registered: Path, tag: str) -> None:
    clip = tpt.load_clip("Small-Test", tag, device="cpu")
    assert (clip.name, clip.pretrained) == ("Small-Test", "plain_tag")
    assert clip.preprocess.mean == (0.1, 0.2, 0.3)


def test_a_file_that_is_called_like_a_tag_does_not_stand_in_its_way(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (registered.parent / "quick_tag").write_bytes(b"not weights")
    monkeypatch.chdir(registered.parent)
    clip = tpt.load_clip("Small-Test", "quick_tag", device="cpu")
    assert isinstance(clip.model.transformer.resblocks[0].mlp.gelu, open_clip.model.QuickGELU)


@pytest.mark.parametrize(("tag", "quick"), [("plain_tag", False), ("quick_tag", True)])
def test_quick_gelu_follows_the_tag(registered: Path, tag: str, quick: bool) -> None:
    model = tpt.load_clip("Small-Test", tag, device="cpu").model
    for tower in (model.transformer, model.visual.transformer):
        assert isinstance(tower.resblocks[0].mlp.gelu, open_clip.model.QuickGELU) is quick


@pytest.mark.parametrize(
    ("tag", "quick"), [("openai", True), ("OpenAI", True), ("laion2b_s34b_b88k", False)]
)
def test_the_openai_weights_are_loaded_with_quick_gelu(
    monkeypatch: pytest.MonkeyPatch, golden: SimpleNamespace, tag: str, quick: bool
) -> None:
    asked = {}

    def build(config: ModelConfig, weights: Path, *rest: Any) -> tuple[torch.nn.Module, str]:
        asked.update(config.model, weights=weights)
        return golden.clip.model, "digest"

    monkeypatch.setattr(tpt.model.load, "build_model", build)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda config: "fetched.bin")
    clip = tpt.load_clip("ViT-B-16", tag, device="cpu")
    assert clip.pretrained == tag.lower()
    assert asked["weights"] == Path("fetched.bin")
    assert asked.get("quick_gelu", False) is quick
    assert asked["embed_dim"] == 512


# --- random weights ---


def test_random_weights_are_made_only_when_asked_for(registered: Path) -> None:
    assert "needs weights" in message_of("Small-Test")
    assert tpt.load_clip("Small-Test", "random", device="cpu").pretrained == "random"


@pytest.mark.parametrize("name", ["Small-Test", "tiny"])
def test_random_weights_are_drawn_from_the_seed_alone(registered: Path, name: str) -> None:
    def draw(seed: int) -> Tensor:
        model = tpt.load_clip(name, "random", seed=seed, device="cpu").model
        return torch.cat([p.flatten() for p in model.parameters()])

    first = draw(3)
    torch.rand(5)
    assert torch.equal(draw(3), first)
    assert not torch.equal(draw(4), first)


@pytest.mark.parametrize("pretrained", ["random", None])
def test_loading_leaves_the_callers_chance_alone(pretrained: str | None) -> None:
    before = torch.random.get_rng_state()
    tpt.load_clip("tiny", pretrained, seed=5, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


# --- local files and folders ---


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "checkpoint"])
def test_a_local_weight_file_is_loaded_into_an_open_clip_name(
    registered: Path, weights: dict[str, Tensor], suffix: str
) -> None:
    path = registered.with_name(f"my weights.{suffix}")
    if suffix == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        content = {"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}
        torch.save(content if suffix == "checkpoint" else weights, path)
    clip = tpt.load_clip("Small-Test", str(path), device="cpu")
    assert clip.pretrained == str(path)
    for name, value in clip.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_a_local_folder_gives_model_weights_and_preprocessing(
    folder: Path, weights: dict[str, Tensor]
) -> None:
    clip = tpt.load_clip(f"local-dir:{folder}", device="cpu")
    expected = open_clip.model.CLIP(**copy.deepcopy(SMALL)).eval()
    expected.load_state_dict(weights)
    with torch.no_grad():
        features = expected.encode_image(views(), normalize=True)
    torch.testing.assert_close(clip.encode_images(views()), features)
    assert clip.preprocess.size == (32, 32)
    assert clip.preprocess.resize_mode == "squash"
    assert clip.preprocess.mean == (0.5, 0.5, 0.5)
    engine = tpt.PromptEngine(clip, ["cat", "dog"])
    assert engine.class_features().shape == (2, 16)


def test_a_local_folder_by_a_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert tpt.load_clip(f"local-dir:{folder.name}", device="cpu").width == 16


@pytest.mark.parametrize("name", ["no/such/folder", ""])
def test_a_missing_folder_is_an_error(name: str, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "No open_clip_config.json" in message_of(f"local-dir:{name}")


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("open_clip_config.json", "No open_clip_config.json"),
        ("open_clip_model.safetensors", "holds a config but no weight file"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing(folder: Path, missing: str, text: str) -> None:
    (folder / missing).unlink()
    message = message_of(f"local-dir:{folder}")
    assert text in message
    assert str(folder) in message


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[1]",
        "7",
        '{"model_cfg": {}}',
        '{"model_cfg": null}',
        '{"model_cfg": {"embed_dim": 16}}',
        json.dumps({"model_cfg": {**SMALL, "vision_cfg": {"no_such_setting": 1}}}),
        json.dumps({"model_cfg": {**SMALL, "text_cfg": 3}}),
        json.dumps(SMALL),
    ],
)
def test_a_bad_config_is_an_error(folder: Path, config: str) -> None:
    (folder / "open_clip_config.json").write_text(config)
    assert str(folder) in message_of(f"local-dir:{folder}")


class Evil:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["file", "folder"])
@pytest.mark.parametrize(
    ("suffix", "damage"),
    [("pt", d) for d in ("truncated", "empty", "text", "other", "{}", "evil", "list")]
    + [("safetensors", d) for d in ("truncated", "empty", "text", "other", "{}")],
)
def test_damaged_or_foreign_weights_are_an_error(
    registered: Path, tmp_path: Path, damage: str, suffix: str, where: str, weights: dict
) -> None:
    path = tmp_path / f"bad.{suffix}"
    content: Any = {"other": weights_of(OTHER), "list": [1, 2], "{}": {}}.get(damage, weights)
    if damage == "evil":
        content = {**weights, "evil": Evil(tmp_path / "executed")}
    if suffix == "pt":
        torch.save(content, path)
    else:
        safetensors.torch.save_file(content, path)
    if damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif damage in ("empty", "text"):
        path.write_bytes(b"" if damage == "empty" else b"these are no weights\n" * 9)
    if where == "file":
        message = message_of("Small-Test", str(path))
        assert f"The weight file {path} could not be loaded into Small-Test: " in message
    else:
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
        registered.unlink()
        path = path.rename(tmp_path / f"model.{suffix.replace('pt', 'pth')}")
        message = message_of(f"local-dir:{tmp_path}")
    assert "a state dict of exactly" in message
    assert "weights_only" not in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["local-dir:/x", "hf-hub:org/repo", "tiny"])
def test_names_that_bring_their_own_weights_take_no_tag(name: str) -> None:
    message = message_of(name, "openai")
    assert 'pretrained="openai" does not apply' in message


# --- text towers that cannot be used ---


@pytest.mark.parametrize("name", ["roberta-ViT-B-32", "xlm-roberta-base-ViT-B-32"])
def test_without_transformers_its_text_towers_are_refused_before_anything_is_built(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tpt.model.load, "build_model", None)
    monkeypatch.setattr(open_clip.hf_model, "transformers", None)
    message = message_of(name, "random")
    assert f'The text tower of "{name}" needs transformers, which is not' in message
    assert 'pip install "tpt-runtime[hf]"' in message


# --- without a network ---


def refuse(*args: Any, **options: Any) -> None:
    raise OSError("Network is unreachable")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No download and, so that the answer comes at once, no model built in the meantime."""
    for name in ("download_pretrained", "download_pretrained_from_hf"):
        monkeypatch.setattr(open_clip.factory, name, refuse)
    monkeypatch.setattr(open_clip.factory, "CLIP", None)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "tag"),
    [("ViT-B-16", "openai"), ("ViT-L-14", "laion2b_s32b_b82k"), ("hf-hub:org/repo", None)],
)
def test_an_unreachable_hub_is_an_error_with_a_way_out(name: str, tag: str | None) -> None:
    message = message_of(name, tag)
    assert f'The model "{name}"' in message
    assert "Network is unreachable" in message
    assert "local-dir:/path/to/folder" in message


# --- device and precision ---


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("cuda:77", 'Device "cuda:77" is not on this machine'),
        ("gpu", 'Unknown device "gpu": expected auto, cpu'),
        ("cuda:x", 'Unknown device "cuda:x"'),
        ("", 'Unknown device ""'),
        ("meta", 'Device "meta" is not supported'),
    ],
)
def test_a_device_that_is_not_there_is_an_error(device: str, text: str) -> None:
    assert text in message_of("tiny", device=device)


def test_a_machine_without_cuda_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "Use --device auto or --device cpu" in message_of("tiny", device="cuda")


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert tpt.load_clip("tiny").device == torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "text"),
    [
        ("fp16", "fp16 is not available on a CPU. Use bf16"),
        ("fp8", 'Unknown precision "fp8": expected auto, fp32, tf32, bf16 or fp16.'),
        ("float32", "expected auto, fp32, tf32, bf16 or fp16."),
    ],
)
def test_a_precision_that_is_not_there_is_an_error(precision: str, text: str) -> None:
    assert text in message_of("tiny", precision=precision)


def test_bf16_gives_nearly_the_features_of_fp32_and_tunes(tiny: tpt.Clip) -> None:
    half = tpt.load_clip("tiny", device="cpu", precision="bf16")
    assert half.dtype == torch.bfloat16
    pictures = torch.randn(1, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    names = ["cat", "dog", "airplane"]
    exact, near = (tpt.PromptEngine(clip, names) for clip in (tiny, half))
    cosine = torch.cosine_similarity(half.encode_views(pictures), tiny.encode_views(pictures), -1)
    assert cosine.min() > 0.99
    cosine = torch.cosine_similarity(near.class_features(), exact.class_features(), -1)
    assert cosine.min() > 0.99
    out = tpt.TPT(near, keep=0.5).adapt(pictures)
    assert out.logits.dtype == out.vectors.dtype == torch.float32
    assert out.logits.isfinite().all()
    assert not torch.equal(out.vectors[0], near.start)


# --- the embedded model and the list ---


@pytest.mark.parametrize("pretrained", [None, "embedded"])
def test_the_embedded_model_is_the_same_with_and_without_its_tag(
    pretrained: str | None, tiny: tpt.Clip
) -> None:
    clip = tpt.load_clip("tiny", pretrained, device="cpu")
    assert (clip.name, clip.pretrained) == ("tiny", None)
    images = torch.zeros(1, 3, 64, 64)
    assert torch.equal(clip.encode_images(images), tiny.encode_images(images))


def test_the_list_holds_every_model_once_with_the_embedded_ones_first() -> None:
    rows = list_models()
    assert [row.name for row in rows] == [*EMBEDDED, *open_clip.list_models()]
    first = rows[0]
    assert (first.name, first.image_size, first.width) == ("lite", 192, 240)
    assert (first.text_path, first.tags) == ("shared-prefix", ("embedded",))


def test_the_list_tells_sizes_and_tags() -> None:
    rows = {row.name: row for row in list_models()}
    assert rows["ViT-L-14-336"].image_size == 336
    assert rows["ViT-L-14-336"].width == 768
    assert rows["ViT-B-16"].tags[0] == "openai"
    assert rows["ViT-B-16-plus"].tags == ()


def test_the_list_counts_as_many_of_each_text_path_as_the_configs_do() -> None:
    configs = {
        name: open_clip.get_model_config(name)["text_cfg"] for name in open_clip.list_models()
    }
    foreign = {name for name, text in configs.items() if "hf_model_name" in text}
    seeing_all = {name for name, text in configs.items() if text.get("no_causal_mask")}
    with_class_token = {name for name in configs if re.match("coca_(?!roberta)", name)}
    count = Counter(row.text_path for row in list_models() if row.name not in EMBEDDED)
    assert len(foreign) > 0
    assert count["full-length"] == len(seeing_all | with_class_token | foreign) > len(foreign)
    assert sum(count.values()) == len(configs)


def test_the_listed_text_path_and_width_are_those_of_the_tower_itself() -> None:
    """Every distinct text config of open_clip, built without memory and one layer deep."""
    seen: set[str] = set()
    for row in list_models():
        config = open_clip.get_model_config(row.name)
        if row.name in EMBEDDED or "hf_model_name" in config["text_cfg"]:
            continue  # those of transformers: test_hf_text
        text = {**config["text_cfg"], "layers": 1}
        key = json.dumps(text, sort_keys=True)
        if key in seen:
            continue
        seen.add(key)
        with torch.device("meta"):
            home = _build_text_tower(config["embed_dim"], text, config.get("quick_gelu", False))
        tower = find_text_tower(SimpleNamespace(text=home, visual=None))
        assert tower.packable is (row.text_path == "shared-prefix"), row.name
        assert tower.token_embedding.embedding_dim == row.width, row.name
    assert len(seen) > 30
