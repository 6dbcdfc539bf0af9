"""`tpt prompt` shows prompt files, makes them of official checkpoints, and compares them."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from refusals import error_of
from torch import Tensor

import tpt
from tpt.model.load import load_clip
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend, PromptInfo

Run = Callable[..., Result]
EXAMPLE = Path(__file__).parents[2] / "examples" / "prompt.safetensors"
NAMES = ("red fox", "owl", "elk", "猫", "new\nline", "ant", "bee")
_load_once = functools.cache(load_clip)


@pytest.fixture(autouse=True)
def _models_stay_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpt.model.load.load_clip", _load_once)


def random_vectors(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def words(tiny: tpt.Clip) -> tpt.Context:
    """The context that "a photo of a" makes, saved as words.safetensors."""
    context = tpt.Context.from_words(tiny, "a photo of a")
    context.save("words.safetensors")
    return context


@pytest.fixture
def specific(words: tpt.Context) -> tpt.Context:
    """A class-specific context, saved as specific.safetensors: class n is "a photo of a" + n."""
    steps = torch.arange(len(NAMES)).view(-1, 1, 1) / 100
    info = PromptInfo(model="tiny", classes=NAMES)
    context = tpt.Context(words.vectors + steps, info=info)
    context.save("specific.safetensors")
    return context


def save_official(name: str, vectors: Tensor, **more: Tensor) -> str:
    """A checkpoint as CoOp's trainer leaves it."""
    state = {"ctx": vectors, "token_prefix": torch.ones(3, 1, vectors.shape[-1]), **more}
    torch.save({"state_dict": state, "epoch": 50, "val_result": None}, name)
    return name


def make_meta_net(width: int) -> MetaNet:
    return MetaNet.draw(64, width, torch.Generator().manual_seed(1))


