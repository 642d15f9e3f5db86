"""Champion against challenger on the same pictures: who counts, slices, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import workspaces

from ayeaye.class_vectors import space
from ayeaye.classifier.model import Classifier
from ayeaye.core import params
from ayeaye.core.errors import Incomparable
from ayeaye.core.params import Params, Release
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import ClassTable, Dataset
from ayeaye.mappers import create
from ayeaye.pipeline.prepare import prepare
from ayeaye.pipeline.progress import Progress
from ayeaye.release import compare, gate
from ayeaye.release.compare import Answers, Pair

SEEN = [f"kind {number:02d}" for number in range(24)]
UNSEEN = [f"kind {number:02d}" for number in range(24, 36)]
# Four of the unseen classes, and the eight others.
GROUPS = {name: "left" if name in UNSEEN[:4] else "right" for name in UNSEEN}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A dataset of features, and nothing else."""
    folder = tmp_path_factory.mktemp("features")
    source = workspaces.write_features(folder / "features.npz")
    settings = f"prepare: {{source: features, path: {source}}}\nevaluate: {{bootstrap: 100}}\n"
    (folder / "params.yaml").write_text(settings)
    workspace = Workspace(folder)
    prepare(workspace, Progress())
    workspace.state.mkdir(exist_ok=True)
    return workspace


def features(workspace: Workspace) -> tuple[Dataset, np.ndarray]:
    dataset = Dataset.load(workspace.dataset)
    rows = [np.frombuffer(dataset.picture(id), dataset.dtype) for id in dataset.manifest["id"]]
    return dataset, np.stack(rows).astype(np.float32)


def fitted(
    workspace: Workspace,
    folder: Path,
    *,
    seen: Collection[str] = SEEN,
    unseen: Collection[str] = UNSEEN,
    learned: Collection[str] = (),
    vectors: Mapping[str, str] | None = None,
    noise: float = 0.0,
    width: int = 32,
) -> Path:
    """A bundle of classes of the dataset, fitted on its training pictures of the seen ones and on those `learned`.

    `vectors` gives a class the class vector of another, `noise` blurs all of them.
    """
    dataset, X = features(workspace)
    manifest = dataset.manifest
    attributes = dataset.classes.matrices["attributes"].set_axis(dataset.classes.names)
    names = [*seen, *unseen]
    chance = np.random.default_rng(7)
    rows = [
        attributes.loc[(vectors or {}).get(name, name)].to_numpy()
        if name in attributes.index
        else chance.normal(size=attributes.shape[1])
        for name in names
    ]
    matrix = pd.DataFrame(np.stack(rows) + noise * chance.normal(size=(len(names), attributes.shape[1])))
    frame = pd.DataFrame({"name": names, "role": ["seen"] * len(seen) + ["unseen"] * len(unseen)})
    classes = ClassTable(frame, {"attributes": matrix})
    made = space.build(classes, params.Classes(source="attributes"), Path)
    fit = manifest["label"].isin(list(seen)) & (
        (manifest["split"] == "train") | manifest["id"].isin(list(learned))
    )
    y = manifest["label"][fit].map(classes.index()).to_numpy(np.int64)
    mapper = create("ridge").fit(X[fit.to_numpy(bool)][:, :width], y, made.vectors)
    Classifier(made, classes.seen, mapper, 0.1, 0.5).save(folder)
    return folder


def losses(
    pair: Pair, masks: Mapping[str, np.ndarray] | None = None, /, **release: object
) -> compare.Compared:
    chosen = Params.model_validate({"evaluate": {"bootstrap": 100}, "release": release})
    return compare.compared(pair, chosen, masks)


def test_bundles_of_the_same_features_are_compared(workspace: Workspace, tmp_path: Path) -> None:
    one = fitted(workspace, tmp_path / "one")
    pair = compare.on_pictures(workspace, one, one, (), Progress())
    assert [(loss.name, loss.value, loss.upper) for loss in losses(pair).losses] == [
        ("T1", 0.0, 0.0),
        ("H", 0.0, 0.0),
    ]


def test_a_champion_of_another_width_cannot_be_compared(workspace: Workspace, tmp_path: Path) -> None:
    champion = fitted(workspace, tmp_path / "old", width=16)
    with pytest.raises(Incomparable, match=r"champion does not take the dataset's features .*\(n, 16\)"):
        compare.on_pictures(workspace, fitted(workspace, tmp_path / "new"), champion, (), Progress())


