"""Events of Prefect about a workspace: what its automations, and other systems, listen to.

Events are `ayeaye.refused`, `ayeaye.pending`, `ayeaye.drift` and `ayeaye.promoted`; their resource is the
workspace, the flow run and its deployment are related, and the payload has a `message` and further values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.events import emit_event

from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.release.promotion import FLOW, record_of

PREFIX = "ayeaye."
TOLD = "told"  # in the state of a workspace: the digest of the history's end when a retrain last told of it
OUTCOMES = ("promoted", "refused", "pending")  # of a retrain; `unchanged` is no event


def resource(workspace: Workspace) -> str:
    """Return the id of the workspace among Prefect's resources; it stays when the workspace is moved."""
    return f"ayeaye.workspace.{workspace.identity}"


def emit(workspace: Workspace, kind: str, message: str, **payload: Any) -> None:
    """Tell Prefect that something happened; its client sends it in the background and never raises."""
    emit_event(
        PREFIX + kind,
        resource={
            "prefect.resource.id": resource(workspace),
            "prefect.resource.name": workspace.params.release.model,
        },
        payload={"message": message, **payload},
    )


def emit_outcome(workspace: Workspace, outcome: Mapping[str, Any]) -> None:
    """Emit how a retrain ended, where anything came of it."""
    if outcome["outcome"] in OUTCOMES:
        about = {key: outcome.get(key) for key in ("version", "champion", "bento")}
        emit(workspace, outcome["outcome"], outcome["message"], **about)
    _told(workspace)


def emit_missed(workspace: Workspace) -> None:
    """Emit the promotion by a retrain that was killed before it did so; called before each retrain."""
    path, entries = workspace.state / TOLD, record_of(workspace).entries()
    missed = bool(entries) and path.is_file() and path.read_text() != entries[-1].digest
    if missed and entries[-1].action == "promote" and entries[-1].actor.startswith(FLOW):
        number, when, bento = entries[-1].to, entries[-1].time, entries[-1].digests.get("bento")
        message = f"Version {number} is champion ({bento}); the retrain of {when} ended before it said so."
        emit(workspace, "promoted", message, version=number, champion=number, bento=bento)
    _told(workspace)


def emit_decision(workspace: Workspace, decision: str, done: Mapping[str, Any], by: str) -> None:
    """Emit a person's decision that was entered into the history, where it made a change."""
    champion = done["champion"]
    if decision == "refuse":
        stays = f"version {champion} stays champion" if champion else "there is no champion"
        message = f"Version {done['version']} is refused, {stays}: {by}"
        emit(workspace, "refused", message, version=done["version"], champion=champion)
    elif done["before"] != champion:
        message = f"Version {champion} is champion ({done['bento']}), {decision} by {by}"
        emit(workspace, "promoted", message, version=champion, champion=champion, bento=done["bento"])


def _told(workspace: Workspace) -> None:
    entries = record_of(workspace).entries()
    write_atomic(workspace.state / TOLD, (entries[-1].digest if entries else "").encode())
