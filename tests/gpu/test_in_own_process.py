"""What is written for a GPU, on a simulated one (`benchmarks/_simulated_gpu.py`).

The checks are the files `check_*.py` beside this one. Each runs in a process of its own, because
torch counts its devices once, when something is differentiated for the first time.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

HERE = Path(__file__).parent
COMMANDS = ("check_commands.py", "check_launches.py")  # every command, and counts of twelve layers

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no device that is written in Python",
)


def assert_passes(*checks: str) -> None:
    options = ["-q", "-o", "python_files=check_*.py", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *(str(HERE / name) for name in checks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_methods_streams_and_graphs() -> None:
    names = sorted(path.name for path in HERE.glob("check_*.py"))
    assert set(COMMANDS) < set(names)
    assert_passes(*(name for name in names if name not in COMMANDS))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_and_launches(name: str) -> None:
    assert_passes(name)
