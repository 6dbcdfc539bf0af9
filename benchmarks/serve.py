"""Load on `tpt serve`: throughput against `tpt predict`, overload, slow clients, long class lists.

    python benchmarks/serve.py examples/images --views 16
    python benchmarks/serve.py examples/images --parts overload --seconds 60

The service runs in a process of its own on loopback, with the embedded model. Every part prints
what it sent and which answers came; a ratio compares two numbers of the same run. An answer counts
as right only if its record is the one that `tpt predict` gives.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import httpx

CLASSES = "cat,cup,person,camera,dog,clock,rocket,bicycle,elephant"
PARTS = ("throughput", "overload", "slow", "names")
read = cache(Path.read_bytes)
Sent = tuple[int, float, bool]  # status, seconds, whether the record is the right one


@dataclass(frozen=True)
class Load:
    """The images to send, and the records expected for them."""

    paths: list[Path]
    options: list[str]
    expected: dict[str, Any] = field(default_factory=dict)

    def body(self, number: int) -> dict[str, Any]:
        path = self.paths[number % len(self.paths)]
        return {"files": {"images": (path.name, read(path))}}

    def is_right(self, record: dict[str, Any]) -> bool:
        return bool(self.expected[record["path"]] == record["predictions"])


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=48, help="images per throughput run")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=60, help="seconds of overload")
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    args = parser.parse_args()
    paths = sorted(args.folder.iterdir())
    options = ["--classes", CLASSES, "--views", str(args.views), "--device", "cpu"]
    load = Load(paths, options)
    predict(load)  # what is right, and warm files
    with serving(options, args.queue) as (address, process):
        for part in args.parts.split(","):
            if part == "throughput":
                measure_throughput(load, address, args.clients, args.pictures)
            elif part == "overload":
                asyncio.run(overload(load, address, process, args.seconds, args.queue))
            elif part == "slow":
                asyncio.run(disturb(load, address, "clients that send a byte a second", crawl))
            elif part == "names":
                asyncio.run(disturb(load, address, "requests of a thousand new names", name_many))
            else:
                parser.error(f"no part {part}")
    print(f"exit code after SIGTERM: {process.returncode}")


@contextmanager
def serving(options: Sequence[str], queue: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A service, ready; ended by SIGTERM."""
    command = [sys.executable, "-m", "cli", "serve", "--port", "0", "--queue", str(queue)]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    log = process.stderr
    assert log is not None
    found = re.search(r"http://[\d.:]+", log.readline())
    assert found is not None
    log.readline()  # it is ready
    reading = Thread(target=lambda: [None for _ in log], daemon=True)  # or the pipe would fill
    reading.start()
    try:
        yield found[0], process
    finally:
        process.terminate()
        process.wait(60)
        reading.join(5)
        log.close()


