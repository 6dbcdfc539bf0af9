"""What the few-shot benchmark runs: methods, sets, numbers of shots, and the short plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import CALTECH, IMAGENETTE

SHOTS, SEEDS = (1, 2, 4, 8, 16), (1, 2, 3)
SINGLE = "a photo of a {}."
ENSEMBLE = (  # the public program's seven, and the single one
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    SINGLE,
)
WORDS = "a photo of a"
METHODS: dict[str, dict[str, Any]] = {
    "CoOp, M = 16": {},
    "CoOp, M = 4": {"context_length": 4},
    "CoOp, M = 4, from words": {"context_words": WORDS},
    "CoOp, M = 4, from words, lr 0.02": {"context_words": WORDS, "lr": 0.02},
    "CoOp, M = 16, middle": {"position": "middle"},
    "CoOp, M = 16, class-specific": {"class_specific": True},
    "CoCoOp": {"method": "cocoop"},
    "KgCoOp": {"method": "kgcoop"},
    "E2MIM": {"method": "e2mim"},
    "linear probe": {"method": "linear-probe"},
    "Tip-Adapter": {"method": "tip-adapter"},
    "Tip-Adapter-F": {"method": "tip-adapter-f"},
    "GDA": {"method": "gda"},
    "LP++": {"method": "lpp"},
}
ABLATION: dict[str, dict[str, Any]] = {
    "E2MIM without text term": {"method": "e2mim", "mi_text": 0.0},
    "E2MIM without image term": {"method": "e2mim", "mi_image": 0.0},
    "E2MIM without mixing": {"method": "e2mim", "mixup": 0.0},
    "E2MIM without critic": {"method": "e2mim", "critic": False},
    "E2MIM without ensemble": {"method": "e2mim", "alpha": 1.0},
    "E2MIM, ensemble alone": {"method": "e2mim", "mi_text": 0.0, "mi_image": 0.0},
}
PICTURED = (
    "CoOp, M = 16",
    "CoOp, M = 4, from words",
    "CoCoOp",
    "KgCoOp",
    "E2MIM",
    "linear probe",
    "Tip-Adapter",
    "Tip-Adapter-F",
    "GDA",
    "LP++",
)
SHORT = {
    "sets": "cifar10,imagenette,pacs_sketch",
    "methods": ";".join(PICTURED),
    "shots": "1,4,16",
    "seeds": "1,2",
    "images": 600,
    "precision": "bf16",
    "short": True,
}
BASE_TO_NEW = ("CoOp, M = 16", "CoOp, M = 4, from words", "CoCoOp", "KgCoOp", "E2MIM")


def rows_of(root: Path, names: dict[str, str], pool: int, every: int = 1) -> list[list[str]]:
    """(path, label, split) of each n-th file of a folder: the first `pool` train, the rest test."""
    rows = []
    for folder in sorted(root.iterdir()):
        label = names.get(folder.name, folder.name.replace("_", " "))
        for place, file in enumerate(sorted(folder.iterdir())[::every]):
            rows.append([str(file.resolve()), label, "train" if place < pool else "test"])
    return rows


def caltech_rows(root: Path) -> list[list[str]]:
    """Every fifth image was held out of the model's training: those are the test images."""
    rows = []
    for folder in sorted(root.iterdir()):
        if folder.name == "Faces_easy":  # as the published split has it
            continue
        label = CALTECH.get(folder.name, folder.name.replace("_", " "))
        for place, file in enumerate(sorted(folder.iterdir())):
            rows.append([str(file.resolve()), label, "train" if place % 5 else "test"])
    return rows


SETS: dict[str, Callable[[Path], list[list[str]]]] = {
    "cifar10": lambda data: rows_of(data / "cifar10/test", {}, 100),
    "imagenette": lambda data: rows_of(data / "imagenette/val", IMAGENETTE, 40),
    "pacs_photo": lambda data: rows_of(data / "pacs/photo", {}, 20, every=5),
    "pacs_sketch": lambda data: rows_of(data / "pacs/sketch", {}, 20),
    "caltech101": lambda data: caltech_rows(data / "caltech101"),
}


def thin(rows: list[list[str]], images: int | None) -> list[list[str]]:
    """The rows with at most `images` test images, evenly over the list and so over the classes."""
    test = [row for row in rows if row[2] == "test"]
    if images is None or len(test) <= images:
        return rows
    kept = [test[place * len(test) // images] for place in range(images)]
    return [row for row in rows if row[2] == "train"] + kept


def plan(name: str) -> list[tuple[str, dict[str, Any], tuple[int, ...], str]]:
    """(label, options, shots, split of the classes) of every run of a set."""
    runs: list[tuple[str, dict[str, Any], tuple[int, ...], str]]
    runs = [(label, options, SHOTS, "all") for label, options in METHODS.items()]
    runs += [(label, METHODS[label], (16,), "base") for label in BASE_TO_NEW]
    if name != "caltech101":  # a hundred classes: what is compared with itself is left out
        runs += [(label, options, (1, 4, 16), "all") for label, options in ABLATION.items()]
        runs.append(("CoOp, M = 16, no cached views", {"cache_views": 0}, (4,), "all"))
    return runs
