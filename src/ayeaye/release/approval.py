"""A person's word before a promotion: what passed the gate waits in the record until it is approved or refused.

A retrain that waits ends, so that it holds no slot of the schedule. Its Bento is built and tried by then.
"""

from __future__ import annotations

from typing import Any

from ayeaye.core.errors import ReleaseError
from ayeaye.core.workspace import Workspace
from ayeaye.release import promotion
from ayeaye.release.promotion import Judgement, Say, record_of, registry_of
from ayeaye.release.registry import CHALLENGER, Version


def wait(workspace: Workspace, version: Version, tag: str, judgement: Judgement, actor: str) -> None:
    """Enter that a version, with the Bento that was tried, waits for approval; once for each decision."""
    if not waits(workspace, version, judgement):
        digests = {"bento": tag, "decision": judgement.key}
        promotion.enter(workspace, "pending", version, actor=actor, why=["passed the gate"], digests=digests)
    registry_of(workspace).set_alias(CHALLENGER, version)


def waits(workspace: Workspace, version: Version, judgement: Judgement) -> bool:
    """Whether a version waits for approval on the very decision that would be made now."""
    pending = record_of(workspace).state().pending
    return bool(pending and pending.to == version.number and pending.digests.get("decision") == judgement.key)


def approve(
    workspace: Workspace,
    number: int,
    *,
    reason: str = "",
    actor: str | None = None,
    dry_run: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Make the version that waits champion, after its Bento was tried anew.

    Raises ReleaseError where another version or none waits. None does once the champion is another one than that
    with which it was compared.
    """
    state = record_of(workspace).state()
    if number == state.champion:  # a call that was killed may be made again
        return promotion.promote(workspace, number, reason=reason, actor=actor, dry_run=dry_run, say=say)
    if state.pending is None or state.pending.to != number:
        there = f"version {state.pending.to} does" if state.pending else "none does"
        raise ReleaseError(
            f"version {number} does not wait for approval, {there}: promote any that passed the gate with "
            f"`ayeaye promote {number}`"
        )
    return promotion.promote(
        workspace, number, reason=reason or "approved", actor=actor, dry_run=dry_run, say=say
    )


def refuse(
    workspace: Workspace,
    number: int,
    *,
    reason: str,
    actor: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Enter that a version is not to be champion; a retrain leaves it alone from then on.

    Raises ReleaseError without a reason, and for the champion.
    """
    if not reason.strip():
        raise ReleaseError("say why with --reason: the record keeps it")
    state = record_of(workspace).state()
    if number == state.champion:
        raise ReleaseError(f"version {number} is champion: go back to the one before with `ayeaye rollback`")
    registry = registry_of(workspace)
    version = registry.version(number)
    if not dry_run:
        promotion.enter(workspace, "refuse", version, actor=actor or promotion.actor(), why=[reason])
        registry.tag(version, gate="refused", reasons=reason[:4000])
        promotion.project(workspace)
    return {"action": "refuse", "version": number, "champion": state.champion, "dry_run": dry_run}