def predict(load: Load) -> float:
    """Pictures a second of `tpt predict`, start-up not counted; notes what it answers."""
    words = [str(path) for path in load.paths]
    command = [sys.executable, "-m", "cli", "predict", *words, *load.options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        record = json.loads(line)
        load.expected[Path(record["path"]).name] = record["predictions"]
    found = re.search(r"images in ([\d.]+) s", done.stderr)
    assert found is not None
    return len(words) / float(found[1])


# --- sending ---


async def send(client: httpx.AsyncClient, load: Load, number: int) -> Sent:
    started = time.perf_counter()
    answer = await client.post("/v1/predict", **load.body(number))
    seconds = time.perf_counter() - started
    right = answer.status_code != 200 or load.is_right(answer.json()["records"][0])
    return answer.status_code, seconds, right


def connect(address: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=address, timeout=120, limits=limits, trust_env=False)


async def send_all(load: Load, address: str, clients: int, count: int) -> list[Sent]:
    """`count` requests of so many clients, each of which waits for its answers."""
    numbers = iter(range(count))
    sent: list[Sent] = []

    async def run(client: httpx.AsyncClient) -> None:
        for number in numbers:
            sent.append(await send(client, load, number))

    async with connect(address) as client:
        await asyncio.gather(*(run(client) for _ in range(clients)))
    return sent


def at(sent: Sequence[Sent], share: float) -> float:
    """A percentile of the seconds of those answered with 200."""
    times = sorted(seconds for status, seconds, _ in sent if status == 200)
    return times[min(len(times) - 1, int(share * len(times)))] if times else float("nan")


def tell(sent: Sequence[Sent]) -> str:
    counts = ", ".join(
        f"{n} x {status}" for status, n in sorted(Counter(s for s, *_ in sent).items())
    )
    wrong = sum(not right for *_, right in sent)
    return (
        f"{counts}, {wrong} wrong; latency p50 {at(sent, 0.5):.3f} s, p95 {at(sent, 0.95):.3f} s, "
        f"p99 {at(sent, 0.99):.3f} s"
    )


# --- the parts ---


def measure_throughput(load: Load, address: str, clients: Sequence[int], pictures: int) -> None:
    before = predict(load)
    for count in clients:
        number = max(pictures, count)
        started = time.perf_counter()
        sent = asyncio.run(send_all(load, address, count, number))
        rate = number / (time.perf_counter() - started)
        after = predict(load)
        command, before = (before + after) / 2, after
        print(
            f"{count} clients: {rate:.2f} pictures/s; tpt predict before and after {command:.2f}; "
            f"ratio {rate / command:.2f}; {tell(sent)}"
        )


async def overload(
    load: Load, address: str, process: subprocess.Popen[str], seconds: float, queue: int
) -> None:
    """Ten times as many requests as can be answered, without waiting for earlier answers.

    A picture that is accepted may wait for as many as the queue holds. So its answer has to be
    among the next `queue`, and the slowest percent within the slowest stretch of so many answers.
    """
    await send_all(load, address, 8, 16)  # the first ones wait for what the rest find ready
    started = time.perf_counter()
    await send_all(load, address, 8, 32)
    service = (time.perf_counter() - started) / 32
    tasks: list[asyncio.Future[Sent]] = []
    done: list[float] = []  # when answers came
    waited: list[int] = []  # of each, the answers that came while it waited, its own included

    async def send_one(client: httpx.AsyncClient, number: int) -> Sent:
        ahead = len(done)
        sent = await send(client, load, number)
        if sent[0] == 200:
            done.append(time.perf_counter())
            waited.append(len(done) - ahead)
        return sent

    before, began = read_memory(process), time.perf_counter()
    until = began + seconds
    async with connect(address) as client:
        while time.perf_counter() < until:
            tasks.append(asyncio.ensure_future(send_one(client, len(tasks))))
            await asyncio.sleep(service / 10)
        middle, answered = read_memory(process), len(done)
        under = (done[-1] - done[0]) / (len(done) - 1) if len(done) > 1 else float("nan")
        sent = await asyncio.gather(*tasks)
    stretches = [end - start for start, end in zip(done, done[queue:], strict=False)]
    slowest = max(stretches, default=float("nan"))
    print(f"overload: {len(sent)} requests in {seconds:g} s at {service:.3f} s each: {tell(sent)}")
    print(
        f"overload: {answered} answered meanwhile, {under:.3f} s each; an accepted one was among "
        f"the next {max(waited, default=0)} answers (queue {queue}); queue x service time "
        f"{queue * under:.1f} s, slowest {queue} answers {slowest:.1f} s; p99 / the latter: ratio "
        f"{at(sent, 0.99) / slowest:.3f}; memory {before} MB before, {middle} MB at its end, "
        f"{read_memory(process)} MB after"
    )


def read_memory(process: subprocess.Popen[str]) -> int:
    """Resident MB of the service."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) // 1024


Disturb = Callable[[Load, str, asyncio.Event], Any]


async def disturb(load: Load, address: str, what: str, act: Disturb) -> None:
    """The latency of small requests alone, then beside something else."""
    alone = await send_all(load, address, 1, 8)
    end = asyncio.Event()
    others = asyncio.ensure_future(act(load, address, end))
    await asyncio.sleep(0.5)
    beside = await send_all(load, address, 1, 8)
    end.set()
    told = await others
    print(
        f"small requests alone: {tell(alone)}\nbeside {what} ({told}): {tell(beside)}; "
        f"ratio of the medians {at(beside, 0.5) / at(alone, 0.5):.2f}"
    )


async def crawl(load: Load, address: str, end: asyncio.Event) -> str:
    """Sixteen clients that send a byte a second."""
    host, port = address.removeprefix("http://").split(":")
    head = "POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    writers = []
    for _ in range(16):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        writers.append(writer)
    while not end.is_set():
        for writer in writers:
            writer.write(b"-")
        await asyncio.sleep(1)
    for writer in writers:
        writer.close()
    return "16 of them"


async def name_many(load: Load, address: str, end: asyncio.Event) -> str:
    """One request after the other with a thousand class names that are new each time."""
    count = 0
    async with connect(address) as client:
        while not end.is_set():
            names = [f"thing number {count} {n}" for n in range(1000)]
            data = {"classes": json.dumps(names), "method": "zero_shot"}
            answer = await client.post("/v1/predict", **load.body(0), data=data)
            assert answer.status_code == 200, answer.text
            count += 1
    return f"{count} answered"


if __name__ == "__main__":
    main()
