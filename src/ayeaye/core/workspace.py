"""A workspace: where everything of one classifier lies, and the locks that keep it whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from ayeaye.core import environment, params
from ayeaye.core.code_digests import digest_code
from ayeaye.core.errors import WorkspaceBusy, WorkspaceError
from ayeaye.core.files import digest_file, write_atomic
from ayeaye.core.paths import expanded, inside, resolved

TEMPLATES = ("params.yaml", "dvc.yaml", "bentofile.yaml", "prefect.yaml")
STAGES = ("embed", "classes", "train", "evaluate")
PLACES = 8  # the newest, as a container and its host may each have their own


@dataclass(frozen=True)
class Place:
    """Who a workspace is, where it was found so far, and when it was looked for last."""

    identity: str
    paths: tuple[str, ...] = ()
    token: str = ""


@dataclass(frozen=True)
class Workspace:
    """Paths of a workspace; `root` holds params.yaml."""

    root: Path

    @classmethod
    def find(cls, folder: Path) -> Workspace:
        """The workspace at `folder`; raises WorkspaceError where there is none."""
        root = resolved(folder)
        if not (root / "params.yaml").is_file() or not (root / "dvc.yaml").is_file():
            raise WorkspaceError(
                f"{folder} is not a workspace: make one with `ayeaye init DIR`, or use --workspace DIR"
            )
        return cls(root)

    @cached_property
    def params(self) -> params.Params:
        return params.load(self.root / "params.yaml")

    @property
    def state(self) -> Path:
        return self.root / ".ayeaye"

    @property
    def identity(self) -> str:
        """Whose versions, events and alerts are this workspace's; a copy or a clone is another one."""
        self.settle()
        return _place_of(self.root).identity

    @property
    def places(self) -> tuple[str, ...]:
        """Where this workspace was found so far, the newest place last."""
        self.settle()
        return _place_of(self.root).paths

    def settle(self) -> str | None:
        """Keep identity and place together; returns the original where this workspace is found to be a copy of one.

        Moved, restored or mounted elsewhere it stays who it is. Beside its original it gets an identity of its own,
        and loses what it got of the original's Prefect server: its schedules and runs are about the original. Raises
        WorkspaceError for a copy of a link to the original's state.
        """
        here = str(self.root)
        if _place_of(self.root).paths[-1:] == (here,) or not os.access(self.root, os.W_OK):
            return None
        with _locked(self.state / "id.lock", lambda text: None, 60):
            place = replace(_place_of(self.root), token=uuid.uuid4().hex)
            others = [path for path in place.paths if path != here]
            for path in map(Path, others):
                if (
                    self.state.is_symlink()
                    and (path / "params.yaml").exists()
                    and not path.samefile(self.root)
                ):
                    raise WorkspaceError(
                        f"{self.state} is a link to the state of {path}, which is still there: "
                        "put a copy of what it leads to in its place"
                    )
            _write_place(self.root, place)  # and read through another path to the same folder, if it is that
            twins = [path for path in others if _twins(place, _place_of(Path(path)))]
            if twins:
                self._require_apart(twins[-1])
                shutil.rmtree(self.state / "prefect", ignore_errors=True)
                place, others = Place(uuid.uuid4().hex), []
            _write_place(self.root, replace(place, paths=(*others[1 - PLACES :], here)))
        return twins[-1] if twins else None

    def _require_apart(self, original: str) -> None:
        """Raises WorkspaceError where a copy would work on its original's files."""
        git = self.root / ".git"
        if git.is_file():
            raise WorkspaceError(
                f"{git} leads to the git history of {original}: make a workspace of it with `git clone` "
                "or `git worktree add` instead"
            )
        parts = [self.root / name for name in (".git", ".dvc", "data", "models", "reports", "release")]
        for path in (*parts, *self.state.iterdir()):
            if not inside(path, self.root):
                raise WorkspaceError(
                    f"{path} is a link out of this copy of {original}: put a copy of what it leads to in its place"
                )

    @property
    def dataset(self) -> Path:
        return self.root / "data" / "dataset"

    @property
    def embeddings(self) -> Path:
        return self.root / "data" / "embeddings"

    @property
    def class_space(self) -> Path:
        return self.root / "data" / "class_space"

    @property
    def classifier(self) -> Path:
        return self.root / "models" / "classifier"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def release(self) -> Path:
        return self.root / "release"

    @property
    def checks(self) -> Path:
        return self.root / "checks"

    def faults(self, of: str) -> Path:
        """Where all of many faults are listed, of which a message names a few."""
        return self.checks / f"faults-{of}.txt"

    @property
    def feedback(self) -> Path:
        """Pictures that reviewers accepted, for the next dataset."""
        return self.state / "feedback"

    @property
    def removed(self) -> Path:
        """Ids of pictures that were removed and must not come back, one a line."""
        return self.root / "data" / "removed.txt"

    @property
    def bentos(self) -> Path:
        return self.state / "bentoml"

    def resolve(self, path: str) -> Path:
        """A path from params.yaml; relative ones start at the workspace."""
        return resolved(self.root / expanded(path))

    def environment(self) -> dict[str, str]:
        """The environment of everything that runs for this workspace: its homes, no telemetry, nothing astray."""
        given = environment.amended(os.environ)
        programs = str(Path(sys.executable).parent)  # first: a stage is a command of this ayeaye
        path = dict.fromkeys([programs, *given.get("PATH", os.defpath).split(os.pathsep)])
        settings = {
            "BENTOML_HOME": str(self.bentos),
            "BENTOML_DO_NOT_TRACK": "True",
            "DO_NOT_TRACK": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.state / "dvc"),
            "GX_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "ORT_DISABLE_TELEMETRY": "1",
            # Threads that spin while they wait make a shared machine many times slower.
            "OMP_WAIT_POLICY": given.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
            "PATH": os.pathsep.join(path),
        }
        if "PREFECT_API_URL" not in given:
            settings["PREFECT_HOME"] = str(self.state / "prefect")
        return given | settings

    def enter(self) -> None:
        """Make it the environment of this process, before Prefect, DVC, MLflow and matplotlib read it."""
        environment.become(self.environment())

    @classmethod
    def opened(cls, folder: Path, say: Callable[[str], None] = lambda text: None) -> Workspace:
        """The workspace at a folder, with its homes in the environment before anything reads them.

        `say` is told when it is a copy, and which variables of the environment are not used.
        """
        workspace = cls.find(folder)
        if original := workspace.settle():
            say(
                f"{workspace.root} is a copy of {original}: "
                "it goes on as a workspace of its own, without its schedules."
            )
        for name, reason in environment.unused(os.environ).items():
            say(f"{name} is not used: {reason}.")
        workspace.enter()
        if home := os.environ.get("PREFECT_HOME"):
            Path(home).mkdir(parents=True, exist_ok=True)  # Prefect warns where it is missing
        return workspace

    @contextmanager
    def lock(
        self,
        say: Callable[[str], None] = lambda text: None,
        timeout: float = 3600,
        *,
        releasing: bool = True,
    ) -> Iterator[int]:
        """Hold the workspace: no other run, and no orphaned stage of a killed one, is at work in it.

        And hold what is released of it, unless told otherwise: what trains for hours must not keep a rollback
        waiting. Yields a file descriptor; a process that inherits it holds the workspace too until it ends.
        """
        with _locked(self.state / "lock", say, timeout) as descriptor:
            with _locked(self.state / "stage.lock", say, timeout):
                pass
            with self.releasing(say, timeout) if releasing else nullcontext():
                yield descriptor

    @contextmanager
    def releasing(
        self, say: Callable[[str], None] = lambda text: None, timeout: float = 3600
    ) -> Iterator[None]:
        """Hold what is released: the promotion record, the registry's aliases and the Bentos that follow it.

        Enough for what changes nothing else. Who also needs the workspace takes that first.
        """
        with _locked(self.state / "release.lock", say, timeout):
            yield

    @contextmanager
    def stage(self, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Held by the process of a stage, which outlives a conductor that is killed."""
        with _locked(self.state / "stage.lock", say, 3600):
            yield

    def write_fingerprints(self) -> None:
        """Write what DVC cannot see by itself as params: digests of each stage's code and of files outside.

        Unchanged files are left alone.
        """
        code = {stage: digest_code(f"ayeaye.pipeline.{stage}") for stage in STAGES}
        _write_yaml(self.state / "code.yaml", code)
        _write_yaml(self.state / "inputs.yaml", self._inputs())

    def fingerprints(self) -> dict[str, str]:
        """By stage the digest of its code, as it was last written."""
        return _read_yaml(self.state / "code.yaml")

    def inputs(self) -> dict[str, str]:
        """By stage the digests of its files outside the workspace, as they were last written."""
        return _read_yaml(self.state / "inputs.yaml")

    def _inputs(self) -> dict[str, str]:
        chosen = self.params
        vectors = {
            f"vectors_{source}": chosen.classes.vectors_of(source) for source in chosen.classes.sources
        }
        groups: dict[str, dict[str, str | None]] = {
            "embed": {"weights": chosen.embed.weights},
            "classes": {"corpus": chosen.classes.corpus, **vectors},
            "evaluate": {"pretrained_on": chosen.embed.pretrained_on, "hierarchy": chosen.embed.hierarchy},
        }
        return {stage: self._digests(paths) for stage, paths in groups.items()}

    def _digests(self, paths: Mapping[str, str | None]) -> str:
        files = {name: self.resolve(path) for name, path in sorted(paths.items()) if path}
        # One that is not there counts too: the stage has to run so as to say so.
        found = {
            name: _remembered_digest(path, self.state) if path.is_file() else "no file"
            for name, path in files.items()
        }
        return " ".join(f"{name}={digest}" for name, digest in found.items()) or "none"


def template(name: str) -> Path:
    """An original of a workspace's files: in the wheel, or at the root of the repository."""
    package = Path(__file__).parents[1]
    for folder in (package / "templates", package.parents[1]):
        if (folder / name).is_file():
            return folder / name
    raise WorkspaceError(f"{name} is missing from this installation of ayeaye: install it again")


def _place_of(root: Path) -> Place:
    """What a workspace knows of itself; one that knows nothing is a new one."""
    try:
        found = json.loads((root / ".ayeaye" / "id").read_bytes())
        return Place(found["identity"], tuple(found["paths"]), found["token"])
    except (OSError, ValueError, TypeError, KeyError):
        return Place(uuid.uuid4().hex)


def _write_place(root: Path, place: Place) -> None:
    write_atomic(root / ".ayeaye" / "id", json.dumps(asdict(place)).encode())


def _twins(place: Place, other: Place) -> bool:
    return place.identity == other.identity and place.token != other.token


@contextmanager
def _locked(path: Path, say: Callable[[str], None], timeout: float) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline, told = time.monotonic() + timeout, False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say("Another run is at work in this workspace; waiting for it to end.")
                    told = True
                if time.monotonic() > deadline:
                    raise WorkspaceBusy(
                        f"{path.parent.parent} is still busy after {timeout:.0f} s: try later"
                    ) from None
                time.sleep(0.2)
        yield descriptor
    finally:
        # The lock goes when the last process that inherited the descriptor closes it.
        os.close(descriptor)


def _read_yaml(path: Path) -> dict[str, str]:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(path) if path.is_file() else {}


def _write_yaml(path: Path, values: dict[str, str]) -> None:
    content = "".join(f'{key}: "{value}"\n' for key, value in sorted(values.items())).encode()
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)


def _remembered_digest(path: Path, state: Path) -> str:
    """SHA-256 of a large file, computed anew only when its size or time has changed."""
    memory = state / "digests.json"
    try:
        known = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        known = {}
    status = path.stat()
    stamp = [status.st_size, status.st_mtime_ns]
    entry = known.get(str(path))
    if not entry or entry[:2] != stamp:
        known[str(path)] = [*stamp, digest_file(path)]
        write_atomic(memory, json.dumps(known).encode())
    return known[str(path)][2]
