"""The plots and the report from real measurements: whole, safe and independent of anything outside."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ayeaye.evaluation import plots
from ayeaye.evaluation.metrics import confusion, measure, measure_folds, reliability
from ayeaye.evaluation.report import Example, Page, percent, render, sentence, shown, thumbnail

EVIL = '<script>alert("x")</script>&$_{'


class Links(HTMLParser):
    """Everything a browser would fetch or follow, and the elements met."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def measured_case(classes=8, pictures=120, seed=0):
    rng = np.random.default_rng(seed)
    seen = np.arange(classes) < classes - 3
    y = rng.integers(0, classes, pictures)
    scores = rng.normal(size=(pictures, classes))
    scores[np.arange(pictures), y] += 2
    return scores, y, seen, 0.3


def full_page(names):
    fold = measured_case(len(names))
    measured = measure(*fold, resamples=50)
    unseen = np.flatnonzero(~fold[2])
    drawn = plots.draw(
        measured,
        names,
        fold[2],
        vectors=np.random.default_rng(0).normal(size=(len(names), 5)),
        confused=(unseen, confusion([fold], unseen)),
        reliable=reliability(np.linspace(0, 1, 50), np.linspace(0, 1, 50) > 0.4),
    )
    picture = thumbnail(Image.new("RGB", (300, 200), "orange"))
    return Page(
        measured,
        names,
        title=EVIL,
        about={"mapper": EVIL, "settings": {"lambda": 0.1}},
        warnings=[EVIL],
        quality=[{"figure": "Spearman", "value": 0.41}],
        selection=[{"setting": EVIL, "H": 0.5, "chosen": True}, {"setting": "b", "H": None, "chosen": False}],
        data=[{"split": "train", "pictures": 12345}],
        examples=[
            Example(EVIL, EVIL, True, True, picture, 0.9, EVIL),
            Example("a", "b", False, False),
        ],
        plots=drawn,
    )


def test_the_page_asks_for_nothing_outside_and_escapes_every_name():
    page = render(full_page([EVIL, *"bcdefgh"]))
    links = Links(page)
    assert links.targets
    assert all(target.startswith(("data:image/", "#")) for target in links.targets)
    assert "script" not in links.tags
    assert "url(" not in page and "@import" not in page
    assert links.tags.count("img") == 6 + 1
    assert links.text.count(EVIL) >= 6
    anchors = [target for target in links.targets if target.startswith("#")]
    assert all(f'id="{anchor[1:]}"' in page for anchor in anchors)


def test_every_headline_stands_beside_its_interval_and_chance():
    page = full_page([*"abcdefgh"])
    text = Links(render(page)).text
    for name in ("T1", "U", "S", "H", "AUSUC"):
        low, high = page.measured["intervals"][name]
        assert f"{page.measured[name]:.3f}" in text
        assert f"{low:.3f} to {high:.3f} · chance {page.measured['baselines'][name]:.3f}" in text
    assert "12,345" in text and "chosen" in text


def test_the_page_says_when_class_folds_stood_in_for_unseen_classes():
    fold = measured_case()
    folds = Links(render(Page(measure_folds([fold], resamples=20), [*"abcdefgh"]))).text
    usual = Links(render(Page(measure(*fold, resamples=20), [*"abcdefgh"]))).text
    assert "The unseen classes have no pictures" in folds
    assert "The unseen classes have no pictures" not in usual


@pytest.mark.parametrize("kept", ["seen", "unseen", "none"])
def test_a_page_without_one_side_still_renders(kept):
    scores, y, seen, gamma = measured_case()
    rows = {"seen": seen[y], "unseen": ~seen[y], "none": np.zeros(len(y), dtype=bool)}[kept]
    measured = measure(scores[rows], y[rows], seen, gamma, resamples=20)
    drawn = plots.draw(measured, [*"abcdefgh"], seen)
    assert "seen_unseen_curve" not in drawn
    assert "no pictures to measure it on" in render(Page(measured, [*"abcdefgh"], plots=drawn))


@pytest.mark.parametrize("classes", [4, 150])
def test_plots_are_modest_pngs_for_few_and_for_many_classes(classes):
    rng = np.random.default_rng(0)
    seen = np.arange(classes) < classes // 2
    y = np.repeat(np.arange(classes), 3)
    fold = (rng.normal(size=(len(y), classes)), y, seen, 0.1)
    unseen = np.flatnonzero(~seen)
    names = [f"a class_with a rather long name {c}" for c in range(classes)]
    args = (measure(*fold, resamples=20), names, seen)
    kwargs = {
        "vectors": rng.normal(size=(classes, 6)),
        "confused": (unseen, confusion([fold], unseen)),
        "reliable": reliability(rng.random(40), rng.random(40) > 0.5),
    }
    drawn = plots.draw(*args, **kwargs)
    assert len(drawn) == 6
    for name, content in drawn.items():
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG" and min(image.size) > 300, name
            assert max(image.size) < 2000, name
        assert len(content) < 150_000, name
    assert plots.draw(*args, **kwargs) == drawn


def test_a_class_space_of_one_dimension_can_be_drawn():
    assert plots.class_space(np.arange(4.0)[:, None], [*"abcd"], np.array([True, True, False, False]))


def test_the_result_reads_as_a_sentence():
    y = np.repeat([1, 2], 5)
    measured = measure(np.eye(3)[y], y, np.array([True, False, False]), 0.0, resamples=20)
    assert plain(sentence(measured)) == (
        "Of 10 pictures from 2 classes it never saw a picture of, it named 100 % rightly when choosing among "
        "2 unseen classes; guessing would name 50 %. Among all 3 classes it named 100 % rightly."
    )


def test_shares_are_never_rounded_to_all_or_nothing():
    assert [plain(percent(v)) for v in (0.0, 0.004, 0.5, 0.996, 1.0, None)] == [
        "0 %",
        "0.4 %",
        "50 %",
        "99.6 %",
        "100 %",
        "–",
    ]
    assert [shown(v) for v in (0.12345, 12345, True, [1, 0.5], None)] == [
        "0.123",
        "12,345",
        "yes",
        "1, 0.5",
        "–",
    ]


def test_a_thumbnail_is_a_small_square():
    import base64

    uri = thumbnail(Image.new("RGBA", (40, 300), "red"))
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        assert image.size == (168, 168)


def test_leaks_have_a_section_of_their_own_and_without_any_there_is_none():
    measured = measure(*measured_case(), resamples=50)
    names = [f"kind {number}" for number in range(8)]
    assert 'id="leakage"' not in render(Page(measured, names))
    leaks = [{"unseen class": EVIL, "leak": "kinds of it are among its classes", "T1": None}]
    page = render(Page(measured, names, leakage=leaks, apart=[{"unseen classes": "clean", "classes": 6}]))
    text = plain(Links(page).text)
    assert "Were they really never seen?" in text and EVIL in text and "clean" in text
    assert EVIL not in page
