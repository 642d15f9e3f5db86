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
    delivered = reviewing.deliver()
    decided = [reviewing.decide(id, True, reviewer, reason) for id in accept or []]
    decided += [reviewing.decide(id, False, reviewer, reason) for id in reject or []]
    pending = reviewing.pending()
    written = reviewing.write_pictures(pictures) if pictures else []
    if as_json:
        print_result({"pending": pending, "decided": decided, "pictures": written}, True)
    else:
        show.feedback(pending, decided)
        if delivered:
            say(f"{delivered} pictures that were accepted earlier enter the next dataset, too.")
        if pictures:
            say(f"{len(written)} pictures written to {pictures}.")
    if any("error" in each for each in decided):
        raise typer.Exit(1)
