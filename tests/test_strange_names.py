"""A workspace and a source whose names hold what ends a value, a URI or a pattern somewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import workspaces

from ayeaye.core.workspace import Workspace
from ayeaye.release import promotion
from ayeaye.versioning import stores

NAME = "we?ird #1 100% %41 ~x é [a]: 'c' $d;"


@pytest.mark.slow
def test_every_command_works_under_any_name(
    tmp_path: Path,
    small: tuple[str, ...],
    environment: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    source = workspaces.write_paints(home / "photos #1: [a]")
    # A folder that a lax reading of the settings would take instead.
    workspaces.write_paints(home / "photos", pictures=2)
    place = workspaces.make(home / NAME, source, environment, *small)
    before = set(tmp_path.iterdir())
    assert place.retrain()["champion"] == 1

    workspace = Workspace(place.root)
    assert workspace.params.prepare.path == str(source)
    status = place.status
    assert status["champion"]["version"] == 1 and status["agrees"]
    card = place("card", "--json")
    assert card.code == 0, card.err
    registry = promotion.registry_of(workspace)
    assert (place.root / ".ayeaye" / "mlflow" / "mlflow.db").is_file()
    assert (registry.bundle(1) / "bundle.json").is_relative_to(place.root)
    picture = next((source / "images" / "paint 000").iterdir())
    labelled = place("classify", picture, "--json")
    assert labelled.code == 0, labelled.err
    with stores.objects(workspace) as objects:
        assert set(objects.stores) == {"cache", "remote"} and not objects.shared
    collected = place("gc", "--json")
    assert (collected.code, collected.json["items"]) == (0, []), collected.err
    made = place("reproduce", 1, "--dry-run", "--json")
    assert made.code == 0, made.err

    assert set(tmp_path.iterdir()) == before and not list(here.iterdir())
    assert {path.name for path in home.iterdir()} == {NAME, "photos", "photos #1: [a]"}
