"""Learn the prompt in examples/ from sixteen corrupted images per class.

    python tools/learn_example_prompt.py DATA --output examples/prompt.safetensors

DATA holds `pacs/photo`, `caltech101` and `cifar10/train`, one folder per class. Each name of
examples/classes.txt is looked up in the three folders in turn; a name without images is left out
(the context is shared by all names). Every image is corrupted first, by a random kind at a random
severity of 1 to 3 (seeded by the class). The rest is what `tpt train` does with a CSV file of these
images and `--context-words "a photo of a" --epochs 50`.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from coop.recipes import RecipeSettings
from coop.run import context_of, prepare_run, train_prompt
from coop.train_job import TrainSettings, build_train_job
from tpt.corrupt.corruption_kinds import CORRUPTIONS
from tpt.corrupt.corruptions import corrupt

SHOTS, EPOCHS, SEED = 16, 50, 1
PLACES = ("pacs/photo", "caltech101", "cifar10/train")
FOLDERS = {  # class name -> Caltech101's folder
    "airplane": "airplanes",
    "boat": "ketch",
    "car": "car_side",
    "motorcycle": "Motorbikes",
    "piano": "grand_piano",
}


class Printing:
    """Prints what the training says."""

    def say(self, text: str) -> None:
        print(text)

    def encode(self, what: str, done: int, total: int) -> None:
        pass

    def epoch(self, epoch: object, epochs: int) -> None:
        pass


def find_folder(data: Path, name: str) -> Path | None:
    """The folder of training pictures that shows a class, if there is one."""
    folders = (data / place / FOLDERS.get(name, name) for place in PLACES)
    return next((folder for folder in folders if folder.is_dir()), None)


def write_pictures(data: Path, names: list[str], folder: Path) -> tuple[Path, list[str]]:
    """Corrupted copies of SHOTS pictures a class, their CSV file, and the names with pictures."""
    table, shown = folder / "examples.csv", []
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for name in names:
            source = find_folder(data, name)
            if source is None:
                continue
            shown.append(name)
            rng = random.Random(f"{SEED} {name}")
            paths = sorted(source.iterdir())
            for number, path in enumerate(rng.sample(paths, min(SHOTS, len(paths)))):
                with Image.open(path) as opened:
                    pixels = np.asarray(opened.convert("RGB"))
                kind, severity = rng.choice([*CORRUPTIONS]), rng.randint(1, 3)
                worse = corrupt(pixels, kind, severity, key=f"{name} {number}")
                target = folder / f"{name}-{number}.png"
                Image.fromarray(worse).save(target)
                writer.writerow([target, name])
    return table, shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    names = Path("examples/classes.txt").read_text().split("\n")[:-1]
    with tempfile.TemporaryDirectory() as folder:
        table, shown = write_pictures(args.data, names, Path(folder))
        if len(shown) < 2:
            raise SystemExit(f"{args.data} has none of {', '.join(PLACES)}, or too few classes.")
        print(f"{len(shown)} classes: {', '.join(shown)}")
        recipe = RecipeSettings(context_words="a photo of a", epochs=args.epochs)
        wanted = TrainSettings(
            str(table),
            recipe,
            classes=tuple(shown),
            test="none",
            device="cpu",
            precision="fp32",
        )
        run = prepare_run(build_train_job(wanted), SHOTS, SEED, Printing())
        for epoch in train_prompt(run, None, Printing()):
            if epoch.number % 10 == 9 or epoch.number + 1 == args.epochs:
                print(f"epoch {epoch.number + 1}: loss {epoch.loss:.3f}")
    context_of(run, epoch.state).described(dataset="examples").save(args.output)


if __name__ == "__main__":
    main()
