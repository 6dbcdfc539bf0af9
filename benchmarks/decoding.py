"""Decode small images in threads and in processes, in turns: images per second, and their ratio.

    python benchmarks/decoding.py --pictures 500 --size 32

The images are seeded noise, written as PNG files. The time to start the processes and the memory of
one of them are printed separately. `--size 2000` uses images of a camera's size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from tpt.streaming._processes import Decoders
from tpt.streaming.loading import decode_ahead


def write_pictures(folder: Path, count: int, size: int) -> list[str]:
    """The paths of `count` pictures of `size` x `size` pixels."""
    random = np.random.default_rng(0)
    paths = [str(folder / f"{number}.png") for number in range(count)]
    for path in paths:
        rough = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((size, size), Image.Resampling.BICUBIC).save(path)
    return paths


def decode_all(paths: list[str], workers: int, decoders: Decoders | None) -> float:
    """Seconds for all pictures, with processes that run already."""
    started = time.perf_counter()
    with closing(decode_ahead(paths, workers, 8, decoders=decoders)) as loaded:
        failed = sum(one.picture is None for one in loaded)
    assert not failed, failed
    return time.perf_counter() - started


def read_memory(pid: int) -> float:
    """MB that a process holds now, on Linux; elsewhere NaN."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def main() -> None:
    """Measure in turns, and print the medians."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--size", type=int, default=32, help="pixels on a side")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"threads": [], "processes": []}
    with tempfile.TemporaryDirectory() as folder, Decoders(60.0) as decoders:
        paths = write_pictures(Path(folder), options.pictures, options.size)
        start = decode_all(paths[: options.workers], options.workers, decoders)
        for _ in range(options.turns):
            for name, found in seconds.items():
                used = decoders if name == "processes" else None
                found.append(decode_all(paths, options.workers, used))
        held = max(read_memory(process.pid) for process in decoders._running)
    rates = {name: options.pictures / median(found) for name, found in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:10} {rate:8,.0f} pictures a second")
    print(f"ratio      {rates['processes'] / rates['threads']:8.2f}")
    print(f"start      {start:8.2f} s; a process holds {held:.0f} MB")


if __name__ == "__main__":
    main()