def read_rows(result: Result) -> dict[str, str]:
    """The `name  value` lines of a table."""
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.split("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, value in (line.split("  ", 1) for line in lines)}


def read_json(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def assert_fails(result: Result, text: str, code: int = 1) -> None:
    assert text in error_of(result, code)


@pytest.mark.parametrize("name", ["show", "import", "diff"])
def test_help_answers_without_importing_torch(name: str) -> None:
    program = (
        "import sys; from cli.main import main; "
        f"main(['prompt', '{name}', '--help'], standalone_mode=False); "
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "False\n"
    assert done.stdout.startswith("Usage:")


# --- show: what the file says ---


def test_everything_that_the_file_says_is_shown(run_tpt: Run) -> None:
    context = tpt.Context.load(EXAMPLE)
    digest = hashlib.sha256(context.vectors.numpy().tobytes()).hexdigest()
    result = run_tpt("prompt", "show", EXAMPLE, "--words", 0)
    assert read_rows(result) == {
        "file": str(EXAMPLE),
        "model": "lite",
        "weights": "not said",
        "vectors (M)": "4",
        "width (D)": "240",
        "position": "end",
        "vectors before the name": "4",
        "class specific": "no",
        "started from": "a photo of a",
        "data set": "examples",
        "shots": "16",
        "seed": "1",
        "classes": "airplane, bird, boat, camera, car, ... (23)",
        "meta-network": "no",
        "blend": "no",
        "sha256": digest,
    }
    assert result.stderr == ""


def test_all_classes_are_listed_on_demand(run_tpt: Run, specific: tpt.Context) -> None:
    result = run_tpt("prompt", "show", "specific.safetensors", "--words", 0, "--all-classes")
    assert read_rows(result)["classes"] == "red fox, owl, elk, 猫, new\\nline, ant, bee"


def test_a_meta_network_and_a_blend_are_shown(run_tpt: Run) -> None:
    net, blend = make_meta_net(128), Blend(("a photo of a {}.", "art of a {}."), 0.25)
    tpt.Context(random_vectors(4, 128), meta=net, blend=blend).save("p.safetensors")
    rows = read_rows(run_tpt("prompt", "show", "p.safetensors", "--words", 0))
    assert rows["meta-network"] == "yes (CoCoOp, 64 image features, 4 hidden)"
    assert rows["blend"] == '0.25 of the soft prompt, the rest "a photo of a {}.", "art of a {}."'
    facts = read_json(run_tpt("prompt", "show", "p.safetensors", "--words", 0, "--format", "json"))
    assert facts["meta_network"] == {"inputs": 64, "hidden": 4}
    assert facts["blend"] == {"templates": ["a photo of a {}.", "art of a {}."], "weight": 0.25}


def test_the_digest_is_the_one_that_predict_keeps_beside_its_records(
    run_tpt: Run, make_images: Callable[..., list[str]], tiny: tpt.Clip
) -> None:
    net = MetaNet.draw(tiny.embedding_width, 128, torch.Generator().manual_seed(1))
    tpt.Context(random_vectors(4, 128), info=PromptInfo(model="tiny"), meta=net).save("p.pt")
    make_images("a.png")
    rows = read_rows(run_tpt("prompt", "show", "p.pt", "--words", 0))
    told = run_tpt("predict", "a.png", "--init", "p.pt", "--classes", "cat,dog", "--dry-run")
    assert f"context sha256       {rows['sha256'][:16]}" in told.stdout


def test_an_official_checkpoint_is_shown_and_how_to_get_its_words_is_said(run_tpt: Run) -> None:
    save_official("model.pth.tar-50", random_vectors(16, 512).half())
    result = run_tpt("prompt", "show", "model.pth.tar-50")
    rows = read_rows(result)
    assert (rows["model"], rows["vectors (M)"], rows["width (D)"]) == ("not said", "16", "512")
    assert "so its nearest words are left out." in result.stderr
    assert "--model ViT-B-16 --pretrained openai" in result.stderr
    assert "distance" not in result.stdout
    facts = read_json(run_tpt("prompt", "show", "model.pth.tar-50", "--format", "json"))
    assert facts["nearest"] is None


def test_a_name_that_would_break_the_table_is_escaped(run_tpt: Run, words: tpt.Context) -> None:
    words.described(dataset="two\nlines", words=" ").save("odd.safetensors")
    rows = read_rows(run_tpt("prompt", "show", "odd.safetensors", "--words", 0))
    assert (rows["data set"], rows["started from"]) == ("two\\nlines", "' '")


@pytest.mark.parametrize(
    ("key", "value"),
    [("shots", "four"), ("words", [1]), ("classes", [1, 2]), ("classes", "cat"), ("model", 5)],
)
def test_metadata_of_other_kinds_than_ours_are_refused(
    run_tpt: Run, key: str, value: object
) -> None:
    head = {"format": "tpt-prompt", "format_version": 1, key: value}
    torch.save({**head, "vectors": random_vectors(4, 8)}, "odd.pt")
    result = run_tpt("prompt", "show", "odd.pt", "--words", 0)
    assert result.exit_code == 1
    assert "is damaged or truncated" in result.stderr
    assert "Traceback" not in result.stderr


# --- show: the nearest words ---


def test_the_nearest_words_of_words_are_those_words_at_distance_0(
    run_tpt: Run, words: tpt.Context
) -> None:
    result = run_tpt("prompt", "show", "words.safetensors", "--words", 1)
    table = result.stdout.split("\n\n")[1].splitlines()
    assert [line.split() for line in table] == [
        ["vector", "word", "distance"],
        ["1", "a", "0.0000"],
        ["2", "photo", "0.0000"],
        ["3", "of", "0.0000"],
        ["4", "a", "0.0000"],
    ]


def test_json_holds_words_distances_and_ids_in_the_vectors_shape(
    run_tpt: Run, specific: tpt.Context, tiny: tpt.Clip
) -> None:
    shown = run_tpt("prompt", "show", "specific.safetensors", "--format", "json", "--words", 2)
    nearest = read_json(shown)["nearest"]
    assert (nearest["model"], nearest["pretrained"]) == ("tiny", None)
    assert [len(nearest["words"]), *{len(v) for v in nearest["words"]}] == [7, 4]
    assert {len(near) for vectors in nearest["words"] for near in vectors} == {2}
    assert [near[0]["word"] for near in nearest["words"][0]] == ["a", "photo", "of", "a"]
    near = nearest["words"][2][1][0]
    table = tiny.text.token_embedding.weight
    distance = (specific.vectors[2, 1] - table[near["id"]]).norm()
    assert near["distance"] == pytest.approx(float(distance), rel=1e-5)
    plain = run_tpt("prompt", "show", "words.safetensors", "--format", "json")
    assert [near[0]["word"] for near in read_json(plain)["nearest"]["words"]] == [
        *["a", "photo", "of", "a"]
    ]


def test_the_words_of_the_first_classes_are_shown_and_of_all_on_demand(
    run_tpt: Run, specific: tpt.Context
) -> None:
    result = run_tpt("prompt", "show", "specific.safetensors", "--words", 1)
    title, *rows = result.stdout.split("\n\n")[1].splitlines()
    assert title.split() == ["class", "vector", "word", "distance"]
    assert len(rows) == 5 * 4
    assert rows[1].split("  ")[0] == "red fox"
    assert rows[1].split()[2:] == ["2", "photo", "0.0000"]
    assert rows[16].startswith("new\\nline")
    assert result.stderr == "The words of 2 more classes: --all-classes, or --format json.\n"
    result = run_tpt("prompt", "show", "specific.safetensors", "--words", 1, "--all-classes")
    assert len(result.stdout.split("\n\n")[1].splitlines()) == 1 + 7 * 4
    assert result.stderr == ""


def test_classes_without_names_are_numbered(run_tpt: Run, words: tpt.Context) -> None:
    tpt.Context(words.vectors.repeat(2, 1, 1), info=words.info).save("two.safetensors")
    result = run_tpt("prompt", "show", "two.safetensors", "--words", 1)
    assert "\nnumber 2  3       of     0.0000\n" in result.stdout


def test_a_named_model_gives_the_words_of_an_official_checkpoint(
    run_tpt: Run, words: tpt.Context
) -> None:
    save_official("model.pth.tar-50", words.vectors)
    result = run_tpt("prompt", "show", "model.pth.tar-50", "--model", "tiny", "--words", 1)
    assert "2       photo  0.0000" in result.stdout
    assert result.stderr.startswith('Warning: "model.pth.tar-50" does not say where')
    assert result.stderr.count("Warning") == 1


def test_no_words_asked_for_loads_no_model(run_tpt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("tpt.model.load.load_clip", fail)
    result = run_tpt("prompt", "show", EXAMPLE, "--words", 0)
    assert (result.exit_code, result.stderr) == (0, "")
    with pytest.raises(AssertionError, match="was loaded"):
        run_tpt("prompt", "show", EXAMPLE)


def test_the_words_of_another_model_come_with_a_warning(run_tpt: Run, words: tpt.Context) -> None:
    words.described(model="ViT-B-16", pretrained="openai").save("other.safetensors")
    result = run_tpt("prompt", "show", "other.safetensors", "--model", "tiny", "--words", 1)
    assert "photo" in result.stdout
    assert result.stderr == (
        "Warning: the prompt was made for ViT-B-16 (openai); its vectors need not mean anything "
        "to tiny.\n"
    )


def test_random_weights_come_with_a_warning(run_tpt: Run, words: tpt.Context) -> None:
    result = run_tpt(
        "prompt", "show", "words.safetensors", "--model", "tiny", "--pretrained", "random"
    )
    assert result.exit_code == 0
    assert result.stderr == (
        "Warning: the model's weights are random, and so are the nearest words.\n"
    )


def test_the_prompts_own_model_that_cannot_be_had_is_told_and_the_rest_shown(
    run_tpt: Run, words: tpt.Context
) -> None:
    words.described(model="ViT-B-61", pretrained="openai").save("gone.safetensors")
    result = run_tpt("prompt", "show", "gone.safetensors")
    assert read_rows(result)["model"] == "ViT-B-61"
    assert "distance" not in result.stdout
    loading, error = result.stderr.splitlines()
    assert loading.startswith("Loading ViT-B-61 (weights that are not here yet are fetched first")
    assert error.startswith(
        "The nearest words are left out: the prompt's own model cannot be loaded. Unknown model "
        '"ViT-B-61". Did you mean "ViT-B-16"'
    )


def test_the_prompts_own_model_of_another_width_is_told_and_the_rest_shown(run_tpt: Run) -> None:
    tpt.Context(random_vectors(4, 64), info=PromptInfo(model="tiny")).save("p.safetensors")
    result = run_tpt("prompt", "show", "p.safetensors")
    assert read_rows(result)["width (D)"] == "64"
    assert result.stderr.startswith(
        "The nearest words are left out: the file names a model it does not fit. Vectors of shape "
        "(4, 64) have no nearest words in tiny, whose tokens have width 128"
    )


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--model", "ViT-B-61"), 1, 'Unknown model "ViT-B-61". Did you mean'),
        (("--model", "ViT-B-16"), 1, 'The model "ViT-B-16" needs weights'),
        (("--pretrained", "openai"), 2, "--pretrained names the weights of a --model"),
        (("--device", "tpu"), 1, 'Unknown device "tpu"'),
        (("--words", "-1"), 2, "-1 is not in the range x>=0"),
    ],
)
def test_show_refuses_what_was_asked_and_cannot_be(
    run_tpt: Run, words: tpt.Context, options: tuple[str, ...], code: int, text: str
) -> None:
    assert_fails(run_tpt("prompt", "show", "words.safetensors", *options), text, code)


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_named_model_of_another_width_is_refused(run_tpt: Run, form: str) -> None:
    save_official("model.pth.tar-50", random_vectors(16, 512))
    result = run_tpt("prompt", "show", "model.pth.tar-50", "--model", "tiny", "--format", form)
    assert_fails(result, "Vectors of shape (16, 512) have no nearest words in tiny")


def test_show_refuses_what_is_no_prompt(run_tpt: Run) -> None:
    assert_fails(run_tpt("prompt", "show", "none.pt"), 'The prompt file "none.pt" cannot be read')
    Path("text.pt").write_text("a photo of a")
    assert_fails(run_tpt("prompt", "show", "text.pt"), "something else than a prompt")


# --- import ---


def import_official(run_tpt: Run, *options: object, vectors: Tensor | None = None) -> Result:
    source = save_official("ckpt", random_vectors(16, 512).half() if vectors is None else vectors)
    return run_tpt("prompt", "import", source, "--output", "p.safetensors", *options)


VIT = ("--model", "ViT-B-16", "--pretrained", "openai")


def test_an_official_checkpoint_becomes_a_prompt_file_with_what_was_said(run_tpt: Run) -> None:
    said = ("--words", "a photo of a", "--dataset", "imagenet", "--shots", 16, "--seed", 1)
    result = import_official(run_tpt, *VIT, "--classes", "cat,dog", "--position", "end", *said)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        'Wrote "p.safetensors": vectors (16, 512) for ViT-B-16 (openai), class name at the end.\n'
    )
    context = tpt.Context.load("p.safetensors")
    assert torch.equal(context.vectors, random_vectors(16, 512).half().float())
    assert context.position == "end"
    assert context.info == PromptInfo(
        "ViT-B-16", "openai", ("cat", "dog"), "a photo of a", "imagenet", 16, 1
    )


def test_a_folder_of_dassl_is_imported_with_what_its_log_says(run_tpt: Run) -> None:
    Path("seed1/prompt_learner").mkdir(parents=True)
    save_official("seed1/prompt_learner/model.pth.tar-50", random_vectors(4, 512))
    Path("seed1/log.txt").write_text(
        "** Config **\nDATASET:\n  NAME: DTD\n  NUM_SHOTS: 16\n"
        "MODEL:\n  BACKBONE:\n    NAME: RN50\nSEED: 1\n"
        "TRAINER:\n  COOP:\n    CLASS_TOKEN_POSITION: front\n  NAME: CoOp\n"
    )
    result = run_tpt("prompt", "import", "seed1", "--output", "p.safetensors")
    assert result.exit_code == 0
    assert "for RN50 (openai), class name at the front." in result.stderr
    context = tpt.Context.load("p.safetensors")
    assert context.info == PromptInfo("RN50", "openai", None, None, "DTD", 16, 1)
    result = run_tpt(
        "prompt", "import", "seed1", "--output", "q.safetensors", "--model", "ViT-B-16"
    )
    assert_fails(result, "needs weights")


def test_an_assumed_position_is_told(run_tpt: Run) -> None:
    result = import_official(run_tpt, *VIT)
    assert tpt.Context.load("p.safetensors").position == "end"
    first, _ = result.stderr.splitlines()
    assert first.startswith('"ckpt" does not say where the class name stands (official')
    assert 'it is taken to be at the "end"' in first
    assert first.endswith("say so with --position.")


@pytest.mark.parametrize(("position", "before"), [("middle", 8), ("front", 0)])
def test_a_position_that_was_said_is_taken(run_tpt: Run, position: str, before: int) -> None:
    result = import_official(run_tpt, *VIT, "--position", position)
    context = tpt.Context.load("p.safetensors")
    assert (context.position, context.before) == (position, before)
    assert result.stderr.count("\n") == 1
    assert f"class name at the {position}." in result.stderr


def test_a_cocoop_checkpoint_keeps_its_meta_network(run_tpt: Run) -> None:
    net = make_meta_net(512)
    tensors = {f"meta_net.{name}": tensor for name, tensor in net.tensors().items()}
    save_official("ckpt", random_vectors(4, 512), **tensors)
    result = run_tpt("prompt", "import", "ckpt", "--output", "p.pt", *VIT)
    assert result.exit_code == 0
    meta = tpt.Context.load("p.pt").meta
    assert meta is not None
    assert torch.equal(meta.weight_1, net.weight_1)


@pytest.mark.parametrize(
    ("model", "tag", "recorded"),
    [
        ("ViT-B/16", "OpenAI", ("ViT-B-16", "openai")),
        ("ViT-B-16", "laion2b-s34b-b88k", ("ViT-B-16", "laion2b_s34b_b88k")),
        ("ViT-B-16", "random", ("ViT-B-16", "random")),
        ("ViT-B-16", "weights.pt", ("ViT-B-16", "weights.pt")),
    ],
)
def test_model_and_tag_are_spelt_as_a_loaded_model_spells_them(
    run_tpt: Run, model: str, tag: str, recorded: tuple[str, str]
) -> None:
    Path("weights.pt").touch()
    assert import_official(run_tpt, "--model", model, "--pretrained", tag).exit_code == 0
    info = tpt.Context.load("p.safetensors").info
    assert (info.model, info.pretrained) == recorded


@pytest.mark.parametrize("tag", [(), ("--pretrained", "embedded"), ("--pretrained", "random")])
def test_an_imported_prompt_is_taken_by_the_model_it_names(
    run_tpt: Run, tag: tuple[str, ...]
) -> None:
    vectors = random_vectors(4, 128)
    assert import_official(run_tpt, "--model", "tiny", *tag, vectors=vectors).exit_code == 0
    clip = tpt.load_clip("tiny", *tag[1:], device="cpu")
    tpt.PromptEngine(clip, ["cat"], tpt.Context.load("p.safetensors"))


def test_what_is_said_is_added_to_a_prompt_file_of_ours(run_tpt: Run, words: tpt.Context) -> None:
    words.described(shots=4, seed=2).save("p.pt")
    result = run_tpt("prompt", "import", "p.pt", "--output", "new.safetensors", "--shots", 8)
    assert result.stderr == (
        'Wrote "new.safetensors": vectors (4, 128) for tiny, class name at the end.\n'
    )
    expected = PromptInfo(model="tiny", words="a photo of a", shots=8, seed=2)
    assert tpt.Context.load("new.safetensors").info == expected


def test_the_place_among_the_vectors_is_kept_where_the_position_stays(
    run_tpt: Run, tiny: tpt.Clip
) -> None:
    tpt.Context.from_words(tiny, "a {} in the wild").save("p.pt")
    for options, before in [((), 1), (("--position", "middle"), 1), (("--position", "end"), 4)]:
        run_tpt("prompt", "import", "p.pt", "--output", "q.pt", "--overwrite", *options)
        assert tpt.Context.load("q.pt").before == before


@pytest.mark.parametrize("model", [(), ("--model", "ViT-B-16"), ("--model", "ViT-B/16")])
def test_the_weights_that_the_file_names_go_with_its_model(
    run_tpt: Run, model: tuple[str, ...]
) -> None:
    info = PromptInfo(model="ViT-B-16", pretrained="openai")
    tpt.Context(random_vectors(4, 512), info=info).save("p.pt")
    result = run_tpt("prompt", "import", "p.pt", "--output", "q.pt", *model)
    assert result.stderr.startswith('Wrote "q.pt"')
    assert tpt.Context.load("q.pt").info == info


def test_a_tag_completes_the_model_that_the_file_names(run_tpt: Run) -> None:
    tpt.Context(random_vectors(4, 512), info=PromptInfo(model="ViT-B-16")).save("p.pt")
    result = run_tpt("prompt", "import", "p.pt", "--output", "q.pt", "--pretrained", "openai")
    assert result.stderr.startswith('Wrote "q.pt"')
    assert tpt.Context.load("q.pt").info == PromptInfo(model="ViT-B-16", pretrained="openai")


def test_a_named_model_needs_its_weights_where_the_file_says_none(run_tpt: Run) -> None:
    tpt.Context(random_vectors(4, 512), info=PromptInfo(model="ViT-B-16")).save("p.pt")
    result = run_tpt("prompt", "import", "p.pt", "--output", "q.pt", "--model", "ViT-B-16")
    assert_fails(result, 'The model "ViT-B-16" needs weights')


def test_a_model_that_takes_the_place_of_the_files_own_is_told(run_tpt: Run) -> None:
    info = PromptInfo(model="ViT-B-32", pretrained="openai")
    tpt.Context(random_vectors(4, 512), info=info).save("p.pt")
    result = run_tpt("prompt", "import", "p.pt", "--output", "q.pt", *VIT)
    assert result.stderr.startswith(
        'Note: "p.pt" says that it was made for ViT-B-32 (openai); ViT-B-16 (openai) takes its '
        "place, as asked.\n"
    )
    assert tpt.Context.load("q.pt").info == PromptInfo(model="ViT-B-16", pretrained="openai")


def test_the_width_of_a_hub_model_is_not_checked_and_that_is_told(run_tpt: Run) -> None:
    vectors = random_vectors(4, 77)
    result = import_official(run_tpt, "--model", "hf-hub:timm/some-model", vectors=vectors)
    assert result.exit_code == 0
    assert (
        'Note: whether vectors of width 77 go with "hf-hub:timm/some-model" was not checked; that '
        "is seen when it is loaded."
    ) in result.stderr.splitlines()
    assert tpt.Context.load("p.safetensors").info.model == "hf-hub:timm/some-model"


def test_no_weights_are_loaded(run_tpt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr("open_clip.create_model", fail)
    assert import_official(run_tpt, *VIT).exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ((), 2, '"ckpt" does not say which model it was made for'),
        (("--pretrained", "openai"), 2, "Name the model, for example --model ViT-B-16"),
        (("--model", "ViT-B-61", "--pretrained", "openai"), 1, 'Did you mean "ViT-B-16"'),
        (("--model", "ViT-B-16"), 1, 'The model "ViT-B-16" needs weights: give pretrained=TAG'),
        (("--model", "ViT-B-16", "--pretrained", "opnai"), 1, 'Did you mean "openai"?'),
        (("--model", "tiny", "--pretrained", "openai"), 1, "has its own weights"),
        (("--model", "local-dir:none"), 1, 'No open_clip_config.json in "none"'),
        (("--model", "folder"), 1, '"folder" is a folder: write local-dir:folder'),
        (("--model", "roberta-ViT-B-32", "--pretrained", "random"), 1, "tokens of width 768"),
        (
            ("--model", "ViT-L-14", "--pretrained", "openai"),
            1,
            "The context vectors are 512 wide, but ViT-L-14 has tokens of width 768. Name the "
            "model the prompt was trained with; `tpt models` shows the width of each.",
        ),
        ((*VIT, "--classes", "cat,cat"), 2, 'Class "cat" (name 2) is the same prompt as name 1'),
        ((*VIT, "--position", "top"), 2, "'top' is not one of"),
        ((*VIT, "--shots", "0"), 2, "0 is not in the range"),
    ],
)
def test_import_refuses_and_writes_nothing(
    run_tpt: Run, options: tuple[str, ...], code: int, text: str
) -> None:
    Path("folder").mkdir()
    assert_fails(import_official(run_tpt, *options), text, code)
    assert not Path("p.safetensors").exists()


