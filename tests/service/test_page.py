"""The page at `/`, in a real browser."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import browsers
import httpx
import numpy as np
import pandas as pd
import pytest
import services
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect
from small_bundle import COLOURS, UNSEEN, picture
from small_card import EVIL, card_of, decided, recorded

from ayeaye.class_vectors import space
from ayeaye.classifier.model import Classifier
from ayeaye.core import params
from ayeaye.data.samples import Sample, Samples
from ayeaye.data.table import ClassTable
from ayeaye.mappers import create
from ayeaye.service.database import locate
from ayeaye.service.served import Served
from ayeaye.service.store import Store

DESCRIPTIONS = {
    "red": "a bright warm colour of fire and of ripe cherries",
    "green": "a calm colour of grass and of leaves in spring",
    "blue": "a calm cold colour of deep water and of the sky",
    "yellow": "a bright warm colour of lemons and of the sun",
    "cyan": "a bright cold colour of shallow water and of ice",
    "magenta": "a bright colour between the sky and ripe cherries",
}
SCARLET = ("scarlet", "a bright warm colour of fire")
TOKEN = "a token of the tests"
PICTURE = {"name": "red.png", "mimeType": "image/png", "buffer": picture("red", 9)}
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
Open = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def described(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of colours, but described in words, and with pictures."""
    backbone = Classifier.load(colours).backbone
    assert backbone is not None
    frame = pd.DataFrame(
        {
            "name": list(DESCRIPTIONS),
            "role": ["unseen" if name == UNSEEN else "seen" for name in DESCRIPTIONS],
            "description": list(DESCRIPTIONS.values()),
            "synonyms": [[] for _ in DESCRIPTIONS],
        }
    )
    table = ClassTable(frame, {})
    made = space.build(table, params.Classes(source="tfidf"), Path)
    classifier = Classifier(made, table.seen, create("ridge"), 0.05, 0.1, backbone)
    names = [name for name in COLOURS if name != UNSEEN for _ in range(4)]
    X = classifier.embed([Image.open(io.BytesIO(picture(name, i))) for i, name in enumerate(names)])
    classifier.mapper.fit(X, np.array([table.names.index(name) for name in names]), made.vectors)
    folder = tmp_path_factory.mktemp("described") / "classifier"
    tried = [Sample.of("try", name, picture(name, 50)) for name in (UNSEEN, "blue")]
    shown = [
        Sample.of("class", name, picture(name, n)) for n in range(3) for name in COLOURS if name != UNSEEN
    ]
    Samples([*tried, *shown]).save(folder)
    classifier.save(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url(described: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service, whose classes tests leave as they were."""
    served = Served(described, tmp_path_factory.mktemp("state"), version=3, metrics={"T1": 0.72, "H": 0.61})
    with browsers.listening(served) as url:
        yield url


@pytest.fixture
def opened(browser: Browser) -> Open:
    """Opens the page of a service; in the end nothing came from elsewhere, and the browser had no complaint."""

    @contextmanager
    def at(url: str, **options: object) -> Iterator[Page]:
        context = browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **options})
        page = context.new_page()
        page.set_default_timeout(20_000)
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.violatedDirective))"
        )
        try:
            page.goto(f"{url}/")
            expect(page.locator("#facts")).to_contain_text("seen")
            yield page
            assert [each for each in asked if not each.startswith(f"{url}/")] == []
            # A refusal that the page tells of is logged by the browser as well.
            assert [each for each in complaints if not re.search(r"status of [45]\d\d|net::ERR_", each)] == []
        finally:
            context.close()

    return at


@pytest.fixture
def page(url: str, opened: Open) -> Iterator[Page]:
    with opened(url) as page:
        yield page


def labels(page: Page) -> list[str]:
    """The labels in their order, once they have settled."""
    expect(page.locator("#labels")).to_have_attribute("aria-busy", "false")
    return page.locator("#labels .what > :first-child").all_text_contents()


def label(page: Page, name: str) -> Locator:
    return page.locator(f"#labels button[data-label='{name}']")


def choose(page: Page) -> None:
    page.locator("#file").set_input_files([PICTURE])
    expect(page.locator("#verdict strong")).to_have_text("red")


def describe(page: Page, name: str, description: str) -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Description", exact=True).fill(description)


def test_a_chosen_picture_is_labelled_and_explained(page: Page) -> None:
    choose(page)
    assert labels(page)[0] == "red"
    assert sorted(labels(page)) == sorted(COLOURS)
    expect(label(page, "red")).to_contain_text(re.compile(r"seen.*%"))
    expect(label(page, UNSEEN).locator(".badge")).to_have_text("unseen")
    shares = page.locator("#labels .share").all_text_contents()
    assert sum(float(share.strip("<% ")) for share in shares) == pytest.approx(100, abs=0.5)
    expect(page.locator("#preview")).to_be_visible()


def test_the_reasons_add_up_and_another_label_has_its_own(page: Page) -> None:
    choose(page)
    expect(page.locator("#why-said")).to_contain_text("Why red rather than")
    for name in ("red", "blue"):
        label(page, name).click()
        expect(page.locator("#why-said strong").first).to_have_text(name)
        expect(page.locator("#parts")).to_have_attribute("aria-busy", "false")
        cells = page.locator("#parts td:last-child").all_text_contents()
        *parts, together = [float(cell.replace("−", "-")) for cell in cells]
        assert len(parts) > 2
        assert sum(parts) == pytest.approx(together, abs=0.001 * len(parts))
    assert together < 0 < len(parts)


def test_the_nearest_seen_classes_are_shown_with_their_photographs(page: Page) -> None:
    choose(page)
    figure = page.locator("#near figure", has_text="red").first
    expect(figure.locator("img")).to_have_count(2)
    for image in page.locator("img").all():
        expect(image).not_to_have_js_property("naturalWidth", 0)
    assert UNSEEN not in page.locator("#near figcaption").all_text_contents()


def test_a_sample_is_tried_and_its_class_told(page: Page) -> None:
    page.get_by_role("button", name="Sample picture 1").click()
    expect(page.locator("#chosen")).to_have_text(f"It shows {UNSEEN}, of which no photograph was trained on.")
    assert len(labels(page)) == len(COLOURS)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: Page, event: str) -> None:
    page.evaluate(
        """([event, content]) => {
            const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], 'red.png', { type: 'image/png' }));
            const made = event === 'drop'
                ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })
                : new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });
            document.querySelector('#drop').dispatchEvent(made);
        }""",
        [event, base64.b64encode(PICTURE["buffer"]).decode()],
    )
    expect(page.locator("#verdict strong")).to_have_text("red")


def test_what_is_no_picture_is_told(page: Page) -> None:
    choose(page)
    page.locator("#file").set_input_files([{**PICTURE, "buffer": b"no picture"}])
    expect(page.locator("#picture-fault")).to_contain_text("The picture cannot be read")
    expect(page.locator("#labels li")).to_have_count(0)
    choose(page)
    expect(page.locator("#picture-fault")).to_be_hidden()


def test_a_described_class_changes_the_ranking_at_once_and_is_kept_when_asked(page: Page, url: str) -> None:
    choose(page)
    before = labels(page)
    describe(page, *SCARLET)
    page.get_by_role("button", name="Try it").click()
    expect(page.locator("#new-said")).to_contain_text("scarlet comes in at place")
    expect(label(page, "scarlet").locator(".badge")).to_have_text("on trial")
    assert set(labels(page)) == {*before, "scarlet"}
    assert [name for name in labels(page) if name != "scarlet"] == before
    assert "scarlet" not in httpx.get(f"{url}/classes").text

    page.get_by_role("button", name="Take it out").click()
    assert labels(page) == before

    page.get_by_role("button", name="Keep it").click()
    expect(page.locator("#new-said")).to_contain_text("scarlet is a class now")
    expect(label(page, "scarlet").locator(".badge")).to_have_text("added")
    assert "scarlet" in httpx.get(f"{url}/classes").text
    expect(page.locator("#facts")).to_contain_text("1 added")

    expect(page.locator("#added small")).to_contain_text("since")
    page.get_by_role("button", name="Remove scarlet").click()
    page.get_by_role("button", name="No, keep scarlet").click()
    page.get_by_role("button", name="Remove scarlet").click()
    page.get_by_role("button", name="Yes, remove scarlet").click()
    expect(page.locator("#added")).to_be_hidden()
    expect(page.locator("#new-said")).to_contain_text("scarlet is no class any more")
    assert labels(page) == before


def test_of_unknown_words_near_ones_are_offered(page: Page) -> None:
    choose(page)
    describe(page, "zorkly", "brigth")
    page.get_by_role("button", name="Try it").click()
    expect(page.locator("#new-fault")).to_contain_text("No word of zorkly is known")
    expect(page.locator("#new-fault")).to_contain_text("nothing like it is known")
    page.locator("#new-fault").get_by_role("button", name="bright").click()
    expect(page.locator("#new-said")).to_contain_text("zorkly comes in at place")
    expect(page.get_by_label("Description", exact=True)).to_have_value("bright")
    expect(page.locator("#new-fault")).to_be_hidden()


def test_faults_of_the_form_stand_beside_it(page: Page) -> None:
    submit = page.get_by_role("button", name="Try it")
    submit.click()
    expect(page.locator("#new-fault")).to_have_text("Give the class a name.")
    describe(page, *SCARLET)
    submit.click()
    expect(page.locator("#new-fault")).to_contain_text("Choose a picture first")
    describe(page, "Red", "warm")
    page.get_by_role("button", name="Keep it").click()
    expect(page.locator("#new-fault")).to_contain_text("Red is a class that was trained", ignore_case=True)


def test_the_token_is_asked_for_where_there_is_one(described: Path, tmp_path: Path, opened: Open) -> None:
    with (
        browsers.listening(Served(described, tmp_path, version=3, token=TOKEN)) as url,
        opened(url) as page,
    ):
        dialog, fault = page.locator("#token-dialog"), page.locator("#token-fault")
        describe(page, *SCARLET)
        page.get_by_role("button", name="Keep it").click()
        expect(page.locator("#token")).to_be_focused()
        expect(fault).to_be_hidden()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page.get_by_role("button", name="Keep it")).to_be_focused()

        page.keyboard.press("Enter")
        for wrong, said in (("wrong", "That is not the token"), ("tokén€", "That cannot be the token")):
            page.locator("#token").fill(wrong)
            page.keyboard.press("Enter")
            expect(fault).to_contain_text(said)
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#new-said")).to_contain_text("scarlet is a class now")

        page.reload()  # the token is kept nowhere
        page.get_by_role("button", name="Remove scarlet").click()
        page.get_by_role("button", name="Yes, remove scarlet").click()
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#new-said")).to_contain_text("scarlet is no class any more")


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    def until(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(document.activeElement.labels?.[0] ?? document.activeElement).innerText "
                "|| document.activeElement.querySelector('img')?.alt"
            )
            if name in (focused or ""):
                outline = page.evaluate(
                    "getComputedStyle(document.activeElement.type === 'file'"
                    " ? document.activeElement.nextElementSibling : document.activeElement).outlineStyle"
                )
                assert outline == "solid"
                return
        raise AssertionError(f"{name} is never reached")

    until("Choose a picture")
    until("Sample picture 2")
    page.keyboard.press("Enter")
    assert labels(page)[0] == "blue"
    until("2.")
    page.keyboard.press("Space")
    expect(page.locator("#labels li:nth-child(2) button")).to_have_attribute("aria-pressed", "true")
    until("Name")
    page.keyboard.type(SCARLET[0])
    until("Description")
    page.keyboard.type(SCARLET[1])
    until("Synonyms")
    page.keyboard.press("Enter")
    expect(page.locator("#new-said")).to_contain_text("scarlet comes in")
    assert "scarlet" in labels(page)


def test_on_a_phone_nothing_is_wider_than_the_screen(url: str, opened: Open) -> None:
    with opened(url, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        choose(page)
        describe(page, "a" * 150, "colour")
        page.get_by_role("button", name="Try it").click()
        expect(page.locator("#new-said")).to_contain_text("comes in")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        expect(page.locator("#camera-offer")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_by_day_and_by_night(url: str, opened: Open, scheme: str) -> None:
    with opened(url, color_scheme=scheme) as page:
        choose(page)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (_luminance(ground) > 0.5) == (scheme == "light")
        for what in ("#ranking .note, #picture .note", ".badge", "#verdict", "a", ".primary", "#parts td"):
            ink, paper = page.locator(what).first.evaluate(
                """element => {
                    let below = element;
                    const paper = (each) => getComputedStyle(each).backgroundColor;
                    while (paper(below) === 'rgba(0, 0, 0, 0)') below = below.parentElement;
                    return [getComputedStyle(element).color, paper(below)];
                }"""
            )
            light, dark = sorted([_luminance(ink), _luminance(paper)], reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, what  # WCAG 2, level AA


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of an rgb(…)."""
    channels = np.array([int(each) for each in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_a_model_of_features_takes_rows(animals: Path, tmp_path: Path, opened: Open) -> None:
    with browsers.listening(Served(animals, tmp_path)) as url, opened(url) as page:
        expect(page.locator("#drop-text")).to_contain_text("as .npy")
        expect(page.locator("#samples")).to_be_hidden()
        row = {"name": "row.npy", "mimeType": "", "buffer": services.saved(services.row(1))}
        page.locator("#file").set_input_files([row])
        assert sorted(labels(page)) == sorted(services.ANIMALS)
        expect(page.locator("#preview")).to_be_hidden()


def test_a_service_that_is_gone_is_told(described: Path, tmp_path: Path, opened: Open) -> None:
    with browsers.listening(Served(described, tmp_path)) as url, opened(url) as page:
        page.route("**/classify?*", lambda route: route.fulfill(status=504, json={"error": "too long"}))
        page.locator("#file").set_input_files([PICTURE])
        expect(page.locator("#picture-fault")).to_contain_text("Too long")


def busy(page: Page, pattern: str, status: int = 429, wait: str = "1") -> list[str]:
    """The first request for these addresses is refused; returns it once it was."""
    refused: list[str] = []

    def handle(route: Route) -> None:
        if not refused:
            refused.append(route.request.url)
            route.fulfill(status=status, headers={"Retry-After": wait}, json={"error": "too often"})
        else:
            route.fallback()

    page.route(pattern, handle)
    return refused


@pytest.mark.parametrize("path", ["model", "classify?*", "explain?*"])
def test_while_the_service_is_busy_it_is_asked_again(page: Page, path: str) -> None:
    refused = busy(page, f"**/{path}", status=503 if path == "model" else 429)
    page.reload()
    choose(page)
    expect(page.locator("#why-said")).to_contain_text("Why red rather than")
    assert len(refused) == 1
    expect(page.locator("#facts")).to_contain_text("seen")
    expect(page.locator("#progress")).to_be_hidden()


def test_a_page_opened_too_early_recovers(page: Page) -> None:
    for pattern in ("**/model", "**/samples?use=try"):
        busy(page, pattern, wait="60")
    page.reload()
    again = page.get_by_role("button", name="Try again")
    expect(page.locator("#unreachable")).to_contain_text("Too often")
    again.click()
    expect(page.locator("#facts")).to_contain_text("seen")
    expect(page.locator("#unreachable")).to_contain_text("Too often")
    choose(page)  # whether there are samples or not
    expect(page.locator("#unreachable")).to_be_hidden()
    expect(page.locator("#samples")).to_be_visible()


def test_a_service_that_comes_back_is_asked_again(page: Page) -> None:
    page.route("**/classify?*", lambda route: route.abort())
    page.locator("#file").set_input_files([PICTURE])
    expect(page.locator("#picture-fault")).to_contain_text("cannot be reached")
    expect(page.locator("#legend")).to_be_hidden()
    page.unroute("**/classify?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#verdict strong")).to_have_text("red")
    expect(page.locator("#picture-fault")).to_be_hidden()


def test_with_a_rate_the_page_asks_for_little(described: Path, tmp_path: Path, opened: Open) -> None:
    served = Served(described, tmp_path, settings=params.Serve(rate="20/second;600/minute"))
    with browsers.listening(served) as url, opened(url) as page:
        for number, name in ((1, UNSEEN), (2, "blue")):
            page.get_by_role("button", name=f"Sample picture {number}").click()
            expect(page.locator("#chosen")).to_contain_text(name)
            expect(page.locator("#near")).to_be_visible()
            labels(page)
        expect(page.locator(".fault:visible")).to_have_count(0)
        for image in page.locator("img").all():
            expect(image).not_to_have_js_property("naturalWidth", 0)


def test_the_confidences_are_those_of_the_service(page: Page) -> None:
    def same(answer: dict[str, Any]) -> None:
        expected = {each["label"]: 100 * each["confidence"] for each in answer["alternatives"]}
        shares = page.locator("#labels .share").all_text_contents()
        shown = dict(zip(labels(page), (float(share.strip("<% ")) for share in shares), strict=True))
        assert shown == pytest.approx(expected, abs=0.11)

    with page.expect_response("**/classify?*") as asked:
        choose(page)
    same(asked.value.json())
    describe(page, *SCARLET)
    with page.expect_response("**/classify_among?*") as tried:
        page.get_by_role("button", name="Try it").click()
    expect(page.locator("#new-said")).to_contain_text("scarlet comes in")
    same(tried.value.json())
    expect(page.get_by_role("button", name="Try it")).to_be_focused()


def test_another_class_is_compared(page: Page) -> None:
    choose(page)
    page.get_by_label("Why not").fill("Cyan")
    page.keyboard.press("Enter")
    expect(page.locator("#why-said")).to_have_text("Why red rather than cyan:")
    page.get_by_label("Why not").fill("nothing")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#why-fault")).to_contain_text("No class nothing")
    expect(page.locator("#parts")).to_be_visible()


@pytest.mark.parametrize("right", ["red", "magenta"])
def test_an_answer_is_confirmed_or_corrected(
    described: Path, tmp_path: Path, opened: Open, right: str
) -> None:
    with browsers.listening(Served(described, tmp_path)) as url, opened(url) as page:
        choose(page)
        if right == "red":
            page.get_by_role("button", name="Yes", exact=True).click()
        else:
            page.get_by_role("button", name="No", exact=True).click()
            page.keyboard.type(right)
            page.keyboard.press("Enter")
        expect(page.locator("#feedback-said")).to_contain_text("Thank you")
        expect(page.get_by_role("button", name="Yes", exact=True)).to_be_hidden()
    with closing(Store(locate(tmp_path))) as store:
        (given,) = store.pending()
        assert given.label == right
        assert store.picture(given.id) == PICTURE["buffer"]


def test_text_is_dropped_where_it_is_dropped(page: Page) -> None:
    prevented = """holds => {
        const data = new DataTransfer();
        if (holds === 'text') data.setData('text/plain', 'warm'); else data.items.add(new File([], 'a.png'));
        const drag = new DragEvent('dragover', { dataTransfer: data, bubbles: true, cancelable: true });
        document.querySelector('#new-description').dispatchEvent(drag);
        return drag.defaultPrevented;
    }"""
    assert page.evaluate(prevented, "file")
    assert not page.evaluate(prevented, "text")


def test_a_file_that_is_too_large_is_not_sent(described: Path, tmp_path: Path, opened: Open) -> None:
    served = Served(described, tmp_path, settings=params.Serve(max_bytes=1_500_000))
    with browsers.listening(served) as url, opened(url) as page:
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.method))
        page.locator("#file").set_input_files([{**PICTURE, "buffer": bytes(2_340_000)}])
        expect(page.locator("#picture-fault")).to_contain_text("has 2.34 MB, and 1.5 MB is the most")
        assert "POST" not in sent
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#verdict")).to_have_text("Choose a picture to see what it is.")
        expect(page.locator("#picture-fault")).to_be_hidden()


