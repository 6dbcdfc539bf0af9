"""Learn the small prompt in examples/ from sixteen pictures a class, with the embedded model.

    python tools/learn_example_prompt.py DATA --output examples/prompt.safetensors

DATA holds `cifar10/train`, `caltech101` and `pacs/photo`, one folder a class. It is CoOp
(2109.01134) in its plainest form: a context of four vectors that starts from "a photo of a", SGD
with momentum on the cross-entropy of cached image features. The classes are examples/classes.txt.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F

import tpt

SHOTS, EPOCHS, LR, SEED, VIEWS = 16, 50, 2e-3, 1, 8
FOLDERS = {"face": "Faces", "motorbike": "Motorbikes"}  # class name -> Caltech101's folder


def find_folder(data: Path, name: str) -> Path:
    """The folder of training pictures that shows a class."""
    for root in ("cifar10/train", "pacs/photo", "caltech101"):
        folder = data / root / FOLDERS.get(name, name)
        if folder.is_dir():
            return folder
    raise SystemExit(f"No folder of pictures for the class {name!r} under {data}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    names = Path("examples/classes.txt").read_text().split("\n")[:-1]
    chooser = random.Random(SEED)
    files, labels = [], []
    for label, name in enumerate(names):
        listed = sorted(find_folder(args.data, name).iterdir())
        for file in chooser.sample(listed, SHOTS):
            files.append(str(file))
            labels.append(label)

    clip = tpt.load_clip("tiny", device="cpu")
    views = tpt.Views(clip, n=VIEWS, seed=SEED, scale=(0.3, 1.0))
    features = torch.cat(
        [clip.encode_views(views([file], keys=[i])) for i, file in enumerate(files)]
    )
    target = torch.tensor(labels)
    context = tpt.Context.from_words(clip, "a photo of a")
    engine = tpt.PromptEngine(clip, names, context)
    vectors = context.vectors.clone().requires_grad_()
    optimizer = torch.optim.SGD([vectors], lr=LR, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    shuffle = torch.Generator().manual_seed(SEED)
    for epoch in range(EPOCHS):
        view = torch.randint(VIEWS, (len(target),), generator=shuffle)
        epoch_features = features[torch.arange(len(target)), view]
        total = 0.0
        for picked in torch.randperm(len(target), generator=shuffle).split(32):
            logits = engine.logits(epoch_features[picked], engine.class_features(vectors))
            loss = F.cross_entropy(logits, target[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(picked)
        schedule.step()
        if epoch % 10 == 0 or epoch == EPOCHS - 1:
            print(f"epoch {epoch}: loss {total / len(target):.3f}")
    learned = tpt.Context(vectors, info=context.info).described(
        classes=tuple(names), dataset="examples", shots=SHOTS, seed=SEED
    )
    learned.save(args.output)


if __name__ == "__main__":
    main()
