"""Commands that keep a workspace in order: versions made again, and room made."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ayeaye.cli.common import HERE, REFUSED, AsJson, Folder, app, print_result, say, workspace_at

command = partial(app.command, rich_help_panel="Upkeep")


@command()
def reproduce(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A number, `champion` or `previous`.")],
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The new workspace; by default beside the original: `shop-v3` of `shop`."
        ),
    ] = None,
    reuse_embeddings: Annotated[
        bool,
        typer.Option(
            "--reuse-embeddings", help="Take embeddings and trained backbones from the original's cache."
        ),
    ] = False,
    workspace: Folder = HERE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made again, and whether it can be.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a registered version again in a workspace of its own, and compare.

    Checks out its commit, pulls its dataset from the remote, and runs the stages anew. On the same kind of machine
    with the same code the bundle should be the same bit by bit (`identical`); elsewhere labels of the test pictures
    should agree to 99.9 % and figures to .002 (`equivalent`). Code and files outside the workspace that have
    changed since are named. Nothing is registered and the original is only read, also while it retrains.
    Interrupted, the same command goes on.

    Exit status: 0 identical or equivalent; 3 different; 1 an error.
    """
    from ayeaye.maintenance import reproduction

    found = workspace_at(workspace)
    if dry_run:
        print_result(asdict(reproduction.planned(found, version, into)), as_json)
        return
    result = reproduction.reproduce(found, version, into, reuse_embeddings=reuse_embeddings, say=say)
    if as_json:
        print_result(asdict(result), True)
    else:
        typer.echo(result.summary())
    if result.verdict == "different":
        raise typer.Exit(REFUSED)


@command()
def gc(
    workspace: Folder = HERE,
    keep: Annotated[int, typer.Option(min=1, metavar="N", help="How many of the newest versions stay.")] = 5,
    remote: Annotated[
        bool,
        typer.Option(
            "--remote", help="Also data on the remote that only versions without need of it were trained on."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what nothing needs any more, and remove it.

    Stays: the champion, the previous one, whatever has an alias or waits for a verdict, the newest versions, and what
    the workspace, its branches, tags and experiments refer to. Of other versions bundle, report and Bento go; their
    figures stay in the registry, and `ayeaye reproduce` can make them again. Goes, too: cached embeddings and backbones
    of no kept version, unused objects of DVC's cache, what was fetched from MLflow, logs of more than 30 days.

    Data on the remote stay unless --remote is given: what no kept version was trained on is then lost.

    A cache or a remote outside the workspace may be shared and hold what others need: nothing is removed there, unless
    `prepare.cache_shared=false` or `prepare.remote_shared=false` says that it is this workspace's alone.

    Shows first; then asks on a terminal, and elsewhere removes nothing without --yes. Interrupted, the same command
    completes it.
    """
    from ayeaye.maintenance import garbage
    from ayeaye.release import show

    found = workspace_at(workspace)
    with found.lock(say):
        items = garbage.find(found, keep, remote, say)
    shown = [item.as_json() for item in items]
    result = {"items": shown, "bytes": sum(item.bytes for item in items), "removed": False}
    if not as_json:
        show.garbage(items, garbage.KINDS)
    # Asked without the lock: the answer may take a night.
    asked = not (yes or dry_run or as_json or not items) and sys.stdin.isatty()
    if not dry_run and items and (yes or (asked and typer.confirm("Remove all of this?"))):
        with found.lock(say):
            for item in garbage.find(found, keep, remote):
                if item.as_json() in shown:
                    item.remove()
        result["removed"] = True
    if as_json:
        print_result(result, True)
    elif items:
        typer.echo("Removed." if result["removed"] else "Nothing was removed: `ayeaye gc --yes` does it.")
