"""Commands about what is released: which version is champion, and what there is beside it."""

from __future__ import annotations

from typing import Annotated

import typer

from ayeaye.cli.common import HERE, AsJson, Folder, app, print_result, say, workspace_at


@app.command()
def status(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Champion, previous and every candidate with its figures."""
    from ayeaye.release import promotion, show

    found = workspace_at(workspace)
    state = promotion.status(found)
    if as_json:
        print_result(state, True)
    else:
        show.status(state)


@app.command()
def promote(
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1)],
    workspace: Folder = HERE,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also a version that the gate refused.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a registered version champion, after its Bento was built and tried."""
    from ayeaye.release import promotion

    found = workspace_at(workspace)
    with found.lock(say):
        print_result(
            promotion.promote(found, version, reason=reason, force=force, dry_run=dry_run, say=say), as_json
        )


@app.command()
def rollback(
    workspace: Folder = HERE,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the previous champion champion again, without retraining."""
    from ayeaye.release import promotion

    found = workspace_at(workspace)
    with found.lock(say):
        print_result(promotion.rollback(found, reason=reason, dry_run=dry_run, say=say), as_json)
