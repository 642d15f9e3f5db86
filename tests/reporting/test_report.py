"""The plots and the report from real measurements: whole, safe and independent of anything outside."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ayeaye.class_vectors import quality
from ayeaye.evaluation.metrics import confusion, measure, measure_folds, reliability
from ayeaye.reporting import plots
from ayeaye.reporting.report import (
    Example,
    Near,
    Page,
    described,
    percent,
    render,
    sentence,
    shown,
    strength,
    thumbnail,
)

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


def closed(text):
    """Without any space, as a page has more of it than is seen."""
    return "".join(text.split())


def measured_case(classes=8, pictures=120, seed=0):
    rng = np.random.default_rng(seed)
    seen = np.arange(classes) < classes - 3
    y = rng.integers(0, classes, pictures)
    scores = rng.normal(size=(pictures, classes))
    scores[np.arange(pictures), y] += 2
    return scores, y, seen, 0.3


def both_sides(confidence, right):
    """Reliability of all, and as if one half of them were of seen classes."""
    half = len(right) // 2
    sides = {"seen": slice(half), "unseen": slice(half, None)}
    parts = {side: reliability(confidence[rows], right[rows]) for side, rows in sides.items()}
    return {**reliability(confidence, right), **parts}


def mapped_case(names, seen, pictures=60, photographed=None):
    """A common space in which pictures lie about their classes; `photographed` (C,) have any (none given: all)."""
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(len(names), 6))
    y = rng.choice(
        np.flatnonzero(np.ones(len(names), bool) if photographed is None else photographed), pictures
    )
    return plots.Mapped(classes[y] + 0.1 * rng.normal(size=(pictures, 6)), y, classes, names, seen)


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
        reliable=both_sides(np.linspace(0, 1, 50), np.linspace(0, 1, 50) > 0.4),
        mapped=mapped_case(names, fold[2]),
    )
    picture = thumbnail(Image.new("RGB", (300, 200), "orange"))
    return Page(
        measured,
        names,
        title=EVIL,
        about={"mapper": EVIL, "settings": {"lambda": 0.1}},
        warnings=[EVIL],
        quality=quality.judge(np.eye(8), np.eye(8) + 0.1),
        pretrained=EVIL,
        left_out=[{"class": EVIL, "not known": "cougar"}],
        selection=[candidate(EVIL, 0.5, chosen=True), candidate("b", None)],
        hubs=[{"hub correction": EVIL, "gain": "+0.01", "chosen": True}],
        folds=3,
        data=[{"split": "train", "pictures": 12345}],
        examples=[
            Example(EVIL, EVIL, True, True, picture, 0.9, [Near(1, EVIL, 0.7, False)], EVIL),
            Example("a", "b", False, False, nearest=[Near(1, "b", 0.61, False), Near(7, "a", 0.21, True)]),
        ],
        plots=drawn,
    )


def candidate(settings, figure, *, chosen=False):
    spreads = dict.fromkeys(("T1_spread", "H_spread", "AUSUC_spread"), None if figure is None else 0.04)
    return {"settings": settings, "T1": figure, "H": figure, "AUSUC": figure, **spreads, "chosen": chosen}


def test_the_page_asks_for_nothing_outside_and_escapes_every_name():
    page = render(full_page([EVIL, *"bcdefgh"]))
    links = Links(page)
    assert links.targets
    assert all(target.startswith(("data:image/", "#")) for target in links.targets)
    assert "script" not in links.tags
    assert "url(" not in page and "@import" not in page
    assert links.tags.count("img") == 7 + 1
    assert links.text.count(EVIL) >= 10
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
        "reliable": both_sides(rng.random(40), rng.random(40) > 0.5),
        "mapped": mapped_case(names, seen),
    }
    drawn = plots.draw(*args, **kwargs)
    assert len(drawn) == 7
    for name, content in drawn.items():
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG" and min(image.size) > 300, name
            assert max(image.size) < 2000, name
        assert len(content) < 150_000, name
    assert plots.draw(*args, **kwargs) == drawn


def test_a_class_space_of_one_dimension_can_be_drawn():
    assert plots.class_space(np.arange(4.0)[:, None], [*"abcd"], np.array([True, True, False, False]))


def test_in_the_plane_pictures_lie_nearest_to_their_own_class():
    mapped = mapped_case([*"abcdefgh"], np.arange(8) < 5, pictures=120)
    flat = plots.plane(np.vstack([mapped.pictures, mapped.classes]))
    distances = np.linalg.norm(flat[:120, None] - flat[None, 120:], axis=2)
    assert np.mean(distances.argmin(axis=1) == mapped.y) > 0.95


@pytest.mark.parametrize(("names", "pictures"), [([*"abcdefgh"], 30), ([*"abc"], 1)])
def test_unseen_classes_have_their_place_in_the_plane_without_a_picture(names, pictures):
    seen = np.arange(len(names)) < len(names) - 1
    mapped = mapped_case(names, seen, pictures, photographed=seen)
    drawn = plots.draw(
        measure(*measured_case(), resamples=20), [*"abcdefgh"], np.arange(8) < 5, mapped=mapped
    )
    with Image.open(io.BytesIO(drawn["common_space"])) as image:
        assert min(image.size) > 300
    assert plots.common_space(mapped) == drawn["common_space"]


def test_no_name_is_written_over_another():
    figure, axes = plots._figure(5.4, 4.8)
    chance = np.random.default_rng(0)
    places = chance.normal(size=(40, 2))
    axes.scatter(*places.T)
    plots._annotate(axes, [f"a longish name {c}" for c in range(40)], places, range(40))
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) > 15
    # What is compared is where the letters would be, not where they are, so a little is let through.
    touching = sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert touching <= 3


def test_a_side_without_pictures_leaves_the_reliability_of_the_other():
    both = both_sides(np.linspace(0, 1, 50), np.linspace(0, 1, 50) > 0.4)
    assert plots.reliability({**both, "seen": reliability(np.zeros(0), np.zeros(0))}) != plots.reliability(
        both
    )


def test_each_answer_stands_beside_its_nearest_classes_and_the_true_one_is_marked():
    text = closed(Links(render(full_page([*"abcdefgh"]))).text)
    assert "1◆unseenb0.61" in text
    assert "7●seen✓thetrueclassa0.21" in text


def test_candidates_show_mean_and_spread_and_the_chosen_one():
    text = closed(Links(render(full_page([*"abcdefgh"]))).text)
    assert "chosen0.500±0.0400.500±0.0400.500±0.040" in text
    assert "On3foldsofseenclasses" in text
    assert "b–––" in text


def test_settings_read_as_words_whatever_the_mapper():
    assert described("ridge", {"penalty": 0.3, "kernel": "linear", "shrinkage": None}) == (
        "ridge (penalty 0.3, kernel linear)"
    )
    assert described("none", {}) == "none"
    members = [{"mapper": "eszsl", "settings": {"alpha": 5.0}}, {"mapper": "prototype"}]
    assert described("blend", {"members": members}) == "50 % eszsl (alpha 5) + 50 % prototype"
    one = [{"mapper": "sae", "weight": 1.0, "columns": [4, 9]}]
    assert described("blend", {"members": one}, {"tfidf": (4, 9)}) == "sae on tfidf"


@pytest.mark.parametrize(
    ("noise", "word"), [(0.1, "strong"), (1.0, "fair"), (2.5, "weak"), (1e6, "no better")]
)
def test_the_class_space_is_called_what_it_is(noise, word):
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(60, 8))
    found = quality.judge(vectors, vectors + noise * chance.normal(size=vectors.shape))
    said, why = strength(found)
    assert said.startswith(word)
    assert "chance" in why or "at random" in why
    page = Links(render(Page(measure(*measured_case(), resamples=20), [*"abcdefgh"], quality=found)))
    assert f"The class space is {said}" in page.text


def test_descriptions_that_only_names_save_are_called_out():
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(60, 8))
    found = quality.judge(vectors, vectors + 0.1 * chance.normal(size=vectors.shape))
    said, why = strength({**found, "descriptions_p": 0.4})
    assert said == "names alone agree"
    assert "those of other classes" in why


def test_a_class_space_of_too_few_classes_is_not_judged():
    page = Page(
        measure(*measured_case(), resamples=20), [*"abcdefgh"], quality=quality.judge(np.eye(3), np.eye(3))
    )
    assert "cannot be judged" in render(page)


def test_words_left_out_of_a_class_are_told_with_it():
    page = Links(render(full_page([*"abcdefgh"])))
    assert "left out of 1 class" in page.text
    assert "cougar" in page.text


def test_what_the_backbone_was_pretrained_on_is_said_also_where_nothing_leaks():
    page = Links(render(full_page([*"abcdefgh"])))
    assert "No unseen class is known to be among what it was pretrained on" in page.text


def test_tables_can_be_reached_and_scrolled_by_the_keyboard():
    page = render(full_page([*"abcdefgh"]))
    assert page.count('class="scroll"') == page.count(
        'class="scroll" role="region" tabindex="0" aria-label="'
    )
    for wish in (
        "prefers-color-scheme: dark",
        "@media print",
        "max-width:34rem",
        ":focus-visible",
        'class="skip"',
    ):
        assert wish in page


def test_the_result_reads_as_a_sentence():
    y = np.repeat([1, 2], 5)
    measured = measure(np.eye(3)[y], y, np.array([True, False, False]), 0.0, resamples=20)
    assert plain(sentence(measured)) == (
        "Of 10 pictures from 2 classes it never saw a picture of, it named 100 % rightly when choosing among "
        "2 unseen classes; guessing would name 50 %. Among all 3 classes it named 100 % rightly."
    )


def test_shares_are_never_rounded_to_all_or_nothing():
    assert [plain(percent(v)) for v in (0.0, 1e-6, 0.004, 0.5, 0.996, 1 - 1e-6, 1 - 1e-14, None)] == [
        "0 %",
        "< 0.1 %",
        "0.4 %",
        "50 %",
        "99.6 %",
        "> 99.9 %",
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
