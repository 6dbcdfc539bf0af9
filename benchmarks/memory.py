"""Resident memory of `tpt predict` over a long folder, sampled while it runs (Linux).

    python benchmarks/memory.py FOLDER --classes cat,dog [any other option of tpt predict]

Prints the number of records and the resident megabytes every few seconds, then the growth from the
first tenth of the run to its end, which should be nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    args, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "records.jsonl"
        command = [sys.executable, "-m", "cli", "predict", *words]
        command += ["--output", str(output), "--quiet"]
        process = subprocess.Popen(command)
        samples: list[tuple[int, float]] = []
        while process.poll() is None:
            time.sleep(args.every)
            if process.poll() is None and output.exists():
                with output.open("rb") as file:
                    count = sum(1 for _ in file)
                if count:
                    samples.append((count, resident_mb(process.pid)))
                    print(f"{count:7} records  {samples[-1][1]:8.1f} MB", flush=True)
        total = samples[-1][0] if samples else 0
        warm = [mb for count, mb in samples if count >= total / 10]
        if len(warm) < 2:
            raise SystemExit(f"Too few samples (exit code {process.returncode}): a longer folder?")
        print(
            f"after the first tenth {warm[0]:.1f} MB, at the end {warm[-1]:.1f} MB, "
            f"between {min(warm):.1f} and {max(warm):.1f} MB; exit code {process.returncode}"
        )


if __name__ == "__main__":
    main()
