"""What is written for a GPU, on a pretended one (`benchmarks/_pretended_gpu.py`).

The checks are the files `check_*.py` beside this one. Each runs in a process of its own, because
torch counts its devices once, when something is differentiated for the first time.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

CHECKS = sorted(Path(__file__).parent.glob("check_*.py"))


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no device that is written in Python",
)
@pytest.mark.parametrize("check", CHECKS, ids=[path.stem for path in CHECKS])
def test_on_a_pretended_gpu(check: Path) -> None:
    options = ["-q", "-o", "python_files=check_*.py", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(check)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
