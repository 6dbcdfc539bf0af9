"""Does a long run stay sound? Many small images, a fifth broken, with faults at every stage.

    python benchmarks/endurance.py --pictures 20000
    python benchmarks/endurance.py --pictures 100000 --sources parquet

The same run goes through a folder, a list of paths, the rows of a Parquet file (a broken one may be
NULL) and a generator that reuses one buffer. Every record is compared with what its image gets
alone; memory, threads and open files are counted. The model is a tiny random one: the run tests the
pipeline, not the predictions.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor

import tpt
from tpt.methods.base import Adapted
from tpt.streaming import batches, loading
from tpt.streaming.folders import Search
from tpt.streaming.items import Reading
from tpt.streaming.readers.containers import open_each
from tpt.streaming.records import Record
from tpt.streaming.sources import find_sources

KINDS = 40  # different sound pictures
EVERY = 53  # every so many sound pictures have a fault injected
LIMIT = 2.0  # seconds of decoding
FORMS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
STAGES = ("decode", "views", "method", "describe", "memory")


class Endured(tpt.ZeroShot):
    """Zero-shot that raises an injected fault."""

    title = "zero-shot with faults"

    def _adapt(self, features: Tensor) -> Adapted:
        raise_if("method")
        return super()._adapt(features)


waiting: list[tuple[str, Exception]] = []
"""The faults of the picture at work, at most one."""


def raise_if(stage: str) -> None:
    """Raise the fault injected at a stage, if any."""
    for name, error in waiting:
        if name == stage:
            raise error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hangs", type=int, default=3, help="decoders that hang, per run")
    parser.add_argument("--sources", default="folder,list,parquet,arrays")
    args = parser.parse_args()
    wanted = args.sources.split(",")
    torch.set_num_threads(1)
    clip = make_model()
    method = Endured(tpt.PromptEngine(clip, ["cat", "dog", "cup", "person"]))
    sound = [make_pixels(number) for number in range(KINDS)]
    before = count_threads(), count_files()
    with tempfile.TemporaryDirectory() as folder:
        plan = write_files(Path(folder), args.pictures, sound)
        numbers = {str(number): value for number, value in enumerate(plan.values())}
        if "folder" in wanted:
            listed = list(find_sources([folder], Search()))
            assert len(listed) == args.pictures, "the folder lacks pictures"
            run("folder", listed, plan, method, args)
        if "list" in wanted:
            run("list", (path for path in sorted(plan)), plan, method, args)
        if "parquet" in wanted:
            table = write_parquet(Path(folder) / "pictures.parquet", plan)
            run("parquet", open_each([str(table)], Reading()), plan, method, args)
        if "arrays" in wanted:
            run("arrays", reuse_one_buffer(numbers, sound), numbers, method, args)
    time.sleep(0.1)
    after = count_threads(), count_files()
    print(f"threads and files before {before}, after {after}")
    assert after == before, "something was left open"


def make_model() -> tpt.Clip:
    """One layer, 32 px, random: about a millisecond a picture."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    model = open_clip.model.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text)
    return tpt.Clip(model, open_clip.get_tokenizer("ViT-B-16"))


# --- pictures ---


def make_pixels(number: int) -> np.ndarray:
    return np.random.RandomState(number).randint(0, 256, (24, 24, 3), dtype=np.uint8)


