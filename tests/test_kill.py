"""Retraining killed at any moment: the next run completes to the same champion and leaves no remains."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import workspaces
from workspaces import Place

from ayeaye.release.record import Record

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")]

PATIENCE = 300
# What shows that a step has begun: a line of the run's own words, or a file.
STEPS = {
    "prepare": r"Preparing the dataset",
    "embed": r"Stage embed\.|No stage has",
    "classes": r"Stage classes\.|No stage has",
    "train": r"Stage train\.|No stage has",
    "evaluate": r"Stage evaluate\.|No stage has",
    "record": r"Stage evaluate (done|has)|No stage has",
    "pack": r"Packing the Bento",
    "trial": r"Trying ",
    "promotion": "release/record.jsonl",
}


class Run:
    """`ayeaye retrain` as a process in a group of its own, with a Prefect server of its own."""

    def __init__(self, place: Place) -> None:
        self.place, self.lines, self.begun = place, list[str](), dict[str, float]()
        self.process = subprocess.Popen(
            [workspaces.PROGRAM, "retrain", "--workspace", str(place.root)],
            env=dict(place.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            for step, sign in STEPS.items():
                if re.match(sign, line):
                    self.begun.setdefault(step, time.monotonic())

    def until(self, step: str) -> None:
        """Return when a step has begun."""

        def here() -> bool:
            assert self.process.poll() is None, f"it ended before {step}: {self.lines}"
            return step in self.begun or (self.place.root / STEPS[step]).exists()

        _poll(here, f"no {step}: {self.lines}")

    def says(self, text: str) -> None:
        _poll(lambda: any(text in line for line in self.lines), f"it does not say {text!r}: {self.lines}")

    def kill(self, *, group: bool) -> None:
        """SIGKILL to the process alone, so that a stage goes on as an orphan, or to all of its group."""
        assert self.process.poll() is None, f"it ended too early: {self.lines}"
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        code = self.process.wait(PATIENCE)
        self._reader.join(5)
        assert code == 0, self.lines


@dataclass(frozen=True)
class Reference:
    """A fresh workspace to copy, and what a run that nobody killed makes of it."""

    fresh: Place
    bundle: str
    seconds: dict[str, float]

    def copy(self, folder: Path) -> Place:
        """The fresh workspace again, at another place, with a folder of its own for temporary files."""
        shutil.copytree(self.fresh.root, folder / "workspace", symlinks=True)
        temporary = folder / "tmp"
        temporary.mkdir()
        environment = {**self.fresh.environment, "TMPDIR": str(temporary)}
        return Place(folder / "workspace", self.fresh.source, environment)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, small: tuple[str, ...]) -> Reference:
    folder = tmp_path_factory.mktemp("kill")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment["OMP_NUM_THREADS"] = "1"
    source = workspaces.write_paints(folder / "paints")
    fresh = workspaces.make(folder / "fresh", source, environment, *small)
    whole = Reference(fresh, "", {}).copy(folder)
    run = Run(whole)
    run.finish()
    starts = [*(run.begun[step] for step in STEPS if step in run.begun), time.monotonic()]
    seconds = {
        step: after - before for step, before, after in zip(run.begun, starts, starts[1:], strict=False)
    }
    return Reference(fresh, whole.status["champion"]["bundle_digest"], {**seconds, "promotion": 0.3})


def killed_at(place: Place, steps: Sequence[str], seconds: dict[str, float], seed: int) -> None:
    """One run after the other, each killed somewhere within its step."""
    chance = random.Random(seed)
    for step in steps:
        group = chance.random() < 0.5
        run = Run(place)
        run.until(step)
        time.sleep(chance.uniform(0, 0.6) * seconds[step])
        run.kill(group=group)
        _poll(lambda: not _servers(place), f"servers outlive the run killed in {step}: {_servers(place)}", 15)


def waiting_for_an_orphan(place: Place) -> Run:
    """A run that had to wait for the stage of a killed one, which was still writing."""
    first = Run(place)
    first.until("embed")
    _poll(lambda: _held(place.root / ".ayeaye" / "stage.lock"), "the stage does not begin")
    (stage,) = [number for number, words in _at_work(place) if "ayeaye\0embed" in words]
    os.kill(stage, signal.SIGSTOP)
    for number, words in _at_work(place):
        if "ayeaye.versioning.running" in words:
            os.kill(number, signal.SIGKILL)
    first.kill(group=False)
    second = Run(place)
    second.says("Another run is at work in this workspace")
    assert "Preparing the dataset." not in second.lines
    os.kill(stage, signal.SIGCONT)
    return second


def complete(place: Place, reference: Reference) -> None:
    """Run to the end, and find everything as after a run that nobody killed."""
    Run(place).finish()
    status = place.status
    assert status["champion"]["bundle_digest"] == reference.bundle
    assert (status["champion"]["version"], status["candidates"], status["agrees"]) == (1, [], True)
    record = Record(place.root / "release" / "record.jsonl")
    assert [(entry.action, entry.to) for entry in record.entries()] == [("promote", 1)]
    assert _runs(place) == ["FINISHED"]
    assert _remains(place) == []
    assert _at_work(place) == []
    git = subprocess.run(["git", "status", "--porcelain"], cwd=place.root, capture_output=True, text=True)
    assert (git.returncode, git.stdout) == (0, "")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(reference: Reference, tmp_path: Path) -> None:
    place = reference.copy(tmp_path)
    run = waiting_for_an_orphan(place)
    run.until("train")
    run.kill(group=True)
    killed_at(place, ["record", "trial", "promotion"], reference.seconds, seed=0)
    plant_remains(place)
    complete(place, reference)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_run_killed_in_every_step_ends_as_one_that_was_not(
    reference: Reference, tmp_path: Path, seed: int
) -> None:
    place = reference.copy(tmp_path)
    killed_at(place, list(STEPS), reference.seconds, seed)
    complete(place, reference)
    Run(place).finish()
    assert len(Record(place.root / "release" / "record.jsonl").entries()) == 1


def plant_remains(place: Place) -> None:
    """What other kills than ours leave: a file half written, locks of git and DVC, errors nobody fetched."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (".ayeaye/stages-7", ".git/index.lock", ".git/refs/heads/main.lock",
                 "models/classifier/.bundle.json.x.part", ".ayeaye/tmpabc/shard.npy",
                 ".dvc/cache/files/md5/00/.half.tmp", "reports/.metrics.json.x.part"):  # fmt: skip
        path = place.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    rwlock = place.root / ".dvc" / "tmp" / "rwlock"
    holder = f'{{"pid": {ended.pid}, "cmd": "dvc repro embed"}}'
    rwlock.write_text(f'{{"{place.root}/data/embeddings": {{"write": {holder}}}}}')


def _remains(place: Place) -> list[str]:
    state = place.root / ".ayeaye"
    found = [path for path in place.root.rglob(".*") if path.suffix in (".part", ".tmp")]
    found += [*state.glob("stages-*"), *state.glob("tmp*"), *state.glob("bentoml/.staging")]
    found += [*state.rglob(".fetch-*"), *(place.root / ".git").rglob("*.lock")]
    found += Path(place.environment["TMPDIR"]).glob("ayeaye-*")
    return [str(path) for path in found]


def _runs(place: Place) -> list[str]:
    """The state of every run in MLflow."""
    with sqlite3.connect(place.root / ".ayeaye" / "mlflow" / "mlflow.db") as database:
        return [status for (status,) in database.execute("SELECT status FROM runs")]


def _at_work(place: Place) -> list[tuple[int, str]]:
    """Processes, and their words, that name the workspace or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            where = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(place.root) in f"{words}\0{where}" and int(process.name) != os.getpid():
            found.append((int(process.name), words))
    return found


def _servers(place: Place) -> list[tuple[int, str]]:
    return [each for each in _at_work(place) if "prefect" in each[1] or "bentoml" in each[1]]


def _held(lock: Path) -> bool:
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _poll(ready: Callable[[], object], complaint: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.005)
