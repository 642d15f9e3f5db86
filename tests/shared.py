"""What all workers of a test run share: servers that are started once, and folders that are made once.

The controller of the run makes a folder and names it in the environment. Whichever worker first needs a thing makes
it there under a file lock. A server runs under a keeper, a process that ends it together with the controller, since
the worker that started it may have no test left while another one still asks it.

    python tests/shared.py PID COMMAND...    run COMMAND for as long as the process PID lives
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

FOLDER = "AYEAYE_TESTS_SHARED"
CONTROLLER = "AYEAYE_TESTS_CONTROLLER"


def open_folder() -> None:
    """Called by the controller, before it starts workers."""
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="ayeaye-tests-")
    Path(os.environ[FOLDER]).chmod(0o711)  # PostgreSQL runs as another user
    os.environ[CONTROLLER] = str(os.getpid())


def close_folder() -> None:
    """Called by the controller after the last test: stop the servers and remove the folder."""
    folder = Path(os.environ[FOLDER])
    keepers = [int(path.read_text()) for path in folder.glob("*.pid")]
    for keeper in keepers:
        with suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while any(map(_runs, keepers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def once(name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """The folder `name`, and what `make` returned when the first caller filled it; that must fit JSON."""
    folder = Path(os.environ[FOLDER]) / name
    with FileLock(f"{folder}.lock"):
        result = folder.with_suffix(".json")
        if not result.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            result.write_text(json.dumps(make(folder)))
    return folder, json.loads(result.read_text())


def keep(name: str, command: Sequence[object], environment: Mapping[str, str], folder: Path) -> None:
    """Start a server that runs until the test run ends."""
    keeper = [sys.executable, __file__, os.environ[CONTROLLER], *map(str, command)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            keeper, env=dict(environment), cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    Path(os.environ[FOLDER], f"{name}.pid").write_text(str(process.pid))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def main() -> None:
    controller, *command = sys.argv[1:]
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        while _runs(int(controller)) and process.poll() is None:
            time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL closes the connections that are open
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    main()
