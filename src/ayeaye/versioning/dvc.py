"""The DVC repository of a workspace: its configuration, the dataset, and the graph of stages."""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ayeaye.core.errors import DataGone, RemoteError, WorkspaceError
from ayeaye.core.files import write_atomic
from ayeaye.core.paths import inside
from ayeaye.core.workspace import Workspace

DATASET = "data/dataset.dvc"
REMOTE = "data"  # DVC's name for prepare.remote
ORIGINAL = "kept-by-the-original"  # a clone's name for the cache of the workspace that it was cloned from


@contextmanager
def opened(workspace: Workspace, *, within: bool = True) -> Iterator[Any]:
    """DVC's Repo of a workspace. Raises WorkspaceError in place of DVC's errors.

    DVC names files relative to the current folder, so this is the workspace's meanwhile, unless told otherwise.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    site = {"core": {"site_cache_dir": str(workspace.state / "dvc")}}
    with chdir(workspace.root) if within else nullcontext(), _collected_errors() as errors:
        try:
            with Repo(str(workspace.root), config=site) as repo:
                yield repo
        except DvcException as error:
            # DVC's own error counts failed files; what it logs says why.
            cause = next(iter(errors), error.__cause__ or error)
            raise WorkspaceError(f"DVC failed: {str(cause).splitlines()[0][:300]}") from None


@contextmanager
def _collected_errors() -> Iterator[list[BaseException]]:
    """The exceptions that DVC logs meanwhile, which are not shown."""
    errors: list[BaseException] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                errors.append(record.exc_info[1])

    loggers = [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects")]
    before = [(each.level, each.propagate) for each in loggers]
    collector = Collector(logging.ERROR)
    for each in loggers:
        each.addHandler(collector)
        each.propagate = False
        each.setLevel(logging.CRITICAL + 1 if each.name == "dvc" else logging.ERROR)
    try:
        yield errors
    finally:
        for each, (level, propagate) in zip(loggers, before, strict=True):
            each.removeHandler(collector)
            each.level, each.propagate = level, propagate


def require(workspace: Workspace) -> None:
    """Raises WorkspaceError unless the workspace is a git and DVC repository of its own."""
    check_name(workspace.root)
    missing = [name for name in (".git", ".dvc") if not (workspace.root / name).exists()]
    if missing:
        raise WorkspaceError(
            f"{workspace.root} has no {' and no '.join(missing)}: "
            f"lay them down with `ayeaye init {shlex.quote(str(workspace.root))}`"
        )


def check_name(root: Path) -> None:
    if set("{}") & set(str(root)):  # nothing quotes them there
        raise WorkspaceError(f"{root} has {{ or }} in its name, which DVC cannot take: give it another name")


def configure(workspace: Workspace, sections: Mapping[str, Mapping[str, str]], name: str = "config") -> None:
    """Set values of `.dvc/NAME` where they differ; DVC itself would not write the file in one piece."""
    path = workspace.root / ".dvc" / name
    config = read_config(path)
    before = config.dict()
    config.merge(sections)
    if config.dict() != before:
        content = io.BytesIO()
        config.write(content)
        write_atomic(path, content.getvalue())


def read_config(path: Path) -> Any:
    from configobj import ConfigObj, ConfigObjError

    try:
        # No interpolation: `%(name)s` may be part of a folder's name.
        return ConfigObj(str(path), encoding="utf-8", file_error=path.name == "config", interpolation=False)
    except (ConfigObjError, OSError, UnicodeError) as error:
        raise WorkspaceError(
            f"{path} cannot be read ({error}): restore it with `git checkout .dvc/config`"
        ) from None


# The dataset


def add_dataset(workspace: Workspace) -> str:
    """Track data/dataset with DVC and return its digest."""
    with opened(workspace) as repo:
        repo.add("data/dataset")
    return dataset_digest(workspace)


def dataset_digest(workspace: Workspace) -> str:
    """The digest of the tracked dataset. Raises WorkspaceError when it is not tracked yet."""
    from ruamel.yaml import YAML

    try:
        return YAML(typ="safe").load(workspace.root / DATASET)["outs"][0]["md5"]
    except FileNotFoundError:
        raise WorkspaceError("the dataset is not tracked yet: run `ayeaye retrain`") from None


def push_dataset(workspace: Workspace) -> None:
    """Push the dataset to `prepare.remote`. Raises RemoteError when that cannot be reached."""
    remote, url = workspace.params.prepare.remote, remote_url(workspace)
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
    configure(workspace, {"core": {"remote": REMOTE}, f'remote "{REMOTE}"': section})
    try:
        with opened(workspace) as repo, _storage_errors():
            repo.push(DATASET, remote=REMOTE)
    except WorkspaceError as error:
        raise RemoteError(
            f"the dataset could not be pushed to prepare.remote {remote} ({error}): "
            "nothing is lost, retrain when it is back"
        ) from None


def pull_dataset(workspace: Workspace) -> None:
    """Fetch the dataset of a clone from the remote, or from the cache of the workspace it was cloned from.

    Raises DataGone when neither has all of it.
    """
    try:
        _pull(workspace, REMOTE)
    except WorkspaceError as error:
        try:
            _pull(workspace, ORIGINAL)
        except WorkspaceError:
            raise DataGone(
                f"the dataset {dataset_digest(workspace)} could not be pulled from the remote ({error}), and the "
                "cache of the workspace does not hold all of it either: restore the remote, then run it again"
            ) from None


def _pull(workspace: Workspace, remote: str) -> None:
    with opened(workspace) as repo, _storage_errors():
        repo.pull(DATASET, remote=remote)


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Every kind of storage raises errors of its own."""
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException:
        raise
    except Exception as error:
        raise WorkspaceError(f"{type(error).__name__}: {error}") from None


