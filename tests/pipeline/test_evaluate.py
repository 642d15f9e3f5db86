"""The stage `evaluate` over a small file of features: what it writes on leakage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workspaces
from workspaces import Place

from ayeaye.classifier.model import Classifier
from ayeaye.core.workspace import Workspace
from ayeaye.evaluation.metrics import FIGURES
from ayeaye.reporting.report import percent, shown

PICTURES = {
    "class_space",
    "common_space",
    "confusion_unseen",
    "hubness",
    "per_class_accuracy",
    "reliability",
    "seen_unseen_curve",
}
FLAGGED = [f"kind {number}" for number in range(24, 31)]  # of the unseen ones, 24 to 35


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A workspace in which all stages but the last have run; one row is under two classes, as in AwA1's features."""
    folder = tmp_path_factory.mktemp("evaluate")
    source = workspaces.write_features(folder / "features.npz")
    arrays = dict(np.load(source))
    arrays["features"][-1] = arrays["features"][20]  # of `train` and of `test_unseen`
    np.savez(source, **arrays)
    settings = ("prepare.source=features", "classes.source=attributes", "evaluate.bootstrap=100")
    place = workspaces.make(folder / "workspace", source, {}, *settings)
    for stage in ("prepare", "embed", "classes", "train"):
        done = place(stage)
        assert done.code == 0, done.err
    return place


def evaluated(place: Place, *settings: str) -> dict[str, Any]:
    place.set("embed.pretrained_on=", "embed.hierarchy=", *settings)
    done = place("evaluate")
    assert done.code == 0, done.err
    return json.loads((place.root / "reports/metrics.json").read_bytes())


def test_clean_and_flagged_classes_are_told_apart_and_the_headline_stays(
    stages: Place, tmp_path: Path
) -> None:
    before = evaluated(stages)
    unknown = before["leakage"]
    assert (unknown["known"], unknown["flags"], unknown["possible"]) == (False, {}, {})
    assert (unknown["clean"], unknown["flagged"]) == (None, None)
    page = (stages.root / "reports/index.html").read_text(encoding="utf-8")
    assert "no figure here is one of clean classes" in page
    assert "No unseen class is known to be among" not in page
    known, kin = tmp_path / "known.txt", tmp_path / "kin.csv"
    known.write_text("".join(f"{name.replace(' ', '_').title()}\n" for name in FLAGGED[1:]) + "stranger\n")
    kin.write_text(f"child,parent\nstranger,{FLAGGED[0]}\n")
    after = evaluated(stages, f"embed.pretrained_on={known}", f"embed.hierarchy={kin}")
    leaks = after["leakage"]
    assert leaks["known"] is True
    assert list(leaks["flags"]) == FLAGGED
    assert leaks["flags"]["kind 24"] == {"kind": "descendant", "match": "stranger"}
    assert leaks["flags"]["kind 25"] == {"kind": "exact", "match": "Kind_25"}
    assert (leaks["clean"]["classes"], leaks["flagged"]["classes"]) == (5, 7)
    assert leaks["pretrained_on"] == "7 classes of known.txt"
    assert {name: after[name] for name in FIGURES} == {name: before[name] for name in FIGURES}
    # U of all is the mean over classes, so the two sides make it up.
    shares = (5 * leaks["clean"]["U"] + 7 * leaks["flagged"]["U"]) / 12
    assert shares == pytest.approx(after["U"])
    page = (stages.root / "reports/index.html").read_text(encoding="utf-8")
    assert 'id="leakage"' in page and "most likely seen pictures of 7 of the 12 unseen classes" in page


def test_a_row_under_two_published_classes_is_told_on_the_page(stages: Place) -> None:
    assert evaluated(stages)["repeated"] == {"in_two_classes": 1, "in_two_splits": 1}
    page = (stages.root / "reports/index.html").read_text(encoding="utf-8")
    assert "1 picture is under more than one class" in page
    assert "1 picture is in more than one of the published splits" in page


