"""Child processes that end with this one, however it ends, and ports for them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from ayeaye.core.environment import GUARD, LATER
from ayeaye.core.errors import ReleaseError

_BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
_TOLD = 30.0  # seconds
_TICK = 0.02  # seconds; what merely waits computes less between two looks
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
        **({LATER: ""} if hidden else {}),
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


def await_start(
    what: str,
    ready: Callable[[], bool],
    ended: Callable[[], str | None],
    number: Callable[[], int],
    say: Callable[[str], None] = lambda text: None,
    *,
    stalled: float = 120,
    longest: float = 300,
) -> str | None:
    """Wait until what starts is ready; returns None, else why it is not: `ended` gives a reason, or it hangs.

    A busy machine makes starts slow, so that it is given up only after `stalled` seconds in which the process of
    that number, with all that it started, computed nothing, or after the `longest` time. Who waits is told of it
    every half minute.
    """
    begun = moved = looked = told = time.monotonic()
    work = -1.0
    while not ready():
        if reason := ended():
            return reason
        now = time.monotonic()
        if now - looked > min(5, stalled / 4):
            looked, before, work = now, work, _worked(number())
            moved = now if abs(work - before) > _TICK else moved
        if now - moved > stalled or now - begun > longest:
            hangs = f", and did nothing for the last {now - moved:.0f} s" if now - moved > stalled else ""
            return f"{what} did not answer within {now - begun:.0f} s{hangs}"
        if now - told > _TOLD:
            told = now
            say(f"Still waiting for {what} ({now - begun:.0f} s).")
        time.sleep(0.1)
    return None


def _worked(number: int) -> float:
    """Seconds that a process and its children computed; 0 where it is gone."""
    import psutil

    total = 0.0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(number)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:2])
    return total


def alive(number: int) -> bool:
    """Whether a process of that number is there."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def claimed_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that is this process's while it lives, and gone afterwards."""
    claim = None
    while claim is None:  # until it is claimed, another process may take it for one that was left
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        claim = _claim(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(claim)


def remove_unclaimed(prefix: str) -> None:
    """Remove what processes that were killed left of `claimed_folder`."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        if (claim := _claim(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(claim)


def _claim(folder: Path) -> int | None:
    """A lock on a folder; None where it is another's, or gone.

    The number of a process would not do: that of one in another container says nothing here.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
