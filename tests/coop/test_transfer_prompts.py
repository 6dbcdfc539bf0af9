"""Prompts for a transfer: what each is learned from, and that nothing is learned twice."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal

import coop.transfer_prompts
from coop.train_job import TrainSettings
from coop.transfer_prompts import (
    check_sources,
    find_source,
    learn_prompts,
    list_outputs,
    read_taken,
    set_learning,
)
from tpt import Clip, Context
from tpt.data.labelled_sets import ArrayRow, LabelledSet, ReadOptions, Sample
from tpt.data.layouts import read_sets
from tpt.errors import OutputError, SourceError

PETS = ("cat", "dog")
QUICK = set_learning(shots=2, epochs=2, num_workers=0)


class Watch:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def encode(self, what: str, done: int, total: int) -> None:
        pass

    def epoch(self, *_: object) -> None:
        self.said.append("epoch")


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def paint(folder: str, classes: Sequence[str] = PETS, count: int = 4) -> None:
    """Small pictures, a colour a class."""
    for place, name in enumerate(classes):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
        for number in range(count):
            pixels = np.full((24, 32, 3), 40 + 30 * number, dtype=np.uint8)
            pixels[..., place % 3] += 100
            Image.fromarray(pixels).save(f"{folder}/{name}/{number}.png")


def read(path: str, options: ReadOptions | None = None) -> LabelledSet:
    (found,) = read_sets(path, options or ReadOptions())
    return found


def drawn_from(path: str, learning: TrainSettings = QUICK) -> set[str]:
    return {os.path.dirname(item.path) for item in find_source(read(path), learning).drawn}


# --- sources ---


def test_a_set_without_splits_learns_from_some_of_its_pictures() -> None:
    paint("pets")
    source = find_source(read("pets"), QUICK)
    assert not source.apart
    assert len(source.drawn) == len(source.taken) == 4
    assert source.taken < {os.path.realpath(f"pets/{c}/{n}.png") for c in PETS for n in range(4)}
    assert find_source(read("pets"), set_learning(2, 1)).taken != source.taken  # another seed
    assert find_source(read("pets"), QUICK).taken == source.taken


@pytest.mark.parametrize("tested", ["test", "val", "Validation"])
def test_a_train_folder_beside_the_tested_one_is_learned_from(tested: str) -> None:
    paint("pets/train")
    paint(f"pets/{tested}")
    source = find_source(read("pets"), QUICK)
    assert source.apart
    assert drawn_from("pets") == {"pets/train/cat", "pets/train/dog"}
    assert not source.taken & {os.path.realpath(str(s.source)) for s in read("pets").samples}


def test_who_names_the_test_folder_itself_means_that_folder_alone() -> None:
    paint("pets/train")
    paint("pets/test")
    assert drawn_from("pets/test") == {"pets/test/cat", "pets/test/dog"}


def test_a_lone_train_folder_is_both_learned_from_and_tested() -> None:
    paint("pets/train")
    assert not find_source(read("pets"), QUICK).apart


def test_each_domain_of_a_tree_learns_from_its_own_pictures() -> None:
    for domain in ("photo", "sketch"):
        paint(f"tree/{domain}/train")
        paint(f"tree/{domain}/test")
    paint("flat/photo")
    paint("flat/sketch")
    for tree, inside, apart in (("tree", "train/", True), ("flat", "", False)):
        sources = [find_source(part, QUICK) for part in read_sets(tree)]
        assert [source.name for source in sources] == [f"{tree}/photo", f"{tree}/sketch"]
        assert all(source.apart == apart for source in sources)
        for source, domain in zip(sources, ("photo", "sketch"), strict=True):
            where = {os.path.dirname(item.path) for item in source.drawn}
            assert where == {f"{tree}/{domain}/{inside}{name}" for name in PETS}


def test_a_domain_inside_a_split_learns_from_that_domain_of_the_other_split() -> None:
    for split in ("train", "test"):
        for domain in ("photo", "sketch"):
            paint(f"tree/{split}/{domain}", count=3)
    photo, sketch = (find_source(read, QUICK) for read in read_sets("tree"))
    assert photo.apart
    assert sketch.apart
    assert {os.path.dirname(os.path.dirname(item.path)) for item in photo.drawn} == {
        "tree/train/photo"
    }


def test_a_train_folder_that_lacks_the_domain_is_not_learned_from() -> None:
    for folder in ("test/photo", "test/sketch", "train/sketch"):
        paint(f"tree/{folder}")
    photo, sketch = (find_source(read, QUICK) for read in read_sets("tree"))
    assert (photo.apart, sketch.apart) == (False, True)


def test_wordnet_ids_are_learned_under_their_class_names() -> None:
    paint("net", ("n01440764", "n02102040"))
    paint("halves/train", ("n01440764", "n02102040"))
    paint("halves/val", ("n01440764", "n02102040"))
    for path in ("net", "halves"):
        assert find_source(read(path), QUICK).dataset.classes == read(path).classes
        assert read(path).classes[0] == "tench"


def test_a_list_with_a_split_column_learns_from_its_training_lines() -> None:
    paint("pets")
    lines = [
        f"pets/{name}/{number}.png,{name},{'train' if number < 2 else 'test'}"
        for name in PETS
        for number in range(4)
    ]
    Path("list.csv").write_text("\n".join(["path,label,split", *lines]))
    source = find_source(read("list.csv"), QUICK)
    assert source.apart
    assert {os.path.basename(item.path) for item in source.drawn} == {"0.png", "1.png"}
    plain = [line.rpartition(",")[0] for line in lines]
    Path("plain.csv").write_text("\n".join(["path,label", *plain]))
    assert not find_source(read("plain.csv"), QUICK).apart


def test_classes_without_training_pictures_are_not_learned_and_told() -> None:
    paint("pets")
    source = find_source(read("pets", ReadOptions(classes=("owl", "cat", "dog"))), QUICK)
    assert source.dataset.classes == PETS
    assert {item.label for item in source.drawn} == {0, 1}
    assert "Not learned, because there are no training pictures: owl." in source.dataset.notes


def test_pictures_that_are_no_files_cannot_be_learned_from() -> None:
    sample = Sample("0", 0, ArrayRow(np.zeros((1, 2, 2, 3), dtype=np.uint8), 0))
    whole = LabelledSet("cifar", "CIFAR-10 arrays", "c", PETS, PETS, (sample,))
    assert refusal(SourceError, find_source, whole, QUICK) == (
        'No prompt can be learned on "cifar" (CIFAR-10 arrays): expected pictures that are files, '
        "in class folders or a CSV file. Give a prompt for it (--prompt cifar=FILE), or name the "
        "sets to learn on with --sources; it can be a target in any case."
    )


def test_one_class_with_pictures_is_too_little_to_learn_from() -> None:
    paint("pets", ("cat",))
    with pytest.raises(SourceError, match=r'^No prompt can be learned on "pets"\. .* least two'):
        find_source(read("pets", ReadOptions(classes=("cat", "dog"))), QUICK)


# --- lists of pictures ---


def write_list(path: str, rows: Sequence[tuple[str, str, str, str]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["shots", "seed", "split", "path", "label"])
        writer.writerows([*row, "cat"] for row in rows)


@pytest.mark.parametrize("name", ["coop", "coop-2shot-seed1"])
def test_the_list_beside_a_prompt_says_what_it_was_learned_on(name: str) -> None:
    rows = [("2", "1", "train", "a.png"), ("2", "1", "val", "b.png"), ("4", "1", "train", "c.png")]
    write_list("coop.files.csv", rows)
    context = Context(torch.zeros(4, 8)).described(shots=2, seed=1)
    assert read_taken(f"{name}.safetensors", context) == {os.path.realpath("a.png")}


@pytest.mark.parametrize("content", [None, b"path\n\xff", b"other,columns\n1,2\n"])
def test_without_a_list_that_can_be_read_nobody_knows(content: bytes | None) -> None:
    if content is not None:
        Path("coop.files.csv").write_bytes(content)
    assert read_taken("coop.safetensors", Context(torch.zeros(4, 8))) is None


# --- learning ---


def test_a_prompt_is_learned_as_tpt_train_does_from_the_words() -> None:
    wanted = set_learning(shots=4, seed=7)
    assert (wanted.recipe.method, wanted.recipe.context_words) == ("coop", "a photo of a")
    assert (wanted.shots, wanted.seeds, wanted.test) == ((4,), (7,), "none")


def test_prompts_of_odd_names_have_files_of_their_own_in_one_folder() -> None:
    paint("pets")
    whole = find_source(read("pets"), QUICK)
    names = ("pacs/photo", "pacs-photo", "PACS-PHOTO", "a+b", "..", "a b")
    sources = [coop.transfer_prompts.replace(whole, name=name) for name in names]
    outputs = list_outputs("out", sources)
    paths = [outputs[name].path for name in names]
    assert {path.parent for path in paths} == {Path("out/prompts")}
    assert len({path.name.lower() for path in paths}) == len(names)
    assert not any(path.name.startswith(".") for path in paths)


@pytest.fixture
def learn(tiny: Clip, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watch]:
    """Learn prompts on "pets" and "cars" into "out"."""
    monkeypatch.setattr(coop.transfer_prompts, "load_clip", lambda *args, **options: tiny)
    paint("pets")
    paint("cars/train", ("bus", "van"))
    paint("cars/test", ("bus", "van"))

    def run(
        resume: bool = False, overwrite: bool = False, learning: TrainSettings = QUICK
    ) -> Watch:
        sources = [find_source(read(name), learning) for name in ("pets", "cars")]
        outputs = check_sources("out", sources, learning, resume=resume, overwrite=overwrite)
        watch = Watch()
        learn_prompts(sources, outputs, learning, watch, resume=resume)
        return watch

    return run


def test_every_source_gets_a_prompt_that_says_where_it_is_from(
    learn: Callable[..., Watch], tiny: Clip
) -> None:
    assert learn().said.count("epoch") == 4
    for name, classes in {"pets": PETS, "cars": ("bus", "van")}.items():
        context = Context.load(f"out/prompts/{name}.safetensors")
        info = context.info
        assert (info.dataset, info.classes, info.shots, info.seed) == (name, classes, 2, 0)
        assert info.model == "tiny"
        taken = read_taken(f"out/prompts/{name}.safetensors", context)
        assert taken == find_source(read(name), QUICK).taken
        words = Context.from_words(tiny, "a photo of a").vectors
        assert context.vectors.shape == words.shape
        assert 0 < float((context.vectors - words).abs().max()) < 0.5


def test_learned_prompts_are_not_learned_again(learn: Callable[..., Watch]) -> None:
    learn()
    paths = [f"out/prompts/{name}.safetensors" for name in ("pets", "cars")]
    before = [Context.load(path).vectors for path in paths]
    os.remove("out/prompts/cars.safetensors")
    said = learn(resume=True).said
    assert "pets.safetensors is there already." in said
    assert said.count("epoch") == 2  # of the one that was lost
    for path, vectors in zip(paths, before, strict=True):
        assert torch.equal(Context.load(path).vectors, vectors)


def test_prompts_of_an_earlier_run_are_not_lost_unasked(learn: Callable[..., Watch]) -> None:
    learn()
    with pytest.raises(OutputError, match=r"pets\.safetensors\" exists already.*--overwrite"):
        learn()
    with pytest.raises(OutputError, match="other settings"):
        learn(resume=True, learning=set_learning(shots=1, epochs=2, num_workers=0))
    assert learn(overwrite=True).said.count("epoch") == 4


def test_a_folder_that_cannot_be_made_is_told_before_a_model_is_loaded() -> None:
    paint("pets")
    Path("out").write_text("a file")
    source = find_source(read("pets"), QUICK)
    with pytest.raises(OutputError, match="out/prompts"):
        check_sources("out", [source], QUICK, resume=False, overwrite=False)
