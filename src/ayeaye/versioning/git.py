"""The git repository of a workspace, through git's command line."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ayeaye.core.code_digests import PACKAGE
from ayeaye.core.environment import with_own_git
from ayeaye.core.errors import WorkspaceError
from ayeaye.core.workspace import Workspace

IDENTITY = {"user.name": "ayeaye", "user.email": "ayeaye@localhost"}  # where a person has set none


def run(workspace: Workspace, *arguments: str, config: bool = False) -> str:
    """Run git in the workspace and return its output; `config` makes it read the user's settings.

    Raises WorkspaceError with git's own words when it fails.
    """
    environment = workspace.environment() | {"GIT_CEILING_DIRECTORIES": str(workspace.root.parent)}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=workspace.root,
            env=with_own_git(environment) if config else environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
        )
    except FileNotFoundError:
        raise WorkspaceError(
            "git is not installed: a workspace is a git repository, install git first"
        ) from None
    except subprocess.CalledProcessError as error:
        # Hints are about options that nobody gave.
        said = [
            line.strip()
            for line in error.stderr.splitlines()
            if line.strip() and not line.startswith("hint:")
        ]
        reason = " ".join(said).removeprefix("fatal: ").removeprefix("error: ")[:300]
        raise WorkspaceError(f"git {arguments[0]} failed: {reason or 'no reason given'}") from None
    return done.stdout.strip()


def commit(workspace: Workspace, message: str, paths: Sequence[str]) -> str:
    """Commit the paths that changed; return the commit the workspace is at."""
    present = [path for path in paths if (workspace.root / path).exists()]
    run(workspace, "add", "--", *present)
    if run(workspace, "diff", "--cached", "--name-only", "--", *present):
        given = [part for name in IDENTITY for part in ("-c", f"{name}={_setting(workspace, name)}")]
        run(workspace, *given, "commit", "--quiet", "--no-verify", "-m", message, "--", *present)
    return head(workspace)


def _setting(workspace: Workspace, name: str) -> str:
    try:
        return run(workspace, "config", name, config=True) or IDENTITY[name]
    except WorkspaceError:
        return IDENTITY[name]


def head(workspace: Workspace) -> str:
    return run(workspace, "rev-parse", "HEAD")


def has_commit(workspace: Workspace, commit: str) -> bool:
    try:
        run(workspace, "cat-file", "-e", f"{commit}^{{commit}}")
    except WorkspaceError:
        return False
    return True


def code_commit() -> str | None:
    """The commit of the checkout that ayeaye runs from, with `+changes` if it has any; None if it is installed."""
    checkout = PACKAGE.parents[1]
    if not (checkout / ".git").exists() or not (checkout / "pyproject.toml").is_file():
        return None
    try:
        code = Workspace(checkout)
        changes = run(code, "status", "--porcelain", "--", "src", "flows")
        return head(code) + ("+changes" if changes else "")
    except WorkspaceError:
        return None


def clear_locks(workspace: Workspace) -> None:
    """Remove the lock files of killed git processes, which stay for ever, unless a git process is running."""
    folder = workspace.root / ".git"
    locks = [*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")]
    if locks and not _is_running(workspace.root, locks):
        for path in locks:
            path.unlink(missing_ok=True)


def _is_running(root: Path, locks: Sequence[Path]) -> bool:
    processes = Path("/proc")
    if not (processes / "self" / "cwd").exists():
        return any(time.time() - path.stat().st_mtime < 600 for path in locks if path.exists())
    for process in processes.glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().startswith("git") and (process / "cwd").readlink() == root:
                return True
    return False
