"""Checks of settings that several methods share; each refuses with a sentence."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from tpt.errors import MethodError


# Functions, because mypy takes a bare isinstance for a type without comparisons.
def _is_number(value: Any) -> bool:
    return isinstance(value, Real)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral)


def check_share(value: Any, message: str) -> None:
    """Refuse a value outside (0, 1] with this message."""
    if not (_is_number(value) and 0 < value <= 1):
        raise MethodError(message)


def check_keep(keep: Any, published: float = 0.1) -> None:
    """Refuse a share of kept views outside (0, 1]."""
    check_share(
        keep,
        f"keep is the share of views kept, in (0, 1]; got {keep}. The published value is "
        f"{published}.",
    )


def check_steps(steps: Any) -> None:
    """Refuse less than one optimiser step."""
    if not (_is_whole(steps) and steps >= 1):
        raise MethodError(
            f"steps must be at least 1; got {steps}. Without any step the method is zero-shot: use "
            "tpt.ZeroShot, or --method zero_shot."
        )


def check_lr(lr: Any) -> None:
    """Refuse a learning rate that is not a positive number."""
    if not (_is_number(lr) and 0 < lr < float("inf")):
        raise MethodError(f"lr must be a positive number; got {lr}.")


def check_reset(reset: Any, *allowed: str, default: str) -> None:
    """Refuse a word that is not one of `allowed`."""
    if reset not in allowed:
        words = [f"{word} (the default)" if word == default else word for word in allowed]
        listed = f"{', '.join(words[:-1])} or {words[-1]}"
        raise MethodError(f'Unknown reset "{reset}": expected {listed}.')


def check_number(name: str, value: Any, meaning: str, *, above: bool) -> None:
    """Refuse a value that is not a finite number from 0 on, or with `above` above 0."""
    fine = _is_number(value) and (value > 0 if above else value >= 0)
    if not (fine and value < float("inf")):
        bound = "above 0" if above else "from 0 on"
        raise MethodError(f"{name} is {meaning}, a number {bound}; got {value}.")


def check_count(name: str, value: Any, meaning: str, least: int = 0) -> None:
    """Refuse a value that is not a whole number from `least` on."""
    if not (_is_whole(value) and value >= least):
        raise MethodError(f"{name} is {meaning}, a whole number from {least} on; got {value}.")


def check_flag(name: str, value: Any) -> None:
    """Refuse a value that is neither True nor False."""
    if not isinstance(value, bool):
        raise MethodError(f"{name} is true or false; got {value}.")
