"""`ayeaye serve` without its processes: what it is given to serve, and its loop around stand-ins."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import workspaces

from ayeaye.core.errors import DataError, ReleaseError, SmokeTestFailed
from ayeaye.core.params import Serve
from ayeaye.core.workspace import Workspace
from ayeaye.deployment import plan, serving
from ayeaye.deployment.serving import current_bento, serve_settings
from ayeaye.packaging.bento import BentoStore
from ayeaye.packaging.server import BentoServer, service_environment
from ayeaye.release import promotion


class Slots:
    """In place of the proxy: the ports that requests go to."""

    copies = None

    def __init__(self) -> None:
        self.alive, self.ports = True, dict[int, int]()

    def start(self) -> None:
        self.alive = True

    def open(self, slot: int, port: int) -> None:
        self.ports[slot] = port

    def drain(self, slot: int) -> None:
        del self.ports[slot]

    def close(self, slot: int) -> None:
        self.ports.pop(slot, None)

    def unanswered(self, slot: int) -> int:
        return 0

    def finish(self) -> None:
        self.alive = False

    def remove(self) -> None: ...


class Scene:
    """A loop with Bentos that are processes without a service, and how often each still fails."""

    def __init__(self, workspace: Workspace) -> None:
        self.history, self.said = promotion.record_of(workspace), list[str]()
        self.failing, self.processes = dict[str, int](), list[subprocess.Popen[bytes]]()
        self.slots: Any = Slots()
        self.loop = serving._Loop(workspace, Serve(), self.slots, self.said.append)

    def launch(self, store: BentoStore, tag: str, run: Path, *_: object, **__: object) -> BentoServer:
        process = subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE, start_new_session=True)
        self.processes.append(process)
        return BentoServer(tag, process, len(self.processes), echo=False)

    def verify(self, store: BentoStore, server: BentoServer, bundle_digest: str | None) -> None:
        if self.failing.get(server.tag):
            self.failing[server.tag] -= 1
            raise SmokeTestFailed(f"{server.tag} is busy")

    def restore(self, workspace: Workspace, *, version: int, tag: str, reason: str, **_: object) -> bool:
        self.history.append("restore", version, actor="service", why=[reason], digests={"bento": tag})
        return True

    def promote(self, version: int) -> None:
        self.history.append("promote", version, actor="ann", digests={"bento": f"a:v{version}"})

    def look_until(self, ready: Callable[[], object], complaint: str) -> None:
        def looked() -> object:
            self.loop.look()
            return ready()

        workspaces.wait_for(looked, 20, complaint)

    @property
    def serving(self) -> str | None:
        return self.loop.state().bento


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    (tmp_path / ".ayeaye" / "serving").mkdir(parents=True)
    scene = Scene(Workspace(tmp_path))
    monkeypatch.setattr(BentoServer, "launch", scene.launch)
    monkeypatch.setattr(serving, "verify", scene.verify)
    monkeypatch.setattr(promotion, "restore", scene.restore)
    monkeypatch.setattr(plan, "PAUSES", (0.02,))
    yield scene
    scene.loop.stop()


def test_promotions_are_followed_and_one_that_fails_is_undone(scene: Scene) -> None:
    scene.promote(1)
    scene.look_until(lambda: scene.serving == "a:v1", "the champion is not served")
    assert scene.slots.ports == {0: 1}
    scene.promote(2)
    scene.look_until(lambda: scene.serving == "a:v2", "the next champion is not served")
    assert scene.slots.ports == {1: 2}
    scene.look_until(lambda: len(scene.loop.running) == 1, "the old one is not stopped")
    assert scene.processes[0].poll() is not None
    scene.failing["a:v3"] = 2
    scene.promote(3)
    scene.look_until(lambda: scene.history.state().champion == 2, "it is not restored")
    assert scene.serving == "a:v2"
    assert scene.loop.state().failed == {"bento": "a:v3", "reason": "a:v3 is busy"}
    assert scene.slots.ports == {1: 2}
    state = scene.loop.workspace.state / "serving" / "state.json"
    assert json.loads(state.read_bytes())["bento"] == "a:v2"
    scene.loop.stop()
    assert not state.exists()
    assert all(process.poll() is not None for process in scene.processes)


def test_a_bento_and_a_proxy_that_die_are_started_again(scene: Scene) -> None:
    scene.promote(1)
    scene.look_until(lambda: scene.serving == "a:v1", "the champion is not served")
    scene.processes[0].kill()
    scene.look_until(lambda: list(scene.slots.ports.values()) == [2], "the Bento is not started again")
    scene.slots.alive = False
    scene.look_until(lambda: scene.slots.alive, "the proxy is not started again")
    assert "a:v1 ended; starting it again." in scene.said


def test_a_history_that_cannot_be_read_changes_nothing(scene: Scene) -> None:
    scene.promote(1)
    scene.look_until(lambda: scene.serving == "a:v1", "the champion is not served")
    scene.history.path.write_text("rubbish\n")
    scene.look_until(lambda: "cannot be read" in scene.said[-1], "it is not said")
    scene.loop.look()
    assert scene.serving == "a:v1"


@pytest.fixture
def outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose champion's Bento is intact, but not what would be packed today."""

    class Registry:
        anchor = ""

        def marked(self, key: str) -> str:
            return self.anchor

        def version(self, number: int) -> None: ...

    registry = Registry()
    workspace = Workspace(tmp_path)
    first = promotion.record_of(workspace).append("promote", 1, actor="ann", digests={"bento": "a:v1"})
    registry.anchor = f"1 {first.digest}"
    monkeypatch.setattr(promotion, "registry_of", lambda workspace: registry)
    monkeypatch.setattr(promotion, "current", lambda workspace, version: False)
    monkeypatch.setattr(BentoStore, "is_intact", lambda self, tag: True)
    return workspace