def remote_url(workspace: Workspace) -> str:
    remote = workspace.params.prepare.remote
    return remote if "://" in remote else str(workspace.resolve(remote))


def _config_url(workspace: Workspace, url: str) -> str:
    """Relative to DVC's folder, as DVC reads it, when it lies in the workspace, which may be moved."""
    within = "://" not in url and inside(url, workspace.root)
    return os.path.relpath(url, workspace.root / ".dvc") if within else url


# The graph


def stages(workspace: Workspace) -> list[str]:
    """The stages of dvc.yaml in an order in which they can run."""
    with opened(workspace) as repo:
        return [name for name in map(_name, _in_order(repo.index.graph)) if name]


def changed(workspace: Workspace) -> set[str]:
    """Stages and .dvc files that changed since they were last recorded, or that never were."""
    with opened(workspace) as repo:
        names = set(repo.status())
    if not (workspace.root / DATASET).is_file():
        names.add(DATASET)
    return names


def affected(workspace: Workspace, changed: set[str]) -> list[str]:
    """The stages in `changed` and those that depend on one, in an order in which they can run.

    All stages depend on the dataset.
    """
    if DATASET in changed:
        return stages(workspace)
    import networkx

    with opened(workspace) as repo:
        graph = repo.index.graph
        starts = [stage for stage in graph if _name(stage) in changed]
        found = {each for start in starts for each in (start, *networkx.ancestors(graph, start))}
        return [_name(stage) for stage in _in_order(graph) if stage in found and _name(stage)]


def _name(stage: Any) -> str:
    """Empty for a .dvc file, which DVC treats as a stage."""
    return getattr(stage, "name", None) or ""


def _in_order(graph: Any) -> Iterable[Any]:
    """Independent stages come by name: `classes`, which may fail within seconds, before `embed`."""
    import networkx  # the library of DVC's own graphs

    # Edges point from a stage to what it depends on.
    return networkx.lexicographical_topological_sort(graph.reverse(copy=True), key=_name)
