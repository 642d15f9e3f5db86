"""Run stages with DVC in one process, and follow each of them.

The process is this module. It runs one stage after the other with a single DVC repository, and tells on a named pipe
when one is done. A stage that fails tells its error on the same pipe, so that the error arrives as itself. Each
stage stays a process of its own, which DVC starts: its memory is freed, and it may be killed for want of memory
without taking the retrain along.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

from ayeaye.core.errors import AyeayeError, StageFailed, of_type
from ayeaye.core.processes import TERMINAL
from ayeaye.core.workspace import Workspace

PIPE = "AYEAYE_STAGES"  # names the pipe in the environment of a stage


class Stages:
    """Run stages; a context manager. The process inherits `lock`, so that it holds the workspace if it is orphaned."""

    def __init__(self, workspace: Workspace, names: list[str], lock: int | None = None) -> None:
        self._workspace, self._names, self._lock = workspace, names, lock
        self._pipe = workspace.state / f"stages-{os.getpid()}"
        self._log = workspace.state / "logs" / "stages.log"
        self._unread = b""

    def __enter__(self) -> Stages:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._pipe.unlink(missing_ok=True)
        os.mkfifo(self._pipe, 0o600)
        # Open to be written, too: else the pipe would be at its end whenever nobody is writing.
        self._reader = os.open(self._pipe, os.O_RDWR | os.O_NONBLOCK)
        environment = self._workspace.environment() | {PIPE: str(self._pipe)}
        if sys.stderr.isatty():
            environment[TERMINAL] = os.ttyname(sys.stderr.fileno())
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *self._names],
                cwd=self._workspace.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=() if self._lock is None else (self._lock,),
            )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()  # it has ended, unless a person interrupts
        self._process.wait()
        os.close(self._reader)
        self._pipe.unlink(missing_ok=True)

    def wait(self, name: str) -> bool:
        """Wait until a stage is done; return whether anything it depends on had changed.

        Raises the error of the stage.
        """
        while told := self._next():
            if "error" in told:
                raise of_type(told["error"], told["message"])
            if told["stage"] == name and told["state"] == "failed":
                raise self._failed(name, told["message"])
            if told["stage"] == name:
                return bool(told["state"] == "changed")
        raise self._failed(name, f"exited with {self._process.wait()}")

    def _next(self) -> dict[str, Any] | None:
        """The next line of the pipe; None once the process has ended."""
        while b"\n" not in self._unread:
            over = self._process.poll() is not None  # asked first: what it told last is still read
            if select.select([self._reader], [], [], 0 if over else 0.2)[0]:
                self._unread += os.read(self._reader, 65536)
            elif over:
                return None
        line, _, self._unread = self._unread.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def _failed(self, name: str, message: str) -> StageFailed:
        """The error of a stage that told none: a signal ended it, or DVC could not run it."""
        number = message.rpartition("exited with ")[2]
        code = int(number) if number.lstrip("-").isdigit() else 0
        code = -code if code < 0 else code - 128  # a shell's way to tell a signal
        if code in set(signal.Signals):
            hint = " (is there enough memory?)" if code == signal.SIGKILL else ""
            return StageFailed(
                f"stage {name} was ended by {signal.Signals(code).name}{hint}; what it printed is in {self._log}"
            )
        lines = self._log.read_text(errors="replace").split("\n")
        last = next((f": {line[:300]}" for line in reversed(lines) if line.strip()), "")
        return StageFailed(f"stage {name} failed ({message}){last}; what it printed is in {self._log}")


def tell(**content: str) -> None:
    """Write a line to the pipe of the run. Does nothing outside a run, or when its conductor is gone."""
    if path := os.environ.get(PIPE):
        with suppress(OSError):
            _write(path, content)


def tell_error(error: BaseException) -> None:
    """Tell the conductor why this stage fails. An error that is not an AyeayeError arrives as StageFailed."""
    if isinstance(error, AyeayeError):
        tell(error=type(error).__name__, message=str(error))
    elif stage := os.environ.get("DVC_STAGE"):
        what = f"stage {stage} failed: {type(error).__name__}: {str(error)[:300]}"
        tell(error=StageFailed.__name__, message=f"{what}; all that it printed is in .ayeaye/logs/stages.log")


def _write(path: str, content: dict[str, str]) -> None:
    """Raises OSError when nobody reads the pipe. A message that is too long for it is cut."""
    while (
        len(line := json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace"))
        >= select.PIPE_BUF
    ):
        content = {**content, "message": f"{content['message'][: len(content['message']) * 3 // 4]}…"}
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(descriptor, line + b"\n")  # in one piece, up to PIPE_BUF, whoever else writes
    finally:
        os.close(descriptor)


def main(names: list[str]) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    pipe = os.environ[PIPE]
    with Repo() as repo:
        for name in names:
            try:
                done = repo.reproduce(name, single_item=True)
            except DvcException as error:
                _write(pipe, {"stage": name, "state": "failed", "message": str(error.__cause__ or error)})
                sys.exit(1)
            # With nobody left to tell, the conductor was killed: what comes next is not started.
            _write(pipe, {"stage": name, "state": "changed" if done else "unchanged", "message": ""})


if __name__ == "__main__":
    main(sys.argv[1:])
