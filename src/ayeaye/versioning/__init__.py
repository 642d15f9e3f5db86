"""Git and DVC of a workspace: what changes goes through their command lines, what DVC keeps is read from it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ayeaye.core import errors, params
from ayeaye.core.code_digests import PACKAGE
from ayeaye.core.environment import with_own_git
from ayeaye.core.errors import AyeayeError, DataGone, RemoteError, StageFailed, WorkspaceError
from ayeaye.core.files import write_atomic
from ayeaye.core.paths import inside, resolved
from ayeaye.core.processes import TERMINAL
from ayeaye.core.workspace import TEMPLATES, Workspace, template

ERROR_FILE = "AYEAYE_ERROR_FILE"  # names, in a stage's environment, where to leave its error
DATASET = "data/dataset.dvc"
REMOTE = "data"  # DVC's name for prepare.remote
OWN = "own_stores.json"  # in the state of a workspace
KEPT = "kept-by-the-original"  # a clone's name for the cache of the workspace that it was cloned from
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
    _check_name(root)
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
        git(workspace, "init", "--quiet", "--initial-branch=main")
    if not (root / ".dvc" / "config").exists():
        dvc(workspace, "init", "--quiet", "--force")
    # Links into a cache would lead a workspace that is moved or copied astray, whatever a person configured.
    cache = {"type": "reflink,copy"}
    _configure(workspace, {"core": {"analytics": "false", "check_update": "false"}, "cache": cache})
    mark_own(workspace, settings)
    workspace.write_fingerprints()
    commit(workspace, "Lay down the workspace", [".gitignore", ".dvc", ".dvcignore", *TEMPLATES])
    return written


def require(workspace: Workspace) -> None:
    """Raises WorkspaceError unless the workspace is a git and DVC repository of its own."""
    _check_name(workspace.root)
    missing = [name for name in (".git", ".dvc") if not (workspace.root / name).exists()]
    if missing:
        raise WorkspaceError(
            f"{workspace.root} has no {' and no '.join(missing)}: "
            f"lay them down with `ayeaye init {shlex.quote(str(workspace.root))}`"
        )


def _check_name(root: Path) -> None:
    if set("{}") & set(str(root)):  # nothing quotes them there
        raise WorkspaceError(f"{root} has {{ or }} in its name, which DVC cannot take: give it another name")


def git(workspace: Workspace, *arguments: str, config: bool = False) -> str:
    """Run git in the workspace and return its output; `config` has it read a person's settings, too."""
    command = ["git", *arguments]
    environment = workspace.environment() | {"GIT_CEILING_DIRECTORIES": str(workspace.root.parent)}
    if config:
        environment = with_own_git(environment)
    try:
        done = subprocess.run(
            command,
            cwd=workspace.root,
            env=environment,
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
        raise WorkspaceError(f"git {arguments[0]} failed: {_without_hints(error.stderr)}") from None
    return done.stdout.strip()


def commit(workspace: Workspace, message: str, paths: Sequence[str]) -> str:
    """Commit the given paths where they changed; returns the commit the workspace is at."""
    present = [path for path in paths if (workspace.root / path).exists()]
    git(workspace, "add", "--", *present)
    if git(workspace, "diff", "--cached", "--name-only", "--", *present):
        identity = (("user.name", "ayeaye"), ("user.email", "ayeaye@localhost"))
        given = [
            each for key, default in identity for each in ("-c", f"{key}={_chosen(workspace, key, default)}")
        ]
        git(workspace, *given, "commit", "--quiet", "--no-verify", "-m", message, "--", *present)
    return head(workspace)


def _chosen(workspace: Workspace, key: str, default: str) -> str:
    try:
        return git(workspace, "config", key, config=True) or default
    except WorkspaceError:
        return default


def head(workspace: Workspace) -> str:
    return git(workspace, "rev-parse", "HEAD")


def dvc(workspace: Workspace, *arguments: str, lock: int | None = None) -> str:
    """Run DVC in the workspace and return its output; `lock` is inherited by it.

    A stage of ayeaye that fails raises the error that the stage itself met.
    """
    failure = workspace.state / f"error-{os.getpid()}.json"
    failure.unlink(missing_ok=True)
    environment = workspace.environment() | {ERROR_FILE: str(failure)}
    if sys.stderr.isatty():
        environment[TERMINAL] = os.ttyname(sys.stderr.fileno())
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace.root,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
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
    remote, url = workspace.params.prepare.remote, _remote_url(workspace)
    if "://" not in remote:
        try:
            Path(url).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RemoteError(
                f"prepare.remote {remote} cannot be used ({error.strerror}): mend it and retrain"
            ) from None
    section = {"url": _config_url(workspace, url)}
    if re.search(r"[{}]|%\(.*\)s", section["url"]):  # nothing quotes it there
        raise RemoteError(
            f"prepare.remote {remote} has {{, }} or %(…)s in its name, which DVC cannot take: rename it"
        )
    _configure(workspace, {"core": {"remote": REMOTE}, f'remote "{REMOTE}"': section})
    try:
        dvc(workspace, "push", "--remote", REMOTE, "data/dataset.dvc", lock=lock)
    except WorkspaceError as error:
        raise RemoteError(
            f"the dataset could not be pushed to prepare.remote {remote} ({error}): "
            "nothing is lost, retrain when it is back"
        ) from None


def _remote_url(workspace: Workspace) -> str:
    remote = workspace.params.prepare.remote
    return remote if "://" in remote else str(workspace.resolve(remote))


def stages(workspace: Workspace) -> list[str]:
    """The stages of dvc.yaml in an order in which they can run, read from DVC's own graph."""
    from dvc.repo import Repo

    with Repo(str(workspace.root)) as repo:
        return [name for name in map(_name, _in_order(repo.index.graph)) if name]


def affected(workspace: Workspace, changed: set[str]) -> list[str]:
    """The stages among `changed`, and every stage that depends on one of them, in an order in which they can run.

    On the dataset all of them do.
    """
    if DATASET in changed:
        return stages(workspace)
    import networkx
    from dvc.repo import Repo

    with Repo(str(workspace.root)) as repo:
        graph = repo.index.graph
        starts = [stage for stage in graph if _name(stage) in changed]
        found = {each for start in starts for each in (start, *networkx.ancestors(graph, start))}
        return [_name(stage) for stage in _in_order(graph) if stage in found and _name(stage)]


def _name(stage: Any) -> str:
    """Empty for a .dvc file, which is a stage to DVC."""
    return getattr(stage, "name", None) or ""


def _in_order(graph: Any) -> Iterable[Any]:
    """What is free comes by name: `classes`, which may fail within seconds, before `embed`."""
    import networkx  # DVC's own graphs are of it

    # Edges point from a stage to what it depends on.
    return networkx.lexicographical_topological_sort(graph.reverse(copy=True), key=_name)


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


# What an earlier commit holds


def clone(workspace: Workspace, commit: str, folder: Path) -> Workspace:
    """A workspace of its own in an empty folder, as `commit` has it, with the remote that `workspace` has now.

    Its cache is empty. The history has to hold the commit (`has_commit`).
    """
    from dvc.repo import Repo

    made = Workspace(folder.resolve())
    # Not by links into the other's history: one may be deleted without the other.
    git(workspace, "clone", "--quiet", "--no-checkout", "--no-hardlinks", str(workspace.root), str(folder))
    git(made, "checkout", "--quiet", "--detach", commit)
    sections: dict[str, dict[str, str]] = {}
    for name in ("config", "config.local"):
        for section, values in _read_config(workspace.root / ".dvc" / name).dict().items():
            if section.startswith("remote "):
                sections[section] = {**sections.get(section, {}), **values}
    for values in sections.values():
        if "://" not in values.get("url", "://"):  # relative to the file that it stands in
            values["url"] = str((workspace.root / ".dvc" / values["url"]).resolve())
    with Repo(str(workspace.root)) as repo:
        sections[f'remote "{KEPT}"'] = {"url": repo.cache.local_cache_dir}
    # One of its own, wherever the other's is: what lies there would not be made anew.
    _configure(made, {**sections, "cache": {"dir": "cache", "local": ""}}, "config.local")
    (made.root / ".dvc" / "config.local").chmod(0o600)  # there may be credentials in it
    return made


def pull_dataset(workspace: Workspace, lock: int | None = None) -> None:
    """Fetch the dataset of a clone from the remote, or else from the cache of the workspace it was cloned from.

    Raises DataGone where neither holds all of it.
    """
    try:
        dvc(workspace, "pull", "--remote", REMOTE, "data/dataset.dvc", lock=lock)
    except WorkspaceError as error:
        try:
            dvc(workspace, "pull", "--remote", KEPT, "data/dataset.dvc", lock=lock)
        except WorkspaceError:
            raise DataGone(
                f"the dataset {dataset_digest(workspace)} could not be pulled from the remote ({error}), and the "
                "cache of the workspace does not hold all of it either: restore the remote, then run it again"
            ) from None


def has_commit(workspace: Workspace, commit: str) -> bool:
    try:
        git(workspace, "cat-file", "-e", f"{commit}^{{commit}}")
    except WorkspaceError:
        return False
    return True


def datasets(workspace: Workspace) -> dict[str, list[str]]:
    """Every dataset that was ever tracked, by its digest, with the commits that brought it, the newest first."""
    found: dict[str, list[str]] = {}
    for commit, content in _versions_of(workspace, DATASET):
        for out in content.get("outs", []):
            found.setdefault(out["md5"], []).extend(filter(None, [commit]))
    return found


def outputs(workspace: Workspace) -> dict[str, set[str]]:
    """By path of every output of a stage the digests that it ever had."""
    found: dict[str, set[str]] = {}
    for _, content in _versions_of(workspace, "dvc.lock"):
        for stage in (content.get("stages") or {}).values():
            for out in stage.get("outs", []):
                found.setdefault(out["path"], set()).add(out["md5"])
    return found


def recorded_params(workspace: Workspace, commit: str, name: str) -> dict[str, str]:
    """What dvc.lock of a commit holds of a file of parameters, such as `.ayeaye/code.yaml`."""
    found: dict[str, str] = {}
    for stage in (_parsed(git(workspace, "show", f"{commit}:./dvc.lock")).get("stages") or {}).values():
        found |= stage.get("params", {}).get(name, {})
    return found


def _versions_of(workspace: Workspace, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A YAML file as it lies there, under no commit, and of every branch's and experiment's commits that changed it.

    The newest first.
    """
    if (workspace.root / path).is_file():
        yield "", _parsed((workspace.root / path).read_text(encoding="utf-8"))
    for commit in git(workspace, "log", "--all", "--format=%H", "--", path).split():
        with suppress(WorkspaceError):  # removed there
            yield commit, _parsed(git(workspace, "show", f"{commit}:./{path}"))


def _parsed(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(text) or {}


def code_commit() -> str | None:
    """The commit of the checkout that ayeaye runs from, `+changes` where it has any; None where it is installed."""
    checkout = PACKAGE.parents[1]
    if not (checkout / ".git").exists() or not (checkout / "pyproject.toml").is_file():
        return None
    try:
        code = Workspace(checkout)
        changes = git(code, "status", "--porcelain", "--", "src", "flows")
        return head(code) + ("+changes" if changes else "")
    except WorkspaceError:
        return None


# What DVC keeps


@contextmanager
def objects(workspace: Workspace) -> Iterator[Objects]:
    """What DVC keeps of a workspace, in its cache and on its remote."""
    from dvc.repo import Repo

    require(workspace)
    with Repo(str(workspace.root)) as repo:
        stores = {"cache": repo.cache.local}
        if REMOTE in repo.config["remote"]:  # another one, of a person's own configuration, is none of ours
            stores["remote"] = repo.cloud.get_remote_odb(REMOTE)
        if former := _former_remote(workspace, stores):
            stores["former remote"] = former
        shared = {
            name: store.fs.unstrip_protocol(store.path)
            for name, store in stores.items()
            if not _is_own(workspace, repo, name, store)
        }
        yield Objects(stores, repo, shared)


def mark_own(workspace: Workspace, settings: Sequence[str]) -> None:
    """Keep of which stores outside a person says, by these settings, that they are this workspace's alone.

    Not in params.yaml alone, which copies and clones have too; and of a store that no setting names nothing is said.
    """
    from dvc.repo import Repo

    said = [
        name
        for name in ("cache", "remote")
        if any(setting.startswith(f"prepare.{name}_shared") for setting in settings)
    ]
    if not said:
        return
    chosen = Workspace(workspace.root)  # its parameters as they are now
    stores = {name: where for name, where in _marked_own(workspace).items() if name not in said}
    if "cache" in said and not chosen.params.prepare.cache_shared:
        with Repo(str(workspace.root)) as repo:
            stores["cache"] = str(repo.cache.local.path)
    if "remote" in said and not chosen.params.prepare.remote_shared:
        stores["remote"] = _remote_url(chosen)
    content = {"identity": workspace.identity, "stores": stores}
    write_atomic(workspace.state / OWN, json.dumps(content).encode())


def _marked_own(workspace: Workspace) -> dict[str, str]:
    """Where the stores are that were marked; none of what was marked by another workspace that this is a copy of."""
    try:
        kept = json.loads((workspace.state / OWN).read_bytes())
    except FileNotFoundError:
        return {}
    return kept["stores"] if kept["identity"] == workspace.identity else {}


def _former_remote(workspace: Workspace, stores: Mapping[str, Any]) -> Any:
    """The first remote, in the workspace, where another one has taken its place; None where it has not."""
    from dvc_data.hashfile.db.local import LocalHashFileDB

    folder = workspace.state / "remote" / "files" / "md5"
    here = [store.path for store in stores.values() if store.fs.protocol == "local"]
    if (
        not folder.is_dir()
        or not inside(folder, workspace.root)
        or any(inside(folder, Path(each)) for each in here)
    ):
        return None
    return LocalHashFileDB(stores["cache"].fs, str(folder))


def _is_own(workspace: Workspace, repo: Any, name: str, store: Any) -> bool:
    """Whether no other workspace can need what lies in a store: copies and siblings name the same digests."""
    if store.fs.protocol == "local" and inside(store.path, workspace.root):
        return True
    prepare = workspace.params.prepare
    if name == "cache":
        return not prepare.cache_shared and _marked_own(workspace).get(name) == str(store.path)
    # What is said of a remote holds for that one: not for the one before, and not for a clone, whose it is not.
    url = str(repo.config["remote"][REMOTE]["url"])
    said = url == prepare.remote or ("://" not in url and resolved(url) == Path(_remote_url(workspace)))
    return said and not prepare.remote_shared and _marked_own(workspace).get(name) == _remote_url(workspace)


@dataclass(frozen=True)
class Objects:
    """Files by their digest (MD5; that of a folder ends in `.dir`), `cache` first, then `remote` where there is one.

    `shared` are those of them that others may use, with where they are: nothing is removed there. A remote that
    cannot be reached is a RemoteError.
    """

    stores: Mapping[str, Any]
    repo: Any
    shared: Mapping[str, str]

    def left_alone(self, store: str) -> str:
        """Why nothing is removed from a shared store, and what to do."""
        name = "DVC's cache" if store == "cache" else "the remote"
        return (
            f"{name} {self.shared[store]} lies outside the workspace and others may use it: nothing is removed there. "
            f"If it is this workspace's alone: `ayeaye set prepare.{store}_shared=false`"
        )

    @contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO]:
        """Raises DataGone where it is neither in the cache nor on the remote."""
        store = next((self.stores[name] for name in self.stores if self.has(name, digest)), None)
        if store is None:
            raise DataGone(f"the object {digest} is neither in DVC's cache nor on the remote")
        with store.fs.open(store.oid_to_path(digest), "rb") as file:
            yield file

    def read(self, digest: str) -> bytes:
        with self.open(digest) as file:
            return file.read()

    def listing(self, folder: str) -> dict[str, str]:
        """Digests by relative path of the files in a folder."""
        return {entry["relpath"]: entry["md5"] for entry in json.loads(self.read(folder))}

    def has(self, store: str, digest: str) -> bool:
        found = self.stores[store]
        with _reaching(store):
            try:
                found.fs.info(
                    found.oid_to_path(digest)
                )  # `exists` takes a remote that is away for one without it
            except FileNotFoundError:
                return False
        return True

    def sizes(self, store: str) -> dict[str, int]:
        """Bytes of every object in a store."""
        found = self.stores[store]
        with _reaching(store):
            return {digest: int(found.fs.size(found.oid_to_path(digest)) or 0) for digest in found.all()}

    def size(self, store: str, digest: str) -> int:
        found = self.stores[store]
        with _reaching(store):
            return int(found.fs.size(found.oid_to_path(digest)) or 0)

    def remove(self, store: str, digest: str) -> bool:
        """Whether it was there; raises WorkspaceError for a shared store."""
        if store in self.shared:
            raise WorkspaceError(self.left_alone(store))
        if not self.has(store, digest):
            return False
        from dvc_data.hashfile.db import get_index

        with _reaching(store):
            self.stores[store].delete(digest)
            if store == "remote":  # DVC remembers what it has pushed
                get_index(self.stores[store]).clear()
        return True

    def used(self, commits: Sequence[str]) -> set[str]:
        """Digests of all that the workspace, every branch, tag and experiment, and these commits refer to.

        Raises WorkspaceError where DVC cannot say: what is not known may not be taken for unused.
        """
        import pygit2
        from dvc.exceptions import DvcException

        pygit2.settings.owner_validation = (
            False  # as safe.directory has it for git: a restored one may be root's
        )
        log = logging.getLogger("dvc")
        level = log.level
        log.setLevel(logging.ERROR)  # it warns of each output that is not made yet
        try:
            found = self.repo.used_objs(
                revs=list(commits), all_branches=True, all_tags=True, all_experiments=True
            )
        except DvcException as error:
            raise WorkspaceError(f"DVC cannot tell what is in use ({error}): see `dvc status`") from None
        finally:
            log.setLevel(level)
        return {each.value for used in found.values() for each in used}


@contextmanager
def _reaching(store: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every kind of remote has errors of its own
        if store != "remote":
            raise
        raise RemoteError(
            f"prepare.remote cannot be reached ({type(error).__name__}: {error}): run it again when it is back"
        ) from None


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
    locks = [*(workspace.root / ".git").glob("*.lock"), *(workspace.root / ".git" / "refs").rglob("*.lock")]
    if locks and not _git_at_work(workspace.root, locks):
        for path in locks:
            path.unlink(missing_ok=True)


def _remains(workspace: Workspace) -> Iterator[Path]:
    root, state = workspace.root, workspace.state
    yield from (root / ".dvc" / "tmp" / name for name in ("rwlock", "rwlock.lock"))
    yield state / "bentoml" / ".staging"
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
           state / "logs", state / "bentoml" / "golden", root / ".dvc" / "cache",
           state / "remote")  # fmt: skip
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


def _configure(workspace: Workspace, sections: Mapping[str, Mapping[str, str]], name: str = "config") -> None:
    """Set values of .dvc/config where they differ; DVC itself would not write it in one piece."""
    path = workspace.root / ".dvc" / name
    config = _read_config(path)
    before = config.dict()
    config.merge(sections)
    if config.dict() != before:
        content = io.BytesIO()
        config.write(content)
        write_atomic(path, content.getvalue())


def _read_config(path: Path) -> Any:
    from configobj import ConfigObj, ConfigObjError

    try:
        # Values as they stand: `%(name)s` may be of a folder's name.
        return ConfigObj(str(path), encoding="utf-8", file_error=path.name == "config", interpolation=False)
    except (ConfigObjError, OSError, UnicodeError) as error:
        raise WorkspaceError(
            f"{path} cannot be read ({error}): restore it with `git checkout .dvc/config`"
        ) from None


def _config_url(workspace: Workspace, url: str) -> str:
    """As DVC reads it, relative to its own folder: of what lies in the workspace, which may be moved."""
    within = "://" not in url and inside(url, workspace.root)
    return os.path.relpath(url, workspace.root / ".dvc") if within else url


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
    lines = [line for line in lines if "dvc.org/support" not in line]
    faults = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return (faults or lines or ["no reason given"])[-1].removeprefix("ERROR: ").removeprefix("fatal: ")[:300]