def test_class_names_of_another_number_than_the_vectors_are_refused(run_tpt: Run) -> None:
    result = import_official(run_tpt, *VIT, "--classes", "a,b", vectors=random_vectors(3, 4, 512))
    assert_fails(result, "class-specific for 3 classes, but 2 class names came")
    assert not Path("p.safetensors").exists()


def test_an_existing_output_is_kept_unless_overwriting_was_asked_for(run_tpt: Run) -> None:
    Path("p.safetensors").write_text("mine")
    result = import_official(run_tpt, *VIT)
    assert_fails(result, '"p.safetensors" exists already. Use --overwrite to replace it, or')
    assert Path("p.safetensors").read_text() == "mine"
    assert import_official(run_tpt, *VIT, "--overwrite").exit_code == 0
    assert tpt.Context.load("p.safetensors").info.model == "ViT-B-16"


def test_a_prompt_file_may_be_written_over_itself(run_tpt: Run, words: tpt.Context) -> None:
    same = ("words.safetensors", "--output", "words.safetensors", "--overwrite")
    assert run_tpt("prompt", "import", *same, "--dataset", "birds").exit_code == 0
    context = tpt.Context.load("words.safetensors")
    assert context.info.dataset == "birds"
    assert torch.equal(context.vectors, words.vectors)


