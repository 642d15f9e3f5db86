"""The state of `ayeaye serve` in a workspace: what runs now, and the lock that it holds meanwhile.

.ayeaye/serving/
  lock          held for as long as something serves this workspace
  state.json    what is served, where, since when
  haproxy.cfg   and what belongs to it
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ayeaye.core.errors import ReleaseError
from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace

_TRIES = 10


@dataclass(frozen=True)
class ServingState:
    """What is served at `address`; `coming` is the Bento that is being started, `failed` the last one that could not
    be served, with the reason, `shadow` the challenger that answers copies of requests."""

    bento: str | None
    version: int | None
    address: str
    since: str | None = None
    pid: int = field(default_factory=os.getpid)
    coming: str | None = None
    failed: dict[str, str] | None = None
    shadow: str | None = None

    def write(self, workspace: Workspace) -> None:
        write_atomic(_path(workspace), json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def observe(cls, workspace: Workspace) -> ServingState | None:
        """Return what serves this workspace now, or None.

        `bento` and `version` are what the service itself answers, None while it does not answer; the rest is what
        `ayeaye serve` wrote.
        """
        import httpx

        try:
            state = cls._read(workspace)
            with (serving_folder(workspace) / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
        except BlockingIOError:
            pass
        except (OSError, ValueError, TypeError):
            return None
        about = {}
        with suppress(httpx.HTTPError, ValueError, TypeError):
            address = state.address.replace("//0.0.0.0:", "//127.0.0.1:")
            response = httpx.get(f"{address}/model", timeout=5, trust_env=False)
            about = dict(response.json()) if response.status_code == 200 else {}
        return replace(state, version=about.get("version"), bento=about.get("bento"))

    @classmethod
    def _read(cls, workspace: Workspace) -> ServingState:
        return cls(**json.loads(_path(workspace).read_bytes()))


def serving_folder(workspace: Workspace) -> Path:
    return workspace.state / "serving"


@contextmanager
def hold_serving(workspace: Workspace) -> Iterator[int]:
    """Hold the lock of the one process that serves a workspace; yields its descriptor, raises ReleaseError."""
    folder = serving_folder(workspace)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for attempt in range(_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _TRIES - 1:
                    raise ReleaseError(_taken(workspace)) from None
            time.sleep(0.1)  # `observe` holds it for a moment
        _path(workspace).unlink(missing_ok=True)  # of one that was killed
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(workspace: Workspace) -> str:
    by = ""
    with suppress(OSError, ValueError, TypeError):
        state = ServingState._read(workspace)
        by = f" by process {state.pid} on {state.address}"
    return f"{workspace.root} is already served{by}: stop that first"


def _path(workspace: Workspace) -> Path:
    return serving_folder(workspace) / "state.json"
