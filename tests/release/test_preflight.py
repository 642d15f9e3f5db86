"""What a retrain needs is looked at before anything costs time, and told all at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import workspaces

from ayeaye import params, versioning
from ayeaye.classspace import space
from ayeaye.data.table import ClassTable
from ayeaye.errors import AyeayeError, BackboneError, CoincidentClasses, ParamsError, UnknownWords
from ayeaye.release import preflight
from ayeaye.workspace import TEMPLATES, Workspace, template

ANIMALS = ["Leopards", "okapis", "zebras", "quaggas", "lynxes", "gnus", "voles"]
KNOWN = ["leonard", "leopard", "leotard", "okra", "grass"]


def made(root: Path, *settings: str) -> Workspace:
    for name in TEMPLATES:
        shutil.copyfile(template(name), root / name)
    params.assign(root / "params.yaml", list(settings))
    workspace = Workspace(root)
    workspace.write_fingerprints()
    return workspace


def table(names: list[str] = ANIMALS, **columns: list[str]) -> ClassTable:
    return ClassTable(pd.DataFrame({"name": names, "role": "seen", **columns}))


def vectors(root: Path, words: list[str]) -> str:
    chance = np.random.default_rng(0)
    rows = [f"{word} {' '.join(f'{number:.3f}' for number in chance.normal(size=8))}" for word in words]
    (root / "vectors.txt").write_text("\n".join(rows) + "\n")
    return "classes.vectors=vectors.txt"


def test_words_that_no_vector_knows_are_told_with_those_of_the_same_stem_first(tmp_path: Path) -> None:
    workspace = made(tmp_path, "classes.source=glove", vectors(tmp_path, KNOWN))
    with pytest.raises(
        UnknownWords, match=r"knows no word of the synonyms of 7 classes: Leopards .*and 2 more"
    ) as met:
        preflight.examine(workspace, table(), "features")
    assert met.value.unknown["Leopards"]["Leopards"][0] == "leopard"
    assert [line.partition(":")[0] for line in met.value.details] == ANIMALS
    assert met.value.details[0].startswith("Leopards: Leopards (near: leopard")


def test_classes_that_are_not_told_apart_are_all_listed(tmp_path: Path) -> None:
    workspace = made(tmp_path, "classes.source=glove", vectors(tmp_path, ["animal", "plant"]))
    names = [f"animal {number}" for number in range(5)]
    with pytest.raises(CoincidentClasses) as met:
        preflight.examine(workspace, table([*names, "plant"]), "features")
    assert len(met.value.details) == 10


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    workspace = made(
        tmp_path,
        "classes.source=glove",
        vectors(tmp_path, KNOWN),
        "embed.backbone=resnet81",
        "embed.pretrained_on=nowhere.txt",
        "embed.hierarchy=kin.csv",
        "release.minimum.T9=0.1",
        "serve.token_file=secret",
    )
    (tmp_path / "nowhere.txt").write_text("cat\n")
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(UnknownWords) as met:
        preflight.examine(workspace, table(), "images")
    said = str(met.value)
    for expected in (
        "knows no word",
        "no such classification model",
        "kin.csv, which is not there",
        "T9",
        "no token",
    ):
        assert expected in said
    assert "nowhere.txt" not in said
    assert len(met.value.details) == 5 + len(ANIMALS)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        (("embed.weights=lost.pth",), BackboneError, "embed.weights is lost.pth: neither a checkpoint file"),
        (("embed.weights=page.pth",), BackboneError, "is not a readable checkpoint .it is a web page"),
        (("serve.token_file=lost",), ParamsError, "serve.token_file .*lost cannot be read"),
        (("classes.source=glove",), AyeayeError, "glove vectors are not trained here"),
        (("classes.source=nonsense",), AyeayeError, "no such source or matrix"),
        (("classes.corpus=lost.txt",), AyeayeError, "lost.txt cannot be read"),
        (("classes.text=descriptions",), AyeayeError, "no description for Leopards"),
        (("classes.weights=[1, 2, 3]",), AyeayeError, "3 numbers for 2 sources"),
    ],
)
def test_a_fault_is_told_before_anything_is_read(
    tmp_path: Path, settings: tuple[str, ...], error: type[AyeayeError], said: str
) -> None:
    (tmp_path / "page.pth").write_text("<html>Not found</html>")
    with pytest.raises(error, match=said):
        preflight.examine(made(tmp_path, *settings), table(), "images")


def test_what_was_met_is_not_looked_at_again_until_something_of_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = made(tmp_path, "classes.source=glove", vectors(tmp_path, KNOWN))
    preflight.examine(workspace, table(["leopard", "okra"]), "features")
    looked = list[list[str]]()
    monkeypatch.setattr(space, "check", lambda given, *rest: looked.append(given.names))
    preflight.examine(Workspace(tmp_path), table(["leopard", "okra"]), "features")
    assert looked == []
    preflight.examine(Workspace(tmp_path), table(["leopard", "grass"]), "features")
    (tmp_path / "vectors.txt").write_text("leopard 1 2\ngrass 2 1\n")
    Workspace(tmp_path).write_fingerprints()
    preflight.examine(Workspace(tmp_path), table(["leopard", "grass"]), "features")
    assert looked == [["leopard", "grass"]] * 2


def test_a_server_that_is_away_is_said_and_stops_nothing(tmp_path: Path) -> None:
    workspace = made(tmp_path, "classes.source=tfidf", "release.tracking=http://127.0.0.1:9")
    said = list[str]()
    preflight.examine(workspace, table(), "features", said.append)
    assert any("Training begins all the same, but MLflow cannot be reached" in text for text in said)


def test_a_dry_run_finds_what_the_stages_would_and_lists_all_of_it_in_a_file(tmp_path: Path) -> None:
    source = workspaces.write_features(tmp_path / "features.npz")
    place = workspaces.make(
        tmp_path / "workspace",
        source,
        {},
        "prepare.source=features",
        "classes.source=glove",
        "classes.text=names",
    )
    place.set(f"classes.vectors={tmp_path / vectors(tmp_path, KNOWN).partition('=')[2]}")
    done = place("retrain", "--dry-run")
    listing = place.root / "checks" / "faults-prepare.txt"
    assert (done.code, str(listing) in done.err) == (1, True), done.err
    assert "knows no word of the names of 36 classes" in done.err and len(done.err.splitlines()) <= 2
    assert len(listing.read_text().splitlines()) == 36
    assert not (place.root / "data" / "dataset").exists()
    place.set("classes.source=attributes")
    done = place("retrain", "--dry-run", "--json")
    assert done.json["stages"] == ["classes", "embed", "train", "evaluate"]
    assert versioning.affected(Workspace(place.root), {"embed"}) == ["embed", "train", "evaluate"]
    assert not listing.exists()