def test_an_output_that_no_prompt_is_called_is_refused(run_tpt: Run) -> None:
    save_official("ckpt", random_vectors(4, 512))
    result = run_tpt("prompt", "import", "ckpt", "--output", "p.json", *VIT)
    assert_fails(result, '"p.json" cannot be a prompt file: expected a name that ends in')


def test_an_output_in_no_folder_is_told(run_tpt: Run) -> None:
    save_official("ckpt", random_vectors(4, 512))
    result = run_tpt("prompt", "import", "ckpt", "--output", "none/p.pt", *VIT)
    assert_fails(result, '"none/p.pt" cannot be a prompt file')


def test_a_source_that_is_no_prompt_is_refused(run_tpt: Run) -> None:
    result = run_tpt("prompt", "import", "none.pt", "--output", "p.pt", *VIT)
    assert_fails(result, 'The prompt file "none.pt" cannot be read')


# --- diff ---


def test_a_file_and_itself_are_the_same_bit_for_bit(run_tpt: Run, words: tpt.Context) -> None:
    result = run_tpt("prompt", "diff", "words.safetensors", "words.safetensors")
    assert result.exit_code == 0
    assert "The metadata are the same.\nThe vectors are bit for bit the same." in result.stdout
    table = result.stdout.split("\n\n")[1].splitlines()
    assert table[0].split() == ["vector", "distance", "cosine"]
    assert [line.split() for line in table[1:]] == [[n, "0.0000", "1.0000"] for n in "1234"]