def test_reasons_that_nobody_sees_are_not_asked_for(url: str, opened: Open) -> None:
    with opened(url, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        choose(page)
        expect(page.locator("#ranking")).to_be_in_viewport(ratio=0.5)
        labels(page)
        assert not [each for each in asked if "/explain" in each]
        page.locator("#why").scroll_into_view_if_needed()
        expect(page.locator("#why-said")).to_contain_text("Why red rather than")


@pytest.mark.parametrize("width", [320, 1280])
def test_long_names_and_narrow_screens(described: Path, tmp_path: Path, opened: Open, width: int) -> None:
    screen = {"width": width, "height": 800}
    served = Served(described, tmp_path, version=3, metrics={"T1": 0.72, "H": 0.61})
    with browsers.listening(served) as url, opened(url, viewport=screen) as page:
        describe(page, "scarlet" * 23, SCARLET[1])
        page.get_by_role("button", name="Keep it").click()
        button = page.get_by_role("button", name="Remove")
        box = button.bounding_box()
        assert box and box["height"] < 40 < box["width"]
        strip = page.locator("#samples ul")
        columns = strip.evaluate("ul => getComputedStyle(ul).gridTemplateColumns.split(' ').map(parseFloat)")
        assert sum(columns) <= strip.evaluate("ul => ul.clientWidth")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        expect(page.locator("#facts")).to_contain_text("1 added")
        title, facts, links = (page.locator(each).bounding_box() for each in ("h1", "#facts", "nav"))
        assert title and facts and links
        assert title["height"] < 40
        assert width == 320 or facts["height"] < 60 > abs(facts["y"] - links["y"])


def test_the_page_is_asked_for_anew_but_sent_once(described: Path, tmp_path: Path) -> None:
    with services.within(Served(described, tmp_path)) as (client, _):
        for path, kind in {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}.items():
            first = client.get(path)
            assert first.status_code == 200
            assert first.headers["content-type"].startswith(kind)
            assert first.headers["cache-control"] == "no-cache"
            assert "default-src 'none'" in first.headers["content-security-policy"]
            assert "unsafe" not in first.headers["content-security-policy"]
            again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert client.head(path).status_code == 200
        text = client.get("/").text
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)|https?://", text)


