"""Decode the items of a stream into pictures, a few items ahead.

Decoding runs in threads (Pillow releases the interpreter lock), or in processes in case a decoder
crashes. An item that cannot be decoded is data, not an exception.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from tpt.images.decode import Picture, load_picture
from tpt.model.transfers import pin
from tpt.streaming._ahead import Ahead, map_ahead
from tpt.streaming._processes import Decoders
from tpt.streaming._stages import describe_failure
from tpt.streaming.items import Item
from tpt.streaming.records import Failure

TIME_LIMIT = 60.0
"""Seconds that the decoding of one image may take."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """One item of the stream after decoding: the picture, or why there is none."""

    index: int
    path: str | None
    picture: Picture | None
    error: Failure | None = None
    item: Item | None = None  # the `Item` it was decoded from, if it was one


Decode: TypeAlias = "Callable[[Any], Picture | Failure]"

Decoding: TypeAlias = "Ahead[tuple[int, Any], Loaded] | Generator[Loaded, None, None]"
"""Items as they are decoded; `close` ends the decoding."""


def decode_ahead(
    images: Iterable[Any],
    num_workers: int,
    ahead: int,
    load: Callable[[int, Any], Loaded] | None = None,
    time_limit: float | None = TIME_LIMIT,
    decoders: Decoders | None = None,
    device: torch.device | None = None,
) -> Decoding:
    """Decode items in threads, in order, at most `ahead + 2 * num_workers` items ahead.

    `load` takes an item's index and the item, which nobody may change meanwhile. The default is
    `load_item`, with the `decoders`; it gets copies of items that the caller could change. The
    pixels are pinned for `device`.
    """
    owns = load is None
    if decoders is not None:
        load, time_limit = partial(load_item, decode=decoders), decoders.longest_wait

    def own(numbered: tuple[int, Any]) -> tuple[int, Any]:
        return numbered[0], own_item(numbered[1], decoders) if owns else numbered[1]

    def fail(numbered: tuple[int, Any], error: Exception) -> Loaded:
        index, item = numbered
        path = getattr(item, "key", None) or _find_path(item)
        return Loaded(index, path, None, describe_failure(error, "Decoding"))

    return map_ahead(
        lambda numbered: pin_pixels((load or load_item)(*numbered), device),
        enumerate(images),
        num_workers,
        ahead,
        take=own,
        fail=fail,
        weigh=weigh_pixels,
        time_limit=time_limit,
    )


def pin_pixels(loaded: Loaded, device: torch.device | None) -> Loaded:
    """A decoded item with its pixels in pinned memory, if the device has streams."""
    picture = loaded.picture
    if picture is None or device is None:
        return loaded
    return replace(loaded, picture=replace(picture, pixels=pin(picture.pixels, device)))


def own_item(item: Any, decode: Decode | None = None) -> Any:
    """An item that nobody else can change: itself, a copy, or the decoded picture."""
    if isinstance(item, (str, bytes, os.PathLike, Item)) or item is None:
        return item
    if isinstance(item, np.ndarray):
        return item.copy()
    if isinstance(item, Tensor):
        return item.detach().clone()
    if isinstance(item, (bytearray, memoryview)):
        return bytes(item)
    # PIL loads images in place, and one object may give many frames.
    return (decode or load_picture)(item)


def weigh_pixels(value: Any) -> int:
    """The bytes that a decoded picture, or an (index, item) pair, holds."""
    held = value[1] if isinstance(value, tuple) else value.picture
    held = held.pixels if isinstance(held, Picture) else held
    return int(getattr(held, "nbytes", 0))


def load_item(index: int, item: Any, decode: Decode | None = None) -> Loaded:
    """Decode one item; a failure is data, not an exception."""
    if isinstance(item, Item):
        return replace(load_as(index, item.key, item.read, decode), item=item)
    return load_as(index, _find_path(item), lambda: item, decode)


def _find_path(item: Any) -> str | None:
    return os.fsdecode(item) if isinstance(item, (str, os.PathLike)) else None


def load_as(
    index: int, path: str | None, find: Callable[[], Any], decode: Decode | None = None
) -> Loaded:
    """Decode what `find` returns under the name `path`; an exception becomes its failure."""
    try:
        found = find()
        if not isinstance(found, (Picture, Failure)):
            found = (decode or load_picture)(found)
        if isinstance(found, Failure):
            return Loaded(index, path, None, found)
        return Loaded(index, path, found)
    except Exception as error:
        return Loaded(index, path, None, describe_failure(error, "Decoding"))
