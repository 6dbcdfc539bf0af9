"""Hugging Face `datasets` objects as pictures for `tpt.stream`.

    for record in tpt.stream(tpt.rows(datasets.load_dataset("beans", split="test")), method): ...

The image column is read undecoded, so a picture's views are those of its file (they are drawn from
the encoded bytes). Works with `Dataset` and with `IterableDataset` (`streaming=True`), and with any
iterable of dicts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tpt.errors import SourceError
from tpt.streaming.readers.parquet import read_cell
from tpt.text import some


def rows(dataset: Iterable[Any], column: str | None = None, name: str = "row") -> Iterator[Any]:
    """Pictures of a data set, one a row, lazily and in order.

    Args:
        dataset: a `datasets.Dataset` or `IterableDataset`, or an iterable of dicts.
        column: the one of the pictures; default: the only column of images.
        name: records are called `name#0`, `name#1`, ...

    Returns:
        What `tpt.stream` takes. A cell that is None becomes an error record.

    Raises:
        SourceError: no such column, or which one is not known.
    """
    features = getattr(dataset, "features", None)
    if column is None:
        column = _find_column(features)
    elif features is not None and column not in features:
        raise SourceError(f'The data set has no column "{column}": it has {some(features)}.')
    null = f'has nothing in its column "{column}".'
    return (
        read_cell(f"{name}#{number}", row.get(column), f"{name}#{number} {null}")
        for number, row in enumerate(_undecoded(dataset, column, features))
    )


def _find_column(features: Any) -> str:
    found = [key for key, kind in (features or {}).items() if type(kind).__name__ == "Image"]
    if len(found) != 1:
        has = f"it has {some(features)}" if features else "its columns are not known beforehand"
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
