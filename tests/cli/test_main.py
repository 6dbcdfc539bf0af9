"""`tpt` answers at once, helps with misspelt commands, and tells errors in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

import click
import pytest
from click.testing import CliRunner, Result

import tpt
from cli.failures import plain_errors
from cli.main import COMMANDS, main
from tpt import errors

HEAVY = ("torch", "open_clip", "kornia", "numpy", "PIL")


@pytest.mark.parametrize(
    "words",
    [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in COMMANDS)],
    ids=" ".join,
)
def test_help_and_version_answer_without_importing_torch(words: list[str]) -> None:
    program = (
        "import sys; from cli.main import main; "
        f"main({words}, standalone_mode=False); "
        f"print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert done.stderr == "[]\n"


def test_importing_the_package_does_not_import_torch() -> None:
    program = f"import tpt, sys; sys.exit(bool(set({HEAVY}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_package_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "cli", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"tpt, version {tpt.__version__}\n"


def test_the_installed_command_is_this_one() -> None:
    (script,) = entry_points(group="console_scripts", name="tpt")
    assert script.load() is main


def test_help_names_every_command_and_the_exit_codes(run_tpt: Callable[..., Result]) -> None:
    result = run_tpt("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    assert "3 finished but some images" in " ".join(result.stdout.split())


def test_version(run_tpt: Callable[..., Result]) -> None:
    assert run_tpt("--version").stdout.split()[-1] == tpt.__version__


@pytest.mark.parametrize(
    ("word", "hint"),
    [("predit", 'Did you mean "predict"?'), ("Model", 'Did you mean "models"?'), ("xyz", "lists")],
)
def test_an_unknown_command_is_wrong_usage_with_a_suggestion(
    run_tpt: Callable[..., Result], word: str, hint: str
) -> None:
    result = run_tpt(word)
    assert result.exit_code == 2
    assert f'No such command "{word}".' in result.stderr
    assert hint in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *[(errors.MethodError, 2), (errors.SourceError, 2), (errors.ModelError, 1)],
        *[(errors.PromptError, 1), (errors.ImageError, 1), (errors.OutputError, 1)],
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(error: type[Exception], code: int) -> None:
    result = run_failing(error("This went wrong."))
    assert result.exit_code == code
    assert result.stderr.endswith("Error: This went wrong.\n")
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Usage:") == (code == 2)


def test_ctrl_c_before_the_first_image_is_told_as_the_shell_does() -> None:
    result = run_failing(KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.stderr == "\nInterrupted.\n"


def test_a_full_device_is_told_with_what_helps() -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch names it."""

    result = run_failing(OutOfMemoryError("CUDA out of memory. Tried to allocate ..."))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The device ran out of memory. Use a smaller --batch-")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("bug", [ZeroDivisionError, RuntimeError])
def test_a_bug_keeps_its_traceback(bug: type[Exception]) -> None:
    with pytest.raises(bug):
        run_failing(bug())


def run_failing(error: BaseException) -> Result:
    @click.command()
    def command() -> None:
        with plain_errors():
            raise error

    return CliRunner().invoke(command, [], catch_exceptions=False)