def test_metadata_that_differ_stand_side_by_side(run_tpt: Run, words: tpt.Context) -> None:
    other = words.described(shots=16, classes=("cat", "dog"), words=None)
    other.save("other.safetensors")
    result = run_tpt("prompt", "diff", "words.safetensors", "other.safetensors")
    title, *rows = result.stdout.split("The vectors")[0].splitlines()
    assert title.split() == ["A", "B"]
    assert [[part.strip() for part in row.split("  ") if part.strip()] for row in rows] == [
        ["file", "words.safetensors", "other.safetensors"],
        ["started from", "a photo of a", "not said"],
        ["shots", "not said", "16"],
        ["classes", "not said", "cat, dog"],
    ]
    found = read_json(
        run_tpt("prompt", "diff", "words.safetensors", "other.safetensors", "--format", "json")
    )
    assert found["metadata"] == {
        "words": {"a": "a photo of a", "b": None},
        "shots": {"a": None, "b": 16},
        "classes": {"a": None, "b": ["cat", "dog"]},
    }
    assert found["same_vectors"] is True


def test_of_two_lists_of_classes_the_first_difference_is_shown(
    run_tpt: Run, words: tpt.Context
) -> None:
    for name, classes in {"a": NAMES, "b": (*NAMES[:6], "wasp"), "c": NAMES[:6]}.items():
        words.described(classes=classes).save(f"{name}.pt")
    told = run_tpt("prompt", "diff", "a.pt", "b.pt").stdout
    assert 'classes  7 classes, number 7 is "bee"  7 classes, number 7 is "wasp"\n' in told
    told = run_tpt("prompt", "diff", "a.pt", "c.pt").stdout
    assert 'classes  7 classes, number 7 is "bee"  6 classes\n' in told