@pytest.fixture
def with_card(described: Path, tmp_path: Path) -> Path:
    """The bundle with a card beside it, as in a Bento."""
    bundle = shutil.copytree(described, tmp_path / "packed" / "bundle")
    made = card_of(recorded(decision=decided(recorded())))
    bundle.with_name("card.html").write_text(made.html())
    return bundle


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_card_is_shown_as_it_was_made(with_card: Path, tmp_path: Path, opened: Open, scheme: str) -> None:
    """Its style and its pictures are let through by the policy, which `opened` watches, and nothing else is."""
    with (
        browsers.listening(Served(with_card, tmp_path)) as url,
        opened(url, viewport=PHONE, is_mobile=True, color_scheme=scheme) as page,
    ):
        page.get_by_role("link", name="Model card").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("ayeaye, version 3")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (_luminance(ground) > 0.5) == (scheme == "light")
        pictures = page.locator("img")
        assert pictures.count() == 2
        for image in pictures.all():
            assert image.evaluate("image => image.naturalWidth") > 0
        expect(page.locator("#limits")).to_contain_text(EVIL)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        bars = page.locator("svg .dot")
        assert bars.count() == 8
        assert all(bar.bounding_box()["width"] > 1 for bar in bars.all())  # type: ignore[index]


def test_the_card_is_asked_for_anew_but_sent_once(with_card: Path, tmp_path: Path) -> None:
    with services.within(Served(with_card, tmp_path)) as (client, _):
        assert client.get("/model").json()["card"] is True
        first = client.get("/card")
        assert first.status_code == 200
        assert first.text == with_card.with_name("card.html").read_text()
        assert first.headers["content-type"] == "text/html; charset=utf-8"
        assert "style-src 'sha256-" in first.headers["content-security-policy"]
        assert "unsafe" not in first.headers["content-security-policy"]
        assert first.headers["x-frame-options"] == "DENY"
        again = client.get("/card", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.head("/card").status_code == 200


def test_samples_are_listed_and_sent_for_good(described: Path, tmp_path: Path) -> None:
    with services.within(Served(described, tmp_path)) as (client, _):
        tried = client.get("/samples", params={"use": "try"}).json()["samples"]
        assert [(each["label"], each["seen"]) for each in tried] == [(UNSEEN, False), ("blue", True)]
        shown = client.get("/samples", params={"use": "class", "label": ["red", "blue"]}).json()["samples"]
        assert sorted({each["label"] for each in shown}) == ["blue", "red"]
        assert len(shown) == 6
        one = client.get(f"/samples/{tried[0]['id']}")
        assert one.headers["content-type"] == "image/jpeg"
        assert "immutable" in one.headers["cache-control"]
        assert client.get("/samples/none").status_code == 404


def test_bentoml_shows_this_page_and_not_its_own(server: services.Server) -> None:
    with server.client() as client:
        shown = client.get("/")
        assert "<title>ayeaye</title>" in shown.text
        assert "script-src 'self'" in shown.headers["content-security-policy"]
        assert client.get("/page.js").headers["cache-control"] == "no-cache"
