"""The stage embed: what is kept from run to run, and when it no longer counts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workspaces

from ayeaye.backbones import backbones, engines
from ayeaye.backbones.shards import gather
from ayeaye.class_vectors import space
from ayeaye.classifier.model import Classifier
from ayeaye.core import code_digests as code_digests
from ayeaye.core import params
from ayeaye.core.errors import BackboneError
from ayeaye.core.files import digest_folder
from ayeaye.core.workspace import Workspace
from ayeaye.data.decode import Limits
from ayeaye.data.table import Dataset
from ayeaye.mappers import create
from ayeaye.pipeline import embed as stage
from ayeaye.pipeline import engine
from ayeaye.pipeline.progress import Progress


@pytest.fixture
def prepared(tmp_path: Path, small: tuple[str, ...]) -> Workspace:
    photographed = [*list(workspaces.paints())[:4], *workspaces.UNSEEN[:1]]
    source = workspaces.write_paints(tmp_path / "paints", pictures=4, photographed=photographed)
    lines = (source / "classes.csv").read_text().splitlines()
    kept = [line for line in lines if line.startswith(("name", *photographed))]
    (source / "classes.csv").write_text("\n".join(kept) + "\n")
    place = workspaces.make(tmp_path / "workspace", source, {}, *small)
    assert place("prepare").code == 0
    return Workspace(place.root)


@pytest.mark.parametrize("changed", ["data/decode.py", "backbones/shards.py"])
def test_embeddings_of_other_code_are_not_taken_from_the_cache(
    prepared: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    first = stage.embed(prepared, Progress(quiet=True))
    assert first["embedded"] == first["pictures"]
    assert stage.embed(prepared, Progress(quiet=True))["embedded"] == 0

    package = shutil.copytree(code_digests.PACKAGE, tmp_path / "ayeaye")
    with (package / changed).open("a") as file:
        file.write("# changed\n")
    for module in (code_digests, stage):
        monkeypatch.setattr(module, "PACKAGE", package)
    assert stage.embed(prepared, Progress(quiet=True))["embedded"] == first["pictures"]


def embedded(prepared: Workspace, *settings: str) -> tuple[Workspace, dict[str, Any]]:
    """The workspace with other settings of the stage, and what the stage said."""
    params.assign(prepared.root / "params.yaml", [f"embed.{setting}" for setting in settings])
    workspace = Workspace(prepared.root)
    return workspace, stage.embed(workspace, Progress(quiet=True))


def test_an_engine_is_tried_once_and_gives_the_same_digests_ever_after(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, said = embedded(prepared, "engine=auto")  # 32 px
    first = digest_folder(workspace.embeddings)
    (memory,) = (workspace.state / "engines").glob("*.json")
    remembered = json.loads(memory.read_text())
    assert " ".join(remembered["engine"].values()) == said["engine"]
    assert remembered["machine"] == engines.machine()

    monkeypatch.setattr(engines, "choose", None)
    shutil.rmtree(workspace.embeddings)
    _, again = embedded(prepared)
    assert digest_folder(workspace.embeddings) == first
    assert again == {**said, "embedded": 0}


def test_a_remembered_engine_whose_graph_cannot_be_written_any_more_gives_way_to_torch(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(*given: Any, **settings: Any) -> engines.Choice:
        return engines.Choice(engines.Engine("onnxruntime"), "2.0 times as fast as torch")

    def unwritten(*given: Any) -> bytes:
        raise engines.MissingEngine("onnx is not installed")

    monkeypatch.setattr(engines, "choose", chosen)
    assert embedded(prepared, "engine=auto")[1]["engine"] == "onnxruntime fp32"
    monkeypatch.setattr(engines, "choose", None)
    monkeypatch.setattr(engines, "export", unwritten)
    _, said = embedded(prepared)
    assert said["engine"] == "torch fp32"
    assert said["engine_because"] == "onnxruntime fp32 was chosen before, but onnx is not installed"
    with pytest.raises(BackboneError, match="onnx is not installed"):
        monkeypatch.setattr(engines, "choose", chosen)
        embedded(prepared, "engine=onnxruntime")


def test_every_engine_that_is_named_embeds_alike(prepared: Workspace) -> None:
    found = {}
    for name in ("torch", "onnxruntime", "openvino"):
        workspace, said = embedded(prepared, f"engine={name}", "precision=fp32")
        assert said["engine"] == f"{name} fp32"
        assert said["embedded"] == said["pictures"]  # no engine takes another's from the cache
        assert backbones.load(workspace.embeddings).engine.name == name
        found[name] = gather(Dataset.load(workspace.dataset), workspace.embeddings)
    for embeddings in found.values():
        assert engines.relative_error(embeddings, found["torch"]) <= engines.EXACT


def test_labels_are_compared_on_validation_pictures(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.load(prepared.dataset)
    backbone = stage.backbone_of(prepared, dataset, Progress(quiet=True))
    sample = engine.Sample(dataset, backbone, Limits())
    run = engines.runner_of_torch(backbone.network)
    asked = int(((dataset.manifest["split"] == "validation") & dataset.classes.seen[dataset.labels]).sum())
    assert 0 < asked < engines.LEAST
    assert sample.agreement(run, run) == (0, asked)  # too few to be worth it
    monkeypatch.setattr(engines, "LEAST", 1)
    assert sample.agreement(run, run) == (asked, asked)
    assert sample.agreement(run, lambda inputs: run(inputs) * np.nan) == (0, asked)


def test_the_labels_of_a_classifier_are_compared_with_those_in_full_precision(prepared: Workspace) -> None:
    workspace, _ = embedded(prepared, "engine=openvino", "precision=fp32")
    dataset, backbone = Dataset.load(workspace.dataset), backbones.load(workspace.embeddings)
    X, ids = gather(dataset, workspace.embeddings), dataset.manifest["id"].to_numpy(str)
    train = (dataset.manifest["split"] == "train").to_numpy()
    table = dataset.classes
    built = space.build(table, params.Classes(source="attributes"), Path)
    mapper = create("ridge").fit(X[train], dataset.labels[train], built.vectors)
    classifier = Classifier(built, table.seen, mapper, 0.0, 1.0)

    def kept(backbone: backbones.Backbone, X: np.ndarray) -> dict[str, Any] | None:
        return engine.label_agreement(
            dataset, backbone, lambda rows: classifier.scores(rows).argmax(axis=1), ids, X, Limits()
        )

    assert kept(backbone, X) is None
    reduced = replace(backbone, engine=engines.Engine("openvino", "bf16"))
    asked = int((dataset.manifest["split"] == "validation").sum())
    found = kept(reduced, X)
    assert found == {"engine": "openvino bf16", "labels": asked, "equal": asked, "share": 1.0}
    # As if reduced precision had given every picture the embedding of the first.
    same = kept(reduced, np.repeat(X[:1], len(X), axis=0))
    assert same is not None and same["equal"] < asked == same["labels"]


def test_what_stands_in_for_an_engine_is_cached_apart(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workspace, _ = embedded(prepared, "engine=onnxruntime")
    dataset, backbone = Dataset.load(workspace.dataset), backbones.load(workspace.embeddings)

    def anew(backbone: backbones.Backbone) -> int:
        return stage.embed_under(workspace, dataset, backbone, tmp_path / "there", Progress(quiet=True))

    assert anew(backbone) == 0
    monkeypatch.setattr(engines, "start", missing)
    assert anew(backbones.load(workspace.embeddings)) == len(dataset.manifest)


def missing(engine: engines.Engine, graph: bytes) -> engines.Runner:
    raise engines.MissingEngine(f"{engine.name} is not installed")