def test_distance_and_cosine_of_each_vector(run_tpt: Run) -> None:
    first = torch.tensor([[3.0, 0], [1, 0], [1, 1], [0, 0]])
    tpt.Context(first).save("a.pt")
    tpt.Context(torch.tensor([[0, 4.0], [2, 0], [-1, -1], [0, 1]])).save("b.pt")
    found = read_json(run_tpt("prompt", "diff", "a.pt", "b.pt", "--format", "json"))
    assert found["same_vectors"] is False
    rows = [list(row.values()) for row in found["vectors"]]
    expected = [[1, 5.0, 0.0], [2, 1.0, 1.0], [3, 8**0.5, -1.0], [4, 1.0, None]]
    assert rows == [pytest.approx(row) for row in expected]
    table = run_tpt("prompt", "diff", "a.pt", "b.pt").stdout
    assert "The vectors are not the same." in table
    assert table.splitlines()[-1].split() == ["4", "1.0000", "-"]


def test_of_class_specific_contexts_the_mean_and_the_class_that_differs_most(
    run_tpt: Run,
) -> None:
    first = torch.tensor([[[1.0, 0]], [[1, 0]], [[1, 0]]])
    second = torch.tensor([[[1.0, 0]], [[0, 1]], [[7, 0]]])
    tpt.Context(first, info=PromptInfo(classes=("cat", "dog", "elk"))).save("a.pt")
    tpt.Context(second).save("b.pt")
    for pair in (("a.pt", "b.pt"), ("b.pt", "a.pt")):  # the names may be in either
        (row,) = read_json(run_tpt("prompt", "diff", *pair, "--format", "json"))["vectors"]
        assert row == {
            "vector": 1,
            "mean_distance": pytest.approx((2**0.5 + 6) / 3),
            "largest_distance": 6.0,
            "largest_class": "elk",
            "mean_cosine": pytest.approx(2 / 3),
            "smallest_cosine": pytest.approx(0.0),
            "smallest_class": "dog",
        }
    shown = run_tpt("prompt", "diff", "b.pt", "b.pt").stdout.splitlines()[-1]
    assert shown.split("  ")[-1].strip() == "number 1"


