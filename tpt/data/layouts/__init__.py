"""Labelled sets in the layouts that people have, recognised by looking.

`read_sets` recognises a path's layout and reads it; `LAYOUTS` lists the known ones, and
`register_layout` adds one (`docs/adding-a-layout.md`). Each set's `layout` and `notes` say what was
found. A path that could have two layouts is an error or gets a note, and `options.layout` decides.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Protocol

from tpt.data.labelled_sets import LabelledSet, ReadOptions
from tpt.data.layouts import cifar_arrays, csv_table, webdataset_tars
from tpt.data.layouts.class_folders import read_groups
from tpt.data.layouts.folder_tree import FOLDER_LAYOUTS, read_tree
from tpt.errors import SourceError, TptError, describe_error, suggest
from tpt.streaming.sources import suggest_beside
from tpt.text import as_text

GROUP = "tpt.layouts"
"""The entry-point group in which other packages register the modules of their layouts."""


class Layout(Protocol):
    """What a layout's module has to define."""

    NAME: str  # as --layout takes it
    SUMMARY: str  # what lies where, in a line

    def matches(self, path: str) -> bool:
        """Whether an existing path has this layout; called for every path, so look at names."""

    def read(self, path: str, name: str, options: ReadOptions) -> tuple[LabelledSet, ...]:
        """The sets of a path, called `name` or "name/part"; opens no picture.

        Raises:
            SourceError: the path cannot be read; it says what was expected, what came, what to do.
        """


_summaries = {"auto": "found out by looking", **FOLDER_LAYOUTS}
_modules: dict[str, Layout] = {}

LAYOUTS: Mapping[str, str] = MappingProxyType(_summaries)
"""What `ReadOptions.layout` takes, and what it means."""


def register_layout(layout: Layout) -> None:
    """Add a layout for the rest of the process; `read_sets` asks layouts in order of registration.

    Raises:
        ValueError: another layout has its name, or the module lacks a function.
    """
    if not (callable(layout.matches) and callable(layout.read)):
        raise ValueError(f'The layout "{layout.NAME}" needs the functions matches and read.')
    if layout.NAME in _summaries and _modules.get(layout.NAME) is not layout:
        raise ValueError(f'There is a layout "{layout.NAME}" already. Give this one another name.')
    _modules[layout.NAME] = layout
    _summaries[layout.NAME] = layout.SUMMARY


_OURS: tuple[Layout, ...] = (cifar_arrays, csv_table, webdataset_tars)
for _layout in _OURS:
    register_layout(_layout)


@cache
def _register_plugins() -> None:
    """Add the layouts of installed packages.

    Warns:
        UserWarning: one of them does not work; the others do.
    """
    for entry in entry_points(group=GROUP):
        try:
            register_layout(entry.load())
        except (Exception, SystemExit) as error:  # another package's code may raise anything
            warnings.warn(
                f'The layout "{entry.name}" ("{entry.value}") of another package cannot be used '
                f"({describe_error(error)}). Repair or uninstall that package.",
                stacklevel=3,
            )


_BY_LOOKING = ReadOptions()


def read_sets(
    path: str, options: ReadOptions = _BY_LOOKING, name: str | None = None
) -> tuple[LabelledSet, ...]:
    """Read what is labelled at a path; no picture is opened.

    Args:
        path: a folder, or a file of one of the `LAYOUTS`.
        options: the layout, the classes, and what else the user says.
        name: the set's name; default: the path's last part, without a file's extension. A tree of
            domains gives "NAME/DOMAIN", one of corruptions "NAME/CORRUPTION/SEVERITY".

    Returns:
        One set, or one a domain or a corruption and severity; they share one list of classes.

    Raises:
        SourceError: nothing there, no layout or a mixture of them, an empty class folder, a label
            that fits no class, a single class.
    """
    _register_plugins()
    if options.layout not in LAYOUTS:
        raise SourceError(
            f'There is no layout "{options.layout}".{suggest(options.layout, LAYOUTS)} Expected '
            f"one of {', '.join(LAYOUTS)}."
        )
    if not os.path.exists(path):
        raise SourceError(
            f'There is no "{path}": expected a folder of class folders, a CSV file, a folder of '
            f".npy files or of tars.{suggest_beside(path)}"
        )
    sets = _read(path, as_text(name or _name_path(path)), options)
    classes = sets[0].classes
    if len(classes) < 2:
        raise SourceError(
            f'"{path}" holds one class only ({classes[0]}), and there is nothing to tell it from. '
            "Name the folder above the class folders, or list all classes (--classes)."
        )
    return sets


def _read(path: str, name: str, options: ReadOptions) -> tuple[LabelledSet, ...]:
    """The sets of an existing path, by the layout that is asked for or that fits."""
    for layout in _modules.values():
        if options.layout == layout.NAME or (options.layout == "auto" and layout.matches(path)):
            return _read_by(layout, path, name, options)
    if not os.path.isdir(path):
        raise SourceError(
            f'"{path}" is a file'
            + (" of no known layout" if options.layout == "auto" else "")
            + ": expected a folder of class folders, a CSV file with columns path and label, a "
            "folder of .npy files or of tars. Name one of these."
        )
    groups, layout_text = read_tree(path, name, options)
    return read_groups(path, groups, options, layout_text)


def _read_by(layout: Layout, path: str, name: str, options: ReadOptions) -> tuple[LabelledSet, ...]:
    """The sets of a path by a layout, which may be another package's."""
    try:
        return layout.read(path, name, options)
    except Exception as error:
        if layout in _OURS or isinstance(error, TptError):
            raise
        raise SourceError(
            f'The layout "{layout.NAME}" of another package cannot read "{path}" '
            f"({describe_error(error)}). Check the path, or name another --layout."
        ) from error


def _name_path(path: str) -> str:
    base = os.path.basename(os.path.normpath(path))
    if base in ("", os.curdir, os.pardir):
        base = os.path.basename(os.path.realpath(path)) or "set"
    return as_text(base if os.path.isdir(path) else os.path.splitext(base)[0])
