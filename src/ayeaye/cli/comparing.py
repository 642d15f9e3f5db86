"""The command that puts two versions side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ayeaye.cli.common import HERE, AsJson, Folder, app, print_result, say, workspace_at

command = partial(app.command, rich_help_panel="Releases")


@command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A version, `champion` or `previous`.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The version to hold against it.")],
    workspace: Folder = HERE,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page (.html) or its picture alone (.png)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Two registered versions on the same pictures: figures, slices, classes, and what differs between them.

    Both are measured on the test pictures of the dataset as it is now, each with its own backbone; where no unseen
    class has pictures, on what their evaluations found on class folds. Differences are B less A. It also says what
    the gate would say of B, were A the champion. Nothing is changed.

        ayeaye compare champion 7 --out comparison.html
    """
    from ayeaye.pipeline.progress import Progress
    from ayeaye.release import comparison, show

    if out:
        comparison.check_out(out)
    found = comparison.compared(workspace_at(workspace), a, b, Progress())
    if out:
        comparison.write(found, out)
    if as_json:
        print_result(found, True)
    else:
        show.compared(found)
    if out:
        say(f"Written to {out}.")
