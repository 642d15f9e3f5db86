"""Folders that processes claim."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ayeaye.core.processes import claimed_folder, remove_unclaimed

HOLD = """
import sys, time
from ayeaye.core.processes import claimed_folder
with claimed_folder("ayeaye-claim-") as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_is_removed_once_its_process_was_killed_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        theirs = Path(holder.stdout.readline().strip())
        assert theirs.parent == tmp_path
        with claimed_folder("ayeaye-claim-") as ours:
            remove_unclaimed("ayeaye-claim-")
            assert ours.is_dir() and theirs.is_dir()
        assert not ours.exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
        remove_unclaimed("ayeaye-claim-")
        assert not theirs.exists()


def test_a_fault_in_the_folder_comes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match="full"), claimed_folder("ayeaye-claim-"):
        raise OSError("full")
    assert not list(tmp_path.iterdir())
