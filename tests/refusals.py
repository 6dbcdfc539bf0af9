"""What a refused call and a failed command say, for tests of messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result


def refusal(
    kind: type[Exception], call: Callable[..., object], /, *args: Any, **options: Any
) -> str:
    """The message of the error that a call raises, checked to be one full line."""
    with pytest.raises(kind) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith((".", "?"))
    return message


def error_of(result: Result, code: int = 2) -> str:
    """The message of a command that failed, checked to be full sentences and alone."""
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    message = " ".join(result.stderr.split("Error: ", 1)[1].split())
    assert message.endswith((".", "?", '."'))
    return message
