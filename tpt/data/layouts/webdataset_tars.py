"""webdataset tars, in the layout of the field's common zero-shot benchmark (CLIP_benchmark).

    classnames.txt                            a class a line; the first line is label 0
    zeroshot_classification_templates.txt     a template a line, with {c} for the class name
    test/nshards.txt                          how many archives there are
    test/0.tar, test/1.tar, ...               s0000001.jpg with s0000001.cls, its label number

The archives may also lie beside classnames.txt, or a single one may be named.

It uses the standard library's `tarfile`. The webdataset library reads an archive as a stream; here
each picture is opened by itself, because resumed runs and galleries of single pictures need that.
So archives must not be compressed.
"""

from __future__ import annotations

import os
import re

from tpt.data.class_lists import choose_classes, keyword_of, named_ids
from tpt.data.imagenet import imagenet_ids, imagenet_names
from tpt.data.labelled_sets import SPLITS, LabelledSet, ReadOptions
from tpt.data.layouts._tar_index import COMPRESSED, Picture, index_archives
from tpt.errors import SourceError, why
from tpt.streaming.folders import scan_folder, sort_naturally
from tpt.text import some

NAME, SUMMARY = "tars", "webdataset tars with classnames.txt"
CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"


def matches(path: str) -> bool:
    """Whether a path is a tar, or a folder of tars (not class folders beside their own archive)."""
    if os.path.isdir(path):
        return _find_folder(path) is not None
    return os.path.isfile(path) and _is_tar(path)


def read(path: str, name: str, options: ReadOptions) -> tuple[LabelledSet, ...]:
    """Read where the pictures of all archives lie, and their labels.

    Of several splits it takes test, else val, else train. What cannot be used (a cut-off end, a
    picture without a label) is left out, and the set's notes say so.

    Args:
        path: the folder that holds `classnames.txt`, the split's folder in it, or one archive.
        options: `classes` gives other names or another order, and finds a class by its number or
            its name; without `classnames.txt` it gives the names in the order of labels.

    Returns:
        One set.

    Raises:
        SourceError: no class names, archives that are missing, compressed or no tars, a label out
            of range, no usable picture, or text files in another form.
    """
    archives, notes = _find_archives(path)
    home = _find_home(os.path.dirname(archives[0]))
    _check_type(os.path.join(home, "dataset_type.txt"))
    names = _read_classnames(os.path.join(home, CLASSNAMES), options)
    templates = _read_templates(os.path.join(home, TEMPLATES))
    pictures, more = index_archives(archives)
    notes += more
    _check_labels(pictures, names, path, notes)
    is_imagenet = tuple(names) == imagenet_names()
    ids = list(imagenet_ids()) if is_imagenet else [str(number) for number in range(len(names))]
    by_id = dict(zip(ids, names, strict=True))
    if options.classes is not None:  # it need not name classes that have no pictures
        present = {ids[picture.label] for picture in pictures}
        by_id = {key: name for key, name in by_id.items() if key in present}
    one = choose_classes(by_id, options, path).make_set(
        name,
        "webdataset tars",
        path,
        ((each.key, ids[each.label], each.member) for each in pictures),
        templates=templates,
        notes=notes,
    )
    return (one,)


def _check_labels(pictures: list[Picture], names: list[str], path: str, notes: list[str]) -> None:
    if not pictures:
        raise SourceError(
            f'"{path}" holds no usable picture. {" ".join(notes)}{" " * bool(notes)}Expected '
            "pictures (s0000001.jpg), each with its label number beside it (s0000001.cls). "
            "If the archives hold class folders instead, unpack them and name the folder."
        )
    for picture in pictures:
        if not 0 <= picture.label < len(names):
            raise SourceError(
                f'"{picture.key}" in "{path}" has the label {picture.label}: expected 0 to '
                f"{len(names) - 1}, as there are {len(names)} class names. Add the missing names, "
                "or take the ones that belong to these pictures."
            )


# --- archives ---


def _find_archives(path: str) -> tuple[list[str], list[str]]:
    """The archives to read, in natural order, and notes on them."""
    if not os.path.isdir(path):
        return [path], []
    folder = _find_folder(path) or path  # where the user says that they are tars
    if not _list_tars(folder):
        raise SourceError(
            f'The folder "{path}" holds no tar archives: expected test/0.tar, test/1.tar, ..., or '
            "archives directly in it. Name the folder that holds classnames.txt."
        )
    archives, notes = _list_archives(folder)
    if folder != path:
        others = [split for split in _splits_of(path) if split != os.path.basename(folder)]
        beside = f", those of {some(others)} are not" if others else ""
        notes.insert(0, f'The archives of "{os.path.basename(folder)}" are read{beside}.')
    return archives, notes


