"""What a retrain would do, found out without doing it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ayeaye.core.workspace import Workspace
from ayeaye.pipeline.prepare import prepare
from ayeaye.pipeline.progress import Progress
from ayeaye.release import preflight
from ayeaye.release.promotion import record_of
from ayeaye.versioning import dvc


def plan(workspace: Workspace, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """The dataset as it would be, the stages that would run, and what would follow.

    Reads and checks every new picture, as the retrain itself does, and raises what would stop it before training.
    No data, model or record is written.
    """
    dvc.require(workspace)
    workspace.write_fingerprints()  # with which DVC compares: digests alone, that the retrain would write too
    examine = partial(preflight.examine, workspace, say=say)
    dataset = prepare(workspace, Progress(), dry_run=True, examine=examine)
    changed = dvc.changed(workspace)
    if dataset["changed"]:
        changed = {*changed, dvc.DATASET}
    stages = dvc.affected(workspace, changed)
    state = record_of(workspace).state()
    follows = "a version, the gate, and " + (
        "a promotion if it passes"
        if workspace.params.release.approval == "automatic"
        else "a wait for approval if it passes"
    )
    return {
        "dataset": dataset,
        "stages": stages,
        "champion": state.champion,
        "pending": state.pending.to if state.pending else None,
        "follows": follows if stages else "nothing new to train",
        "dry_run": True,
    }
