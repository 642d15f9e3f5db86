"""Git and DVC of a workspace, through their command lines."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ayeaye import errors, params
from ayeaye.errors import AyeayeError, RemoteError, StageFailed, WorkspaceError
from ayeaye.files import write_atomic
from ayeaye.processes import TERMINAL
from ayeaye.workspace import TEMPLATES, Workspace, template

ERROR_FILE = "AYEAYE_ERROR_FILE"  # names, in a stage's environment, where to leave its error
DATASET = "data/dataset.dvc"
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
) -> list[str]:
    """Lay down a workspace: templates, git, DVC. Files that are there stay. Returns the files written.

    Settings are set, and checked, as by `params.assign`.
    """
    root = workspace.root
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
        git(workspace, "init", "--quiet", "--initial-branch=main")
    if not (root / ".dvc" / "config").exists():
        dvc(workspace, "init", "--quiet", "--force")
    _configure(workspace, {"core": {"analytics": "false", "check_update": "false"}})
    workspace.write_fingerprints()
    commit(workspace, "Lay down the workspace", [".gitignore", ".dvc", ".dvcignore", *TEMPLATES])
    return written


def require(workspace: Workspace) -> None:
    """Raises WorkspaceError unless the workspace is a git and DVC repository of its own."""
    missing = [name for name in (".git", ".dvc") if not (workspace.root / name).exists()]
    if missing:
        raise WorkspaceError(
            f"{workspace.root} has no {' and no '.join(missing)}: "
            f"lay them down with `ayeaye init {workspace.root}`"
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
        raise WorkspaceError(f"git {arguments[0]} failed: {_without_hints(error.stderr)}") from None
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
    environment = {**os.environ, **workspace.environment(), ERROR_FILE: str(failure)}
    if sys.stderr.isatty():
        environment[TERMINAL] = os.ttyname(sys.stderr.fileno())
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace.root,
        env=environment,
        capture_output=True,
        text=True,
        pass_fds=() if lock is None else (lock,),
    )
    if done.returncode:
        if failure.is_file():
            met = json.loads(failure.read_bytes())
            failure.unlink()
            raise getattr(errors, met["type"], AyeayeError)(met["message"])
        if arguments[0] == "repro":
            raise _stage_fault(workspace, arguments[-1], done.stdout + done.stderr)
        raise WorkspaceError(f"dvc {arguments[0]} failed: {_last_line(done.stderr or done.stdout)}")
    return done.stdout


def leave_error(error: AyeayeError) -> None:
    """Leave an error where the conductor that started this stage finds it."""
    if path := os.environ.get(ERROR_FILE):
        # On a full disk the conductor takes it from what the stage printed.
        with suppress(OSError):
            content = {"type": type(error).__name__, "message": str(error)}
            write_atomic(Path(path), json.dumps(content).encode())


def _stage_fault(workspace: Workspace, stage: str, said: str) -> AyeayeError:
    """The error of a stage that left none: printed, a signal, or the last line of its traceback."""
    log = workspace.state / "logs" / f"{stage}.log"
    with suppress(OSError):
        write_atomic(log, said.encode())
    if printed := re.search(r"^error: (.+)", said, re.MULTILINE):
        return AyeayeError(f"stage {stage}: {printed[1]}")
    if ended := re.search(r"exited with (-?\d+)$", said, re.MULTILINE):
        number = -int(ended[1]) if int(ended[1]) < 0 else int(ended[1]) - 128  # a shell's way to say it
        if number in set(signal.Signals):
            hint = " (is there enough memory?)" if number == signal.SIGKILL else ""
            name = signal.Signals(number).name
            return StageFailed(f"stage {stage} was ended by {name}{hint}; what it printed is in {log}")
    traces = re.findall(r"^Traceback .*\n(?:\s.*\n|\n)*(\S.*)", said, re.MULTILINE)
    if traces:
        return StageFailed(f"stage {stage} failed: {traces[-1][:300]}; all that it printed is in {log}")
    return WorkspaceError(f"dvc repro failed: {_last_line(said)}")


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
    _configure(workspace, {"core": {"remote": "data"}, 'remote "data"': {"url": _config_url(workspace, url)}})
    try:
        dvc(workspace, "push", "data/dataset.dvc", lock=lock)
    except WorkspaceError as error:
        raise RemoteError(
            f"the dataset could not be pushed to prepare.remote {remote} ({error}): "
            "nothing is lost, retrain when it is back"
        ) from None


def stages(workspace: Workspace) -> list[str]:
    """The stages of dvc.yaml in an order in which they can run, read from DVC's own graph."""
    import networkx  # DVC's own graphs are of it
    from dvc.repo import Repo

    with Repo(str(workspace.root)) as repo:
        # Edges point from a stage to what it depends on.
        order = networkx.topological_sort(repo.index.graph.reverse(copy=True))
        return [stage.name for stage in order if getattr(stage, "name", None)]


