"""Child processes that end with this one, and ports for them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own that is ended when this one dies, however it dies."""
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # The parent may have died before the signal was asked for.
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(
        command,
        env=dict(env),
        cwd=cwd,
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent if os.uname().sysname == "Linux" else None,  # noqa: PLW1509
    )


def stop(process: subprocess.Popen[bytes], patience: float = 10) -> None:
    """End a process started by `start`, and its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    # Children that outlived their leader, which a group signal still reaches.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
