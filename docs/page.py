"""Makes the pictures of the service's page, from a service of the bestiary that is running.

ayeaye serve --workspace demo, and then python docs/page.py http://127.0.0.1:3000
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

HERE = Path(__file__).parent
DESK, PHONE = {"width": 1240, "height": 1000}, {"width": 390, "height": 1500}
PICTURES: dict[str, dict[str, Any]] = {
    "page-light": {"viewport": DESK},
    "page-dark": {"viewport": DESK, "color_scheme": "dark"},
    "page-phone": {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 1.5},
}
TRIED = (
    "tree stag",
    "A small animal that lives on the branches of trees, spotted and dappled, with forked antlers like a stag's.",
)


def telling(url: str) -> int:
    """The place of the first sample of an unseen class that has its label for what was said of it."""
    with httpx.Client(base_url=url, timeout=60) as client:
        samples = client.get("/samples", params={"use": "try"}).json()["samples"]
        for place, sample in enumerate(samples, start=1):
            picture = client.get(f"/samples/{sample['id']}").content
            sent = {"content": picture, "headers": {"Content-Type": "image/jpeg"}}
            answer, why = (client.post(path, **sent).json() for path in ("/classify", "/explain"))
            said = sum(part["contribution"] for part in why["parts"])
            if answer["known"] and not sample["seen"] and answer["label"] == sample["label"] and said > 0:
                return place
    return 1


def shoot(browser: Browser, url: str, sample: int, path: Path, options: dict[str, Any]) -> None:
    """The page as a person sees it who tried a sample, and on the desk described a class."""
    page = browser.new_context(**options, reduced_motion="reduce").new_page()
    page.goto(url)
    page.get_by_role("button", name=f"Sample picture {sample}").click()
    expect(page.locator("#labels li")).not_to_have_count(0)
    page.locator("#why").scroll_into_view_if_needed()
    expect(page.locator("#parts")).to_be_visible()
    if options["viewport"] is DESK:
        for label, text in zip(("Name", "Description"), TRIED, strict=True):
            page.get_by_label(label, exact=True).fill(text)
        page.get_by_role("button", name="Try it").click()
        expect(page.locator("#new-said")).to_contain_text("comes in")
    for image in page.locator("img").all():
        expect(image).not_to_have_js_property("naturalWidth", 0)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.screenshot(path=path, full_page=options["viewport"] is DESK)
    with Image.open(path) as picture:
        # A palette takes a third of the room: the drawings are grainy.
        picture.convert("RGB").quantize(256).save(path, optimize=True)


def main(url: str) -> None:
    program = shutil.which("chromium")
    if program is None:
        sys.exit("no chromium: apt-get install --no-install-recommends chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        sample = telling(url)
        for name, options in PICTURES.items():
            shoot(browser, url, sample, HERE / f"{name}.png", options)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000")
