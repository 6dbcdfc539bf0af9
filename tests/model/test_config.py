"""A stranger's model folder: what its config may say; nothing is run, nothing around it read."""

from __future__ import annotations

import copy
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch

import tpt
from tpt.errors import ModelError
from tpt.model._config import CONFIG, LARGEST, check_settings, read_config

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
CODE = "import pathlib; pathlib.Path('executed').touch()\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever code of a stranger runs leaves the file `executed`."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path("executed").exists()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A `transformers` that runs what it is asked to run, and remembers what it was asked."""
    calls: list[dict[str, Any]] = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(name: str, cache_dir: Any = None, **options: Any) -> Any:
            calls.append({"name": name, **options})
            if options.get("trust_remote_code") is not False:
                exec(CODE)
            return types.SimpleNamespace()

    module = types.ModuleType("transformers")
    module.AutoTokenizer = AutoTokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)
    return calls


def write_folder(changes: dict[str, Any] | None = None, preprocess: Any = None, **more: Any) -> str:
    """`local-dir:` and a folder with weights, whose config has some settings changed."""
    folder = Path("model")
    folder.mkdir(exist_ok=True)
    config: dict[str, Any] = {"model_cfg": copy.deepcopy(SMALL), **more}
    if preprocess is not None:
        config["preprocess_cfg"] = preprocess
    for path, value in (changes or {}).items():
        *parents, key = path.split(".")
        home = config["model_cfg"]
        for name in parents:
            home = home.setdefault(name, {})
        home[key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    for name in ("evil.py", "tokenization_evil.py", "modeling_evil.py"):
        (folder / name).write_text(CODE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = open_clip.model.CLIP(**copy.deepcopy(SMALL)).state_dict()
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    return "local-dir:model"


def refusal(name: str) -> str:
    with pytest.raises(ModelError) as caught:
        tpt.load_clip(name, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert message.endswith(".")
    return message


# --- configs ---


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("text_cfg.tokenizer_kwargs.trust_remote_code", True),
        ("text_cfg.tokenizer_kwargs.bpe_path", "/etc/passwd"),
        ("text_cfg.tokenizer_kwargs.tokenizer_file", "../secret.json"),
        ("text_cfg.tokenizer_kwargs.reduction_mask", "syntax"),
        ("text_cfg.tokenizer_kwargs.clean", "canonicalize; import os"),
        ("text_cfg.tokenizer_kwargs", ["trust_remote_code"]),
        ("text_cfg.tokenizer_mode", "evil"),
        ("text_cfg.hf_tokenizer_name", "../../etc"),
        ("text_cfg.hf_tokenizer_name", "/etc"),
        ("text_cfg.hf_tokenizer_name", "."),
        ("text_cfg.hf_tokenizer_name", "org/../../etc"),
        ("text_cfg.hf_tokenizer_name", "a/b/c"),
        ("text_cfg.hf_tokenizer_name", ["x"]),
        ("text_cfg.auto_map", {"AutoTokenizer": ["evil.Evil", None]}),
        ("text_cfg.act_kwargs", {"fn": "os.system"}),
        ("text_cfg.norm_kwargs", {"device": "cuda"}),
        ("text_cfg.width", 10**9),
        ("text_cfg.layers", 10**6),
        ("text_cfg.width", True),
        ("text_cfg.width", "16"),
        ("vision_cfg.timm_model_name", "hf-hub:evil/model"),
        ("vision_cfg.timm_model_name", "local-dir:/etc"),
        ("vision_cfg.timm_model_name", "../evil"),
        ("vision_cfg.mlp_ratio", float("nan")),
        ("vision_cfg.mlp_ratio", float("inf")),
        ("vision_cfg.layers", [1, 1, 1]),
        ("vision_cfg.no_such_setting", 1),
        ("auto_map", {"AutoModel": "modeling_evil.Evil"}),
        ("trust_remote_code", True),
        ("cast_dtype", "float64"),
        ("quick_gelu", "yes"),
    ],
)
def test_a_setting_that_is_not_listed_is_refused_by_name(
    asked: list[dict[str, Any]], setting: str, value: Any
) -> None:
    message = refusal(write_folder({setting: value}))
    assert message.startswith('The config of "local-dir:model" was refused: it sets "model_cfg.')
    first = f"{setting}.{next(iter(value))}" if isinstance(value, dict) else setting
    assert setting in message or first in message
    assert "Only sizes, switches and known words are read" in message
    assert asked == []


@pytest.mark.parametrize(
    ("preprocess", "more", "name"),
    [
        ({"mean": [0.5, 0.5]}, {}, "preprocess_cfg.mean"),
        ({"std": [0.0, 1, 1]}, {}, "preprocess_cfg.std"),
        ({"mean": ["a", 1, 1]}, {}, "preprocess_cfg.mean"),
        ({"size": 10**9}, {}, "preprocess_cfg.size"),
        ({"mode": "CMYK"}, {}, "preprocess_cfg.mode"),
        ({"fill_color": "red"}, {}, "preprocess_cfg.fill_color"),
        ({"transform": "evil.Transform"}, {}, "preprocess_cfg.transform"),
        ([], {}, "preprocess_cfg"),
        (None, {"auto_map": {}}, "auto_map"),
        (None, {"custom_pipeline": "evil"}, "custom_pipeline"),
    ],
)
def test_the_rest_of_the_config_is_read_as_strictly(
    preprocess: Any, more: dict[str, Any], name: str
) -> None:
    assert f'it sets "{name}' in refusal(write_folder(preprocess=preprocess, **more))


@pytest.mark.parametrize("value", ["", "../../etc", "/etc/passwd", "a/b/c", {}, "x y", 7])
def test_a_tower_of_transformers_is_named_as_on_the_hub(value: Any) -> None:
    message = refusal(write_folder({"text_cfg.hf_model_name": value}))
    assert 'it sets "model_cfg.text_cfg.hf_model_name' in message


@pytest.mark.parametrize("name", open_clip.list_models())
def test_every_config_of_open_clip_itself_would_be_read(name: str) -> None:
    check_settings({"model_cfg": open_clip.get_model_config(name)}, CONFIG, name)


def test_a_config_that_is_too_large_or_too_deep_is_refused() -> None:
    path = Path("open_clip_config.json")
    path.write_text('{"model_cfg": ' + " " * LARGEST + "{}}")
    with pytest.raises(ModelError, match="it is larger than 1,048,576 bytes"):
        read_config(path, "x")
    path.write_text("[" * 200_000)
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(path, "x")


def test_a_model_larger_than_its_weights_takes_no_memory() -> None:
    name = write_folder({"text_cfg.vocab_size": 4_000_000, "text_cfg.width": 65_536})
    assert "the config describes a model of 313,690,786,241 numbers" in refusal(name)


# --- tokenizers ---


def test_a_tokenizer_of_the_hub_never_runs_code(asked: list[dict[str, Any]]) -> None:
    write_folder({"text_cfg.hf_tokenizer_name": "org/tokenizer"})
    clip = tpt.load_clip("local-dir:model", device="cpu")
    assert asked == [{"name": "model", "trust_remote_code": False}]
    assert type(clip.tokenizer).__name__ == "HFTokenizer"


def test_a_tokenizer_of_a_hub_repository_never_runs_code(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder({"text_cfg.hf_tokenizer_name": "evil/tokenizer"})

    def fetch(repository: str, filename: str | None = None) -> str:
        assert repository == "org/repo"
        return f"model/{filename or 'open_clip_model.safetensors'}"

    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", fetch)
    tpt.load_clip("hf-hub:org/repo", device="cpu")
    assert asked == [{"name": "evil/tokenizer", "trust_remote_code": False}]
    write_folder({"text_cfg.tokenizer_kwargs": {"trust_remote_code": True}})
    assert 'The config of "hf-hub:org/repo" was refused' in refusal("hf-hub:org/repo")
    assert len(asked) == 1


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
def test_a_tokenizer_that_names_code_is_refused_before_it_is_looked_at(
    asked: list[dict[str, Any]], file: str
) -> None:
    name = write_folder({"text_cfg.hf_tokenizer_name": "org/tokenizer"})
    auto_map = {"AutoTokenizer": ["tokenization_evil.Evil", None]}
    Path("model", file).write_text(json.dumps({"auto_map": auto_map}))
    assert f'"{file}" of "local-dir:model" names Python code of its own (auto_map)' in refusal(name)
    assert asked == []


# --- files around it ---


@pytest.mark.parametrize(
    "file", ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"]
)
def test_a_link_out_of_the_folder_is_not_followed(asked: list[dict[str, Any]], file: str) -> None:
    name = write_folder({"text_cfg.hf_tokenizer_name": "org/tokenizer"})
    link, outside = Path("model", file), Path("outside")
    if link.exists():
        link.rename(outside)
    else:
        outside.write_text('{"secret": 1}')
    link.symlink_to(outside.resolve())
    message = refusal(name)
    assert "is a link to a file outside its model folder" in message
    assert "secret" not in message
    assert asked == []


def test_the_hubs_cache_may_link_to_its_own_store() -> None:
    write_folder()
    snapshot, blobs = Path("models--org--repo/snapshots/abc"), Path("models--org--repo/blobs")
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in ("open_clip_config.json", "open_clip_model.safetensors"):
        Path("model", file).rename(blobs / file)
        (snapshot / file).symlink_to(Path("../../blobs") / file)
    assert tpt.load_clip(f"local-dir:{snapshot}", device="cpu").width == 16


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_place_of_a_file_is_not_waited_for() -> None:
    name = write_folder()
    for file in ("open_clip_model.safetensors", "open_clip_config.json"):
        Path("model", file).unlink()
        os.mkfifo(Path("model", file))
        assert "local-dir: expects" in refusal(name) or "no weight file" in refusal(name)


# --- what a model is ---


def test_the_same_weights_elsewhere_are_the_same_model(tmp_path: Path) -> None:
    first = tpt.load_clip(write_folder(), device="cpu")
    context = tpt.Context.from_words(first, "a photo of a")
    context.save("prompt.safetensors")
    Path("model").rename("moved")
    second = tpt.load_clip("local-dir:moved", device="cpu", precision="fp32")
    assert second.digest == first.digest
    loaded = tpt.Context.load("prompt.safetensors")
    assert loaded.info.digest == first.digest
    tpt.PromptEngine(second, ["cat"], loaded)


@pytest.mark.parametrize(
    "part", ["token_embedding.weight", "text_projection", "visual.proj", "visual.conv1.weight"]
)
def test_other_weights_in_the_same_place_are_another_model(part: str) -> None:
    first = tpt.load_clip(write_folder(), device="cpu")
    tpt.Context.from_words(first, "a photo of a").save("prompt.safetensors")
    state = safetensors.torch.load_file("model/open_clip_model.safetensors")
    state[part] = state[part] * 1.5
    safetensors.torch.save_file(state, "model/open_clip_model.safetensors")
    second = tpt.load_clip("local-dir:model", device="cpu")
    assert second.digest != first.digest
    with pytest.raises(tpt.errors.PromptError) as caught:
        tpt.PromptEngine(second, ["cat"], tpt.Context.load("prompt.safetensors"))
    assert f"made for other weights ({first.digest})" in str(caught.value)
    assert f"local-dir:model with the weights {second.digest}" in str(caught.value)


def test_one_number_of_the_token_embedding_makes_another_model() -> None:
    first = tpt.load_clip(write_folder(), device="cpu")
    model = copy.deepcopy(first.model)
    assert tpt.Clip(model, first.tokenizer).digest == first.digest
    model.token_embedding.weight.data[12_345, 3] += 1
    assert tpt.Clip(model, first.tokenizer).digest != first.digest


def test_the_digest_is_of_the_weights_as_they_were_published() -> None:
    name = write_folder()
    exact = tpt.load_clip(name, device="cpu")
    assert tpt.load_clip(name, device="cpu", precision="bf16").digest == exact.digest
    rounded = copy.deepcopy(exact.model).to(torch.bfloat16)
    assert tpt.Clip(rounded, exact.tokenizer).digest is None  # unknown: the names decide
