"""What a retrain needs is looked at before anything costs time, and told all at once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import workspaces

from ayeaye.backbones import backbones
from ayeaye.class_vectors import space
from ayeaye.core import params
from ayeaye.core.errors import (
    AyeayeError,
    BackboneError,
    CoincidentClasses,
    DataError,
    ParamsError,
    UnknownWords,
)
from ayeaye.core.workspace import TEMPLATES, Workspace, template
from ayeaye.data.table import ClassTable
from ayeaye.release import preflight
from ayeaye.versioning import dvc

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
    return ClassTable(pd.DataFrame({"name": names, "role": "seen", "pretend_unseen": True, **columns}))


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
        (("embed.std=0",), BackboneError, "embed.std is 0.0: expected"),
        (("embed.backbone=alexnet", "embed.size=16"), BackboneError, "alexnet cannot take pictures of 16 px"),
        (("embed.backbone=inception_v3", "embed.size=16"), BackboneError, "cannot take pictures of 16 px"),
        (("embed.backbone=vit_b_32",), BackboneError, "cannot take pictures of 64 px .*: set embed.size"),
        (("embed.weights=nan.pth", "embed.backbone=shufflenet_v2_x0_5"), BackboneError, "holds NaN"),
    ],
)
def test_a_fault_is_told_before_anything_is_read(
    tmp_path: Path, settings: tuple[str, ...], error: type[AyeayeError], said: str
) -> None:
    (tmp_path / "page.pth").write_text("<html>Not found</html>")
    state = backbones.build("shufflenet_v2_x0_5", 2).state_dict()
    torch.save({key: value * float("nan") for key, value in state.items()}, tmp_path / "nan.pth")
    with pytest.raises(error, match=said):
        preflight.examine(made(tmp_path, *settings), table(), "images")


def test_too_few_classes_to_stand_in_are_told_where_the_backbone_is_trained_here(tmp_path: Path) -> None:
    few = table(pretend_unseen=[True, *[False] * 6])
    preflight.examine(made(tmp_path), few, "features")
    with pytest.raises(DataError, match=r"1 seen classes can stand in .* raise prepare.validation_classes"):
        preflight.examine(Workspace(tmp_path), few, "images")


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a CUDA device")
@pytest.mark.parametrize("knob", ["embed.device", "train.device"])
def test_cuda_is_looked_for_at_once(tmp_path: Path, knob: str) -> None:
    with pytest.raises(BackboneError, match=f"^{knob} is cuda, but torch sees no CUDA device here: use auto"):
        preflight.examine(made(tmp_path, f"{knob}=cuda"), table(), "images")


def test_an_engine_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackboneError, match=r"embed.engine is openvino: openvino .*; use auto or torch"):
        preflight.examine(made(tmp_path, "embed.engine=openvino", "embed.device=cpu"), table(), "images")


def test_descriptions_of_the_same_words_are_told_before_word_vectors_are_trained(tmp_path: Path) -> None:
    said = [f"red fish number{row}" for row in range(5)]
    same = table(description=[*said, "big red fish", "fish red big"])
    with pytest.raises(CoincidentClasses, match="gnus and voles have the same description"):
        preflight.examine(made(tmp_path), same, "features")


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
    assert dvc.affected(Workspace(place.root), {"embed"}) == ["embed", "train", "evaluate"]
    assert not listing.exists()
