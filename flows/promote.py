"""The promote flow: a person's word on a version, given in Prefect's page instead of the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from pydantic import Field

from ayeaye.release import approval, promotion
from ayeaye.release.promotion import record_of
from ayeaye.workspace import Workspace

ACTOR = "promote flow"
Decision = Literal["approve", "refuse", "promote", "rollback"]


@flow(name="promote", persist_result=False)
def promote(
    decision: Annotated[
        Decision,
        Field(
            description="approve or refuse what waits, promote any other that passed the gate, roll back to the "
            "previous champion"
        ),
    ],
    version: Annotated[int | None, Field(ge=1, description="Which version; none for a rollback.")] = None,
    reason: Annotated[str, Field(max_length=2000, description="Why, for the record.")] = "",
    dry_run: Annotated[bool, Field(description="Say what would happen, and change nothing.")] = False,
    workspace: Annotated[str, Field(description="The folder of the workspace.")] = ".",
) -> dict[str, Any]:
    """Give a person's word on a version: what `ayeaye approve`, `refuse`, `promote` and `rollback` do."""
    found = Workspace.find(Path(workspace))
    os.environ.update(found.environment())
    say = get_run_logger().info
    actor = f"{ACTOR} ({promotion.actor()})"
    if (version is None) != (decision == "rollback"):
        raise ValueError(
            f"decision is {decision} and version is {version}: a rollback takes none, any other one"
        )
    with found.lock(say):
        before = len(record_of(found).entries())
        if version is None:
            done = promotion.rollback(found, reason=reason, actor=actor, dry_run=dry_run, say=say)
        elif decision == "refuse":
            done = approval.refuse(found, version, reason=reason, actor=actor, dry_run=dry_run)
        else:
            change = approval.approve if decision == "approve" else promotion.promote
            done = change(found, version, reason=reason, actor=actor, dry_run=dry_run, say=say)
        new = record_of(found).entries()[before:]
    rows = [
        {"action": entry.action, "from": entry.from_, "to": entry.to, "why": "; ".join(entry.why)}
        for entry in new
    ]
    if rows:
        create_table_artifact(rows, key="record", description="What was entered into the promotion record")
    return done
