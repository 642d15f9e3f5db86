"""Commands that make a workspace and change its parameters."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ayeaye.cli.common import HERE, Folder, app, say
from ayeaye.core import params
from ayeaye.core.paths import expanded, resolved
from ayeaye.core.workspace import Workspace

command = partial(app.command, rich_help_panel="Workspace")

# Settings that name a file or folder that is there: on the command line it may be relative to the current folder.
PATHS = (
    "prepare.path",
    "embed.weights",
    "embed.pretrained_on",
    "embed.hierarchy",
    "classes.vectors",
    "classes.corpus",
)
WORDS = ("embed.weights=train", "embed.pretrained_on=imagenet-1k")  # no files, whatever lies here


@command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where; made if it is not there.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="A parameter; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the settings, say what would be written.")
    ] = False,
) -> None:
    """Make a workspace: a git and DVC repository with its own params.yaml.

    Files and folders given with --set may be relative to the current folder.

        ayeaye init shop --set prepare.source=folder --set prepare.path=photos --set classes.source=tfidf
    """
    from ayeaye.versioning import layout

    workspace = Workspace(resolved(folder))
    there = (workspace.root / "params.yaml").is_file()
    settings = [_found(setting, workspace.root) for setting in set_ or []]
    with workspace.lock(say) if there and not dry_run else nullcontext():
        written = layout.init(workspace, settings, _check, dry_run=dry_run)
    if dry_run:
        typer.echo(f"{workspace.root} would be a workspace ({', '.join(written) or 'nothing'} written).")
        return
    typer.echo(f"{workspace.root} is a workspace" + (f" ({', '.join(written)} written)." if written else "."))
    typer.echo(f"Next: ayeaye retrain --workspace {shlex.quote(str(folder))}")


@command("set")
def set_params(
    settings: Annotated[list[str], typer.Argument(metavar="SECTION.KEY=VALUE")],
    workspace: Folder = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check alone, write nothing.")] = False,
) -> None:
    """Change parameters in params.yaml, keeping its comments; checked before anything is written.

    Files and folders may be relative to the current folder. An empty value takes a threshold or a file out:

        ayeaye set release.minimum.H=
    """
    from ayeaye.versioning import stores

    found = Workspace.find(workspace)
    with found.lock(say):
        path = found.root / "params.yaml"
        params.assign(path, [_found(setting, found.root) for setting in settings], _check, dry_run=dry_run)
        if not dry_run:
            stores.mark_own(found, settings)
            found.write_fingerprints()


def _found(setting: str, root: Path) -> str:
    """A setting with the files and folders that it names found from the current folder, where they are there.

    Absolute, but for what lies in the workspace, which may be moved or copied.
    """
    name = setting.partition("=")[0].strip()
    if not name.startswith("classes.vectors.") and name not in PATHS:
        return setting
    value = params.value_of(setting)
    if isinstance(value, dict):  # {source: file}
        files = {str(source): _found_here(str(file or ""), root) for source, file in value.items()}
        return f"{name}={json.dumps(files, ensure_ascii=False)}"
    return setting if setting in WORDS else f"{name}={_found_here(value or '', root)}"


def _check(before: params.Params, chosen: params.Params) -> None:
    """Names that are known only to the parts that use them."""
    from ayeaye.backbones import backbones
    from ayeaye.release import gate

    gate.check_thresholds(chosen.release)
    if chosen.embed.backbone != before.embed.backbone:  # the list of them takes seconds to import
        backbones.check_name(chosen.embed.backbone)


def _found_here(value: str, root: Path) -> str:
    if not value or not expanded(value).exists():
        return value
    path = resolved(value)
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