def _find_folder(path: str) -> str | None:
    """The folder whose archives are read: the preferred split's, or `path` itself."""
    for split in _splits_of(path):
        return os.path.join(path, split)
    here = scan_folder(path)
    # Other folders are classes, and the archive beside them is what they were unpacked from.
    classes = [name for name in here.folders if name.lower() not in SPLITS]
    if any(map(_is_tar, here.files)) and (CLASSNAMES in here.files or not classes):
        return path
    return None


def _splits_of(path: str) -> list[str]:
    """Sub-folders that are named as a split and hold archives, the preferred one first."""
    listed = {
        name: scan_folder(os.path.join(path, name))
        for name in scan_folder(path).folders
        if name.lower() in SPLITS
    }
    usable = [n for n, here in listed.items() if any(map(_is_tar, here.files)) and not here.folders]
    return sorted(usable, key=lambda name: list(SPLITS).index(name.lower()))


def _list_tars(folder: str) -> list[str]:
    return [name for name in sort_naturally(scan_folder(folder).files) if _is_tar(name)]


def _list_archives(folder: str) -> tuple[list[str], list[str]]:
    names = _list_tars(folder)
    paths = [os.path.join(folder, name) for name in names]
    form = re.compile(r"(\d{1,9})\.tar", re.ASCII | re.IGNORECASE)
    number_of = {name: int(match[1]) for name in names if (match := form.fullmatch(name))}
    present = set(number_of.values())
    stated = _read_count(os.path.join(folder, "nshards.txt"))
    count = stated if stated is not None else max(present, default=-1) + 1
    missing = [f"{number}.tar" for number in range(count) if number not in present]
    if stated is None:  # without it nothing says how many there should be
        gaps = missing and len(number_of) == len(names)
        return paths, [f"There is no {some(missing)} in {folder}."] if gaps else []
    if missing or len(names) != stated:
        more = [name for name in names if number_of.get(name, stated) >= stated]
        what = f"{some(missing)} missing" if missing else f"{some(more)} there as well"
        raise SourceError(
            f'"{os.path.join(folder, "nshards.txt")}" says that 0.tar to {stated - 1}.tar are '
            f"there ({stated} in all), but {len(names)} are, with {what}. Fetch what is missing, "
            "or put the number right."
        )
    return paths, []


def _read_count(path: str) -> int | None:
    if not os.path.exists(path):
        return None
    text = _read_text(path).strip()
    if not re.fullmatch(r"[1-9]\d{0,5}", text, re.ASCII):
        raise SourceError(
            f'"{path}" holds {text[:40]!r}: expected the number of archives. Correct the file, or '
            "remove it."
        )
    return int(text)


def _is_tar(name: str) -> bool:
    return name.lower().endswith((".tar", *COMPRESSED))


# --- text files ---


def _find_home(folder: str) -> str:
    """Where the class names are: beside the archives, or above the folder of a split."""
    above, name = os.path.split(os.path.abspath(folder))
    if name.lower() in SPLITS and not os.path.exists(os.path.join(folder, CLASSNAMES)):
        return os.path.dirname(folder) if os.path.basename(folder) == name else above
    return folder


def _check_type(path: str) -> None:
    kind = _read_text(path).strip() if os.path.exists(path) else ""
    if kind not in ("", "classification"):
        raise SourceError(
            f'"{path}" says {kind[:40]!r}: expected a set for classification, where each picture '
            "has one class. Name such a set."
        )


def _read_classnames(path: str, options: ReadOptions) -> list[str]:
    """Class names by label number."""
    if os.path.exists(path):
        names = [line.strip() for line in _read_text(path).rstrip().split("\n")]
        if not all(names):
            raise SourceError(
                f'Line {names.index("") + 1} of "{path}" is empty: expected a class name in every '
                "line, because the line's number tells the label. Fill it in."
            )
        return names
    if options.classes is None:
        raise SourceError(
            f'There is no "{path}": expected the names of the classes, one a line, that of label '
            "0 first. Add that file, or give the names with --classes. If the archives hold class "
            "folders instead, unpack them and name the folder."
        )
    if keyword_of(options.classes) == "imagenet":
        return list(imagenet_names())
    ids = named_ids(options.classes)
    if not ids:
        return list(options.classes)  # plain names are in the order of the labels
    numbers = [int(key) for key in ids if re.fullmatch(r"\d{1,6}", key, re.ASCII)]
    return [str(number) for number in range(max(numbers, default=-1) + 1)]


def _read_templates(path: str) -> tuple[str, ...]:
    """The set's templates, with {} where the file has {c}."""
    lines = _read_text(path).split("\n") if os.path.exists(path) else []
    templates = [line.strip().replace("{c}", "{}") for line in lines]
    for number, template in enumerate(templates, start=1):
        if template and template.count("{}") != 1:
            raise SourceError(
                f'Line {number} of "{path}" is {template[:80]!r}: expected one {{c}} in it, where '
                "the class name stands. Correct or remove the line."
            )
    return tuple(template for template in templates if template)


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f'"{path}" cannot be read ({why(error)}): expected UTF-8 text. Save it as such.'
        ) from error
