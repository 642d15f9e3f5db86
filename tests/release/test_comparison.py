"""Two versions side by side, between which classes went from unseen to seen, from seen to unseen, and away."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workspaces
from PIL import Image
from workspaces import Place

from ayeaye.core.params import Evaluate
from ayeaye.core.workspace import Workspace
from ayeaye.evaluation.bootstrap import paired_loss
from ayeaye.pipeline.progress import Progress
from ayeaye.release import compare, comparison, promotion
from ayeaye.release.compare import Answers, Pair

TO_SEEN, TO_UNSEEN, AWAY = "paint 012", "paint 000", "paint 222"
STAYED = set(workspaces.paints()) - {TO_SEEN, TO_UNSEEN, AWAY}


def change_roles(source: Path) -> None:
    """The same paints, but one is now photographed, one no longer, and one is gone; each in a group."""
    table = source / "classes.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] != AWAY]
    shutil.rmtree(source / "images" / AWAY)
    moved = {TO_SEEN: "seen", TO_UNSEEN: "unseen"}
    for row in rows:
        row |= {"role": moved.get(row["name"], row["role"]), "group": f"red {row['name'][6]}"}
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def two(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A workspace with version 1, and version 2 after the roles of three classes changed."""
    place = trained.copy(tmp_path_factory.mktemp("two"))
    place.set("release.slice_classes=2", "release.slice_pictures=16", "release.slice_epsilon=1")
    change_roles(place.source)
    assert place.retrain()["outcome"] == "promoted"
    return place


@pytest.fixture(scope="module")
def found(two: Place) -> dict[str, Any]:
    done = two("compare", "previous", "champion", "--json")
    assert done.code == 0, done.err
    return done.json


pytestmark = pytest.mark.slow


def test_the_decision_itself_was_made_on_the_classes_that_stayed(two: Place) -> None:
    decision = two.read("release/decision.json")
    names = [check["name"] for check in decision["checks"]]
    assert names[:2] == ["loss of T1", "loss of H"]
    assert "loss of T1 in group red 2" in names
    assert any(each.startswith("group red 0: ") and "seen" in each for each in decision["not_judged"])


def test_only_classes_that_have_the_same_role_in_both_are_compared(found: dict[str, Any]) -> None:
    assert (found["a"]["version"], found["b"]["version"]) == (1, 2)
    assert {row["class"] for row in found["classes"]} == STAYED
    differs = found["differs"]
    assert differs["unseen_to_seen"] == [TO_SEEN]
    assert differs["seen_to_unseen"] == [TO_UNSEEN]
    assert (differs["only_in_a"], differs["only_in_b"]) == ([AWAY], [])
    assert not differs["same_data"]
    assert differs["params"]["release.slice_classes"] == ["3", "2"]
    assert differs["made_of"]["classes"] == ["20 seen, 6 unseen", "19 seen, 6 unseen"]


def test_figures_differences_and_classes_belong_together(found: dict[str, Any]) -> None:
    assert found["measured_on"]["on"] == "test pictures"
    assert found["measured_on"]["classes_unseen"] == 5
    for name in ("T1", "U", "S", "H", "AUSUC"):
        figure = found["figures"][name]
        assert figure["difference"] == pytest.approx(figure["b"] - figure["a"])
        assert figure["interval"][0] <= figure["difference"] <= figure["interval"][1]
        assert 0 < figure["chance"] < 1
    unseen = [row for row in found["classes"] if not row["seen"]]
    for version in ("a", "b"):
        assert found["figures"]["U"][version] == pytest.approx(np.mean([row[version] for row in unseen]))
        assert found["figures"]["T1"][version] == pytest.approx(
            np.mean([row[f"T1_{version}"] for row in unseen])
        )
    differences = [row["difference"] for row in found["classes"]]
    assert differences == sorted(differences, reverse=True)
    check = next(check for check in found["gate"]["checks"] if check["name"] == "loss of T1")
    assert check["value"] == pytest.approx(-found["figures"]["T1"]["difference"])


def test_the_other_way_round_says_the_opposite(two: Place, found: dict[str, Any]) -> None:
    done = two("compare", 2, 1, "--json")
    assert done.code == 0, done.err
    for name, figure in found["figures"].items():
        assert done.json["figures"][name]["difference"] == pytest.approx(-figure["difference"])
    assert done.json["differs"]["seen_to_unseen"] == [TO_SEEN]


