"""What the commands share: the application, options, and how a result is printed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ayeaye.core.unicode_checks import shown
from ayeaye.core.workspace import Workspace

REFUSED = 3

app = typer.Typer(
    name="ayeaye",
    help="Zero-shot image classifiers, from photographs and words to production.\n\n"
    "Make a workspace with `ayeaye init`, then `ayeaye retrain` runs everything: it versions and checks the data, "
    "trains, evaluates, and promotes what passes the gate. `ayeaye serve` serves the champion.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

data = typer.Typer(help="What goes into the dataset, beside its source.", no_args_is_help=True)
app.add_typer(data, name="data", rich_help_panel="Upkeep")

Folder = Annotated[
    Path, typer.Option("--workspace", "-w", metavar="DIR", help="The workspace.", envvar="AYEAYE_WORKSPACE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
HERE = Path()


def workspace_at(folder: Path) -> Workspace:
    return Workspace.opened(folder, say)


def say(text: str) -> None:
    typer.echo(text, err=True)


def print_result(value: Any, as_json: bool) -> None:
    if as_json:
        lines = json.dumps(value, indent=2, ensure_ascii=False, default=str).split("\n")
        typer.echo("\n".join(map(shown, lines)))
        return
    for key, content in value.items():
        nested = content if isinstance(content, list) else [content]
        if not any(isinstance(each, dict) for each in nested):
            typer.echo(f"{key.replace('_', ' '):>12}  {plain(content)}")


def plain(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "–"
    return "–" if value is None or value == "" else shown(str(value))


def warn(summary: Mapping[str, Any]) -> None:
    """Say what a result has under `warnings`."""
    for warning in summary["warnings"]:
        say(f"Warning: {shown(warning)}.")
