"""Git and DVC of a workspace, through their command lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ayeaye import errors
from ayeaye.errors import RemoteError, WorkspaceError
from ayeaye.files import write_atomic
from ayeaye.workspace import TEMPLATES, Workspace, template

ERROR_FILE = "AYEAYE_ERROR_FILE"
IGNORED = "/.ayeaye/\n/checks/\n/release/\n"


def init(workspace: Workspace, settings: Sequence[str] = ()) -> list[str]:
    """Lay down a workspace: templates, git, DVC. Files that are there stay. Returns the files written."""
    from ayeaye import params

    root = workspace.root
    root.mkdir(parents=True, exist_ok=True)
    written = []
    for name in TEMPLATES:
        if not (root / name).exists():
            write_atomic(root / name, template(name).read_bytes())
            written.append(name)
    try:
        params.assign(root / "params.yaml", list(settings))
    except errors.ParamsError:
        # A refused setting leaves nothing behind that a second try would trip over.
        for name in written:
            (root / name).unlink()
        if not any(root.iterdir()):
            root.rmdir()
        raise
    if not (root / ".gitignore").exists():
        write_atomic(root / ".gitignore", IGNORED.encode())
    if not (root / ".git").exists():
        git(workspace, "init", "--quiet", "--initial-branch=main")
    if not (root / ".dvc").exists():
        dvc(workspace, "init", "--quiet")
        dvc(workspace, "config", "core.analytics", "false")
        dvc(workspace, "config", "core.check_update", "false")
    commit(workspace, "Lay down the workspace", [".gitignore", ".dvc", ".dvcignore", *TEMPLATES])
    return written


def require(workspace: Workspace) -> None:
    """Raises WorkspaceError unless the workspace is a git and DVC repository of its own."""
    missing = [name for name in (".git", ".dvc") if not (workspace.root / name).exists()]
    if missing:
        raise WorkspaceError(
            f"{workspace.root} has no {' and no '.join(missing)}: lay them down with `ayeaye init {workspace.root}`"
        )


def git(workspace: Workspace, *arguments: str) -> str:
    """Run git in the workspace and return its output."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise WorkspaceError(
            "git is not installed: a workspace is a git repository, install git first"
        ) from None
    except subprocess.CalledProcessError as error:
        raise WorkspaceError(f"git {arguments[0]} failed: {_last_line(error.stderr)}") from None
    return done.stdout.strip()


def commit(workspace: Workspace, message: str, paths: Sequence[str]) -> str:
    """Commit the given paths where they changed; returns the commit the workspace is at."""
    present = [path for path in paths if (workspace.root / path).exists()]
    git(workspace, "add", "--", *present)
    if git(workspace, "diff", "--cached", "--name-only", "--", *present):
        try:
            git(workspace, "config", "user.email")
            identity: list[str] = []
        except WorkspaceError:
            identity = ["-c", "user.name=ayeaye", "-c", "user.email=ayeaye@localhost"]
        git(workspace, *identity, "commit", "--quiet", "--no-verify", "-m", message, "--", *present)
    return head(workspace)


def head(workspace: Workspace) -> str:
    return git(workspace, "rev-parse", "HEAD")


def dvc(workspace: Workspace, *arguments: str, lock: int | None = None) -> str:
    """Run DVC in the workspace and return its output; `lock` is inherited by it.

    A stage of ayeaye that fails raises the error that the stage itself met.
    """
    failure = workspace.state / f"error-{os.getpid()}.json"
    failure.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace.root,
        env={**os.environ, **workspace.environment(), ERROR_FILE: str(failure)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=() if lock is None else (lock,),
    )
    if done.returncode:
        if failure.is_file():
            met = json.loads(failure.read_bytes())
            failure.unlink()
            raise getattr(errors, met["type"], errors.AyeayeError)(met["message"])
        raise WorkspaceError(f"dvc {arguments[0]} failed: {_last_line(done.stderr or done.stdout)}")
    return done.stdout


def leave_error(error: errors.AyeayeError) -> None:
    """Leave an error where the conductor that started this stage finds it."""
    if path := os.environ.get(ERROR_FILE):
        write_atomic(Path(path), json.dumps({"type": type(error).__name__, "message": str(error)}).encode())


def add_dataset(workspace: Workspace, lock: int | None = None) -> str:
    """Track data/dataset with DVC; returns its digest."""
    dvc(workspace, "add", "--quiet", "data/dataset", lock=lock)
    return dataset_digest(workspace)


def dataset_digest(workspace: Workspace) -> str:
    """The digest under which DVC tracks the dataset; raises WorkspaceError where it does not yet."""
    from ruamel.yaml import YAML

    try:
        return YAML(typ="safe").load(workspace.root / "data" / "dataset.dvc")["outs"][0]["md5"]
    except FileNotFoundError:
        raise WorkspaceError("the dataset is not tracked yet: run `ayeaye retrain`") from None


def push_dataset(workspace: Workspace, lock: int | None = None) -> None:
    """Push the dataset to the remote of params.yaml; raises RemoteError where that cannot be reached."""
    remote = workspace.params.prepare.remote
    url = remote if "://" in remote else str(workspace.resolve(remote))
    if "://" not in remote:
        try:
            Path(url).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RemoteError(
                f"prepare.remote {remote} cannot be used ({error.strerror}): mend it and retrain"
            ) from None
    config = workspace.root / ".dvc" / "config"
    if f"url = {_config_url(workspace, url)}" not in config.read_text():
        dvc(workspace, "remote", "add", "--quiet", "--force", "--default", "data", url)
    try:
        dvc(workspace, "push", "--quiet", "data/dataset.dvc", lock=lock)
    except WorkspaceError as error:
        raise RemoteError(
            f"the dataset could not be pushed to prepare.remote {remote} ({error}): nothing is lost, retrain when it is back"
        ) from None


def stages(workspace: Workspace) -> list[str]:
    """The stages of dvc.yaml in an order in which they can run, read from DVC's own graph."""
    import networkx
    from dvc.repo import Repo

    with Repo(str(workspace.root)) as repo:
        # Edges point from a stage to what it depends on.
        order = networkx.topological_sort(repo.index.graph.reverse(copy=True))
        return [stage.name for stage in order if getattr(stage, "name", None)]


def reproduce(workspace: Workspace, stage: str, lock: int | None = None) -> bool:
    """Run one stage if anything it depends on has changed; returns whether it had."""
    output = dvc(workspace, "repro", "--single-item", stage, lock=lock)
    return f"Running stage '{stage}'" in output or f"Stage '{stage}' is cached" in output


def clear_dead_locks(workspace: Workspace) -> None:
    """Remove DVC's locks; call only while holding the workspace, when no process of it can be alive.

    A killed process leaves its entries in rwlock, and DVC takes one that was never reaped for a living one.
    """
    for name in ("rwlock", "rwlock.lock"):
        (workspace.root / ".dvc" / "tmp" / name).unlink(missing_ok=True)


def _config_url(workspace: Workspace, url: str) -> str:
    return url if "://" in url else os.path.relpath(url, workspace.root / ".dvc")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    faults = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return (faults or lines or ["no reason given"])[-1].removeprefix("ERROR: ").removeprefix("fatal: ")[:300]
