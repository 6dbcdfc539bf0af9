"""Learn the small prompt in examples/ from sixteen pictures a class, with the embedded model.

    python tools/learn_example_prompt.py DATA --output examples/prompt.safetensors

DATA holds `cifar10/train`, `caltech101` and `pacs/photo`, one folder a class. The classes are those
of examples/classes.txt; each is looked for in the three places in turn. It is what `tpt train` does
with a CSV file of those pictures and `--context-words "a photo of a" --epochs 50`.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from coop.recipes import RecipeSettings
from coop.run import context_of, prepare_run, train_prompt
from coop.train_job import TrainSettings, build_train_job

SHOTS, EPOCHS, SEED = 16, 50, 1
FOLDERS = {"face": "Faces", "motorbike": "Motorbikes"}  # class name -> Caltech101's folder


class Printing:
    """Prints what the training says."""

    def say(self, text: str) -> None:
        print(text)

    def encode(self, what: str, done: int, total: int) -> None:
        pass

    def epoch(self, epoch: object, epochs: int) -> None:
        pass


def find_folder(data: Path, name: str) -> Path:
    """The folder of training pictures that shows a class."""
    for root in ("cifar10/train", "pacs/photo", "caltech101"):
        folder = data / root / FOLDERS.get(name, name)
        if folder.is_dir():
            return folder
    raise SystemExit(f"No folder of pictures for the class {name!r} under {data}.")


def write_list(data: Path, names: list[str], path: Path) -> None:
    """A CSV file of all pictures of the classes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for name in names:
            writer.writerows([f.resolve(), name] for f in sorted(find_folder(data, name).iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    names = Path("examples/classes.txt").read_text().split("\n")[:-1]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "examples.csv"
        write_list(args.data, names, table)
        recipe = RecipeSettings(context_words="a photo of a", epochs=args.epochs)
        wanted = TrainSettings(str(table), recipe, classes=tuple(names), test="none", device="cpu")
        run = prepare_run(build_train_job(wanted), SHOTS, SEED, Printing())
        for epoch in train_prompt(run, None, Printing()):
            if epoch.number % 10 == 9 or epoch.number + 1 == args.epochs:
                print(f"epoch {epoch.number + 1}: loss {epoch.loss:.3f}")
    context_of(run, epoch.state).described(dataset="examples").save(args.output)


if __name__ == "__main__":
    main()
