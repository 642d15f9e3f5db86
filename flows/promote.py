"""The promote flow: a person's word on a version, given in Prefect's page instead of the command line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from pydantic import Field

from ayeaye.flows import events
from ayeaye.flows.place import open_workspace
from ayeaye.release import approval, promotion
from ayeaye.release.promotion import record_of

ACTOR = "promote flow"
Decision = Literal["approve", "refuse", "promote", "rollback"]


@flow(name="promote", persist_result=False)
def promote(
    decision: Decision,
    version: Annotated[int, Field(ge=1)],
    reason: Annotated[str, Field(max_length=2000)] = "",
    dry_run: bool = False,
    workspace: str = ".",
) -> dict[str, Any]:
    """Give a person's word on a version: what `ayeaye approve`, `refuse`, `promote` and `rollback --from` do.

    A rollback does nothing where another version is champion: a run that was stopped may be run again. What
    changed is told as an event, like what a retrain brings about.

    Args:
        decision: Approve or refuse what waits, promote any other that passed the gate, or roll back.
        version: Which version; for a rollback the champion that it leads away from.
        reason: Why, for the record.
        dry_run: Say what would happen, and change nothing.
        workspace: The folder of the workspace.
    """
    found = open_workspace(workspace)
    say = get_run_logger().info
    actor = f"{ACTOR} ({promotion.actor()})"
    with found.releasing(say):
        before = len(record_of(found).entries())
        if decision == "rollback":
            done = promotion.rollback(
                found, away_from=version, reason=reason, actor=actor, dry_run=dry_run, say=say
            )
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
        events.emit_decision(found, decision, done, f"{actor}: {'; '.join(new[-1].why)}")
    return done
