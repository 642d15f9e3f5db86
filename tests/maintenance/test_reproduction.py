"""Reproducing versions in a new workspace, and comparing them."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from retrained import digest_of, snapshot
from workspaces import Place

from ayeaye.core.workspace import Workspace
from ayeaye.release import promotion
from ayeaye.versioning import git

pytestmark = pytest.mark.slow


def test_a_version_is_made_again_bit_by_bit_in_a_workspace_of_its_own(place: Place, tmp_path: Path) -> None:
    before, commits = snapshot(place.root), git.head(Workspace(place.root))
    # Nothing of the original but its history and its remote may be needed.
    shutil.rmtree(place.root / ".dvc" / "cache")
    into = tmp_path / "again"
    planned = place("reproduce", 1, "--into", into, "--dry-run", "--json").json
    assert (planned["version"], planned["begun"], planned["folder"]) == (1, False, str(into))
    assert not into.exists()
    done = place("reproduce", 1, "--into", into, "--json")
    assert done.code == 0, done.err
    made = done.json
    assert (made["verdict"], made["differences"], made["version"]) == ("identical", [], 1)
    first = next(each for each in place.status["candidates"] if each["version"] == 1)
    assert made["bundle"] == {"recorded": first["bundle_digest"], "reproduced": first["bundle_digest"]}
    assert made["labels"]["share"] == 1 and made["labels"]["pictures"] > 0
    assert (made["code"]["changed"], made["inputs"]) == ([], [])
    assert not any((into / ".ayeaye").glob("mlflow/*.db")), "registers nothing"
    after = {name: digest for name, digest in before.items() if not name.startswith(".dvc/cache/")}
    assert snapshot(place.root) == after
    assert git.head(Workspace(place.root)) == commits

    # What a kill left is taken up: one stage is to be done again, the finished ones are not.
    trained_at = (into / "data" / "embeddings").stat().st_mtime_ns
    shutil.rmtree(into / "reports")
    assert place("reproduce", 1, "--into", into, "--dry-run", "--json").json["begun"]
    again = place("reproduce", 1, "--into", into, "--json")
    assert again.json["verdict"] == "identical"
    assert (into / "data" / "embeddings").stat().st_mtime_ns == trained_at

    other = place("reproduce", "champion", "--into", into)
    assert other.code == 1
    assert "is there already, and not to reproduce version 2" in other.err
    inside = place("reproduce", 1, "--into", place.root / "again")
    assert inside.code == 1 and "lies in the workspace itself" in inside.err
    unknown = place("reproduce", 9)
    assert unknown.code == 1 and "has no version 9" in unknown.err


@pytest.mark.soak
def test_a_version_made_again_by_other_means_is_different_and_says_where(
    place: Place, tmp_path: Path
) -> None:
    # The file of weights has changed since.
    other = tmp_path / "other.pth"
    shutil.copyfile(Workspace(place.root).params.embed.weights or "", other)
    place.set(f"embed.weights={other}")
    subprocess.run(["git", "commit", "-qam", "Other weights"], cwd=place.root, check=True)
    registry = promotion.registry_of(Workspace(place.root))
    registry.tag(2, git_commit=git.head(Workspace(place.root)), ayeaye_version="0.0.1")
    import torch

    network = torch.load(other, weights_only=True)
    flipped = {name: value.flip(0) if value.ndim else value for name, value in network.items()}
    torch.save(flipped, other)
    done = place("reproduce", "champion", "--into", tmp_path / "again", "--json")
    assert done.code == 3, done.err
    made = done.json
    assert made["verdict"] == "different"
    assert any("test images get another label" in each for each in made["differences"])
    assert [each["name"] for each in made["inputs"]] == ["weights"]
    assert "has changed since version 2 was made" in done.err


def test_code_and_files_that_have_changed_since_are_named(place: Place, tmp_path: Path) -> None:
    from ayeaye.maintenance import reproduction

    workspace = Workspace(place.root)
    version = promotion.registry_of(workspace).version(2)
    assert set(version.tags["code"].split()) == {
        f"{stage}={digest}" for stage, digest in workspace.fingerprints().items()
    }
    assert reproduction.compare_code(workspace, version).note == ""
    assert reproduction.compare_inputs(workspace, version) == []

    weights, corpus = tmp_path / "other.pth", tmp_path / "corpus.txt"
    weights.write_bytes(b"others")
    place.set(f"embed.weights={weights}", "classes.corpus=nowhere.txt")
    named = {each.name: each for each in reproduction.compare_inputs(Workspace(place.root), version)}
    assert set(named) == {"weights", "corpus"} and not corpus.exists()
    assert named["weights"].now == digest_of(b"others")
    assert "stage classes reads is not there since version 2 was made" in named["corpus"].note

    code = workspace.state / "code.yaml"
    code.write_text(code.read_text().replace(workspace.fingerprints()["train"], "0" * 64))
    made = dataclasses.replace(
        version, tags={**version.tags, "ayeaye_version": "0.0.1", "code_commit": "abc+changes"}
    )
    said = reproduction.compare_code(workspace, made)
    assert said.changed == ["train"]
    assert "ayeaye 0.0.1 at commit abc+changes" in said.note and "`git checkout abc`" in said.note


def test_small_differences_are_equivalent(retrained: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from ayeaye.maintenance import reproduction

    workspace = Workspace(retrained.root)
    registry = promotion.registry_of(workspace)
    version = registry.version(2)
    assert reproduction.compare(registry, version, workspace).verdict == "identical"
    elsewhere = dataclasses.replace(version, tags={**version.tags, "bundle_digest": "0" * 64})
    assert reproduction.compare(registry, elsewhere, workspace).verdict == "equivalent"
    recorded = registry.metrics(version)
    for change, verdict in ((0.0019, "equivalent"), (0.0021, "different")):
        changed = {**recorded, "H": recorded["H"] + change}
        monkeypatch.setattr(registry, "metrics", lambda version, changed=changed: changed)
        assert reproduction.compare(registry, elsewhere, workspace).verdict == verdict


@pytest.mark.parametrize(("wrong", "of", "share"), [(1, 1000, 0.999), (2, 1000, 0.998)])
def test_labels_are_compared_picture_by_picture_and_fold_by_fold(wrong: int, of: int, share: float) -> None:
    from ayeaye.maintenance import reproduction

    before = pd.DataFrame({"id": [f"{n:04d}" for n in range(of)], "fold": 0, "answer": "a"})
    after = before.sample(frac=1, random_state=0).reset_index(drop=True)
    after.loc[: wrong - 1, "answer"] = "b"
    agreement = reproduction.LabelAgreement.of
    assert agreement(before, after) == reproduction.LabelAgreement(of, of - wrong, share)
    assert agreement(before, after.iloc[wrong:]).equal == of - wrong
