"""Which names a service answers to: no page may reach it under a name of its own (DNS rebinding).

A browser on this machine can be made to call 127.0.0.1 under the name of a stranger's page, for
which this service would then be that page's own. The Host header still has the stranger's name.
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

    One that listens on loopback alone has no other names but those that are allowed. Elsewhere its
    names are not known, so that they are compared only where some are given.

    Raises:
        MethodError: what is allowed is no name.
    """
    wrong = next((name for name in allowed if name != ANY and not _is_name(name)), None)
    if wrong is not None:
        raise MethodError(
            f'--allow-host "{wrong}" is no name of a host. Expected one without scheme and port, '
            "such as tpt.example.org, *.example.org for all below it, or * for any."
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
    """Whether a name or address is this machine's alone."""
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
    except ValueError:  # no address
        return False
    below = (known[1:] for known in hosts if known.startswith("*."))
    return is_loopback(name) or name in hosts or any(name.endswith(end) for end in below)
