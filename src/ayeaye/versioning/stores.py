"""The objects that DVC keeps of a workspace, in its cache and on its remote, and which of them are its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ayeaye.core.errors import DataGone, RemoteError, WorkspaceError
from ayeaye.core.files import write_atomic
from ayeaye.core.paths import inside, resolved
from ayeaye.core.workspace import Workspace
from ayeaye.versioning import dvc

OWN = "own_stores.json"  # in the state of a workspace


@contextmanager
def objects(workspace: Workspace) -> Iterator[Objects]:
    """What DVC keeps of a workspace, in its cache and on its remote."""
    dvc.require(workspace)
    with dvc.opened(workspace, within=False) as repo:
        stores = {"cache": repo.cache.local}
        if (
            dvc.REMOTE in repo.config["remote"]
        ):  # another one, of a person's own configuration, is none of ours
            stores["remote"] = repo.cloud.get_remote_odb(dvc.REMOTE)
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
        with dvc.opened(workspace) as repo:
            stores["cache"] = str(repo.cache.local.path)
    if "remote" in said and not chosen.params.prepare.remote_shared:
        stores["remote"] = dvc.remote_url(chosen)
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
    url = str(repo.config["remote"][dvc.REMOTE]["url"])
    said = url == prepare.remote or ("://" not in url and resolved(url) == Path(dvc.remote_url(workspace)))
    return (
        said and not prepare.remote_shared and _marked_own(workspace).get(name) == dvc.remote_url(workspace)
    )


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