def test_a_class_without_a_direction_has_no_part_in_the_cosines(run_tpt: Run) -> None:
    info = PromptInfo(classes=("cat", "dog"))
    tpt.Context(torch.tensor([[[0.0, 0]], [[1, 0]]]), info=info).save("a.pt")
    tpt.Context(torch.tensor([[[0.0, 1]], [[2, 0]]]), info=info).save("b.pt")
    (row,) = read_json(run_tpt("prompt", "diff", "a.pt", "b.pt", "--format", "json"))["vectors"]
    assert (row["mean_cosine"], row["smallest_cosine"], row["smallest_class"]) == (1.0, 1.0, "dog")


def test_zero_and_minus_zero_are_not_the_same_bits(run_tpt: Run) -> None:
    tpt.Context(torch.tensor([[0.0, 1]])).save("a.pt")
    tpt.Context(torch.tensor([[-0.0, 1]])).save("b.pt")
    found = read_json(run_tpt("prompt", "diff", "a.pt", "b.pt", "--format", "json"))
    assert found["same_vectors"] is False
    assert found["vectors"][0] == {"vector": 1, "distance": 0.0, "cosine": 1.0}


def test_an_import_and_its_checkpoint_hold_the_same_vectors(run_tpt: Run) -> None:
    import_official(run_tpt, *VIT)
    found = read_json(run_tpt("prompt", "diff", "ckpt", "p.safetensors", "--format", "json"))
    assert found["same_vectors"] is True
    assert found["metadata"].keys() == {"model", "pretrained"}


