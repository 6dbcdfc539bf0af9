"""Labelled sets from the layouts that people have them in: detected, and said.

`read_sets` finds out which layout a path has and reads it; `LAYOUTS` lists those it knows. What
was found is in each set's `layout` and `notes`. Where a path could be two layouts it is an error or
a note, and `options.layout` decides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from tpt.data.labelled_sets import ReadOptions, ShiftSet
from tpt.data.layouts import cifar, tars
from tpt.data.layouts import csv_files as table
from tpt.data.layouts.class_folders import read_groups
from tpt.data.layouts.detect import read_tree
from tpt.errors import SourceError, suggest
from tpt.text import as_text

LAYOUTS: Mapping[str, str] = {
    "auto": "found out by looking",
    "folders": "one folder a class, named after it, or test/val/train folders of such",
    "wnid": "one folder a class, named by its WordNet id: ImageNet, -A, -R, -Sketch",
    "numbers": "one folder a class, named by its number among ImageNet's 1,000: ImageNet-V2",
    "domains": "one folder a domain, with class folders in each: PACS, Office, DomainNet",
    "corruptions": "CORRUPTION/SEVERITY with class folders in each: ImageNet-C",
    "cifar": "arrays as of CIFAR-10-C, CIFAR-100-C and CIFAR-10.1",
    "table": "a CSV file with columns path and label",
    "tars": "webdataset tars with classnames.txt",
}
"""What `ReadOptions.layout` takes, and what it means."""

_SUGGEST_AMONG = 10_000  # names of a folder that are compared with a misspelt one
_BY_LOOKING = ReadOptions()


def read_sets(
    path: str, options: ReadOptions = _BY_LOOKING, name: str | None = None
) -> tuple[ShiftSet, ...]:
    """Read what is labelled at a path; no picture is opened.

    Args:
        path: a folder, or a file of one of the `LAYOUTS`.
        options: a layout to take for granted, the classes, and other words of the user's.
        name: what the sets are called; the path's last part by default, without the extension of a
            file. A tree of domains gives "NAME/DOMAIN", one of corruptions
            "NAME/CORRUPTION/SEVERITY".

    Returns:
        One set, or one a domain or a corruption and severity; these share one list of classes.

    Raises:
        SourceError: nothing there, no layout or a mixture of them, an empty class folder, a label
            that fits no class, a single class.
    """
    if options.layout not in LAYOUTS:
        raise SourceError(
            f'There is no layout "{options.layout}".{suggest(options.layout, LAYOUTS)} Expected '
            f"one of {', '.join(LAYOUTS)}."
        )
    if not os.path.exists(path):
        raise SourceError(
            f'There is no "{path}": expected a folder of class folders, a CSV file, a folder of '
            f".npy files or of tars.{_suggest_beside(path)}"
        )
    found = _read(path, as_text(name or _name_path(path)), options)
    classes = found[0].classes
    if len(classes) < 2:
        raise SourceError(
            f'"{path}" holds one class only ({classes[0]}), and there is nothing to tell it from. '
            "Name the folder above the class folders, or list all classes (--classes)."
        )
    return found


def _read(path: str, name: str, options: ReadOptions) -> tuple[ShiftSet, ...]:
    """The sets of a path that is there, by the layout that is asked for or that fits."""
    for layout, module in {"cifar": cifar, "table": table, "tars": tars}.items():
        if options.layout == layout or (options.layout == "auto" and module.matches(path)):
            return module.read(path, name, options)
    if not os.path.isdir(path):
        raise SourceError(
            f'"{path}" is a file'
            + (" of no known layout" if options.layout == "auto" else "")
            + ": expected a folder of class folders, a CSV file with columns path and label, a "
            "folder of .npy files or of tars. Name one of these."
        )
    tree = read_tree(path, name, options)
    return read_groups(path, tree.groups, options, said=tree.said)


def _name_path(path: str) -> str:
    base = os.path.basename(os.path.normpath(path))
    if base in ("", os.curdir, os.pardir):
        base = os.path.basename(os.path.realpath(path)) or "set"
    return as_text(base if os.path.isdir(path) else os.path.splitext(base)[0])


def _suggest_beside(path: str) -> str:
    folder, name = os.path.split(path.rstrip(os.sep))
    try:
        names = sorted(os.listdir(folder or os.curdir))[:_SUGGEST_AMONG]
    except OSError:
        return f' Its folder "{folder}" cannot be listed either. Check the path.'
    return suggest(name, filter(str.isprintable, names)) or " Check the spelling."