class Fetched(HTMLParser):
    """What a browser would fetch or follow."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data")]


def test_the_page_says_it_all_and_needs_nothing_from_outside(two: Place, tmp_path: Path) -> None:
    page = tmp_path / "two.html"
    before = two.status
    done = two("compare", 1, 2, "--out", page)
    assert done.code == 0, done.err
    assert two.status == before
    text = page.read_text()
    targets = Fetched(text).targets
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in targets)
    assert sum(target.startswith("data:") for target in targets) == 2
    for said in ("Version 2 against version 1", "40 pictures of 5 unseen classes", "chance: T1 0.200", TO_SEEN,
                 "unseen in version 1, seen in version 2", "group red 2", "slice_classes"):  # fmt: skip
        assert said in text, said
    assert "Version 2 against version 1, on test pictures that neither was trained on" in done.out
    assert "Against version 1 as champion, version 2 would pass" in done.out
    assert "1 unseen in version 1, seen in version 2: paint 012" in done.out


def test_the_picture_alone(two: Place, tmp_path: Path) -> None:
    picture = tmp_path / "two.png"
    assert two("compare", 1, 2, "--out", picture).code == 0
    with Image.open(io.BytesIO(picture.read_bytes())) as image:
        assert image.format == "PNG"
        assert image.width > image.height / 2
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("1", "newest"), "'newest' is no version: expected a number, champion or previous"),
        (("1", "1"), "both are version 1: name two different ones"),
        (
            ("1", "champion", "--out", "two.pdf"),
            "--out is two.pdf: expected a file that ends in .html or .png",
        ),
        (("1", "9"), "ayeaye has no version 9; known, newest first: 2, 1"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_line(two: Place, arguments: tuple[str, ...], said: str) -> None:
    done = two("compare", *arguments)
    assert done.code == 1
    assert said in " ".join(done.err.split())


def test_answers_without_scores_give_the_same_figures(two: Place, found: dict[str, Any]) -> None:
    """On class folds there are answers alone: their figures are worked out apart from those of scores."""
    workspace = Workspace(two.root)
    registry = promotion.registry_of(workspace)
    new, old = registry.version(2), registry.version(1)
    pair = compare.between(workspace, registry, new, old, Progress(quiet=True))
    figures = comparison._of_answers(pair, workspace.params.evaluate)
    for name in ("T1", "U", "S", "H"):
        for key in ("a", "b", "difference", "interval", "a_interval"):
            assert figures[name][key] == pytest.approx(found["figures"][name][key], abs=1e-9), (name, key)
    assert figures["AUSUC"]["difference"] is None


def folds(right: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> Answers:
    return Answers(right, right * unseen)


def test_class_folds_are_shown_with_each_ones_own_curve(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    y, unseen = np.tile(np.repeat(np.arange(6), 20), 2), np.repeat([True, False], 120)
    new, old = (folds((chance.random(240) < share).astype(float), y, unseen) for share in (0.8, 0.5))
    label = np.array([f"class {c}" for c in y])
    pair = Pair(label, unseen, new, old, compare.FOLDS)
    curve = {"seen": [0.9, 0.5, 0.0], "unseen": [0.0, 0.4, 0.6]}
    evaluations = [{"curve": curve, "AUSUC": share, "baselines": {"T1": 1 / 3}} for share in (0.3, 0.5)]
    figures, curves, baselines = comparison._measured(pair, evaluations, Evaluate(bootstrap=100))
    assert [each["AUSUC"] for each in curves] == [0.3, 0.5]
    assert baselines == {"T1": 1 / 3}
    loss = paired_loss(new.among_all, old.among_all, y, 100, unseen=unseen)
    assert figures["H"]["difference"] == pytest.approx(-loss["loss"])
    assert figures["T1"]["interval"][0] > 0
    json.dumps(figures, allow_nan=False)


@pytest.mark.soak
def test_versions_without_pictures_of_unseen_classes_are_compared_on_their_folds(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    source = workspaces.write_features(tmp_path / "features.npz", unseen_pictures=False)
    settings = [
        setting for setting in workspaces.SMALL if setting.startswith(("train", "evaluate", "release"))
    ]
    place = workspaces.make(
        tmp_path / "workspace",
        source,
        environment,
        "prepare.source=features",
        "classes.source=attributes",
        *settings,
    )
    assert place.retrain()["version"] == 1
    place.set("train.mapper=eszsl")
    assert place.retrain()["version"] == 2
    page = tmp_path / "two.html"
    done = place("compare", 1, 2, "--json", "--out", page)
    assert done.code == 0, done.err
    found = done.json
    assert found["measured_on"]["on"] == "class folds"
    assert found["measured_on"]["classes_unseen"] == found["measured_on"]["classes_seen"] == 24
    assert found["figures"]["H"]["difference"] is not None
    assert found["figures"]["AUSUC"]["difference"] is None
    assert all(curve["curve"] for curve in found["curves"])
    assert found["differs"]["params"]["train.mapper"] == ["None", "eszsl"]
    assert "An estimate: the unseen classes have no pictures" in page.read_text()