def write_files(folder: Path, count: int, sound: list[np.ndarray]) -> dict[str, int]:
    """The paths of `count` images, a fifth broken; each with its kind, -1 for broken."""
    chance = random.Random(0)
    encoded = [(form, encode(pixels, form)) for pixels in sound[:20] for form in FORMS]
    plan: dict[str, int] = {}
    for number in range(count):
        kind = number % KINDS
        form, data = "PNG", encode(sound[kind], "PNG")
        if number % 5 == 4:
            form, data = chance.choice(encoded)
            data, kind = BREAKS[number // 5 % len(BREAKS)](data, chance), -1
        path = folder / f"{number:06}.{form.lower()}"
        plan[str(path)] = kind
        if number % 5 == 4 and number % 1000 == 499:
            os.symlink(path, path)  # a link to itself
        elif number % 1000 == 999:
            os.mkfifo(path)  # opening it would wait for ever
        else:
            path.write_bytes(data)
    return plan


def encode(pixels: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **({"lossless": True} if form == "WEBP" else {}))
    return file.getvalue()


HUGE_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\x7f\xff\xff\xff" * 2 + b"\0" * 9

BREAKS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda data, chance: data[: chance.randrange(1, 24)],
    lambda data, chance: b"",
    lambda data, chance: b"<html><body>404</body></html>",
    lambda data, chance: bytes(chance.randrange(256) for _ in range(60)),
    lambda data, chance: b"PK\3\4" + data,
    lambda data, chance: (
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\x7f\xff\xff\xff" * 2 + b"\0" * 9
    ),
    lambda data, chance: b"\xff\xd8\xff\xe0" + data[:30],
    lambda data, chance: data[len(data) // 2 :],
)
"""Ways to break the bytes of a picture so that nothing of it can be shown."""


def write_parquet(file: Path, plan: dict[str, int]) -> Path:
    """The same images as rows; NULL for what is not a file."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    paths = list(map(Path, plan))
    with ParquetWriter(file, pa.schema({"image": pa.binary()})) as writer:
        for first in range(0, len(paths), 1000):
            part = [
                path.read_bytes() if path.is_file() else None
                for path in paths[first : first + 1000]
            ]
            writer.write_table(pa.table({"image": pa.array(part, pa.binary())}))
    return file


def reuse_one_buffer(plan: dict[str, int], sound: list[np.ndarray]) -> Iterator[Any]:
    """The same array with new content each time, and objects that are not images in between."""
    buffer = np.empty_like(sound[0])
    strange: tuple[Any, ...] = (
        *(None, 7, b"", {"image": 1}, "no-such-file.png", np.zeros((0, 3)), np.zeros((2, 2, 9))),
        *(np.full((4, 4), np.nan), np.array([object()]), torch.empty(3, 4, 4, device="meta")),
    )
    for number, kind in enumerate(plan.values()):
        if kind < 0:
            yield strange[number // 5 % len(strange)]
        else:
            buffer[:] = sound[kind]
            yield buffer


# --- a run ---


def run(
    name: str, items: Iterable[Any], plan: dict[str, int], method: Endured, args: argparse.Namespace
) -> None:
    """One pass over all images: every record must be right and memory must stay flat."""
    kinds = list(plan.values())
    alone = [
        next(iter(tpt.stream([make_pixels(kind)], method))).predictions for kind in range(KINDS)
    ]
    sound = [place for place, kind in enumerate(kinds) if kind >= 0]
    faults = {p: STAGES[n % len(STAGES)] for n, p in enumerate(sound[EVERY::EVERY])}
    hangs = set(sound[EVERY // 2 :: max(1, len(sound) // args.hangs)][: args.hangs])
    release = threading.Event()
    told: Counter[str] = Counter()
    wrong: list[str] = []
    memory: list[float] = []
    started = time.monotonic()
    with injecting(faults, hangs, release):
        records = tpt.stream(items, method, num_workers=args.workers, time_limit=LIMIT)
        for place, record in enumerate(records):
            expected = "hang" if place in hangs else faults.get(place, "")
            expected = "broken" if kinds[place] < 0 else expected
            told[expected or "sound"] += 1
            if not is_right(record, place, expected, alone, kinds[place]):
                wrong.append(f"{place} ({expected}): {record}")
            if place % max(1, len(kinds) // 50) == 0:
                memory.append(read_memory())
    release.set()
    seconds = time.monotonic() - started
    early, late = max(memory[: len(memory) // 5 + 1]), max(memory)
    print(
        f"{name}: {sum(told.values()):,} records of {len(kinds):,} in {seconds:.1f} s "
        f"({dict(sorted(told.items()))}); memory {early:.0f} MB in the first fifth, at most "
        f"{late:.0f} MB"
    )
    assert sum(told.values()) == len(kinds), "records and inputs differ in number"
    assert not wrong, f"{len(wrong)} records are wrong, first {wrong[0]}"
    assert late < early + 60, "memory grows"


def is_right(record: Record, place: int, expected: str, alone: list[Any], kind: int) -> bool:
    if record.index != place:
        return False
    if not expected:
        return record.error is None and record.predictions == alone[kind]
    types = {"hang": "TimeoutError", "broken": None, "memory": "OutOfMemoryError"}
    known = types.get(expected, "ValueError")
    return record.error is not None and known in (None, record.error.type)


class injecting:  # noqa: N801  # a context manager
    """Make stages fail for images at chosen positions of the stream."""

    def __init__(self, faults: dict[int, str], hangs: set[int], release: threading.Event) -> None:
        self.faults, self.hangs, self.release = faults, hangs, release

    def __enter__(self) -> None:
        self.saved = loading.load_item, batches.begin, batches.encode, batches.describe
        load, begin, encode_views, describe = self.saved

        def load_or_fail(index: int, item: Any, decode: Any = None) -> Any:
            if index in self.hangs:
                self.release.wait()
            if self.faults.get(index) == "decode":
                return loading.load_as(index, None, fail)
            return load(index, item, decode)

        def fail() -> None:
            raise ValueError("injected")

        def at(stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
            def run_or_fail(items: Any, *rest: Any, **more: Any) -> Any:
                first = items if isinstance(items, loading.Loaded) else items[0]
                name = self.faults.get(first.index, "")
                error = MemoryError() if name == "memory" else ValueError("injected")
                waiting[:] = [("views" if name == "memory" else name, error)]
                try:
                    if stage != "views":
                        raise_if(stage)
                    return work(items, *rest, **more)
                finally:
                    waiting.clear()

            return run_or_fail

        views = tpt.Views.plain

        def plain(self: tpt.Views, images: Any) -> Tensor:
            raise_if("views")
            return views(self, images)

        self.views = views
        tpt.Views.plain = plain  # type: ignore[method-assign]
        loading.load_item = load_or_fail
        batches.begin = at("method", begin)
        batches.encode = at("views", encode_views)
        batches.describe = at("describe", describe)

    def __exit__(self, *error: object) -> None:
        loading.load_item, batches.begin, batches.encode, batches.describe = self.saved
        tpt.Views.plain = self.views  # type: ignore[method-assign]


# --- what is left ---


def read_memory() -> float:
    """Resident megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def count_threads() -> int:
    return sum(thread.name.startswith("tpt-") for thread in threading.enumerate())


def count_files() -> int:
    return len(os.listdir("/proc/self/fd"))


if __name__ == "__main__":
    main()
