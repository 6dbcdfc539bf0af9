"""Running a program of benchmarks/ or tools/ as a person does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(program: str, *words: object, path: Path = ROOT) -> str:
    """What a program prints; it must end well. `path` stands before the project for imports."""
    done = start(program, *words, path=path)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def fail(program: str, *words: object) -> str:
    """The sentence with which a program refuses what it was given: one line, no traceback."""
    done = start(program, *words)
    assert done.returncode == 1, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def start(program: str, *words: object, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"{program}.py", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
