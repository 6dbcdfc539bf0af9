"""A screenshot of the page of `tpt serve` for the documentation.

    tpt serve --classes cat,cup,person,camera,dog &
    python tools/shoot_serve.py docs/serve-page.png examples/images/cat-fog.jpg
    python tools/shoot_serve.py phone.png examples/images/cat-fog.jpg --width 360 --dark

It drops the images on the page in headless Chromium (Debian's, or the one that TPT_CHROMIUM names).
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--address", default="http://127.0.0.1:8000/")
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--dark", action="store_true")
    args = parser.parse_args()
    browser = os.environ.get("TPT_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(
            viewport={"width": args.width, "height": 800},
            color_scheme="dark" if args.dark else "light",
        )
        page.goto(args.address)
        page.locator("#file").set_input_files(args.images)
        page.wait_for_function(
            f"() => document.querySelectorAll('.shown .pair').length === {len(args.images)}",
            timeout=60_000,
        )
        page.wait_for_timeout(300)
        page.screenshot(path=args.picture, full_page=True)
        chromium.close()


if __name__ == "__main__":
    main()