def test_serving_waits_for_no_retrain_where_there_is_an_intact_bento(outdated: Workspace) -> None:
    said: list[str] = []
    began = time.monotonic()
    with outdated.lock():
        assert current_bento(Workspace(outdated.root), said.append) == "a:v1"
    assert time.monotonic() - began < 5
    assert len(said) == 1
    assert "busy" in said[0]
    assert "Serving a:v1 as it was promoted." in said[0]


@pytest.mark.parametrize("error", [DataError("no shard"), OSError("no space left on device")])
def test_what_cannot_be_packed_anew_is_served_as_it_is(
    outdated: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def renew(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(promotion, "renew", renew)
    said: list[str] = []
    assert current_bento(outdated, said.append) == "a:v1"
    assert said == [f"{error}\nServing a:v1 as it was promoted."]


def test_serving_says_that_the_record_lost_its_end_and_packs_nothing_for_it(
    outdated: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = promotion.record_of(outdated)
    content = record.path.read_bytes()
    second = record.append("promote", 2, actor="ann", digests={"bento": "a:v2"})
    monkeypatch.setattr(promotion.registry_of(outdated), "anchor", f"2 {second.digest}")
    record.path.write_bytes(content)
    said: list[str] = []
    assert current_bento(outdated, said.append) == "a:v1"
    assert "its end was removed" in said[0]
    assert "Serving a:v1" in said[0]
    assert len(record.entries()) == 1


def test_workers_are_those_that_are_given_then_those_of_the_environment_then_of_the_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    (tmp_path / "params.yaml").write_text("serve:\n  workers: 2\n")
    assert serve_settings(workspace).workers == 2
    monkeypatch.setenv("AYEAYE_WORKERS", "3")
    assert serve_settings(workspace).workers == 3
    assert serve_settings(workspace, workers=4).workers == 4
    assert service_environment(serve_settings(workspace))["AYEAYE_WORKERS"] == "3"
    for wrong in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv("AYEAYE_WORKERS", wrong)
        with pytest.raises(ReleaseError, match=f"AYEAYE_WORKERS is {wrong}: give a number from 1"):
            serve_settings(workspace)
