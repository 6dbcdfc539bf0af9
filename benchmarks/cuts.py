"""How many cuts of a film `tpt.streaming.readers.cuts` finds, to the frame.

    python benchmarks/cuts.py examples/images --shots 40

Films are made of the images of a folder: one shot per image in random order, with pans of several
speeds, noise of several strengths, and hard cuts at known frames.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
from _films import make_film

import tpt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--shots", type=int, default=40)
    parser.add_argument("--frames", type=int, default=25, help="frames per shot")
    words = parser.parse_args()
    found = sorted(words.pictures.glob("*.jpg")) + sorted(words.pictures.glob("*.png"))
    pictures = draw(found, words.shots)
    print(f"{words.shots} shots of {words.frames} frames, {len(found)} pictures")
    print(f"{'pan':>5} {'noise':>6} {'cuts':>5} {'found':>6} {'false':>6}")
    for pan, noise in itertools.product((0.0, 0.5, 2.0), (0.0, 6.0, 20.0)):
        with tempfile.TemporaryDirectory() as folder:
            film = Path(folder, "film.mp4")
            cuts = make_film(film, pictures, words.frames, noise=noise, pan=pan)
            told = {item.frame for item in tpt.video(film, frames=1) if item.begins}
        found_cuts, false = len(told & {*cuts}) - 1, len(told - {*cuts})
        print(f"{pan:5.1f} {noise:6.0f} {len(cuts) - 1:5} {found_cuts:6} {false:6}")


def draw(found: list[Path], count: int) -> list[Path]:
    """Pictures in a random order, none twice in a row."""
    drawn: list[Path] = []
    random = np.random.RandomState(0)
    while len(drawn) < count:
        picture = found[random.randint(len(found))]
        if not drawn or picture != drawn[-1]:
            drawn.append(picture)
    return drawn


if __name__ == "__main__":
    main()
