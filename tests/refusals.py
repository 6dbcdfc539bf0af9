"""What a refusal says, for tests of messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def refusal(kind: type[Exception], call: Callable[..., object], *args: Any, **options: Any) -> str:
    """The message of the error that a call raises, checked to be one full line."""
    with pytest.raises(kind) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith((".", "?"))
    return message