def test_every_plot_and_table_is_on_the_page(stages: Place) -> None:
    figures = evaluated(stages)
    page = (stages.root / "reports/index.html").read_text(encoding="utf-8")
    drawn = {path.stem for path in (stages.root / "reports/plots").iterdir()}
    assert drawn == PICTURES
    for part in (*PICTURES, "answers", "classes", "space", "leakage", "selection", "data"):
        assert f'id="{part}"' in page, part
    assert page.count('class="nearest"') == page.count('class="right"') + page.count('class="wrong"') > 10
    assert page.count('<li value="1"') == page.count('class="nearest"')
    accepted = figures["none_of_these"]
    assert f"at most {percent(accepted['false_accept'])} get a label all the same" in page
    assert f"{percent(accepted['accepted']['unknown'])} of {shown(accepted['pictures'])} do" in page
    about = Classifier.load(stages.root / "models/classifier").about
    assert about is not None and 0 <= figures["H_regret"] == about["H_regret"] < 0.5
    assert f"on class folds the offset loses {figures['H_regret']:.3f} of the best" in page
    both, seen, unseen = (
        figures["reliability"],
        *(figures["reliability"][side] for side in ("seen", "unseen")),
    )
    assert sum(both["pictures"]) == sum(seen["pictures"]) + sum(unseen["pictures"])


def test_on_class_folds_the_regret_is_that_of_the_folds_that_are_measured(tmp_path: Path) -> None:
    source = workspaces.write_features(tmp_path / "features.npz", unseen_pictures=False)
    settings = ("prepare.source=features", "classes.source=attributes", "evaluate.bootstrap=100")
    place = workspaces.make(tmp_path / "workspace", source, {}, *settings, "train.mapper=ridge")
    for stage in ("prepare", "embed", "classes", "train", "evaluate"):
        assert place(stage).code == 0
    figures = place.read("reports/metrics.json")
    bundle = Classifier.load(place.root / "models/classifier")
    assert figures["estimated_on"] == "class folds"
    assert 0 <= figures["H_regret"] < 0.3
    assert bundle.about is not None and figures["H_regret"] != bundle.about["H_regret"]


def test_a_class_space_beside_the_wrong_classes_is_warned_of(tmp_path: Path) -> None:
    source = workspaces.write_features(tmp_path / "features.npz", shuffled=True)
    settings = ("prepare.source=features", "classes.source=attributes", "evaluate.bootstrap=100")
    place = workspaces.make(tmp_path / "workspace", source, {}, *settings)
    for stage in ("prepare", "embed", "classes", "train", "evaluate"):
        assert place(stage).code == 0
    assert place.read("reports/metrics.json")["class_space"]["p"] > 0.05
    page = (place.root / "reports/index.html").read_text(encoding="utf-8")
    assert page.count("has nothing to do with how they look") == 2


def test_a_list_that_is_not_there_is_named_before_anything_is_measured(stages: Place) -> None:
    stages.set("embed.pretrained_on=nowhere.txt")
    done = stages("evaluate")
    assert done.code == 1
    assert "embed.pretrained_on names" in done.err and "nowhere.txt" in done.err
    evaluated(stages)


def test_where_unseen_classes_have_no_pictures_leaks_are_listed_and_no_figures_split(tmp_path: Path) -> None:
    source = workspaces.write_features(tmp_path / "features.npz", unseen_pictures=False)
    (tmp_path / "known.txt").write_text("Kind-30\n")
    settings = (
        "prepare.source=features",
        "classes.source=attributes",
        "evaluate.bootstrap=100",
        f"embed.pretrained_on={tmp_path / 'known.txt'}",
    )
    place = workspaces.make(tmp_path / "workspace", source, {}, *settings)
    for stage in ("prepare", "embed", "classes", "train", "evaluate"):
        done = place(stage)
        assert done.code == 0, done.err
    leaks = place.read("reports/metrics.json")["leakage"]
    assert leaks["flags"] == {"kind 30": {"kind": "exact", "match": "Kind-30"}}
    assert (leaks["clean"], leaks["flagged"]) == (None, None)
    assert {path.stem for path in (place.root / "reports/plots").iterdir()} == PICTURES
    page = (place.root / "reports/index.html").read_text(encoding="utf-8")
    assert "stand in for them" in page and 'class="nearest"' in page


def test_dvc_sees_a_change_of_the_lists_behind_the_flags(stages: Place, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    found = []
    for text, settings in (
        (None, "embed.pretrained_on="),
        (None, f"embed.pretrained_on={known}"),
        ("zebra\n", f"embed.pretrained_on={known}"),
        ("okapi, a rare one\n", f"embed.pretrained_on={known}"),
    ):
        if text:
            known.write_text(text)
        stages.set(settings)
        Workspace(stages.root).write_fingerprints()
        lines = (stages.root / ".ayeaye/inputs.yaml").read_text().splitlines()
        found.append(next(line for line in lines if line.startswith("evaluate:")))
    assert len(set(found)) == 4
    evaluated(stages)
