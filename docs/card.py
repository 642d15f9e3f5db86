"""Makes the picture of a model card, as `ayeaye card --out card.html` writes it.

ayeaye card --workspace demo --out card.html, and then python docs/card.py card.html
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
SIZE = {"width": 1100, "height": 900}


def main(page: Path) -> None:
    program = shutil.which("chromium")
    if program is None:
        sys.exit("no chromium: apt-get install --no-install-recommends chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_context(viewport=SIZE).new_page()
        shown.goto(page.resolve().as_uri())
        figures = shown.locator("#figures").bounding_box()
        assert figures is not None
        end = figures["y"] + figures["height"] + 24
        clip = {"x": 0, "y": 0, "width": SIZE["width"], "height": end}
        shown.screenshot(path=HERE / "card.png", full_page=True, clip=clip)
        browser.close()
    with Image.open(HERE / "card.png") as picture:
        picture.convert("RGB").quantize(256).save(HERE / "card.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "card.html"))
