"""A corrupted copy of a folder of pictures, in ImageNet-C's layout: DST/KIND/SEVERITY/class/x.png.

Every DST/KIND/SEVERITY has the folders of the source. A file is written beside its place and then
renamed, so it is whole or not there. Existing files are left alone, so a stopped run can go on.
`DST/corruptions.json` says how the pictures were made; a DST made in another way is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import tpt
from tpt.corrupt.corruption_kinds import LONGEST_JPEG, REVISION
from tpt.corrupt.corruptions import corrupt
from tpt.errors import ImageError, OutputError, SourceError, why
from tpt.images.decode import Pixels, decode_image
from tpt.runs.lock import hold, writing
from tpt.runs.settings_diff import describe_change
from tpt.runs.whole_files import staged
from tpt.streaming._ahead import map_ahead
from tpt.streaming.folders import walk_images
from tpt.streaming.sources import suggest_beside
from tpt.text import read_json

SIDECAR = "corruptions.json"
_JPEG_QUALITY = 85  # what ImageNet-C was stored with


@dataclass(frozen=True)
class Settings:
    """All that decides what the files of a DST hold; they are the same for all of its files."""

    source: str  # an absolute path
    seed: int
    format: str
    revision: int = REVISION


@dataclass(frozen=True)
class Picture:
    """One picture to corrupt."""

    path: str
    key: str  # its path inside SRC, with "/"; it seeds the picture's random numbers
    name: str  # its path inside DST/KIND/SEVERITY


@dataclass(frozen=True)
class Outcome:
    """What came of one picture."""

    picture: Picture
    written: int
    existed: int
    error: str | None = None


def plan_pictures(source: str, target: str, form: str) -> list[Picture]:
    """The pictures in a folder and below it.

    Where two names would become the same file ("a.jpg" and "a.bmp"), these keep their extension
    ("a.jpg.png").

    Raises:
        SourceError: no such folder, no pictures in it, `target` inside it, or names that cannot
            be kept apart.
    """
    if not os.path.isdir(source):
        raise SourceError(_describe_missing(source))
    real, place = os.path.realpath(source), os.path.realpath(target)
    if os.path.commonpath([real, place]) == real:
        raise SourceError(
            f"The corrupted pictures would go to {target!r}, which lies inside {source!r} and "
            "would be read as pictures the next time. Name a folder outside of it."
        )
    paths = walk_images(source)
    if not paths:
        raise SourceError(
            f"The folder {source!r} holds no images, nor do its sub-folders: expected files ending "
            "in .jpg, .png, .webp or another image extension. Check the folder."
        )
    keys = [os.path.relpath(path, source).replace(os.sep, "/") for path in paths]
    stems = [os.path.splitext(key)[0] for key in keys]
    # Folded, because some file systems do not tell upper and lower case apart.
    shared = Counter(stem.casefold() for stem in stems)
    names = [
        f"{stem if shared[stem.casefold()] == 1 else key}.{form}"
        for stem, key in zip(stems, keys, strict=True)
    ]
    twice = [n for n, count in Counter(name.casefold() for name in names).items() if count > 1]
    if twice:
        both = [key for key, name in zip(keys, names, strict=True) if name.casefold() == twice[0]]
        raise SourceError(
            f"{both[0]!r} and {both[1]!r} would become the same file. Rename one of them."
        )
    return [Picture(*three) for three in zip(paths, keys, names, strict=True)]


def _describe_missing(source: str) -> str:
    if os.path.exists(source):
        return (
            f"The source {source!r} is a file: expected a folder of pictures, with a sub-folder a "
            "class or without. Name the folder that it lies in."
        )
    return (
        f"The source {source!r} does not exist: expected a folder of pictures."
        f"{suggest_beside(source)}"
    )


@contextmanager
def open_target(
    target: str, settings: Settings, kinds: Iterable[str], severities: Iterable[int]
) -> Iterator[None]:
    """Make DST or check that it was made in the same way, and lock it against other runs.

    Raises:
        OutputError: DST is a file, holds other things, was made with other settings, is written by
            another run, or cannot be written.
    """
    with writing(target, _cannot_write):
        os.makedirs(target, exist_ok=True)
    with hold(os.path.join(target, SIDECAR), _cannot_write):
        _note_content(target, settings, kinds, severities)
        yield


def _note_content(
    target: str, settings: Settings, kinds: Iterable[str], severities: Iterable[int]
) -> None:
    """Write down what DST will hold, with what earlier runs of the same settings made."""
    with writing(target, _cannot_write):
        before, held_kinds, held_severities = _read_sidecar(target)
        if before is not None and (change := describe_change(before, asdict(settings))):
            raise OutputError(
                f'"{target}" was made with other settings ({change}), and a set must not mix two. '
                "Use the same settings or name another folder."
            )
        note = {
            "kinds": sorted({*held_kinds, *kinds}),
            "severities": sorted({*held_severities, *severities}),
            "settings": asdict(settings),
            "version": tpt.__version__,
        }
        text = json.dumps(note, indent=1) + "\n"
        _write_whole(os.path.join(target, SIDECAR), text.encode())


def _read_sidecar(target: str) -> tuple[dict[str, Any] | None, list[str], list[int]]:
    """(settings, kinds, severities) as DST has them; no settings where it is empty."""
    path = Path(target, SIDECAR)
    # Pictures never come before the note, but its own unfinished file or a lock may be there.
    if not path.exists() and all(name.startswith(".tpt-") for name in os.listdir(target)):
        return None, [], []
    try:
        note = read_json(path)
        return (
            dict(note["settings"]),
            list(map(str, note["kinds"])),
            list(map(int, note["severities"])),
        )
    except FileNotFoundError as error:
        raise OutputError(
            f'"{target}" is not empty and holds no {SIDECAR}, so it was not made by `tpt corrupt`. '
            "Name a new or empty folder."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f'"{path}" is damaged, so nobody knows how "{target}" was made. Name another folder.'
        ) from error


def write_corrupted(
    pictures: list[Picture],
    target: str,
    pairs: list[tuple[str, int]],
    settings: Settings,
    *,
    overwrite: bool = False,
    num_workers: int = 2,
) -> Generator[Outcome, None, None]:
    """Write every picture in every (kind, severity); an outcome a picture, in order.

    A broken picture is an outcome with an error; the others go on. Nothing is written before the
    first outcome is asked for, so that the caller can claim the folder first.

    Args:
        overwrite: make existing files again.
        num_workers: threads; 0 works in the caller's.

    Raises:
        OutputError: the disk is full or gone; the files before are whole.
    """

    def work(picture: Picture) -> Outcome:
        places = {(k, s): os.path.join(target, k, str(s), picture.name) for k, s in pairs}
        todo = [pair for pair in pairs if overwrite or not os.path.exists(places[pair])]
        existed, written = len(pairs) - len(todo), 0
        told: str | None = None
        try:
            pixels = decode_image(picture.path) if todo else None
            for kind, severity in todo:
                assert pixels is not None
                worse = corrupt(pixels, kind, severity, settings.seed, picture.key)
                save(worse, places[kind, severity])
                written += 1
        except ImageError as error:
            told = str(error)
            told = told if repr(picture.path) in told else f"{picture.path!r}: {told}"
        except OSError as error:
            raise _cannot_write(target, error) from error
        return Outcome(picture, written, existed, told)

    with closing(map_ahead(work, pictures, num_workers)) as outcomes:
        yield from outcomes


def save(pixels: Pixels, path: str) -> None:
    """Write a picture whole or not at all; its format follows the name, .png or .jpg.

    Raises:
        ImageError: a picture too long for a JPEG file.
        OSError: the file cannot be written.
    """
    buffer = io.BytesIO()
    if not path.endswith(".jpg"):
        Image.fromarray(pixels).save(buffer, "PNG")
    elif max(pixels.shape) <= LONGEST_JPEG:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    else:
        raise ImageError(
            f"A picture of {pixels.shape[1]} x {pixels.shape[0]} pixels does not fit in a JPEG "
            "file. Use --format png."
        )
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _write_whole(path, buffer.getvalue())


def _write_whole(path: str, data: bytes) -> None:
    folder, name = os.path.split(path)
    # Always the same name, so that the next run overwrites what a killed run left; a digest,
    # because the picture's own name may already be as long as a name can be.
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    beside = Path(folder, f".tpt-{digest}.part")
    with staged(Path(path), data, beside=beside, sync=False):
        pass


def _cannot_write(target: str, error: OSError) -> OutputError:
    where = f'"{error.filename}" in "{target}"' if error.filename else f'"{target}"'
    return OutputError(
        f"Corrupted pictures could not be written to {where}: {why(error)}. What was written "
        "before is whole; put this right and run the same command again to go on."
    )
