"""The report page: one HTML file, without network, of everything `tpt eval` found.

`render_report` turns results.json into the page. It computes nothing but means over sets, which it
labels as means. The page can be read without JavaScript; the script only sorts, filters and opens
pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render_report(results: Mapping[str, Any]) -> str:
    """The page as one string of HTML; see `tpt.evaluate.results` for the form of `results`.

    File names that are not Unicode (with surrogates) are shown with backslashes.

    Raises:
        ImportError: jinja2 is not installed.
    """
    from tpt.report.page._render import render_page  # jinja2 only when a page is made

    return render_page(results)
