"""Make the example images of the demo from freely licensed images, clean and shifted.

    python tools/make_examples.py --data DATA                    # the chosen ones, to examples/
    python tools/make_examples.py --data DATA --all --output DIR # every candidate

The photographs are data files of an installed package, scikit-image. They are read as files: the
package is not imported, so `pip install --no-deps scikit-image` is enough. Each photo is pinned by
its SHA-256, because packages do replace a sample image over its licence (scikit-image did so with
`camera` in 0.18), and `examples/SOURCES.md` covers only these bytes. Their shifted copies are the
fifteen corruptions of `tpt corrupt` at severity 3.

DATA holds `cue_conflict` and `edges` of Geirhos et al. 2019 (1811.12231, CC BY 4.0), one folder per
shape; without it only photographs are made. Candidates are the first three cue-conflict images of
a shape and its first two edge drawings. CHOSEN are those that ship; docs/demo.md gives the results
of all candidates.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tpt.corrupt.corruption_kinds import CORRUPTIONS
from tpt.corrupt.corruptions import corrupt

LONGEST = 320  # pixels, longest side of what is written
QUALITY = 90  # JPEG quality
SEVERITY = 3
SMALL = 40  # pixels, longest side of a thumbnail


@dataclass(frozen=True)
class Photo:
    """A photograph inside an installed package, and the part of it to keep.

    Attributes:
        path: the file, relative to the package's folder.
        sha256: digest of the file whose licence was checked.
        box: left, upper, right, lower in pixels of the file; None keeps it whole.
        package: import name of the package that ships it.
    """

    path: str
    sha256: str
    box: tuple[int, int, int, int] | None = None
    package: str = "skimage"


PHOTOS = {  # name of the example, which is also what it shows: its photo
    "camera": Photo(
        "data/camera.png",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        (100, 40, 340, 280),
    ),
    "cat": Photo(
        "data/chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"
    ),
    "clock": Photo(
        "data/clock_motion.png", "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955"
    ),
    "cup": Photo(
        "data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        (40, 0, 560, 400),
    ),
    "person": Photo(
        "data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        (150, 10, 290, 180),
    ),
    "rocket": Photo(
        "data/rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"
    ),
}
CHOSEN = (
    "camera",
    "camera-gaussian_noise",
    "cat",
    "cat-fog",
    "clock",
    "cup",
    "cup-contrast",
    "cup-glass_blur",
    "cup-impulse_noise",
    "person-gaussian_noise",
    "rocket-motion_blur",
    "cue_conflict-bicycle1-airplane2",
    "edges-bicycle1",
    "edges-keyboard1",
)
THUMBNAILS = ("camera", "cat", "cup", "person")
BESIDE = ("person", *(f"{name}-small" for name in THUMBNAILS))


def find_photo(photo: Photo) -> Path:
    """The file of a photo, checked against its digest.

    Raises:
        FileNotFoundError: the package, or the file in it, is not installed.
        ValueError: the file is not the one whose licence was checked.
    """
    spec = importlib.util.find_spec(photo.package)
    folders = (spec.submodule_search_locations if spec else None) or []
    file = next((f for f in (Path(d) / photo.path for d in folders) if f.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"Expected {photo.path} in an installed {photo.package}, found none. "
            "Install what this tool reads: pip install --no-deps scikit-image"
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != photo.sha256:
        raise ValueError(
            f"Expected {photo.package}/{photo.path} with SHA-256 {photo.sha256}, got {digest}. "
            "The package ships another file now: check its licence before you change the digest."
        )
    return file


def load_photo(photo: Photo) -> Image.Image:
    """The kept part of a photo in RGB, made smaller where its longest side is above LONGEST."""
    with Image.open(find_photo(photo)) as opened:
        picture = opened.convert("RGB")
    if photo.box is not None:
        picture = picture.crop(photo.box)
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)  # never enlarges
    return picture


def candidates(data: Path | None) -> dict[str, tuple[str, Image.Image]]:
    """File stem -> (what it shows, picture), in the order of the demo."""
    found = {}
    for name, photo in PHOTOS.items():
        clean = load_photo(photo)
        found[name] = (name, clean)
        for kind in CORRUPTIONS:
            worse = corrupt(np.asarray(clean), kind, SEVERITY, key=name)
            found[f"{name}-{kind}"] = (name, Image.fromarray(worse))
    for folder, most in (("cue_conflict", 3), ("edges", 2)):
        if data is None:
            break
        for shape in sorted(path for path in (data / folder).iterdir() if path.is_dir()):
            paths = [path for path in sorted(shape.iterdir()) if path.stem.count(shape.name) == 1]
            for path in paths[:most]:
                with Image.open(path) as opened:
                    found[f"{folder}-{path.stem}"] = (shape.name, opened.convert("RGB"))
    return found


def make_examples(output: Path, data: Path | None, everything: bool) -> int:
    """Write pictures and `labels.csv`; how many were written.

    A picture of `data` that was chosen and is there already stays when no `data` is given.
    """
    folder = output / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rows, written = [], 0
    made = candidates(data)
    for name in () if everything else THUMBNAILS:
        small = made[name][1].copy()
        small.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
        made[f"{name}-small"] = (name, small)
    for stem in made if everything else (*CHOSEN, *BESIDE):
        file = folder / f"{stem}.jpg"
        if stem in made:
            made[stem][1].save(file, quality=QUALITY, optimize=True)
            written += 1
        if file.exists() and (everything or stem not in BESIDE):
            label = made[stem][0] if stem in made else stem.split("-")[1].rstrip("0123456789")
            rows.append((f"images/{file.name}", label))
    with (output / "labels.csv").open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines, lineterminator="\n").writerows([("path", "label"), *rows])
    return written


def main() -> None:
    """Read the command line and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with cue_conflict and edges")
    parser.add_argument("--all", action="store_true", help="every candidate, not the chosen ones")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().parent.parent / "examples",
        help="folder for images/ and labels.csv (default: examples of this project)",
    )
    given = parser.parse_args()
    try:
        written = make_examples(given.output, given.data, given.all)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    print(f"wrote {written} pictures to {given.output}")


if __name__ == "__main__":
    main()
