"""Commands about what goes into the dataset, beside its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ayeaye.cli.common import HERE, AsJson, Folder, data, print_result, say, workspace_at


@data.command()
def review(
    accept: Annotated[
        list[int] | None, typer.Option(metavar="ID", help="Feedback to accept; may be repeated.")
    ] = None,
    reject: Annotated[
        list[int] | None, typer.Option(metavar="ID", help="Feedback to reject; may be repeated.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record; needed to reject.")] = "",
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pending pictures there, to be looked at.")
    ] = None,
    workspace: Folder = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come of it.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the feedback that callers of the service gave, accept it or reject it.

    A picture that came with accepted feedback is in the next dataset, under its label, from the next
    `ayeaye prepare` or `ayeaye retrain` on. Feedback without a picture counts for monitoring alone. Exit
    status 1 where one could not be decided; the others are.
    """
    from ayeaye.release import promotion, show
    from ayeaye.service.review import Review, store_of

    if reject and not reason.strip():
        raise typer.BadParameter("to reject feedback, say why with --reason")
    found = workspace_at(workspace)
    reviewing, reviewer = Review(found, store_of(found)), promotion.actor()
    delivered = 0 if dry_run else reviewing.deliver()
    words = [(id, True) for id in accept or []] + [(id, False) for id in reject or []]
    decided = [reviewing.decide(id, accepted, reviewer, reason, dry_run=dry_run) for id, accepted in words]
    pending = reviewing.pending()
    written = reviewing.write_pictures(pictures) if pictures else []
    if as_json:
        print_result({"pending": pending, "decided": decided, "pictures": written, "dry_run": dry_run}, True)
    else:
        show.feedback(pending, decided)
        if delivered:
            say(f"{delivered} pictures that were accepted earlier enter the next dataset, too.")
        if pictures:
            say(f"{len(written)} pictures written to {pictures}.")
    if any("error" in each for each in decided):
        raise typer.Exit(1)


@data.command()
def diff(
    before: Annotated[
        str,
        typer.Argument(metavar="A", help="`now`, a version, `champion`, `previous`, or a dataset's digest."),
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="The same.")] = "now",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page of it with pictures there.")
    ] = None,
    workspace: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Show what has changed from dataset A to dataset B: classes, pictures, labels and splits.

    Digests are DVC's (`data_digest` of `ayeaye status --json`), or the first digits of one. Earlier datasets are read
    from DVC's cache or the remote; nothing is checked out.

        ayeaye data diff champion now --out diff.html
    """
    from ayeaye.release import data_diff, show

    found, record = data_diff.diff(workspace_at(workspace), before, after, out)
    if as_json:
        print_result(record, True)
    else:
        show.difference(found)
        if out:
            say(f"The page is {out}.")


@data.command()
def remove(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="SHA-256 of a picture, or its first digits, at least 6."),
    ],
    workspace: Folder = HERE,
    reason: Annotated[str, typer.Option(help="Why, for the commit.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove pictures for good (a takedown): from the dataset and from all that DVC keeps of earlier ones.

    Shards are rewritten without them, embeddings and accepted feedback lose them, and every object that holds or
    shows one is purged from DVC's cache and from the remote. Their hashes stay in data/removed.txt, so that
    `ayeaye prepare` does not take them in again; delete the files at the source yourself. Datasets that held them can
    then no longer be restored, nor the versions trained on them reproduced.

    The champion goes on. Versions that learned from a picture or show a small copy of it are listed: `ayeaye retrain`
    makes one without.

    A cache or a remote outside the workspace may be shared, and nothing is removed there: what it still holds is
    listed, and the exit status is 1. `prepare.cache_shared=false` or `prepare.remote_shared=false` says that it is
    this workspace's alone; the same command then completes it.

    Interrupted, the same command completes it.

        ayeaye data remove "$(sha256sum photo.jpg | cut -c-64)" --reason "asked for by the photographer"
    """
    from ayeaye.maintenance import takedown
    from ayeaye.release import show
    from ayeaye.service.review import Review, store_of

    found = workspace_at(workspace)
    with found.lock(say):
        taken = takedown.remove(found, ids, reason=reason, dry_run=dry_run, say=say)
        forgotten = Review(found, store_of(found)).forget(taken.removed, dry_run=dry_run)
        result = {**taken.as_json(), "feedback": forgotten}
    if as_json:
        print_result(result, True)
    else:
        show.takedown(result)
    if result["left"] and not dry_run:
        raise typer.Exit(1)