def affected(workspace: Workspace, changed: set[str]) -> list[str]:
    """The stages among `changed`, and every stage that depends on one of them, in an order in which they can run."""
    import networkx
    from dvc.repo import Repo

    with Repo(str(workspace.root)) as repo:
        graph = repo.index.graph
        starts = [stage for stage in graph if getattr(stage, "name", None) in changed]
        found = {each for start in starts for each in (start, *networkx.ancestors(graph, start))}
        return [stage.name for stage in networkx.topological_sort(graph.reverse(copy=True)) if stage in found]


def changed(workspace: Workspace, lock: int | None = None) -> set[str]:
    """Stages and .dvc files of which something changed since they were last recorded, or that never were."""
    found = json.loads(dvc(workspace, "status", "--json", lock=lock) or "{}")
    names = set(found)
    if not (workspace.root / "data" / "dataset.dvc").is_file():
        names.add(DATASET)
    return names


def reproduce(workspace: Workspace, stage: str, lock: int | None = None) -> bool:
    """Run one stage if anything it depends on has changed; returns whether it had."""
    output = dvc(workspace, "repro", "--single-item", stage, lock=lock)
    return f"Running stage '{stage}'" in output or f"Stage '{stage}' is cached" in output


def clear_remains(workspace: Workspace) -> None:
    """Remove what killed processes left; call only while holding the workspace, when none can be alive.

    A killed process leaves its entries in DVC's rwlock, and DVC takes one that was never reaped for a living
    one; git's lock files stay for ever.
    """
    for path in _remains(workspace):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    locks = [*(workspace.root / ".git").glob("*.lock"), *(workspace.root / ".git" / "refs").rglob("*.lock")]
    if locks and not _git_at_work(workspace.root, locks):
        for path in locks:
            path.unlink(missing_ok=True)


def _remains(workspace: Workspace) -> Iterator[Path]:
    root, state = workspace.root, workspace.state
    yield from (root / ".dvc" / "tmp" / name for name in ("rwlock", "rwlock.lock"))
    yield from state.glob("error-*.json")
    for folder in (state, state / "mlflow"):
        yield from folder.glob("tmp*")
    yield from (state / "mlflow" / "bundles").glob(".fetch-*")
    yield from (state / "mlflow").glob(".*.part*")  # SQLite keeps a journal beside it
    for folder in (root, root / "data", state, state / "bentoml" / "bentos"):
        yield from folder.glob(".*.part")
        yield from folder.glob(".*.tmp")
    own = (workspace.dataset, workspace.embeddings, workspace.class_space, root / "models", workspace.reports,
           workspace.release, workspace.checks, state / "embeddings", state / "backbones", state / "engines",
           state / "logs", root / ".dvc" / "cache", state / "remote")  # fmt: skip
    for folder in own:
        yield from folder.rglob(".*.part")
        yield from folder.rglob(".*.tmp")


def _git_at_work(root: Path, locks: Sequence[Path]) -> bool:
    """Whether a git process of this repository may be alive."""
    processes = Path("/proc")
    if not (processes / "self" / "cwd").exists():
        return any(time.time() - path.stat().st_mtime < 600 for path in locks if path.exists())
    for process in processes.glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().startswith("git") and (process / "cwd").readlink() == root:
                return True
    return False


def _configure(workspace: Workspace, sections: Mapping[str, Mapping[str, str]]) -> None:
    """Set values of .dvc/config where they differ; DVC itself would not write it in one piece."""
    from configobj import ConfigObj, ConfigObjError

    path = workspace.root / ".dvc" / "config"
    try:
        config = ConfigObj(str(path), encoding="utf-8", file_error=True)
    except (ConfigObjError, OSError, UnicodeError) as error:
        raise WorkspaceError(
            f"{path} cannot be read ({error}): restore it with `git checkout .dvc/config`"
        ) from None
    before = config.dict()
    config.merge(sections)
    if config.dict() != before:
        content = io.BytesIO()
        config.write(content)
        write_atomic(path, content.getvalue())


def _config_url(workspace: Workspace, url: str) -> str:
    return url if "://" in url else os.path.relpath(url, workspace.root / ".dvc")


def _without_hints(text: str) -> str:
    """What git says, but for its hints, which are of options that nobody gave."""
    lines = [line.strip() for line in text.splitlines() if not line.startswith("hint:")]
    return (
        " ".join(filter(None, lines)).removeprefix("fatal: ").removeprefix("error: ")[:300]
        or "no reason given"
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # DVC ends with how many files failed; why stands in a line for each of them.
    if causes := [line.partition("' - ")[2] for line in lines if "failed to transfer '" in line]:
        return causes[0][:300]
    faults = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return (faults or lines or ["no reason given"])[-1].removeprefix("ERROR: ").removeprefix("fatal: ")[:300]
