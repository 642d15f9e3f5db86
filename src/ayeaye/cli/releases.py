"""Commands about what is released: which version is champion, and what there is beside it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from ayeaye.cli.common import HERE, AsJson, Folder, app, print_result, say, workspace_at

command = partial(app.command, rich_help_panel="Releases")

Reason = Annotated[str, typer.Option(help="Why, for the record.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")]
Number = Annotated[int, typer.Argument(metavar="VERSION", min=1)]


@command()
def status(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Champion, previous and every candidate with its figures, and what disagrees with the promotion record."""
    from ayeaye.release import show
    from ayeaye.release.status import status as found_in

    state = found_in(workspace_at(workspace))
    if as_json:
        print_result(state, True)
    else:
        show.status(state)


@command()
def log(
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="How many entries; 0: all.")] = 20,
    workspace: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """The promotion record, the newest first: who promoted, rolled back or refused what, when, why, how good."""
    from ayeaye.release import show, status

    entries = status.log(workspace_at(workspace))
    entries = entries[:last] if last else entries
    if as_json:
        print_result(entries, True)
    else:
        show.log(entries)


@command()
def promote(
    version: Number,
    workspace: Folder = HERE,
    reason: Reason = "",
    force: Annotated[bool, typer.Option("--force", help="Also a version that the gate refused.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a registered version champion, after its Bento was built and tried."""
    from ayeaye.release import promotion

    found = workspace_at(workspace)
    with found.releasing(say):
        print_result(
            promotion.promote(found, version, reason=reason, force=force, dry_run=dry_run, say=say), as_json
        )


@command()
def rollback(
    away_from: Annotated[
        int | None,
        typer.Option("--from", metavar="VERSION", help="Only if this is champion: safe to be repeated."),
    ] = None,
    workspace: Folder = HERE,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the previous champion champion again, without retraining."""
    from ayeaye.release import promotion

    found = workspace_at(workspace)
    with found.releasing(say):
        done = promotion.rollback(found, away_from=away_from, reason=reason, dry_run=dry_run, say=say)
        print_result(done, as_json)


@command()
def approve(
    version: Number,
    workspace: Folder = HERE,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the version that waits for approval champion (params: release.approval)."""
    from ayeaye.release import approval

    found = workspace_at(workspace)
    with found.releasing(say):
        print_result(approval.approve(found, version, reason=reason, dry_run=dry_run, say=say), as_json)


@command()
def refuse(
    version: Number,
    reason: Annotated[str, typer.Option(help="Why, for the record.", prompt=True)],
    workspace: Folder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Refuse a version, such as one that waits for approval; retraining does not offer it again."""
    from ayeaye.release import approval

    found = workspace_at(workspace)
    with found.releasing(say):
        print_result(approval.refuse(found, version, reason=reason, dry_run=dry_run), as_json)


@command()
def repair(
    accept_record: Annotated[
        bool,
        typer.Option(
            "--accept-record", help="Take a record as it is whose end is not the one the registry knows."
        ),
    ] = False,
    workspace: Folder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Mend what `ayeaye status` says disagrees with the promotion record, and remove what killed runs left.

    Aliases and tags in the registry are set anew, a lost bundle is put back, a lost Bento is packed and tried
    again. Exit status 1 where something is left that needs a person.
    """
    from ayeaye.release import show, status

    found = workspace_at(workspace)
    with found.lock(say):
        result = status.repair(found, accept_record=accept_record, dry_run=dry_run, say=say)
    if as_json:
        print_result(result, True)
    else:
        show.repaired(result)
    if result["left"] and not dry_run:
        raise typer.Exit(1)
