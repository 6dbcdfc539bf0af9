"""Hugging Face `datasets` objects as pictures for `tpt.stream`.

    for record in tpt.stream(tpt.rows(datasets.load_dataset("beans", split="test")), method): ...

The image column is read undecoded, so a picture gets the same views as its file (views are drawn
from the encoded bytes). Works with `Dataset`, `IterableDataset` (`streaming=True`) and any iterable
of dicts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tpt.errors import SourceError
from tpt.streaming.readers.parquet import read_cell
from tpt.text import some


def rows(dataset: Iterable[Any], column: str | None = None, name: str = "row") -> Iterator[Any]:
    """The pictures of a data set, one a row, lazily and in order.

    Args:
        dataset: a `datasets.Dataset` or `IterableDataset`, or an iterable of dicts.
        column: the column with the pictures; default: the only column of images.
        name: records are called `name#0`, `name#1`, ...

    Returns:
        Images for `tpt.stream`. A cell that is None becomes an error record.

    Raises:
        SourceError: there is no such column, or none or several could be meant.
    """
    features = getattr(dataset, "features", None)
    if column is None:
        column = _find_column(features)
    elif features is not None and column not in features:
        raise SourceError(f'The data set has no column "{column}": it has {some(features)}.')
    keyed = ((f"{name}#{n}", row) for n, row in enumerate(_undecoded(dataset, column, features)))
    return (
        read_cell(key, row.get(column), f'{key} has nothing in its column "{column}".')
        for key, row in keyed
    )


def _find_column(features: Any) -> str:
    found = [key for key, kind in (features or {}).items() if type(kind).__name__ == "Image"]
    if len(found) != 1:
        has = f"it has {some(features)}" if features else "it does not list its columns"
        raise SourceError(
            f"Which column of the data set holds the pictures is not known: {has}. Name it: "
            'tpt.rows(dataset, column="image").'
        )
    return found[0]


def _undecoded(dataset: Any, column: str, features: Any) -> Any:
    library: Any = sys.modules.get("datasets")  # the object can only come from it
    is_image = type((features or {}).get(column)).__name__ == "Image"
    if library is None or not is_image or not hasattr(dataset, "cast_column"):
        return dataset
    return dataset.cast_column(column, library.Image(decode=False))
