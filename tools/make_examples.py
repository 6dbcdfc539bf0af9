"""Make the example pictures of the zero-shot demo, clean and shifted, from freely licensed photos.

The photographs are data files of an installed package, scikit-image. They are read as files: the
package is not imported, so `pip install --no-deps scikit-image` is enough. Each photo is pinned by
its SHA-256, because packages do replace a sample picture over its licence (scikit-image did so with
`camera` in 0.18) and `examples/SOURCES.md` speaks only of these bytes.

    python tools/make_examples.py --output examples/images

writes NAME.jpg for every entry of PHOTOS and NAME-SHIFT.jpg for every entry of SHIFTS. The shifts
follow the noise, blur and pixelation of ImageNet-C (Hendrycks and Dietterich, 2019) in kind, not in
strength: theirs are set for 224 pixels, these for a model that sees GRID pixels.
The same Pillow and numpy give the same bytes. This makes a demo, not a benchmark.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

LONGEST = 320  # pixels, longest side of what is written
QUALITY = 90  # JPEG quality
SEED = 0
GRID = 64  # pixels the embedded model sees: finer noise or blur is gone once it has resized
NOISE = 0.2  # standard deviation, of a full range of 1
BLUR = 1.6  # standard deviation in pixels of the GRID
SMALL = 40  # pixels, longest side of a thumbnail


@dataclass(frozen=True)
class Photo:
    """A photograph inside an installed package, and the part of it to keep.

    Attributes:
        package: import name of the package that ships it.
        path: the file, relative to the package's folder.
        sha256: digest of the file whose licence was checked.
        box: left, upper, right, lower in pixels of the file; None keeps it whole.
    """

    package: str
    path: str
    sha256: str
    box: tuple[int, int, int, int] | None = None


PHOTOS = {  # name of the example, which is also its true class: its photo
    "camera": Photo(
        "skimage",
        "data/camera.png",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        (100, 40, 340, 280),
    ),
    "cat": Photo(
        "skimage",
        "data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    "cup": Photo(
        "skimage",
        "data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        (40, 0, 560, 400),
    ),
    "person": Photo(
        "skimage",
        "data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        (150, 10, 290, 180),
    ),
}


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


def add_noise(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise, for each channel, in grains as large as a pixel of the GRID."""
    w, h = picture.size
    grain = max(1, min(w, h) // GRID)
    coarse = rng.normal(0, NOISE * 255, (-(-h // grain), -(-w // grain), 3))
    noise = coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:h, :w]  # (h, w, 3)
    noisy = np.asarray(picture, dtype=np.float64) + noise
    return Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))


def blur(picture: Image.Image, _rng: np.random.Generator) -> Image.Image:
    """Gaussian blur of BLUR pixels of the GRID; nothing is drawn at random."""
    return picture.filter(ImageFilter.GaussianBlur(BLUR * min(picture.size) / GRID))


def shrink(picture: Image.Image, _rng: np.random.Generator) -> Image.Image:
    """The picture as a thumbnail, SMALL pixels on its longest side; nothing is drawn at random."""
    small = picture.copy()
    small.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
    return small


SHIFTS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "noise": add_noise,
    "blur": blur,
    "small": shrink,
}


def make_examples(output: Path) -> list[Path]:
    """Write every photo and its shifted copies as JPEG; returns the files in the order written.

    A shifted copy is made from the pixels before JPEG. What it draws depends on its own file name
    and SEED alone, so that a new photo changes no other file.
    """
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for name, photo in PHOTOS.items():
        clean = load_photo(photo)
        pictures = {name: clean}
        for shift, draw in SHIFTS.items():
            stem = f"{name}-{shift}"
            rng = np.random.default_rng([SEED, zlib.crc32(stem.encode())])
            pictures[stem] = draw(clean, rng)
        for stem, picture in pictures.items():
            file = output / f"{stem}.jpg"
            picture.save(file, quality=QUALITY, optimize=True)
            written.append(file)
    return written


def main() -> None:
    """Read the command line and write the pictures."""
    parser = argparse.ArgumentParser(description="Make the example pictures of the demo.")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().parent.parent / "examples" / "images",
        help="folder to write to, made where missing (default: examples/images of this project)",
    )
    output = parser.parse_args().output
    files = make_examples(output)
    size = sum(file.stat().st_size for file in files)
    print(f"wrote {len(files)} pictures, {size / 1e6:.2f} MB, to {output}")


if __name__ == "__main__":
    main()
