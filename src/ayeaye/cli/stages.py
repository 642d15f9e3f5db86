"""Commands that run the pipeline: one per stage, and all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ayeaye import api
from ayeaye.cli.common import HERE, REFUSED, AsJson, Folder, app, print_result, say, warn, workspace_at
from ayeaye.core.workspace import Workspace

command = partial(app.command, rich_help_panel="Pipeline")


@command()
def prepare(
    workspace: Folder = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the dataset up to its source: new pictures become new shards, the manifest is checked and swapped."""
    from ayeaye.pipeline.prepare import prepare as stage
    from ayeaye.pipeline.progress import Progress

    found = workspace_at(workspace)
    with found.lock(say, releasing=False):
        summary = stage(found, Progress(), dry_run=dry_run)
        if as_json:
            print_result(summary, True)
        else:
            warn(summary)
            print_result({name: each for name, each in summary.items() if name != "warnings"}, False)
        if not dry_run:
            found.write_fingerprints()


@command()
def embed(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Stage: every picture through the backbone; only what is new is computed."""
    from ayeaye.pipeline.embed import embed as stage
    from ayeaye.pipeline.progress import Progress

    with stage_of(workspace) as found:
        print_result(stage(found, Progress()), as_json)


@command()
def classes(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Stage: the class space, from words or attributes."""
    from ayeaye.pipeline.classes import classes as stage

    with stage_of(workspace) as found:
        print_result(stage(found), as_json)


@command()
def train(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Stage: choose the mapper's settings on pretend-unseen classes, fit it, write the bundle."""
    from ayeaye.pipeline.progress import Progress
    from ayeaye.pipeline.train import train as stage

    with stage_of(workspace) as found:
        print_result(stage(found, Progress()), as_json)


@command()
def evaluate(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Stage: measure on test pictures, or on class folds where unseen classes have none; write the report."""
    from ayeaye.pipeline.evaluate import evaluate as stage
    from ayeaye.pipeline.progress import Progress

    with stage_of(workspace) as found:
        print_result(stage(found, Progress()), as_json)


@command()
def retrain(
    workspace: Folder = HERE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the data, say which stages would run, write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run everything: data, stages, registration, gate, Bento, trial, promotion.

    Exit status: 0 promoted, waiting for approval, or nothing new; 3 the gate refused and the champion is unchanged;
    1 an error. What has not changed is not run again, and a run that was killed is finished by the next one.
    """
    if dry_run:
        from ayeaye.release import plan

        found = workspace_at(workspace)
        with found.lock(say, releasing=False):
            planned = plan.plan(found, say)
        if as_json:
            print_result(planned, True)
            return
        dataset = planned.pop("dataset")
        warn(dataset)
        print_result(
            {**{name: dataset[name] for name in ("pictures", "new", "removed", "rejected")}, **planned}, False
        )
        return
    outcome = api.retrain(workspace_at(workspace), say)
    if as_json:
        print_result(outcome, True)
    else:
        from ayeaye.release import show

        show.outcome(outcome)
    if outcome["outcome"] == "refused":
        raise typer.Exit(REFUSED)


@command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The demo's workspace; made if it is not there.")
    ] = Path("demo"),
) -> None:
    """Retrain on the drawn bestiary in a workspace of its own, and ask the champion for an aye-aye.

    Needs no photographs, no weights and no network. Exit status as of `ayeaye retrain`.
    """
    from ayeaye.release import demo as shown

    program = shown.program()
    found = workspace_at(shown.lay_down(folder).root)
    outcome = api.retrain(found, say)
    shown.report(found, outcome, folder, program)
    if outcome["outcome"] == "refused":
        raise typer.Exit(REFUSED)


@contextmanager
def stage_of(folder: Path) -> Iterator[Workspace]:
    """The workspace, held by one stage.

    A person may have started it, by `dvc repro` too: what DVC compares is brought up to date for the next.
    """
    workspace = workspace_at(folder)
    with workspace.stage(say):
        workspace.write_fingerprints()
        yield workspace
