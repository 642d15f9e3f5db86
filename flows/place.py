"""The workspace of a run, also when it was moved since the run was scheduled."""

from __future__ import annotations

import os
from pathlib import Path

from ayeaye.core.errors import WorkspaceError
from ayeaye.core.workspace import Workspace


def exists(folder: Path) -> bool:
    """Whether a workspace lies there, as far as this machine sees."""
    return (folder / "params.yaml").is_file()


def belongs_to(folder: str, workspace: Workspace) -> bool:
    """Whether a deployment or a run that names this folder is the workspace's: it lies there, or once did."""
    if exists(Path(folder)):
        return Path(folder).samefile(workspace.root)
    return folder in workspace.places


def open_workspace(folder: str) -> Workspace:
    """Return the workspace of a run, with its homes in the environment.

    A run from before a move names the old place; the worker of the workspace's own platform knows the new one.
    Raises WorkspaceError where there is neither.
    """
    own = os.environ.get("AYEAYE_WORKSPACE")
    moved = own and not exists(Path(folder)) and exists(Path(own))
    if own and moved and belongs_to(folder, Workspace.find(Path(own))):
        folder = own
    if not exists(Path(folder)):
        raise WorkspaceError(
            f"{folder} is not a workspace: if it was moved, `ayeaye deploy` where it lies now"
        )
    found = Workspace.find(Path(folder))
    found.enter()
    return found
