"""The names that a service answers to, as a protection from DNS rebinding.

A stranger's page can point its own name at 127.0.0.1. A browser on this machine then takes the
service for a part of that page, but the Host header still has the stranger's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from tpt.errors import MethodError

ANY = "*"


def choose_hosts(host: str, allowed: Sequence[str]) -> tuple[str, ...] | None:
    """The names besides the loopback's that a service on `host` answers to; None for any.

    A service on the loopback has only the allowed names. The names of another address are unknown,
    so they are checked only if some are allowed.

    Raises:
        MethodError: an allowed name is not a host's name.
    """
    wrong = next((name for name in allowed if name != ANY and not _is_name(name)), None)
    if wrong is not None:
        raise MethodError(
            f'--allow-host "{wrong}" is not the name of a host. Expected one without scheme and '
            "port, such as tpt.example.org, *.example.org for all below it, or * for any."
        )
    if ANY in allowed or not (allowed or is_loopback(host)):
        return None
    return tuple(dict.fromkeys(name.strip().lower() for name in (host, *allowed)))


def _is_name(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return re.fullmatch(r"(\*\.)?[\w-]+(\.[\w-]+)*", text) is not None


def is_loopback(name: str) -> bool:
    """Whether a name or address is the loopback's."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_known(header: str, hosts: Sequence[str]) -> bool:
    """Whether a Host header names the loopback or one of `hosts` ("*.example.org": those below)."""
    try:
        name = (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return False
    below = (known[1:] for known in hosts if known.startswith("*."))
    return is_loopback(name) or name in hosts or any(name.endswith(end) for end in below)
