"""What the release promises, with processes killed anywhere, a full disk, a registry that goes and a clock that jumps.

After every fault: one champion at most, its Bento whole, the record verifies; after the next call that completes
nothing is left of the fault, everything agrees, and the champion answers.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import workspaces
from workspaces import Place, wait_for

from ayeaye.core.processes import free_port, start, stop
from ayeaye.core.workspace import Workspace
from ayeaye.packaging.bento import BentoStore
from ayeaye.release import promotion
from ayeaye.release.promotion import record_of, registry_of
from ayeaye.release.registry import CHAMPION

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")]

OPERATIONS = ("promote", "rollback", "repair", "retrain")
PATIENCE = 600


@pytest.fixture
def fresh(twice: Place, tmp_path: Path) -> Place:
    """Version 2 is champion, version 1 previous, both with their Bentos."""
    place = twice.copy(tmp_path)
    (tmp_path / "tmp").mkdir()
    more = {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp")}
    return Place(place.root, place.source, {**place.environment, **more})


def begun(place: Place, *command: object, **options: Any) -> subprocess.Popen[str]:
    """A command of ayeaye as a process in a group of its own."""
    first, *rest = map(str, command)
    return subprocess.Popen(
        [workspaces.PROGRAM, first, "--workspace", str(place.root), *rest],
        env={**os.environ, **place.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def ended(process: subprocess.Popen[str], *codes: int) -> str:
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode in codes, said
    return said


def command_of(operation: str, place: Place, turn: int) -> list[object]:
    """The next call of an operation that has something to do."""
    workspace = Workspace(place.root)
    state = record_of(workspace).state()
    if operation == "promote":
        return ["promote", 3 - (state.champion or 1) if state.champion in (1, 2) else 1, "--reason", "turn"]
    if operation == "rollback":
        return ["rollback", "--from", state.champion]
    if operation == "repair":
        registry_of(workspace).set_alias(CHAMPION, None)
        if state.bento and turn // len(OPERATIONS) % 2 == 0:
            shutil.rmtree(BentoStore(workspace.bentos).folder(state.bento), ignore_errors=True)
        return ["repair"]
    place.set(f"train.folds={3 + turn // len(OPERATIONS) % 2}", f"train.seed={turn}")
    return ["retrain"]


def holds(place: Place, *, bento_lost: bool = False) -> None:
    """What is so at any moment, also just after a kill."""
    workspace = Workspace(place.root)
    state = record_of(workspace).state()  # the chain of digests, too
    assert state.champion is not None and state.bento is not None
    at = [version.number for version in registry_of(workspace).versions() if CHAMPION in version.aliases]
    assert len(at) <= 1
    assert bento_lost or BentoStore(workspace.bentos).is_intact(state.bento)


def completes(place: Place, command: list[object]) -> float:
    """The call made again, in so many seconds; then nothing is left of the kill and all agrees."""
    before = time.monotonic()
    ended(begun(place, *command), 0)
    seconds = time.monotonic() - before
    assert place("repair").code == 0
    holds(place)
    status = place.status
    assert status["agrees"], status["disagreements"]
    root, state = place.root, place.root / ".ayeaye"
    remains = [path for path in root.rglob(".*") if path.suffix in (".part", ".tmp")]
    remains += [*state.glob("stages-*"), *state.glob("tmp*"), *state.glob("bentoml/.staging")]
    remains += [*state.rglob(".fetch-*"), *(root / ".git").rglob("*.lock")]
    assert remains == []
    return seconds


def killed(place: Place, kills: int, seed: int) -> Counter[str]:
    """So many kills over all operations, each at a random moment of it; how many hit before it ended."""
    chance, hit = random.Random(seed), Counter[str]()
    seconds = dict.fromkeys(OPERATIONS, 8.0)
    for turn in range(kills):
        operation = OPERATIONS[turn % len(OPERATIONS)]
        command = command_of(operation, place, turn)
        process = begun(place, *command)
        try:
            process.wait(chance.uniform(0.2, 1) * seconds[operation])
        except subprocess.TimeoutExpired:
            group = chance.random() < 0.5
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            hit[operation] += 1
        process.communicate()
        holds(place, bento_lost=operation == "repair")
        seconds[operation] = max(completes(place, command), 0.8 * seconds[operation])
    return hit


@pytest.mark.timeout(900)
def test_operations_killed_anywhere_keep_what_the_release_promises(fresh: Place) -> None:
    hit = killed(fresh, 5, seed=0)
    assert hit.total() >= 3
    promotion.try_champion(Workspace(fresh.root))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1, 7))
def test_sixty_kills_keep_what_the_release_promises(fresh: Place, seed: int) -> None:
    hit = killed(fresh, 12, seed)
    promotion.try_champion(Workspace(fresh.root))
    print(f"kills that hit: {dict(hit)}")
    assert hit.total() >= 10 and set(hit) == set(OPERATIONS)


def test_two_promotions_at_once_come_one_after_the_other(fresh: Place) -> None:
    with ThreadPoolExecutor(2) as pool:
        calls = [begun(fresh, "promote", number) for number in (1, 2)]
        list(pool.map(lambda call: ended(call, 0), calls))
    holds(fresh)
    status = fresh.status
    assert status["agrees"] and status["champion"]["version"] in (1, 2)
    promoted = [entry.to for entry in record_of(Workspace(fresh.root)).entries()[2:]]
    assert promoted in ([1, 2], [1])  # where 2 came first, it was champion as before


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_on_a_full_disk_a_change_is_made_or_not_and_can_be_made_again(fresh: Place) -> None:
    """Minutes each, since a Bento that cannot write its log is waited for, twice; in short in test_bad_input."""
    for size in (100, 4_000, 100_000):
        before = record_of(Workspace(fresh.root)).state().champion
        fill = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
        ended(begun(fresh, "rollback", "--from", before, preexec_fn=fill), 0, 1)
        holds(fresh)
        completes(fresh, ["rollback", "--from", before])
        assert record_of(Workspace(fresh.root)).state().champion != before


def test_a_clock_that_jumps_changes_no_promotion(fresh: Place) -> None:
    program = shutil.which("faketime")
    if program is None:
        pytest.skip("needs faketime: apt-get install faketime")
    for shift, champion in (("-400d", 1), ("+400d", 2)):
        call = subprocess.run(
            [program, "-f", shift, workspaces.PROGRAM, "rollback", "--workspace", str(fresh.root)],
            env={**os.environ, **fresh.environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert call.returncode == 0, call.stderr
        holds(fresh)
        status = fresh.status
        assert (status["champion"]["version"], status["agrees"]) == (champion, True)
    times = [entry.time for entry in record_of(Workspace(fresh.root)).entries()]
    assert times != sorted(times)
    assert fresh.retrain()["outcome"] == "unchanged"


@pytest.mark.soak
def test_a_registry_that_goes_away_half_way_stops_a_run_that_is_finished_later(
    trained: Place, small: tuple[str, ...], tmp_path: Path
) -> None:
    """An MLflow server that is killed while the Bento is packed, and started again."""
    port = free_port()
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db",
               "--artifacts-destination", str(tmp_path / "artifacts")]  # fmt: skip

    def serving() -> subprocess.Popen[bytes]:
        with (tmp_path / "server.log").open("ab") as log:
            process = start(command, env=environment, cwd=tmp_path, log=log)
        wait_for(lambda: _healthy(port), 120, "MLflow does not answer")
        return process

    settings = (*small, f"release.tracking=http://127.0.0.1:{port}")
    place = workspaces.make(tmp_path / "workspace", trained.source, trained.environment, *settings)
    server = serving()
    try:
        run = begun(place, "retrain")
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("Packing the Bento"):
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
                break
        said = ended(run, 1)
        assert "MLflow" in said
        assert record_of(Workspace(place.root)).state().champion is None
        server = serving()
        outcome = place.retrain()
        assert (outcome["outcome"], outcome["version"]) == ("promoted", 1)
        holds(place)
        assert place.status["agrees"]
    finally:
        stop(server)


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
