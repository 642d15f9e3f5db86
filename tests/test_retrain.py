"""The retrain flow's tasks, each by itself: what they leave in Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ayeaye.errors import CheckFailed
from ayeaye.files import write_atomic
from ayeaye.workspace import Workspace
from flows import retrain


@pytest.mark.parametrize("failure", [None, CheckFailed("check of the embeddings failed")])
def test_an_artifact_shows_the_checks_also_when_one_of_them_stops_the_run(
    failure: CheckFailed | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = list[dict[str, Any]]()
    monkeypatch.setattr(
        retrain, "create_table_artifact", lambda rows, **about: shown.append({"rows": rows} | about)
    )

    def stage() -> None:
        write_atomic(tmp_path / "checks" / "embeddings" / "results.json", b'[{"met": false}]')
        if failure:
            raise failure

    def run() -> None:
        with retrain._showing_checks(Workspace(tmp_path), "embeddings"):
            stage()

    if failure:
        with pytest.raises(CheckFailed):
            run()
    else:
        run()
    (artifact,) = shown
    assert artifact["rows"] == [{"met": False}]
    assert artifact["key"] == "checks-embeddings"
