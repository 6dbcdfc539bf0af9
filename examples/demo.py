"""Compare zero-shot with adapted answers, image by image, and draw a contact sheet.

    python examples/demo.py --output demo.jpg

It reads `labels.csv` (images with what they show) and `classes.txt` (everyday names) beside this
file. It answers zero-shot, with TPT from "a photo of a", and with TPT from the learned prompt
`prompt.safetensors`, and prints what changed and whether it was right. The sheet shows each
image, the three answers, and the kept views.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import tpt

HERE = Path(__file__).parent
TITLES = ("zero-shot", "TPT", "TPT + learned prompt")
SIDE, SMALL, GAP, TEXT = 132, 62, 8, 15  # pixels of a picture, a view, between them; of letters
SHOWN = 4  # kept views shown, the most confident first
PAPER, INK, RIGHT, WRONG = "white", "#222222", "#13743a", "#b3261e"


@dataclass(frozen=True)
class Row:
    """One picture: its file, what it shows, three answers, and its kept views as pictures."""

    path: Path
    label: str
    answers: tuple[tuple[str, float], ...]  # (name, probability), in the order of TITLES
    views: tuple[Image.Image, ...]

    def right(self, number: int) -> bool:
        return self.answers[number][0] == self.label


def answer_all(folder: Path, views: int) -> list[Row]:
    """Every picture of `labels.csv`, printed as soon as it is answered."""
    classes = (folder / "classes.txt").read_text(encoding="utf-8").split("\n")[:-1]
    clip = tpt.load_clip("lite", precision="fp32")  # the same answers everywhere
    words = tpt.PromptEngine(clip, classes, tpt.Context.from_words(clip, "a photo of a"))
    learned = tpt.PromptEngine(clip, classes, tpt.Context.load(folder / "prompt.safetensors"))
    methods = (tpt.ZeroShot(words), tpt.TPT(words), tpt.TPT(learned))
    make = tpt.Views(clip, n=views)
    print(f"{'picture':<37}{'shows':<10}" + "".join(f"{title:<24}" for title in TITLES))
    rows = []
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            path = folder / line["path"]
            try:
                pixels = make([path])
            except tpt.TptError as error:  # one broken picture is not the demo's end
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
            features = clip.encode_views(pixels)
            outs = [method.adapt_features(features) for method in methods]
            answers = tuple(_best(out.logits[0], classes) for out in outs)
            kept = [_picture(pixels[0, n], clip) for n in outs[1].selected[0, :SHOWN]]
            rows.append(Row(path, line["label"], answers, tuple(kept)))
            _print(rows[-1])
    return rows


def _best(logits: Tensor, classes: list[str]) -> tuple[str, float]:
    score, place = logits.softmax(0).max(0)
    return classes[int(place)], float(score)


def _picture(view: Tensor, clip: tpt.Clip) -> Image.Image:
    """A normalised view (3, H, W) as it looks."""
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (clip.preprocess.mean, clip.preprocess.std)
    )
    pixels = (view * std + mean).clamp(0, 1).mul(255).byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())


def _print(row: Row) -> None:
    cells = []
    for number, (name, score) in enumerate(row.answers):
        mark = "right" if row.right(number) else "wrong"
        cells.append(f"{mark} {name} {score:.0%}")
    print(f"{row.path.name:<37}{row.label:<10}" + "".join(f"{cell:<24}" for cell in cells))


def summary(rows: list[Row]) -> str:
    """How many are right under each title, and what adaptation helped and hurt."""
    lines = []
    for number, title in enumerate(TITLES):
        right = sum(row.right(number) for row in rows)
        helped = sum(row.right(number) and not row.right(0) for row in rows)
        hurt = sum(row.right(0) and not row.right(number) for row in rows)
        lines.append(f"{title}: {right} of {len(rows)} right")
        if number:
            lines[-1] += f" (put right {helped}, put wrong {hurt})"
    return "; ".join(lines) + "."


def draw_sheet(rows: list[Row], file: Path, columns: int = 2) -> None:
    """The contact sheet: picture, answers in green or red, kept views below them."""
    width = SIDE + GAP + SHOWN * (SMALL + 4) + 3 * GAP
    height = SIDE + 2 * GAP
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * width + GAP, lines * height + GAP), PAPER)
    for number, row in enumerate(rows):
        _draw_row(sheet, row, GAP + number % columns * width, GAP + number // columns * height)
    sheet.save(file, quality=92)


def _draw_row(sheet: Image.Image, row: Row, left: int, top: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT - 2)
    with Image.open(row.path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
    left += SIDE + GAP
    for number, (name, score) in enumerate(row.answers):
        text = f"{TITLES[number]}: {name} {score:.0%}"
        colour = RIGHT if row.right(number) else WRONG
        draw.text((left, top + number * (TEXT + 4)), text, colour, font)
    top += SIDE - SMALL
    for place, view in enumerate(row.views):
        sheet.paste(view.resize((SMALL, SMALL)), (left + place * (SMALL + 4), top))


def main() -> None:
    """Read the command line, answer, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE, help="labels, classes and prompt")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("demo.jpg"))
    given = parser.parse_args()
    try:
        rows = answer_all(given.folder, given.views)
    except (OSError, tpt.TptError) as error:
        needed = "labels.csv, classes.txt and prompt.safetensors"
        raise SystemExit(f"The demo needs {needed}: {error}") from None
    print(summary(rows))
    draw_sheet(rows, given.output)
    print(
        f"Look at {given.output}: pictures, answers, and the views that were kept.", file=sys.stderr
    )


if __name__ == "__main__":
    main()
