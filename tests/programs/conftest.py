"""The small picture sets that the programs read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDERS = {
    "cifar10/test": ("cat", "dog"),
    "cifar10/train": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"),
    "imagenette/val": ("n01440764", "n03028079"),
    "imagenette/train": ("n01440764", "n03028079"),
    "pacs/photo": ("elephant", "house", "person"),
    "pacs/sketch": ("dog", "horse"),
    "imagenet_samples": ("n01440764", "n03028079"),
    "caltech101": ("camera", "cup", "Faces", "Motorbikes", "airplanes"),
}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture set of every name that the programs read, three small pictures a class."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.RandomState(0)
    for folder, classes in FOLDERS.items():
        for name in classes:
            (root / folder / name).mkdir(parents=True)
            for number in range(3):
                pixels = random.randint(0, 256, (40, 44, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / name / f"{number}.png")
    for name in ("ship", "truck"):
        shutil.copytree(root / "cifar10/train/cat", root / "cifar10/train" / name)
    return root