def test_a_champion_of_pictures_cannot_be_compared_on_features(
    workspace: Workspace, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(Incomparable, match="the champion takes images, and the dataset holds features"):
        compare.on_pictures(workspace, fitted(workspace, tmp_path / "new"), bundle, (), Progress())


def test_a_class_that_went_from_unseen_to_seen_is_compared_with_nothing(
    workspace: Workspace, tmp_path: Path
) -> None:
    """The champion was never shown a class that the challenger has photographs of."""
    moved = SEEN[3]
    champion = fitted(
        workspace, tmp_path / "old", seen=[n for n in SEEN if n != moved], unseen=[*UNSEEN, moved]
    )
    pair = compare.on_pictures(workspace, fitted(workspace, tmp_path / "new"), champion, (), Progress())
    assert set(pair.label) == {*SEEN, *UNSEEN} - {moved}
    assert moved not in pair.names  # nor is it an answer that only one of them could give
    assert set(pair.label[pair.unseen]) == set(UNSEEN)
    assert [loss.name for loss in losses(pair).losses] == ["T1", "H"]


def test_a_class_that_went_from_seen_to_unseen_is_compared_with_nothing(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Its photographs went to the test; those that the champion learned from would flatter it."""
    moved = UNSEEN[0]
    manifest = Dataset.load(workspace.dataset).manifest
    shown = manifest["id"][manifest["label"] == moved].tolist()[::2]
    champion = fitted(workspace, tmp_path / "old", seen=[*SEEN, moved], unseen=UNSEEN[1:], learned=shown)
    pair = compare.on_pictures(workspace, fitted(workspace, tmp_path / "new"), champion, shown, Progress())
    assert set(pair.label[pair.unseen]) == set(UNSEEN[1:])
    assert moved not in set(pair.label)


def test_a_class_that_went_away_and_one_that_came_are_compared_with_nothing(
    workspace: Workspace, tmp_path: Path
) -> None:
    came = UNSEEN[5]
    champion = fitted(
        workspace, tmp_path / "old", unseen=[*(name for name in UNSEEN if name != came), "kind gone"]
    )
    pair = compare.on_pictures(workspace, fitted(workspace, tmp_path / "new"), champion, (), Progress())
    assert set(pair.label) == {*SEEN, *UNSEEN} - {came}
    assert not {"kind gone", came} & set(pair.names)


def test_where_every_class_changed_its_role_there_is_nothing_to_compare_on(
    workspace: Workspace, tmp_path: Path
) -> None:
    champion = fitted(workspace, tmp_path / "old", seen=SEEN, unseen=["kind gone"])
    challenger = fitted(workspace, tmp_path / "new", seen=UNSEEN, unseen=SEEN, learned=ids_of(workspace))
    with pytest.raises(Incomparable, match="no test pictures of classes that both know in the same role"):
        compare.on_pictures(workspace, challenger, champion, (), Progress())


def ids_of(workspace: Workspace) -> list[str]:
    return Dataset.load(workspace.dataset).manifest["id"].tolist()


def test_pictures_that_either_learned_from_are_left_out(workspace: Workspace, tmp_path: Path) -> None:
    one = fitted(workspace, tmp_path / "one")
    whole = compare.on_pictures(workspace, one, one, (), Progress())
    learned = set(ids_of(workspace)[::3])
    part = compare.on_pictures(workspace, one, one, learned, Progress())
    assert 0 < len(part.label) < len(whole.label)


# ---- slices ----


def test_a_challenger_that_wins_as_a_whole_is_refused_for_the_group_it_loses(
    workspace: Workspace, tmp_path: Path
) -> None:
    """It knows all classes better but four, whose class vectors it has in a circle."""
    left = UNSEEN[:4]
    circle = dict(zip(left, [*left[1:], left[0]], strict=True))
    challenger = fitted(workspace, tmp_path / "new", vectors=circle)
    champion = fitted(workspace, tmp_path / "old", noise=0.6)
    pair = compare.on_pictures(workspace, challenger, champion, (), Progress())
    slices = compare.slices_of(pair, GROUPS, ())
    found = losses(pair, slices)
    whole = {loss.name: loss for loss in found.losses if not loss.slice}
    assert whole["T1"].upper < 0
    release = Release(minimum={}, maximum={})
    decision = gate.decide({}, release, 4, found.losses, not_judged=found.not_judged)
    assert decision.verdict == "refused"
    assert [reason.split(":")[0] for reason in decision.reasons] == ["loss of T1 in group left"]
    assert "above slice epsilon 0.05, and worse beyond chance" in decision.reasons[0]
    assert "group left" in gate.markdown(decision)
    assert gate.from_dict(json.loads(json.dumps(decision.as_dict(), allow_nan=False))) == decision
    without = losses(pair, slices, slices=False)
    assert gate.decide({}, release, 4, without.losses).verdict == "promoted"


def test_leaked_and_clean_classes_are_slices_of_the_unseen_ones(workspace: Workspace, tmp_path: Path) -> None:
    one = fitted(workspace, tmp_path / "one")
    pair = compare.on_pictures(workspace, one, one, (), Progress())
    figures = [
        {"leakage": {"flags": {UNSEEN[0]: {}, UNSEEN[1]: {}}}},
        {"leakage": {"flags": {UNSEEN[2]: {}}}},
    ]
    leaked = compare.leaked(*figures, {})
    assert leaked == set(UNSEEN[:3])
    slices = compare.slices_of(pair, {}, leaked)
    assert {name: set(pair.label[mask]) for name, mask in slices.items()} == {
        "the clean classes": set(UNSEEN[3:]),
        "the leaked classes": set(UNSEEN[:3]),
    }
    assert {(loss.name, loss.slice) for loss in losses(pair, slices).losses if loss.slice} == {
        ("T1", "the clean classes"),
        ("T1", "the leaked classes"),
    }
    assert compare.slices_of(pair, {}, ()) == {}


def answers(label: list[str], unseen: np.ndarray, new: np.ndarray, old: np.ndarray) -> Pair:
    return Pair(np.array(label), unseen, Answers(new, new), Answers(old, old))


def test_a_slice_that_is_too_small_is_listed_and_does_not_refuse() -> None:
    """Two classes, whose every picture the challenger gets wrong, say nothing of the next two."""
    label = [f"class {number}" for number in range(10) for _ in range(20)]
    y = np.repeat(np.arange(10), 20)
    old = np.random.default_rng(0).random(200) < 0.6
    new = np.where(y < 2, 0.0, 1.0)
    pair = answers(label, np.ones(200, bool), new, old.astype(float))
    groups = {f"class {number}": "few" if number < 2 else "many" for number in range(10)}
    found = losses(pair, compare.slices_of(pair, groups, ()))
    assert found.not_judged == ["group few: 40 pictures of 2 unseen classes"]
    assert [loss.slice for loss in found.losses] == ["", "group many"]
    decision = gate.decide({}, Release(), 4, found.losses, not_judged=found.not_judged)
    assert decision.verdict == "promoted"
    assert "Too small to be judged: group few: 40 pictures of 2 unseen classes." in gate.markdown(decision)
    fewer = losses(pair, compare.slices_of(pair, groups, ()), slice_classes=2)
    decision = gate.decide({}, Release(slice_classes=2), 4, fewer.losses)
    assert [reason.split(":")[0] for reason in decision.reasons] == ["loss of T1 in group few"]


def test_a_side_of_a_group_that_is_too_small_is_left_out_of_its_figures() -> None:
    label = [f"class {number}" for number in range(8) for _ in range(20)]
    unseen = np.repeat(np.arange(8) < 1, 20)
    same = np.ones(160)
    pair = answers(label, unseen, same, same)
    found = losses(pair, compare.slices_of(pair, dict.fromkeys(label[:100], "one"), ()))
    assert [(loss.name, loss.classes) for loss in found.losses if loss.slice] == [("S", 4)]
    assert found.not_judged == ["group one: 20 pictures of 1 unseen class"]


def test_the_more_slices_there_are_the_surer_each_has_to_be() -> None:
    chance = np.random.default_rng(0)
    label = [f"class {number}" for number in range(24) for _ in range(20)]
    pair = answers(label, np.ones(480, bool), *(chance.random((2, 480)) < 0.6).astype(float))
    few = {f"class {number}": str(number // 12) for number in range(24)}
    many = {f"class {number}": str(number // 12) if number < 12 else str(number // 3) for number in range(24)}
    (one,), (other,) = (
        [loss for loss in losses(pair, compare.slices_of(pair, groups, ())).losses if loss.slice == "group 0"]
        for groups in (few, many)
    )
    assert one.value == other.value
    assert other.lower < one.lower < one.value


# ---- class folds ----


def frame(right: Mapping[str, float], *, seed: int = 0, pictures: int = 30) -> pd.DataFrame:
    """Fold predictions: each class stands in for an unseen one in a fold and is seen in the other."""
    chance = np.random.default_rng(seed)
    rows = []
    for place, (name, share) in enumerate(right.items()):
        for fold in (0, 1):
            for number in range(pictures):
                hit = bool(chance.random() < share)
                rows.append((f"{name} {number}", fold, name, fold == place % 2, hit, hit))
    return pd.DataFrame(rows, columns=["id", "fold", "label", "unseen", "right", "right_among_unseen"])


def test_class_folds_are_compared_by_groups_too() -> None:
    names = [f"class {number}" for number in range(12)]
    champion = dict.fromkeys(names, 0.6)
    challenger = {name: 0.1 if place < 4 else 0.95 for place, name in enumerate(names)}
    pair = compare.on_folds(frame(challenger), frame(champion, seed=1))
    groups = {name: "left" if place < 4 else "right" for place, name in enumerate(names)}
    found = losses(pair, compare.slices_of(pair, groups, set(names)), slice_classes=2)
    decision = gate.decide({"estimated_on": "class folds"}, Release(), 4, found.losses)
    assert decision.verdict == "refused"
    assert {reason.split(":")[0] for reason in decision.reasons} == {
        "loss of T1 in group left",
        "loss of H in group left",
    }


def test_class_folds_leave_out_classes_that_one_of_them_did_not_estimate() -> None:
    """A class got its first pictures, another lost them, a third went away."""
    champion = frame({"stays": 0.5, "also": 0.5, "seen once": 0.5, "gone": 0.5})
    challenger = frame({"stays": 0.5, "also": 0.5, "seen now": 0.5})
    pair = compare.on_folds(challenger, champion)
    assert set(pair.label) == {"stays", "also"}
    with pytest.raises(Incomparable, match="no picture was estimated for both"):
        compare.on_folds(frame({"a": 0.5}), frame({"b": 0.5}))
