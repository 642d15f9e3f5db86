"""The command that tells what a version is, in words and figures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ayeaye.cli.common import HERE, AsJson, Folder, app, workspace_at

command = partial(app.command, rich_help_panel="Releases")

FORMS = ("html", "md", "json")


@command()
def card(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="A number, champion or previous.")
    ] = "champion",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it there: as HTML, Markdown or JSON, by the name's ending."),
    ] = None,
    workspace: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Print the model card of a version: what it is for, what it was made of, how good it is and where it fails.

    Made of what the registry holds of the version, where it lies as `card.html`, `card.md` and `card.json`, too.

        ayeaye card 3 --out card.html
    """
    from ayeaye.core.files import write_atomic
    from ayeaye.release import promotion

    ending = out.suffix.lower().lstrip(".") if out else "json" if as_json else "md"
    if ending not in FORMS:
        raise typer.BadParameter(f"{out} ends in none of {', '.join(f'.{form}' for form in FORMS)}")
    found = workspace_at(workspace)
    content = promotion.card_file(found, promotion.version_called(found, version), f"card.{ending}")
    if out:
        write_atomic(out, content)
    else:
        typer.echo(content.decode(), nl=False)
