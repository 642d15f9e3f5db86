"""The command that watches the champion's answers in production."""

from __future__ import annotations

import os
from functools import partial
from typing import Annotated, Any

import typer

from ayeaye.cli.common import HERE, AsJson, Folder, app, print_result, say, workspace_at
from ayeaye.core.workspace import Workspace

command = partial(app.command, rich_help_panel="At work")

DRIFTED = 3


@command()
def watch(
    workspace: Folder = HERE,
    days: Annotated[
        float | None, typer.Option(min=0.01, help="Of the last how many days (params: watch.days).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compare, but write nothing and start nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the champion's answers in production with those on pictures held out of its training.

    Leaves a report in `checks/drift`; drift emits the event `ayeaye.drift` and starts the deployment that
    `watch.retrain` names, at most once in `watch.cooldown` days. Exit status: 0 no drift, or too few answers to
    judge; 3 drift; 1 an error.
    """
    from ayeaye.release import show

    found = workspace_at(workspace)
    outcome = _looked(found, days) if dry_run else _watched(found, days)
    if as_json:
        print_result(outcome, True)
    else:
        show.drift(outcome)
    if outcome["verdict"] == "drift":
        raise typer.Exit(DRIFTED)


def _looked(workspace: Workspace, days: float | None) -> dict[str, Any]:
    from ayeaye.service.watch import look

    return look(workspace, days).as_dict()


def _watched(workspace: Workspace, days: float | None) -> dict[str, Any]:
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from ayeaye.flows.server import server
    from ayeaye.service.watch import require_champion

    _ = workspace.params  # a fault in them shows before anything starts
    require_champion(workspace)  # of a run by schedule it is no error that there is none yet
    with server(workspace, say) as started:
        from ayeaye.flows.watch import run

        return run(workspace, started(), days)
