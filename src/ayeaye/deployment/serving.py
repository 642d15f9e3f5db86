"""`ayeaye serve`: the champion's Bento behind a proxy, and the next champion's without a request lost.

What the promotion record names is wanted. A new champion's Bento is started beside the one that serves, proves that
it is ready, is the one that was asked for and answers golden requests; then it gets the traffic, and the old one
answers what it still has and ends. One that fails twice changes nothing for clients: the old one goes on, and is made
champion again; where none runs, that is the newest champion before it whose Bento is whole and proves itself. A Bento
that dies is started anew, after ever longer pauses. A record that lost entries which were followed is followed no
more: nothing is rolled back because a file was cut.

With `serve.shadow`, a version that waits for approval runs beside the champion, out of the clients' sight, and
answers a share of what the champion has answered.

Where there is no proxy, this process becomes the server of the champion, and a promotion needs a restart.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from ayeaye.core.errors import AyeayeError, ReleaseError, WorkspaceBusy
from ayeaye.core.params import Serve
from ayeaye.core.processes import free_port, stop, workers_told
from ayeaye.core.workspace import Workspace
from ayeaye.deployment import proxy
from ayeaye.packaging.bento import BentoStore
from ayeaye.packaging.server import BentoServer, exec_server, listening_address, service_environment
from ayeaye.packaging.serving_state import ServingState, hold_serving, serving_folder
from ayeaye.packaging.smoke_test import verify
from ayeaye.release import promotion
from ayeaye.release.record import MOVES, Entry, Record, derive

TICK = 0.2  # seconds between looks at the record and the processes
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)  # before a Bento that died is started again
TRIES = 2  # before a Bento that fails is given up: a machine may be busy once
STEADY = 60.0  # seconds after which one that dies then dies for the first time
BUSY, AWAY = 2.0, 30.0  # seconds until restoring is tried again: workspace busy, registry away
LINGER = 5.0  # seconds beyond a request's own limit that an old Bento is waited for
STOPPING = 20.0  # seconds that requests have when everything ends
_TRUSTED = "FORWARDED_ALLOW_IPS"
Say = Callable[[str], None]


class Restore(Protocol):
    """`promotion.restore` of a workspace; raises WorkspaceBusy at once where another run holds it."""

    def __call__(self, *, version: int, tag: str, failed: str, reason: str, say: Say) -> bool: ...


def serve(
    workspace: Workspace, settings: Serve, prepare: Callable[[], str], restore: Restore, say: Say
) -> None:
    """Serve until interrupted; `prepare` sees to it that there is a champion's Bento, and gives its tag.

    Raises ReleaseError where the workspace is served already or the address cannot be listened on.
    """
    program = proxy.installed() if settings.proxy == "auto" else None
    with hold_serving(workspace) as lock:
        tag = prepare()
        host, port = listening_address(settings)
        settings = settings.model_copy(update={"port": port})
        if program:
            copies = free_port() if settings.shadow else None
            before = proxy.Proxy(program, serving_folder(workspace), host, port, copies)
            _Supervisor(workspace, settings, before, restore, say).run()
            return
        why = "HAProxy is not installed" if settings.proxy == "auto" else "serve.proxy is none"
        say(f"{why}: after a promotion, start `ayeaye serve` again.")
        champion = _record(workspace).state()
        version = champion.champion if champion.bento == tag else None
        ServingState(tag, version, _address(settings), _now()).write(workspace)
        os.set_inheritable(lock, True)  # what this process becomes holds it, too
        exec_server(BentoStore(workspace.bentos), tag, settings, say)


def serve_champion(
    workspace: Workspace,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    say: Say = lambda text: None,
) -> None:
    """Serve the champion's Bento, made anew where it is not current, until interrupted.

    What is given goes before the environment, and that before the parameters.
    """
    changes = {"host": host, "port": port, "workers": workers or workers_told()}
    given = workspace.params.serve
    token = given.token_file and str(workspace.resolve(given.token_file))
    settings = given.model_copy(
        update={"state": str(workspace.resolve(given.state)), "token_file": token}
        | {key: value for key, value in changes.items() if value is not None}
    )
    serve(
        workspace,
        settings,
        partial(champion_bento, workspace, say),
        partial(promotion.restore, workspace),
        say,
    )


def champion_bento(workspace: Workspace, say: Say) -> str:
    state = promotion.record_of(workspace).state()
    if state.champion is None or state.bento is None:
        raise ReleaseError("there is no champion to serve yet: run `ayeaye retrain`")
    try:
        promotion.check_anchor(workspace)  # nothing is packed for a record that lost its end
        if promotion.current(workspace, promotion.registry_of(workspace).version(state.champion)):
            return state.bento
        # One that is merely out of date is nothing to wait for a retrain with.
        whole = BentoStore(workspace.bentos).is_intact(state.bento)
        with workspace.releasing(timeout=0) if whole else workspace.releasing(say):
            return promotion.renew(workspace, actor=promotion.actor(), say=say)
    except (AyeayeError, OSError) as error:
        if not BentoStore(workspace.bentos).is_intact(state.bento):
            raise
        # Production does not stop because something better cannot be made.
        say(f"{error}\nServed is {state.bento} as it was promoted.")
        return state.bento


def _address(settings: Serve) -> str:
    return f"http://{settings.host}:{settings.port}"


def _record(workspace: Workspace) -> Record:
    return Record(workspace.release / "record.jsonl")


def _tag(entry: Entry) -> str:
    return entry.digests.get("bento", "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class _Instance:
    """A Bento that runs in a slot of the proxy."""

    entry: Entry  # of the record, with which it became champion
    slot: int
    run: Path
    server: BentoServer
    proof: Future[None]
    since: str = ""
    started: float = field(default_factory=time.monotonic)
    until: float = 0.0  # when it is stopped though it has requests left
    stopped: Future[None] | None = None

    @property
    def tag(self) -> str:
        return self.server.tag


class _Supervisor:
    """Brings about what the record says. All but waiting is done in the thread that calls `run`."""

    def __init__(
        self, workspace: Workspace, settings: Serve, before: proxy.Proxy, restore: Restore, say: Say
    ) -> None:
        self._workspace, self._settings, self._restore, self._say = workspace, settings, restore, say
        self._proxy = before
        self._home = workspace.bentos
        self._record = _record(workspace)
        self._stamp: tuple[int, int] | None = None  # of the record when it was read
        self._followed: list[Entry] = []  # what it held then
        self._wanted: Entry | None = None
        self._challenger: Entry | None = None
        self._shadow: _Instance | None = None
        self._shadow_from = 0.0
        self._serving: _Instance | None = None
        self._coming: _Instance | None = None
        self._leaving: list[_Instance] = []
        self._proven: Entry | None = None  # the newest whose Bento served
        self._failures = 0  # in a row, of what should serve
        self._given_up: set[str] = set()  # Bentos that could not be served since the record named another
        self._instead: Entry | None = None  # what should serve where what the record names is one of them
        self._failed: dict[str, str] | None = None
        self._to_restore: Callable[[], bool] | None = None
        self._restoring: Future[bool] | None = None
        self._restore_from = 0.0
        self._deaths, self._start_from = 0, 0.0
        self._told: ServingState | None = None
        self._complaint = ""
        self._proxy_from = 0.0
        self._end, self._hurry = threading.Event(), threading.Event()
        self._waiting = ThreadPoolExecutor(8, thread_name_prefix="serving")

    def run(self) -> None:
        """Until SIGTERM, SIGINT or SIGHUP; requests that are there are answered first, unless it comes twice."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._interrupt)
        try:
            self._proxy.start()
            while not self._end.is_set():
                try:
                    self._look()
                except (AyeayeError, OSError) as error:  # what serves goes on
                    self._complain(str(error))
                self._end.wait(TICK)
        finally:
            self._stop()

    def _interrupt(self, number: int, frame: object) -> None:
        (self._hurry if self._end.is_set() else self._end).set()

    def _complain(self, what: str) -> None:
        """Say it, once in a row."""
        if what != self._complaint:
            self._complaint = what
            self._say(what)

    def _look(self) -> None:
        self._revive_proxy()
        self._read_record()
        self._bury()
        self._go_on()
        self._cast_shadow()
        self._let_go()
        self._bring_back()
        self._tell()

    def _revive_proxy(self) -> None:
        if self._proxy.alive or time.monotonic() < self._proxy_from:
            return
        self._complain("HAProxy ended; it is started again.")
        self._proxy_from = time.monotonic() + PAUSES[0]
        self._proxy.start()

    def _read_record(self) -> None:
        try:
            status = self._record.path.stat()
            if self._stamp == (stamp := (status.st_mtime_ns, status.st_size)):
                return
            self._stamp = stamp
            entries = self._record.entries()
        except (OSError, ReleaseError) as error:
            # What serves goes on while a person mends the record.
            self._complain(f"The promotion record cannot be read: {error}")
            return
        known = len(self._followed)
        if entries[:known] != self._followed:
            self._complain(
                f"{self._record.path} does not go on from the {known} entries that it had: what is served goes on. "
                "Restore it from a backup of the workspace, or start `ayeaye serve` again to follow it as it is"
            )
            return
        self._followed, before, state = entries, self._wanted, derive(entries)
        self._wanted = state.entry
        if self._proxy.copies is not None and state.pending != self._challenger:
            self._challenger, self._shadow_from = state.pending, 0.0
        if self._wanted != before:
            self._deaths, self._start_from, self._failures = 0, 0.0, 0
            self._given_up.clear()

    def _target(self) -> Entry | None:
        """What should serve: what the record names, or, where that failed, what may serve in its place."""
        if self._wanted and _tag(self._wanted) in self._given_up:
            return self._instead
        return self._wanted

    def _bury(self) -> None:
        """Take a Bento that died out of the way."""
        dead = self._serving
        if dead is None or dead.server.process.poll() is None:
            return
        self._say(f"{dead.tag} ended{dead.server.reason()}; it is started again.")
        if time.monotonic() > dead.started + STEADY:
            self._deaths = 0
        self._serving = None
        self._discard(dead)
        self._pause()

    def _pause(self) -> None:
        self._start_from = time.monotonic() + PAUSES[min(self._deaths, len(PAUSES) - 1)]
        self._deaths += 1

    def _go_on(self) -> None:
        """Start what should serve, move to it once it has proven itself, or give it up."""
        target = self._target()
        if target is None:
            return
        tag = _tag(target)
        if self._coming and self._coming.tag != tag:
            self._say(f"{self._coming.tag} is not champion any more.")
            self._discard(self._coming)
            self._coming = None
        if self._coming:
            if self._coming.proof.done():
                self._settle(self._coming, target)
        elif self._serving is None or self._serving.tag != tag:
            self._launch(target, tag)
        elif self._serving.entry.digest != target.digest:
            self._serving.entry = self._proven = target  # the same Bento, champion again

    def _launch(self, entry: Entry, tag: str) -> None:
        used = {each.slot for each in (*self._leaving, self._serving) if each}
        free = [slot for slot in range(proxy.SLOTS) if slot not in used]
        if time.monotonic() < self._start_from or not free:
            return
        self._say(f"Starting {tag}.")
        run = self._home / ".run" / f"serving-{free[0]}"
        try:
            server = BentoServer.launch(
                BentoStore(self._home), tag, run, service_environment(self._settings) | self._environment()
            )
        except (ReleaseError, OSError) as error:
            self._fail(entry, tag, str(error))
            return
        proof = self._waiting.submit(verify, BentoStore(self._home), server, entry.digests.get("bundle"))
        self._coming = _Instance(entry, free[0], run, server, proof)

    def _environment(self) -> dict[str, str]:
        """Who asks is what the proxy says; who may speak for others is up to the service, as without it."""
        told = {_TRUSTED: "", "AYEAYE_PROXY": os.environ.get(_TRUSTED, "127.0.0.1")}
        if self._proxy.copies is not None:
            told["AYEAYE_SHADOW"] = f"http://127.0.0.1:{self._proxy.copies}"
            told["AYEAYE_SHADOW_SHARE"] = str(self._settings.shadow)
        return told

    def _cast_shadow(self) -> None:
        """Run the challenger aside, once the champion serves."""
        wanted = self._challenger.digests.get("bento") if self._challenger else None
        shadow = self._shadow
        if shadow and (shadow.tag != wanted or shadow.server.process.poll() is not None):
            if shadow.tag == wanted:
                self._forgo_shadow(f"the challenger {wanted} ended{shadow.server.reason()}")
            self._shadow = None
            self._discard(shadow)
        elif shadow and not shadow.since and shadow.proof.done():
            if (error := shadow.proof.exception()) is not None:
                self._forgo_shadow(str(error))
                self._shadow = None
                self._discard(shadow)
            else:
                self._through(self._proxy.open, proxy.SHADOW, shadow.server.port)
                shadow.since = _now()
                self._say(f"{shadow.tag} gets copies of {self._settings.shadow:.0%} of what is classified.")
        elif not shadow and wanted and self._challenger and self._serving:
            if time.monotonic() < self._shadow_from or any(
                each.slot == proxy.SHADOW for each in self._leaving
            ):
                return
            run = self._home / ".run" / "shadow"
            # It knows the run-time classes; rows of its own among the champion's would look like the champion's.
            told = {"AYEAYE_PROXY": "", _TRUSTED: "", "AYEAYE_PREDICTIONS": "false", "AYEAYE_RATE": ""}
            alone = self._settings.model_copy(update={"workers": 1})
            try:
                server = BentoServer.launch(
                    BentoStore(self._home), wanted, run, service_environment(alone) | told, aside=True
                )
            except (ReleaseError, OSError) as error:
                self._forgo_shadow(str(error))
                return
            proof = self._waiting.submit(
                verify, BentoStore(self._home), server, self._challenger.digests.get("bundle")
            )
            self._shadow = _Instance(self._challenger, proxy.SHADOW, run, server, proof)

    def _forgo_shadow(self, why: str) -> None:
        self._shadow_from = time.monotonic() + PAUSES[-1]
        self._say(f"There is no shadow for now: {why}")

    def _settle(self, coming: _Instance, target: Entry) -> None:
        self._coming = None
        if (error := coming.proof.exception()) is not None:
            self._discard(coming)
            self._fail(coming.entry, coming.tag, str(error))
            return
        before = self._serving
        self._through(self._proxy.open, coming.slot, coming.server.port)
        if before:
            self._through(self._proxy.drain, before.slot)
        coming.entry, coming.since = target, _now()
        self._serving, self._proven, self._failures = coming, target, 0
        if target == self._wanted:
            self._failed = None
        else:
            self._have_restored(target)
        if before:
            before.until = time.monotonic() + self._patience(before.tag)
            self._leaving.append(before)
        said = f"{coming.tag} serves on {_address(self._settings)}"
        self._say(f"{said} in place of {before.tag}." if before else f"{said} (POST /classify, field image).")

    def _through(self, action: Callable[..., None], *arguments: int) -> None:
        """Have the proxy do something; where it does not, it is started again, with the slots as they should be."""
        try:
            action(*arguments)
        except (OSError, ReleaseError) as error:
            self._say(f"HAProxy does not do as it is told: {error}")
            self._proxy.kill()

    def _patience(self, tag: str) -> float:
        try:
            return BentoStore(self._home).settings(tag).timeout + LINGER
        except ReleaseError:
            return self._settings.timeout + LINGER

    def _fail(self, entry: Entry, tag: str, reason: str) -> None:
        self._failures += 1
        if self._failures >= TRIES:
            self._give_up(tag, reason)
        then, said = _tag(self._target() or entry), f"{tag} cannot be served ({reason})"
        if self._serving and self._serving.tag == then:
            self._say(f"{said}: {then} goes on.")
            return
        self._say(f"{said}; it is tried again." if then == tag else f"{said}: {then} is tried in its place.")
        self._pause()

    def _give_up(self, tag: str, reason: str) -> None:
        self._failures = 0
        self._given_up.add(tag)
        if self._wanted and tag == _tag(self._wanted):
            self._failed = {"bento": tag, "reason": reason}
        self._instead = self._in_place()
        if self._instead is None:
            self._given_up.clear()  # all have failed: begin again
        elif self._serving and self._serving.tag == _tag(self._instead):
            self._have_restored(self._instead)

    def _in_place(self) -> Entry | None:
        """What served last, or else the newest champion whose Bento is whole; none that was given up."""
        if self._proven and _tag(self._proven) not in self._given_up:
            return self._proven
        for entry in reversed(self._followed):
            tag = _tag(entry)
            if (
                entry.action in MOVES
                and tag
                and tag not in self._given_up
                and BentoStore(self._home).is_intact(tag)
            ):
                return entry
        return None

    def _have_restored(self, good: Entry) -> None:
        """Have the record name what serves in place of what failed."""
        failed = self._failed
        assert failed is not None

        def restore() -> bool:
            return self._restore(
                version=good.to,
                tag=_tag(good),
                failed=failed["bento"],
                reason=failed["reason"],
                say=self._say,
            )

        self._to_restore, self._restore_from = restore, 0.0

    def _bring_back(self) -> None:
        """Have the record say again what goes on serving, as soon as the workspace is free."""
        if self._restoring is None:
            if self._to_restore and time.monotonic() >= self._restore_from:
                self._restoring = self._waiting.submit(self._to_restore)
            return
        if not self._restoring.done():
            return
        error, self._restoring = self._restoring.exception(), None
        if isinstance(error, WorkspaceBusy):
            self._restore_from = time.monotonic() + BUSY
        elif error is not None:  # whatever it is, it is no reason to stop serving
            self._complain(f"The record cannot be set right yet: {error}")
            self._restore_from = time.monotonic() + AWAY
        else:
            self._to_restore = None

    def _let_go(self) -> None:
        """Stop what has answered all it had, and give its slot back when it has ended."""
        for each in list(self._leaving):
            if each.stopped is None:
                with suppress(OSError):  # of a proxy that ended, and its connections with it
                    if self._proxy.unanswered(each.slot) and time.monotonic() < each.until:
                        continue
                each.stopped = self._waiting.submit(stop, each.server.process)
            elif each.stopped.done():
                self._leaving.remove(each)
                self._through(self._proxy.close, each.slot)
                shutil.rmtree(each.run, ignore_errors=True)

    def _discard(self, instance: _Instance) -> None:
        """Stop one that no request goes to."""
        self._through(self._proxy.close, instance.slot)
        instance.stopped = self._waiting.submit(stop, instance.server.process)
        self._leaving.append(instance)

    def _tell(self) -> None:
        serving, coming = self._serving, self._coming
        state = ServingState(
            serving.tag if serving else None,
            serving.entry.to if serving else None,
            _address(self._settings),
            serving.since if serving else None,
            coming=coming.tag if coming else None,
            failed=self._failed,
            shadow=self._shadow.tag if self._shadow and self._shadow.since else None,
        )
        if state != self._told:
            self._told = state
            state.write(self._workspace)

    def _stop(self) -> None:
        until = time.monotonic() + STOPPING
        self._proxy.finish()
        while self._proxy.alive and not self._hurry.is_set() and time.monotonic() < until:
            self._hurry.wait(TICK)
        self._proxy.remove()
        running = [each for each in (self._serving, self._coming, self._shadow, *self._leaving) if each]
        for each in running:
            each.stopped = each.stopped or self._waiting.submit(stop, each.server.process)
        self._waiting.shutdown()
        for each in running:
            shutil.rmtree(each.run, ignore_errors=True)
        (serving_folder(self._workspace) / "state.json").unlink(missing_ok=True)
