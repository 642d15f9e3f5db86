"""Child processes that end with this one, however it ends, and ports for them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ayeaye.errors import ReleaseError

GUARD = Path(__file__).parent / "guard"
_BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
TERMINAL = "AYEAYE_TERMINAL"  # names, in a stage's environment, the terminal where the person looks on


def workers_told() -> int | None:
    """How many processes the environment says a service should have; raises ReleaseError for no such number."""
    told = os.environ.get("AYEAYE_WORKERS")
    if not told:
        return None
    if not told.isdecimal() or int(told) < 1:
        raise ReleaseError(
            f"AYEAYE_WORKERS is {told}: give a number from 1, or take it out for serve.workers"
        )
    return int(told)


def guarded(env: Mapping[str, str], hidden: Sequence[Path] = ()) -> dict[str, str]:
    """An environment whose Python processes each die with their parent.

    With `hidden` folders they find `ayeaye` in none of these, and nothing of our PYTHONPATH.
    """
    path = [str(GUARD)] if hidden else [str(GUARD), *filter(None, [env.get("PYTHONPATH")])]
    return {
        **env,
        "PYTHONPATH": os.pathsep.join(path),
        "AYEAYE_GUARD_PARENT": str(os.getpid()),
        "AYEAYE_GUARD_HIDDEN": os.pathsep.join(str(folder.resolve()) for folder in hidden),
    }


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: IO[bytes] | int,
    hidden: Sequence[Path] = (),
) -> subprocess.Popen[bytes]:
    """Start a Python program in a session of its own that is killed when this process dies.

    To the kernel, this process dies with the thread that calls this: call it from one that lives on.
    """
    return subprocess.Popen(
        command,
        env=guarded(env, hidden),
        cwd=cwd,
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def start_any(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Start a program that knows nothing of the guard as `start` does: a guarded Python becomes it."""
    return start([sys.executable, "-c", _BECOME, *command], env=env, cwd=cwd, log=log)


def stop(process: subprocess.Popen[bytes], patience: float = 15) -> None:
    """End a process started by `start`, and every process it started."""
    # To the leader alone: one that watches over its workers would start them again.
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def alive(number: int) -> bool:
    """Whether a process of that number is there."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
