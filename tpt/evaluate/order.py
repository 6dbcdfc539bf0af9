"""The order of a set's pictures, which the results of methods with state depend on.

Published streams are shuffled. Real ones are not: folders are sorted by class, and a camera
sees one thing for a while.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tpt.data.labelled_sets import LabelledSet, Sample
from tpt.errors import MethodError


def order_set(whole: LabelledSet, order: str, seed: int = 0) -> LabelledSet:
    """The set with its pictures in this order; its name then ends with the order.

    Args:
        order: "shuffled"; "sorted" by class; or "blocks:N": each class is shuffled and cut into
            runs of N pictures, and the runs are shuffled. Depends only on the seed and the
            pictures' keys.

    Raises:
        MethodError: another word, or blocks of less than one picture.
    """
    size = _block_size(order)
    mixed = sorted(whole.samples, key=lambda sample: draw_ticket(seed, "order", sample.key))
    if size is not None:
        mixed = _cut_blocks(mixed, size, seed)
    elif order == "sorted":
        mixed = sorted(mixed, key=lambda sample: sample.label)
    note = f"its pictures come {_WORDS.get(order, f'in {order}')}, by --order."
    name = f"{whole.name} ({order})"
    return replace(whole, name=name, samples=tuple(mixed), notes=(*whole.notes, note))


_WORDS = {"shuffled": "shuffled", "sorted": "sorted by class"}


def _block_size(order: str) -> int | None:
    kind, _, number = order.partition(":")
    if kind == "blocks" and number.isdecimal() and int(number) >= 1:
        return int(number)
    if order not in _WORDS:
        raise MethodError(
            f'Unknown order "{order}": expected shuffled, sorted or blocks:N with N pictures of '
            "one class in a row, for example blocks:20."
        )
    return None


def _cut_blocks(mixed: list[Sample], size: int, seed: int) -> list[Sample]:
    """Runs of `size` pictures of one class (the last of a class shorter), in random order."""
    by_class: dict[int, list[Sample]] = {}
    for sample in mixed:
        by_class.setdefault(sample.label, []).append(sample)
    blocks = [own[i : i + size] for own in by_class.values() for i in range(0, len(own), size)]
    blocks.sort(key=lambda block: draw_ticket(seed, "order", "block", block[0].key))
    return [sample for block in blocks for sample in block]


def draw_ticket(seed: int, *words: str) -> bytes:
    """What a draw sorts by: the same for these words on every machine, whatever else is drawn."""
    text = "\0".join((str(seed), *words))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
