"""The stage embed: what is kept from run to run, and when it no longer counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import workspaces

from ayeaye import fingerprints
from ayeaye.pipeline import embed as stage
from ayeaye.pipeline.progress import Progress
from ayeaye.workspace import Workspace


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


@pytest.mark.parametrize("changed", ["data/decode.py", "embedding/shards.py"])
def test_embeddings_of_other_code_are_not_taken_from_the_cache(
    prepared: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    first = stage.embed(prepared, Progress(quiet=True))
    assert first["embedded"] == first["pictures"]
    assert stage.embed(prepared, Progress(quiet=True))["embedded"] == 0

    package = shutil.copytree(fingerprints.PACKAGE, tmp_path / "ayeaye")
    with (package / changed).open("a") as file:
        file.write("# changed\n")
    for module in (fingerprints, stage):
        monkeypatch.setattr(module, "PACKAGE", package)
    assert stage.embed(prepared, Progress(quiet=True))["embedded"] == first["pictures"]
