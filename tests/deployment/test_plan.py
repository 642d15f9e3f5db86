"""What `ayeaye serve` does next: its plan, followed in a world without processes and with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ayeaye.core.errors import RegistryError, WorkspaceBusy
from ayeaye.deployment import plan as planning
from ayeaye.deployment.plan import (
    SHADOW,
    Action,
    Instance,
    Memory,
    Move,
    Observed,
    Restore,
    Say,
    Start,
    StartProxy,
    bento_of,
    plan,
)
from ayeaye.release.record import Entry, Record


class World:
    """Carries out what is planned at once: a Bento is verified, or fails, by the next look."""

    def __init__(self, path: Path) -> None:
        self.history = Record(path)
        self.memory = Memory()
        self.observed = Observed(now=100.0, entries=(), is_intact=lambda tag: tag in self.intact)
        self.instances: dict[int, Instance] = {}
        self.intact = set[str]()
        self.failing = dict[str, int]()  # how often a Bento still fails
        self.tried, self.said, self.actions = list[str](), list[str](), list[Action]()
        self.requests = 0  # that a Bento still has when it is drained

    def promote(self, version: int, action: str = "promote") -> None:
        self.intact.add(tag := f"a:v{version}")
        self.history.append(action, version, actor="ann", digests={"bento": tag})  # type: ignore[arg-type]

    def look(self, seconds: float = 1.0, **observed: object) -> list[Action]:
        now = self.observed.now + seconds
        entries = tuple(self.history.entries())
        self.observed = replace(self.observed, now=now, entries=entries, instances=self.instances)
        seen = replace(self.observed, **observed)  # type: ignore[arg-type]
        self.memory, actions = plan(self.memory, seen)
        self.actions += actions
        for action in actions:
            self._act(action)
        return actions

    def look_until(self, ready: Callable[[], object]) -> None:
        for _ in range(200):
            if ready():
                return
            self.look()
        raise AssertionError(f"{self.said} {self.instances}")

    def at(self, role: str) -> str | None:
        found = [each for each in self.instances.values() if each.role == role and each.slot != SHADOW]
        assert len(found) <= 1
        return found[0].tag if found else None

    @property
    def serving(self) -> str | None:
        return self.at("serving")

    @property
    def last(self) -> tuple[str, int]:
        newest = self.history.entries()[-1]
        return newest.action, newest.to

    def change(self, slot: int, **changes: object) -> None:
        self.instances[slot] = replace(self.instances[slot], **changes)  # type: ignore[arg-type]

    def slot_of(self, tag: str) -> int:
        return next(slot for slot, each in self.instances.items() if each.tag == tag)

    def _act(self, action: Action) -> None:
        if isinstance(action, Say):
            self.said.append(action.text)
        elif isinstance(action, Start):
            self._start(action.slot, action.entry)
        elif isinstance(action, Move) and action.role == "gone":
            del self.instances[action.slot]
        elif isinstance(action, Move):
            self.change(action.slot, role=action.role, stopped=action.role == "stopping")
            if action.role == "draining":
                self.change(action.slot, unanswered=self.requests, until=self.observed.now + 65)
        elif isinstance(action, Restore):
            assert self.history.state().bento == action.failed
            digests = {"bento": bento_of(action.entry)}
            self.history.append(
                "restore", action.entry.to, actor="service", why=[action.reason], digests=digests
            )

    def _start(self, slot: int, entry: Entry) -> None:
        assert slot not in self.instances
        tag = bento_of(entry)
        self.tried.append(tag)
        fails = self.failing.get(tag, 0)
        self.failing[tag] = fails - 1
        fault = f"{tag} is busy" if fails > 0 else None
        self.instances[slot] = Instance(entry, slot, self.observed.now, verified=fault is None, fault=fault)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "record.jsonl")


def test_before_there_is_a_champion_nothing_is_done(world: World) -> None:
    assert world.look() == []


def test_a_new_champion_gets_the_traffic_and_the_old_one_answers_what_it_has(world: World) -> None:
    world.promote(1)
    world.look_until(lambda: world.serving == "a:v1")
    world.requests = 3
    world.promote(2)
    world.look_until(lambda: world.serving == "a:v2")
    assert world.at("draining") == "a:v1"
    old, new = world.slot_of("a:v1"), world.slot_of("a:v2")
    moves = [action for action in world.actions if isinstance(action, Move)][-2:]
    assert moves == [Move(new, "serving"), Move(old, "draining")]  # never without one that serves
    world.look(30)
    assert world.at("draining") == "a:v1"
    world.change(old, unanswered=0)
    world.look()
    world.look()
    assert [each.tag for each in world.instances.values()] == ["a:v2"]


def test_one_that_does_not_finish_its_requests_is_stopped_in_the_end(world: World) -> None:
    world.requests = 1
    for version in (1, 2):
        world.promote(version)
        world.look_until(lambda version=version: world.serving == f"a:v{version}")  # type: ignore[misc]
    world.look(60)
    assert world.at("draining") == "a:v1"
    world.look(6)
    assert world.at("stopping") == "a:v1"


def test_a_champion_that_is_replaced_while_it_starts_is_stopped(world: World) -> None:
    world.promote(1)
    world.look_until(lambda: world.serving == "a:v1")
    world.promote(2)
    world.look()
    world.promote(3)
    actions = world.look()
    assert Say("a:v2 is no longer champion.") in actions
    world.look_until(lambda: world.serving == "a:v3")


def test_the_same_bento_made_champion_again_goes_on(world: World) -> None:
    world.promote(1)
    world.look_until(lambda: world.serving == "a:v1")
    world.promote(1)
    world.look()
    assert world.tried == ["a:v1"]


def test_a_history_that_lost_its_end_or_is_another_changes_nothing_that_is_served(world: World) -> None:
    world.promote(1)
    world.promote(2)
    world.look_until(lambda: world.serving == "a:v2")
    path = world.history.path
    content = path.read_bytes()
    path.write_bytes(content.splitlines(keepends=True)[0])
    world.look()
    assert "some of the 2 entries" in world.said[-1]
    path.unlink()
    for version in (1, 3, 1):
        world.promote(version)
    said = len(world.said)
    for _ in range(5):
        world.look()
    assert (world.serving, world.tried, len(world.said)) == ("a:v2", ["a:v2"], said)
    path.write_bytes(content)
    world.promote(1)
    world.look_until(lambda: world.serving == "a:v1")


def test_where_the_champion_does_not_start_the_newest_intact_one_before_it_serves(world: World) -> None:
    for version in (1, 2, 3, 4):
        world.promote(version)
    world.intact.remove("a:v3")
    world.failing = {"a:v4": 9, "a:v2": 9}
    world.look_until(lambda: world.last == ("restore", 1))
    assert world.serving == "a:v1"
    assert world.tried == ["a:v4", "a:v4", "a:v2", "a:v2", "a:v1"]
    assert world.history.entries()[-1].why == ("a:v4 is busy",)
    assert world.memory.failed == {"bento": "a:v4", "reason": "a:v4 is busy"}
    for _ in range(5):
        world.look()
    assert len(world.tried) == 5
    assert world.last == ("restore", 1)


def test_where_none_starts_all_are_tried_again(world: World) -> None:
    world.promote(1)
    world.promote(2)
    world.failing = {"a:v1": 2, "a:v2": 3}
    world.look_until(lambda: world.serving == "a:v2")
    assert world.tried == ["a:v2", "a:v2", "a:v1", "a:v1", "a:v2", "a:v2"]
    assert world.last == ("promote", 2)
    assert world.memory.failed is None


@pytest.mark.parametrize(("times", "served", "last"), [(1, "a:v2", "promote"), (2, "a:v1", "restore")])
def test_one_that_fails_is_tried_once_more_before_it_is_given_up(
    world: World, times: int, served: str, last: str
) -> None:
    world.promote(1)
    world.look_until(lambda: world.serving == "a:v1")
    world.promote(2)
    world.failing = {"a:v2": times}
    world.look_until(lambda: world.tried == ["a:v1", "a:v2", "a:v2"])
    world.look_until(lambda: world.last[0] == last and world.serving == served)


def test_a_busy_workspace_is_waited_for_before_the_history_is_set_right(world: World) -> None:
    world.promote(1)
    world.look_until(lambda: world.serving == "a:v1")
    world.promote(2)
    world.failing = {"a:v2": 2}
    restore = world._act
    world._act = lambda action: None if isinstance(action, Restore) else restore(action)  # type: ignore[method-assign]
    world.look_until(lambda: any(isinstance(action, Restore) for action in world.actions))
    assert not any(isinstance(action, Restore) for action in world.look(0.2, restoring=True))
    busy = world.look(0.2, restore_error=WorkspaceBusy("busy"))
    assert busy == []
    assert world.look(1) == []
    assert [type(action) for action in world.look(1.2)] == [Restore]
    away = world.look(0.2, restore_error=RegistryError("MLflow cannot be reached"))
    assert away == [Say("The history cannot be corrected yet: MLflow cannot be reached")]
    assert world.look(20) == []
    assert [type(action) for action in world.look(20)] == [Restore]
    assert world.serving == "a:v1"


def test_one_that_dies_is_started_again_after_ever_longer_pauses(world: World) -> None:
    world.promote(1)
    pauses = []
    for _ in range(4):
        world.look_until(lambda: world.serving == "a:v1")
        world.change(world.slot_of("a:v1"), fault="ended: out of memory")
        died = world.observed.now
        world.look(0.1)
        assert world.said[-1] == "a:v1 ended: out of memory; starting it again."
        tried = len(world.tried)
        world.look_until(lambda tried=tried: len(world.tried) > tried)  # type: ignore[misc]
        pauses.append(world.observed.now - died)
    assert pauses == sorted(pauses)
    assert pauses[-1] > 7
    world.look_until(lambda: world.serving == "a:v1")
    world.look(planning.STEADY + 1)
    world.change(world.slot_of("a:v1"), fault="ended")
    world.look()
    assert world.memory.deaths == 1


def test_a_proxy_that_ends_is_started_again_at_most_once_a_second(world: World) -> None:
    assert StartProxy() in world.look(proxy_alive=False)
    assert world.look(0.5, proxy_alive=False) == []
    assert StartProxy() in world.look(0.6, proxy_alive=False)


def test_without_a_free_slot_the_next_champion_waits(world: World) -> None:
    world.requests = 1
    for version in range(1, planning.SLOTS + 1):
        world.promote(version)
        for _ in range(4):
            world.look(0.1)
    assert len(world.instances) == planning.SLOTS
    world.promote(9)
    world.look(0.1)
    assert "a:v9" not in world.tried
    world.change(world.slot_of("a:v1"), unanswered=0)
    world.look_until(lambda: world.serving == "a:v9")


def test_a_challenger_runs_in_the_shadow_of_the_champion_while_it_waits(world: World) -> None:
    world.observed = replace(world.observed, shadow=0.1)
    world.promote(2, "pending")
    world.look()
    assert not world.instances, "nothing serves yet"
    world.promote(1)
    world.promote(2, "pending")
    world.look_until(lambda: SHADOW in world.instances and world.instances[SHADOW].role == "serving")
    assert world.serving == "a:v1"
    assert world.said[-1] == "a:v2 gets copies of 10% of what is classified."
    world.change(SHADOW, fault="ended")
    world.look()
    assert world.said[-1] == "No shadow for now: a:v2 ended"
    world.look(30)
    assert SHADOW not in world.instances
    world.look(31)
    assert world.instances[SHADOW].tag == "a:v2"
    world.promote(2)
    world.look_until(lambda: world.serving == "a:v2" and SHADOW not in world.instances)


def test_no_challenger_is_started_without_a_share_for_it(world: World) -> None:
    world.promote(1)
    world.promote(2, "pending")
    for _ in range(5):
        world.look()
    assert list(world.instances) == [0]
