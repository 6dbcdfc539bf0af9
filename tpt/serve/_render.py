"""Render the page as one HTML file, with the report's style, its own style and its script."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources


def render_page() -> tuple[str, str]:
    """(the page, its Content-Security-Policy, which allows no other host and no other script)."""
    style = _read("tpt.report.page", "report.css") + _read("tpt.serve.page", "page.css")
    script = _read("tpt.serve.page", "page.js")
    page = _read("tpt.serve.page", "page.html")
    page = page.replace("{{ style }}", style).replace("{{ script }}", script)
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    return page, policy


def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
