"""Break unusual image files in many ways and decode them: no crash, no hang, bounded memory.

    python benchmarks/fuzz_decoding.py --inputs 20000

Bytes are flipped, cut out, swapped and doubled, and the header of one file is put before the rest
of another. Each batch is decoded in a process of its own, which may grow by at most `--memory` and
take at most `--seconds` for one input. A decoded image must be (H, W, 3) bytes; any other input
must give an `ImageError` of one line.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _odd_pictures import make_pictures

from tpt.errors import ImageError
from tpt.images.decode import MAX_PIXELS, load_picture

BATCH = 500
BYTES_A_PIXEL = 20  # of the largest picture: a moving WebP has two canvases besides its pixels
HEADER = 400  # bytes, in which half of the flips fall


def spoil(data: bytes, others: list[bytes], random: np.random.Generator) -> bytes:
    """One file, broken in one to three ways."""
    spoilt = bytearray(data)
    for _ in range(random.integers(1, 4)):
        way, size = random.integers(7), len(spoilt)
        place = int(random.integers(min(size, HEADER) if random.random() < 0.5 else size))
        length = int(random.integers(1, 40))
        if way <= 1:
            for at in random.integers(place, min(place + length, size), 3):
                spoilt[at] = random.integers(256)
        elif way == 2:
            spoilt[place] ^= 1 << int(random.integers(8))
        elif way == 3:
            del spoilt[max(place, 16) :]
        elif way == 4:
            del spoilt[place : place + length]
        elif way == 5:
            other = int(random.integers(size))
            part, rest = spoilt[place : place + length], spoilt[other : other + length]
            spoilt[other : other + length], spoilt[place : place + length] = part, rest
        else:
            other_file = others[int(random.integers(len(others)))]
            spoilt[place:] = other_file[place:]
        if not spoilt:
            return b"\0"
    return bytes(spoilt)


def judge(data: bytes) -> str:
    """ "decoded", "warned" or "refused"; anything else that happens is a fault.

    Raises:
        AssertionError: a picture or a message that is not as promised.
    """
    try:
        picture = load_picture(data)
    except ImageError as error:
        message = str(error)
        assert "\n" not in message, message
        assert message.endswith("."), message
        assert message.isprintable(), message
        return "refused"
    assert picture.pixels.dtype == np.uint8, picture.pixels.dtype
    assert picture.pixels.ndim == 3, picture.pixels.shape
    assert picture.pixels.shape[2] == 3, picture.pixels.shape
    return "decoded" if picture.warning is None else "warned"


def make_input(number: int, seed: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """The name of the file that an input is made of, and the broken bytes."""
    names = sorted(files)
    random = np.random.default_rng([seed, number])
    name = names[number % len(names)]
    return name, spoil(files[name], list(files.values()), random)


def work(first: int, last: int, seed: int, seconds: int, answers: Any, current: str) -> None:
    """Decode a range of inputs in this process; each is kept in a file while it is at work."""
    warnings.simplefilter("ignore")
    files = make_pictures()
    load_picture(next(iter(files.values())))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told: collections.Counter[str] = collections.Counter()
    faults, slowest = [], (0.0, "")
    for number in range(first, last):
        name, data = make_input(number, seed, files)
        Path(current).write_bytes(data)
        signal.alarm(seconds)  # its default action ends the process, even inside a decoder
        started = time.perf_counter()
        try:
            told[judge(data)] += 1
        except Exception as error:
            faults.append(f"input {number} of {name}: {type(error).__name__}: {error}")
        slowest = max(slowest, (time.perf_counter() - started, f"input {number} of {name}"))
        signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    answers.put((dict(told), faults, slowest, grown // 1024))


def main() -> None:
    """Run the batches and print what became of the inputs."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--inputs", type=int, default=20_000, help="how many broken files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=20, help="seconds for one input, at most")
    bound = BYTES_A_PIXEL * MAX_PIXELS // 2**20
    parser.add_argument("--memory", type=int, default=bound, help="MiB that a batch may grow by")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    total: collections.Counter[str] = collections.Counter()
    faults, slowest, most = [], (0.0, ""), 0
    with tempfile.TemporaryDirectory() as folder:
        current = str(Path(folder) / "input")
        for first in range(0, options.inputs, BATCH):
            last = min(first + BATCH, options.inputs)
            answers: Any = context.Queue()
            words = (first, last, options.seed, options.seconds, answers, current)
            process = context.Process(target=work, args=words)
            process.start()
            while process.is_alive() and answers.empty():
                process.join(0.2)
            if answers.empty() and process.exitcode:
                kept = Path(f"broken-input-{first}")
                kept.write_bytes(Path(current).read_bytes())
                faults.append(f"inputs {first} to {last}: exit {process.exitcode}, see {kept}")
                continue
            told, found, slow, grown = answers.get()
            process.join()
            total.update(told)
            faults += found
            slowest, most = max(slowest, slow), max(most, grown)
            if grown > options.memory:
                faults.append(f"inputs {first} to {last}: memory grew by {grown} MiB")
            print(f"{last} inputs, {len(faults)} faults", file=sys.stderr, flush=True)
    for kind in ("decoded", "warned", "refused"):
        print(f"{kind:8} {total[kind]:6d}")
    print(f"faults   {len(faults):6d}")
    print(f"slowest  {slowest[0]:.2f} s ({slowest[1]}); memory grew by at most {most} MiB")
    for fault in faults[:20]:
        print(fault)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
