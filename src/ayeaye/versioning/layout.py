"""Lay down a workspace as a git and DVC repository, and clear what killed processes left in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from pathlib import Path

from ayeaye.core import params
from ayeaye.core.errors import AyeayeError
from ayeaye.core.files import write_atomic
from ayeaye.core.paths import inside
from ayeaye.core.workspace import TEMPLATES, Workspace, template
from ayeaye.versioning import dvc, git
from ayeaye.versioning.stores import mark_own

IGNORED = """/.ayeaye/
/checks/
/release/
# Committed or kept by DVC, whatever a person's own git ignores everywhere:
!/data/
!/models/
!/reports/
!dvc.lock
!*.dvc
"""


def init(
    workspace: Workspace,
    settings: Sequence[str] = (),
    check: Callable[[params.Params, params.Params], None] = lambda before, chosen: None,
    *,
    dry_run: bool = False,
) -> list[str]:
    """Lay down a workspace: templates, git, DVC. Files that are there stay. Returns the files written.

    Settings are set, and checked, as by `params.assign`.
    """
    root = workspace.root
    dvc.check_name(root)
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            there = root / "params.yaml"
            copy = Path(folder) / "params.yaml"
            copy.write_bytes((there if there.exists() else template("params.yaml")).read_bytes())
            params.assign(copy, list(settings), check)
        return [name for name in TEMPLATES if not (root / name).exists()]
    root.mkdir(parents=True, exist_ok=True)
    written = []
    for name in TEMPLATES:
        if not (root / name).exists():
            write_atomic(root / name, template(name).read_bytes())
            written.append(name)
    try:
        params.assign(root / "params.yaml", list(settings), check)
    except AyeayeError:
        # A refused setting leaves nothing behind that a second try would trip over.
        for name in written:
            (root / name).unlink()
        if not any(root.iterdir()):
            root.rmdir()
        raise
    if not (root / ".gitignore").exists():
        write_atomic(root / ".gitignore", IGNORED.encode())
    # Looked for are the files that come last: an init that was killed is done again.
    if not (root / ".git" / "HEAD").exists():
        git.run(workspace, "init", "--quiet", "--initial-branch=main")
    if not (root / ".dvc" / "config").exists():
        _init_dvc(workspace)
    # Links into a cache would lead a workspace that is moved or copied astray, whatever a person configured.
    cache = {"type": "reflink,copy"}
    dvc.configure(workspace, {"core": {"analytics": "false", "check_update": "false"}, "cache": cache})
    mark_own(workspace, settings)
    workspace.write_fingerprints()
    git.commit(workspace, "Lay down the workspace", [".gitignore", ".dvc", ".dvcignore", *TEMPLATES])
    return written


def clear_remains(workspace: Workspace) -> None:
    """Remove what killed processes left; call only while holding the workspace, when none can be alive.

    A killed process leaves its entries in DVC's rwlock, and DVC takes one that was never reaped for a living
    one; git's lock files stay for ever. What lies elsewhere, behind a link, may be at work for others.
    """
    for path in _remains(workspace):
        if not inside(path.parent, workspace.root):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    git.clear_locks(workspace)


def _remains(workspace: Workspace) -> Iterator[Path]:
    root, state = workspace.root, workspace.state
    yield from (root / ".dvc" / "tmp" / name for name in ("rwlock", "rwlock.lock"))
    yield state / "bentoml" / ".staging"
    yield from state.glob("stages-*")
    for folder in (state, state / "mlflow"):
        yield from folder.glob("tmp*")
    yield from (state / "mlflow" / "bundles").glob(".fetch-*")
    yield from (state / "mlflow").glob(".*.part*")  # SQLite keeps a journal beside it
    for folder in (root, root / "data", state, state / "bentoml" / "bentos"):
        yield from folder.glob(".*.part")
        yield from folder.glob(".*.tmp")
    own = (workspace.dataset, workspace.embeddings, workspace.class_space, root / "models", workspace.reports,
           workspace.release, workspace.checks, state / "embeddings", state / "backbones", state / "engines",
           state / "logs", state / "bentoml" / "golden", root / ".dvc" / "cache",
           state / "remote")  # fmt: skip
    for folder in own:
        yield from folder.rglob(".*.part")
        yield from folder.rglob(".*.tmp")


def _init_dvc(workspace: Workspace) -> None:
    from dvc.repo import Repo

    with chdir(workspace.root):
        Repo.init(str(workspace.root), force=True).close()
