"""The retrain flow's tasks, each by itself: what they leave in Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ayeaye.core.errors import CheckFailed
from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.flows import events, retrain
from ayeaye.release.promotion import FLOW, record_of


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


def test_a_promotion_of_which_a_killed_run_did_not_tell_is_told_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[tuple[str, int]]()
    monkeypatch.setattr(
        events, "emit", lambda workspace, kind, message, **about: told.append((kind, about["version"]))
    )
    workspace = Workspace(tmp_path)
    record = record_of(workspace)
    record.append("promote", 1, actor=f"{FLOW} (ann)")  # by an ayeaye that kept nothing of what it told
    events.emit_missed(workspace)
    assert told == []
    record.append("promote", 2, actor=f"{FLOW} (ann)")
    for _ in range(2):
        events.emit_missed(workspace)
        assert told == [("promoted", 2)]
    record.append("promote", 3, actor=f"{FLOW} (ann)")
    events.emit_outcome(workspace, {"outcome": "promoted", "version": 3, "message": "Version 3 is champion."})
    record.append("rollback", 2, actor="ann")
    events.emit_missed(workspace)
    assert told == [("promoted", 2), ("promoted", 3)]
