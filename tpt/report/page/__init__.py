"""The report page: one HTML file, without network, of everything `tpt eval` found.

`render_report` turns results.json into the page; it computes no result of its own beyond means over
sets that it names as such. The page reads without JavaScript; the script only sorts, filters, and
opens pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render_report(results: Mapping[str, Any]) -> str:
    """The page as one string of HTML; see `tpt.evaluate.results` for the form of `results`.

    Text that is no Unicode (file names with surrogates) is shown with backslashes.

    Raises:
        ImportError: jinja2 is not installed.
    """
    from tpt.report.page._render import render_page  # jinja2 only when a page is made

    return render_page(results)
