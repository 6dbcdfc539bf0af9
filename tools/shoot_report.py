"""Screenshots of a report page for the documentation.

    python tools/shoot_report.py out/report.html docs/evaluation-report.png
    python tools/shoot_report.py out/report.html docs/evaluation-gallery.png --section gallery
    python tools/shoot_report.py out/report.html phone.png --width 360 --dark

It opens the page in headless Chromium (Debian's, or the one that TPT_CHROMIUM names).
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--section", help="id of a part of the page; default: its beginning")
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=1250)
    parser.add_argument("--dark", action="store_true")
    args = parser.parse_args()
    browser = os.environ.get("TPT_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(
            viewport={"width": args.width, "height": args.height},
            color_scheme="dark" if args.dark else "light",
        )
        page.goto(args.report.resolve().as_uri())
        if args.section:
            page.evaluate(
                "id => document.getElementById(id).scrollIntoView({behavior: 'instant'})",
                args.section,
            )
        page.screenshot(path=args.picture)
        chromium.close()


if __name__ == "__main__":
    main()
