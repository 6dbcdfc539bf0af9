"""`tpt predict --ray` on one machine: rows despite failures, speed, memory.

    python benchmarks/cluster.py PICTURES --pictures 2000 --views 4     # folders of small images
    python benchmarks/cluster.py PICTURES --parts speed --pictures 200

PICTURES is a folder, searched with its sub-folders. Half of the images are read from there, half
from tars of 50 that the program writes first.

The parts `rows`, `node` and `driver` start two Ray nodes and run the command: undisturbed, with a
pool that grows from one actor to two; with a node killed in the middle; with the command killed in
the middle and continued by --resume. Each time the rows are compared with those of `tpt predict`
alone.

`speed` compares the images per second of `--ray local` with two actors, counted from their first
images on, with those of `tpt predict` before and after it in the same run. It also prints how much
memory an actor shares and how much is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpt.streaming.record_parquet import read_parquet

Process = subprocess.Popen[bytes]

CLASSES = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
STORE = 200 * 2**20  # bytes of a node's object store
A_TAR = 50  # pictures
WARM = 32  # pictures: by then both actors have given some


@dataclass(frozen=True)
class Run:
    """What is predicted, and where the programs write."""

    words: list[str]
    folder: Path
    count: int

    def start(self, output: Path, *more: str) -> Process:
        command = [sys.executable, "-m", "cli", "predict", *self.words, "--output", str(output)]
        log = (self.folder / f"{output.name}.log").open("ab")
        return subprocess.Popen([*command, *more], stdout=log, stderr=log)

    def finish(self, process: Process, output: Path) -> None:
        if process.wait() not in (0, 3):  # 3: some pictures failed
            text = (self.folder / f"{output.name}.log").read_text(errors="replace")
            raise SystemExit(f"{output.name} ended with {process.returncode}:\n{text[-2000:]}")


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--parts", default="rows,node,driver,speed")
    args = parser.parse_args()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (so is its name); as the run beside it
    paths = sorted(path for path in args.folder.rglob("*") if path.is_file())
    paths = paths[:: max(1, len(paths) // args.pictures)][: args.pictures]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--classes", CLASSES, "--model", args.model, "--views", str(args.views)]
        words = [*lay_out(paths, Path(folder)), *options, "--device", "cpu"]
        run = Run(words, Path(folder), len(paths))
        parts = args.parts.split(",")
        compare_rows(run, parts)
        if "speed" in parts:
            compare_speed(run)


def lay_out(paths: list[Path], folder: Path) -> list[str]:
    """The sources: a list of the first half of the pictures, tars of the others."""
    half = len(paths) // 2
    (folder / "list.txt").write_text("\n".join(map(str, paths[:half])) + "\n")
    sources = [f"@{folder / 'list.txt'}"]
    for first in range(half, len(paths), A_TAR):
        name = folder / f"shard-{first:06}.tar"
        with tarfile.open(name, "w") as archive:
            for number, path in enumerate(paths[first : first + A_TAR], first):
                archive.add(path, f"{number:06}{path.suffix}")
        sources.append(str(name))
    return sources


# --- rows ---


def compare_rows(run: Run, parts: list[str]) -> None:
    disturbed = {"rows": None, "node": kill_node, "driver": kill_driver}
    if not disturbed.keys() & set(parts):
        return
    single = run.folder / "single.jsonl"
    run.finish(run.start(single), single)
    expected = sorted(map(timeless, map(json.loads, single.read_text().splitlines())))
    print(f"{len(expected)} rows of {run.count} pictures by tpt predict alone")
    for what, disturb in disturbed.items():
        if what not in parts:
            continue
        with two_nodes() as cluster:
            started, output = time.perf_counter(), run.folder / what
            address = ["--ray", cluster.address, "--actors", "2" if disturb else "1:2"]
            process = run.start(output, *address)
            wait_for_some(run, process, output)
            if disturb:
                process, told = disturb(run, cluster, process, output, address)
            else:
                told = f", {len(list(list_actors()))} actors in the middle"
            run.finish(process, output)
            seconds = time.perf_counter() - started
        rows = [row for part in sorted(output.glob("*.parquet")) for row in read_parquet(str(part))]
        same = "the same" if sorted(map(timeless, rows)) == expected else "NOT THE SAME"
        print(f"{what}: {len(rows)} rows, {same}, {seconds:.0f} s{told}")


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Two Ray nodes of one CPU each on this machine."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def kill_node(
    run: Run, cluster: Any, process: Process, output: Path, address: list[str]
) -> tuple[Process, str]:
    done = count_rows(output)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    return process, f", a node killed after {done}"


def kill_driver(
    run: Run, cluster: Any, process: Process, output: Path, address: list[str]
) -> tuple[Process, str]:
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = count_rows(output)
    again = run.start(output, *address, "--resume")
    return again, f", the command killed after {done}, which --resume passed over"


def wait_for_some(run: Run, process: Process, output: Path) -> None:
    """Wait until a third of the rows are there; the run must not have ended before."""
    while count_rows(output) < run.count // 3:
        if process.poll() is not None:
            run.finish(process, output)
            raise SystemExit(f"{output.name} ended before a third of the rows were there.")
        time.sleep(0.05)


def count_rows(output: Path) -> int:
    """Rows written so far, of a run that has no whole part yet."""
    lines = output / "open.jsonl" if output.is_dir() else output
    return lines.read_bytes().count(b"\n") if lines.exists() else 0


def timeless(record: dict[str, Any]) -> str:
    record.get("adapt", {}).pop("ms", None)
    return json.dumps(record, sort_keys=True)


# --- speed ---


def compare_speed(run: Run) -> None:
    rates = []
    for number, more in enumerate(([], ["--ray", "local", "--actors", "2"], [])):
        output = run.folder / f"speed{number}{'' if more else '.jsonl'}"
        process = run.start(output, *more)
        seen = [(time.perf_counter(), 0)]
        memory = ""
        while process.poll() is None:
            count = count_rows(output)
            if count > seen[-1][1]:
                seen.append((time.perf_counter(), count))
            if more and not memory and count >= run.count // 2:
                memory = tell_memory()
            time.sleep(0.05)
        run.finish(process, output)
        # From where both actors have given their first pictures on, so that starting counts not.
        if len(seen) == 1:
            seen.append((time.perf_counter(), run.count))
        began = next((each for each in seen[:-1] if each[1] >= WARM), seen[0])
        rates.append((seen[-1][1] - began[1]) / (seen[-1][0] - began[0]))
        print(f"{'tpt predict ' + ' '.join(more[:2])}: {rates[-1]:.2f} pictures/s{memory}")
    print(f"two actors / alone: ratio {2 * rates[1] / (rates[0] + rates[2]):.2f}")


def list_actors() -> Iterator[Path]:
    """The folders in /proc of the processes that predict."""
    for folder in Path("/proc").iterdir():
        try:
            if b"Predictor" in (folder / "cmdline").read_bytes():
                yield folder
        except OSError:  # no process, or one that has ended
            continue


def tell_memory() -> str:
    """The shared and the private memory of every actor, in MB."""
    told = []
    for folder in list_actors():
        try:
            lines = (folder / "smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it has ended
            continue
        size = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines}
        own = size["Private_Clean"] + size["Private_Dirty"]
        told.append(f"{size['Rss'] - own} MB shared, {own} MB own")
    return "; actors: " + ", ".join(told) if told else ""


if __name__ == "__main__":
    main()
