"""What to do next so that the champion is served: a function of what is observed, without side effects.

The promotion history names the Bento that is wanted. It is started beside the one that serves and verified; then it
gets the traffic, and the old one answers what it still has and ends. A Bento that fails twice changes nothing for
clients: the old one goes on, and is made champion again. Where none runs, the newest champion before it whose Bento
is intact is tried. A Bento that dies is started anew, after ever longer pauses. A history that lost entries is not
followed: nothing is rolled back because a file was cut.

    verifying ──> serving ──> draining ──> stopping ──> gone
        └────────────┴──────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ayeaye.core.errors import WorkspaceBusy
from ayeaye.release.record import MOVES, Entry, derive

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)  # seconds before a Bento that died is started again
ATTEMPTS = 2  # before a Bento that fails is given up: a machine may be busy once
STEADY = 60.0  # seconds after which one that dies then dies for the first time
BUSY, AWAY = 2.0, 30.0  # seconds until restoring is tried again: workspace busy, registry away
SLOTS = 4  # of the proxy, for Bentos that clients are sent to
SHADOW = SLOTS  # the challenger's

Role = Literal["verifying", "serving", "draining", "stopping", "gone"]


@dataclass(frozen=True)
class Instance:
    """A Bento in a slot of the proxy.

    fault       why it cannot serve: it did not start, answered wrongly, or ended
    unanswered  requests that a draining one still has
    until       when a draining one is stopped although it has requests left
    stopped     whether the process of a stopping one has ended
    """

    entry: Entry
    slot: int
    started: float
    role: Role = "verifying"
    verified: bool = False
    fault: str | None = None
    unanswered: int = 0
    until: float = 0.0
    stopped: bool = False

    @property
    def tag(self) -> str:
        return bento_of(self.entry)


@dataclass(frozen=True)
class Observed:
    """What is so at the time `now`, in seconds of a monotonic clock.

    address          where clients ask
    shadow           share of requests whose copies a challenger answers; 0: no challenger is started
    restoring        a `Restore` is under way
    restore_error    why the last one failed, seen once
    is_intact        whether a Bento is as it was packed
    """

    now: float
    entries: tuple[Entry, ...]
    address: str = ""
    instances: Mapping[int, Instance] = field(default_factory=dict)
    proxy_alive: bool = True
    shadow: float = 0.0
    restoring: bool = False
    restore_error: BaseException | None = None
    is_intact: Callable[[str], bool] = lambda tag: True


@dataclass(frozen=True)
class Memory:
    """What is remembered from one look to the next.

    followed    entries of the history as it was last followed; `lost` if it does not continue them now
    proven      the newest entry whose Bento served
    given_up    Bentos that could not be served since the history named another champion
    instead     what should serve where the champion is one of them
    failed      the last champion that could not be served, as `{bento, reason}`
    """

    followed: tuple[Entry, ...] = ()
    lost: bool = False
    wanted: Entry | None = None
    challenger: Entry | None = None
    proven: Entry | None = None
    failures: int = 0
    deaths: int = 0
    given_up: frozenset[str] = frozenset()
    instead: Entry | None = None
    failed: dict[str, str] | None = None
    start_from: float = 0.0
    shadow_from: float = 0.0
    restore_from: float = 0.0
    proxy_from: float = 0.0

    @property
    def target(self) -> Entry | None:
        """What should serve: the champion or, where that failed, what may serve in its place."""
        if self.wanted and bento_of(self.wanted) in self.given_up:
            return self.instead
        return self.wanted


@dataclass(frozen=True)
class Say:
    text: str


@dataclass(frozen=True)
class StartProxy:
    """Start HAProxy again, with its slots as they were."""


@dataclass(frozen=True)
class Start:
    """Start the Bento of an entry in a free slot, and verify it."""

    slot: int
    entry: Entry


@dataclass(frozen=True)
class Move:
    """Give a Bento its traffic (serving), no more of it (draining), stop it, or clean up after it (gone)."""

    slot: int
    role: Role


@dataclass(frozen=True)
class Restore:
    """Make `entry`, which serves, champion again in place of what failed."""

    entry: Entry
    failed: str
    reason: str


Action = Say | StartProxy | Start | Move | Restore


def bento_of(entry: Entry) -> str:
    return entry.digests.get("bento", "")


def plan(memory: Memory, observed: Observed) -> tuple[Memory, list[Action]]:
    """Return what to remember and what to do, in this order."""
    step = _Step(memory, observed)
    step.revive_proxy()
    step.retire()  # before any is drained now, whose requests are counted at the next look
    step.follow_history()
    step.bury()
    step.roll()
    step.cast_shadow()
    step.restore()
    return step.memory, step.actions


class _Step:
    """One look: each method decides one thing, and what the later ones see of it."""

    def __init__(self, memory: Memory, observed: Observed) -> None:
        self.memory, self.observed = memory, observed
        self.instances = dict(observed.instances)
        self.actions: list[Action] = []

    def revive_proxy(self) -> None:
        if not self.observed.proxy_alive and self.observed.now >= self.memory.proxy_from:
            self._remember(proxy_from=self.observed.now + PAUSES[0])
            self.actions += [Say("HAProxy ended; starting it again."), StartProxy()]

    def follow_history(self) -> None:
        before, entries = self.memory, self.observed.entries
        if entries[: len(before.followed)] != before.followed:
            if not before.lost:
                self._say(
                    f"The promotion history lacks or changes some of the {len(before.followed)} entries read before; "
                    "what is served stays. Restore it from a backup of the workspace, or restart `ayeaye serve` to "
                    "follow it as it is."
                )
            self._remember(lost=True)
            return
        self._remember(lost=False)
        if entries == before.followed:
            return
        state = derive(entries)
        self._remember(followed=entries, wanted=state.entry, challenger=state.pending)
        if state.pending != before.challenger:
            self._remember(shadow_from=0.0)
        if state.entry != before.wanted:
            self._remember(deaths=0, failures=0, start_from=0.0, given_up=frozenset(), instead=None)

    def bury(self) -> None:
        """Take a Bento that died out of the way."""
        dead = self._main("serving")
        if dead is None or dead.fault is None:
            return
        self._say(f"{dead.tag} {dead.fault}; starting it again.")
        if self.observed.now > dead.started + STEADY:
            self._remember(deaths=0)
        self._move(dead, "stopping")
        self._pause()

    def roll(self) -> None:
        """Start what should serve, give it the traffic once it is verified, or give it up."""
        target, coming = self.memory.target, self._main("verifying")
        if target is None:
            return
        if coming and coming.tag != bento_of(target):
            self._say(f"{coming.tag} is no longer champion.")
            self._move(coming, "stopping")
            coming = None
        serving = self._main("serving")
        if coming and coming.fault:
            self._move(coming, "stopping")
            self._fail(coming.entry, coming.fault)
        elif coming and coming.verified:
            self._take_over(coming, target)
        elif not coming and (serving is None or serving.tag != bento_of(target)):
            free = [slot for slot in range(SLOTS) if slot not in self.instances]
            if free and self.observed.now >= self.memory.start_from:
                self._say(f"Starting {bento_of(target)}.")
                self.actions.append(Start(free[0], target))

    def cast_shadow(self) -> None:
        """Run a challenger aside, out of the clients' sight, once the champion serves."""
        if not self.observed.shadow:
            return
        challenger, shadow = self.memory.challenger, self.instances.get(SHADOW)
        wanted = bento_of(challenger) if challenger else None
        if shadow is None:
            if (
                challenger
                and wanted
                and self._main("serving")
                and self.observed.now >= self.memory.shadow_from
            ):
                self.actions.append(Start(SHADOW, challenger))
        elif shadow.role == "stopping":
            return
        elif shadow.tag != wanted:
            self._move(shadow, "stopping")
        elif shadow.fault:
            self._say(f"No shadow for now: {shadow.tag} {shadow.fault}")
            self._remember(shadow_from=self.observed.now + PAUSES[-1])
            self._move(shadow, "stopping")
        elif shadow.role == "verifying" and shadow.verified:
            self._move(shadow, "serving")
            self._say(f"{shadow.tag} gets copies of {self.observed.shadow:.0%} of what is classified.")

    def retire(self) -> None:
        """Stop what has answered all it had, and free the slot of what has ended."""
        for each in list(self.instances.values()):
            if each.role == "draining" and (not each.unanswered or self.observed.now >= each.until):
                self._move(each, "stopping")
            elif each.role == "stopping" and each.stopped:
                self._move(each, "gone")

    def restore(self) -> None:
        """Have the history name what serves in place of what failed."""
        memory, now, serving = self.memory, self.observed.now, self._main("serving")
        error = self.observed.restore_error
        if isinstance(error, WorkspaceBusy):
            self._remember(restore_from=now + BUSY)
        elif error:
            self._remember(restore_from=now + AWAY)
            self._say(f"The history cannot be corrected yet: {error}")
        target, failed = memory.target, memory.failed
        if (
            target is None
            or failed is None
            or target == memory.wanted
            or memory.lost
            or self.observed.restoring
        ):
            return
        if serving and serving.tag == bento_of(target) and now >= self.memory.restore_from:
            self._remember(restore_from=now + BUSY)
            self.actions.append(Restore(target, failed["bento"], failed["reason"]))

    def _take_over(self, coming: Instance, target: Entry) -> None:
        before = self._main("serving")
        self._move(coming, "serving")
        if before:
            self._move(before, "draining")
        self._remember(proven=target, failures=0)
        if target == self.memory.wanted:
            self._remember(failed=None)
        how = f"in place of {before.tag}" if before else "(POST /classify, field image)"
        self._say(f"{coming.tag} serves on {self.observed.address} {how}.")

    def _fail(self, entry: Entry, reason: str) -> None:
        tag = bento_of(entry)
        self._remember(failures=self.memory.failures + 1)
        if self.memory.failures >= ATTEMPTS:
            self._give_up(tag, reason)
        then, said = bento_of(self.memory.target or entry), f"{tag} cannot be served ({reason})"
        serving = self._main("serving")
        if serving and serving.tag == then:
            self._say(f"{said}; {then} keeps serving.")
            return
        self._say(f"{said}; trying {'it again' if then == tag else then}.")
        self._pause()

    def _give_up(self, tag: str, reason: str) -> None:
        self._remember(failures=0, given_up=self.memory.given_up | {tag})
        if self.memory.wanted and tag == bento_of(self.memory.wanted):
            self._remember(failed={"bento": tag, "reason": reason})
        instead = next(self._replacements(), None)
        self._remember(instead=instead)
        if instead is None:
            self._remember(given_up=frozenset())  # all have failed: begin again

    def _replacements(self) -> Iterator[Entry]:
        """What served last, then earlier champions whose Bentos are intact; none that was given up."""
        memory = self.memory
        if memory.proven and bento_of(memory.proven) not in memory.given_up:
            yield memory.proven
        for entry in reversed(memory.followed):
            tag = bento_of(entry)
            if entry.action in MOVES and tag and tag not in memory.given_up and self.observed.is_intact(tag):
                yield entry

    def _main(self, role: Role) -> Instance | None:
        """The Bento with this role that clients are, or will be, sent to."""
        found = (each for slot, each in self.instances.items() if slot != SHADOW and each.role == role)
        return next(found, None)

    def _move(self, instance: Instance, role: Role) -> None:
        self.actions.append(Move(instance.slot, role))
        if role == "gone":
            del self.instances[instance.slot]
        else:
            self.instances[instance.slot] = replace(instance, role=role)

    def _pause(self) -> None:
        pause = PAUSES[min(self.memory.deaths, len(PAUSES) - 1)]
        self._remember(start_from=self.observed.now + pause, deaths=self.memory.deaths + 1)

    def _say(self, text: str) -> None:
        self.actions.append(Say(text))

    def _remember(self, **changes: object) -> None:
        self.memory = replace(self.memory, **changes)  # type: ignore[arg-type]