def test_meta_networks_of_other_numbers_are_told(run_tpt: Run) -> None:
    nets = [MetaNet.draw(64, 8, torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    for name, net in zip("abc", [*nets, None], strict=True):
        tpt.Context(random_vectors(4, 8), meta=net).save(f"{name}.pt")
    text = "The meta-networks hold different numbers."
    assert text in run_tpt("prompt", "diff", "a.pt", "b.pt").stdout
    assert text not in run_tpt("prompt", "diff", "a.pt", "a.pt").stdout
    same = {}
    for pair in ("aa", "ab", "ac", "cc"):
        files = [f"{name}.pt" for name in pair]
        found = read_json(run_tpt("prompt", "diff", *files, "--format", "json"))
        same[pair] = found["same_meta_network"]
    assert same == {"aa": True, "ab": False, "ac": False, "cc": True}
    shown = run_tpt("prompt", "diff", "a.pt", "c.pt").stdout
    assert "meta-network  yes (CoCoOp, 64 image features, 4 hidden)  no\n" in shown


def test_different_shapes_are_told_and_not_compared(
    run_tpt: Run, words: tpt.Context, specific: tpt.Context
) -> None:
    files = ("words.safetensors", "specific.safetensors")
    result = run_tpt("prompt", "diff", *files)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == (
        "The vectors have different shapes, (4, 128) and (7, 4, 128), so there are no distances."
    )
    found = read_json(run_tpt("prompt", "diff", *files, "--format", "json"))
    assert found["shapes"] == {"a": [4, 128], "b": [7, 4, 128]}
    assert (found["vectors"], found["same_vectors"]) == (None, False)


@pytest.mark.parametrize("files", [("none.pt", "w.pt"), ("w.pt", "none.pt")])
def test_diff_fails_on_a_file_that_cannot_be_read(
    run_tpt: Run, words: tpt.Context, files: tuple[str, str]
) -> None:
    words.save("w.pt")
    assert_fails(run_tpt("prompt", "diff", *files), 'The prompt file "none.pt" cannot be read')
