"""`ayeaye serve`: the champion's Bento behind a proxy, and the next champion's without a request lost.

A loop looks at the promotion history, the processes and the proxy, asks `plan` what to do next, and does it.
Without a proxy this process becomes the server of the champion, and a promotion needs a restart.
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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ayeaye.core.errors import AyeayeError, ReleaseError
from ayeaye.core.params import Serve
from ayeaye.core.processes import free_port, stop, workers_told
from ayeaye.core.workspace import Workspace
from ayeaye.deployment.plan import (
    SHADOW,
    Action,
    Instance,
    Memory,
    Move,
    Observed,
    Restore,
    Role,
    Say,
    Start,
    bento_of,
    plan,
)
from ayeaye.deployment.proxy import Proxy, installed
from ayeaye.packaging.bento import BentoStore
from ayeaye.packaging.server import BentoServer, exec_server, listening_address, service_environment
from ayeaye.packaging.serving_state import ServingState, hold_serving, serving_folder
from ayeaye.packaging.smoke_test import verify
from ayeaye.release import promotion
from ayeaye.release.record import Entry

TICK = 0.2  # seconds between looks
LINGER = 5.0  # seconds beyond a request's own limit that an old Bento is waited for
STOPPING = 20.0  # seconds that requests have when everything ends
_TRUSTED = "FORWARDED_ALLOW_IPS"


def serve_settings(
    workspace: Workspace, host: str | None = None, port: int | None = None, workers: int | None = None
) -> Serve:
    """Return how to serve: what is given goes before the environment, and that before the parameters."""
    given = workspace.params.serve
    changes = {"host": host, "port": port, "workers": workers or workers_told()}
    changes |= {
        "state": str(workspace.resolve(given.state)),
        "token_file": given.token_file and str(workspace.resolve(given.token_file)),
    }
    return given.model_copy(update={key: value for key, value in changes.items() if value is not None})


def serve(workspace: Workspace, settings: Serve, say: Callable[[str], None]) -> None:
    """Serve the champion's Bento until interrupted; it is made anew first where it is not current.

    Raises ReleaseError where there is no champion, the workspace is served already, or the address is taken.
    """
    program = installed() if settings.proxy == "auto" else None
    with hold_serving(workspace) as lock:
        tag = current_bento(workspace, say)
        host, port = listening_address(settings)
        settings = settings.model_copy(update={"port": port})
        if program:
            copies = free_port() if settings.shadow else None
            proxy = Proxy(program, serving_folder(workspace), host, port, copies)
            _Loop(workspace, settings, proxy, say).run()
            return
        why = "HAProxy is not installed" if settings.proxy == "auto" else "serve.proxy is none"
        say(f"{why}: after a promotion, start `ayeaye serve` again.")
        state = promotion.record_of(workspace).state()
        version = state.champion if state.bento == tag else None
        ServingState(tag, version, f"http://{settings.host}:{port}", _time()).write(workspace)
        os.set_inheritable(lock, True)  # the server that this process becomes holds it, too
        exec_server(BentoStore(workspace.bentos), tag, settings, say)


def current_bento(workspace: Workspace, say: Callable[[str], None]) -> str:
    """Return the tag of the champion's Bento, made anew where it is out of date, lost or damaged."""
    state = promotion.record_of(workspace).state()
    if state.champion is None or state.bento is None:
        raise ReleaseError("there is no champion to serve yet: run `ayeaye retrain`")
    intact = BentoStore(workspace.bentos).is_intact(state.bento)
    try:
        promotion.check_anchor(workspace)  # nothing is packed for a history that lost its end
        if promotion.current(workspace, promotion.registry_of(workspace).version(state.champion)):
            return state.bento
        # A Bento that is merely out of date does not wait for a retrain to end.
        with workspace.releasing(timeout=0) if intact else workspace.releasing(say):
            return promotion.renew(workspace, actor=promotion.actor(), say=say)
    except (AyeayeError, OSError) as error:
        if not intact:
            raise
        say(f"{error}\nServing {state.bento} as it was promoted.")
        return state.bento


@dataclass
class _Running:
    """What belongs to an instance: its folder, its process, and what is waited for."""

    instance: Instance
    run: Path
    server: BentoServer | None = None  # None where it could not be started
    verification: Future[None] | None = None
    stopping: Future[None] | None = None
    since: str | None = None


class _Loop:
    """Observe, plan and act. Only waiting is done in other threads than that of `run`."""

    def __init__(
        self, workspace: Workspace, settings: Serve, proxy: Proxy, say: Callable[[str], None]
    ) -> None:
        self.workspace, self.settings, self.proxy, self._say = workspace, settings, proxy, say
        self.store, self.address = BentoStore(workspace.bentos), f"http://{settings.host}:{settings.port}"
        self.memory = Memory()
        self.running: dict[int, _Running] = {}
        self._history = promotion.record_of(workspace)
        self._read: tuple[tuple[int, int] | None, tuple[Entry, ...]] = None, ()
        self._restoring: Future[bool] | None = None
        self._told: ServingState | None = None
        self._said = ""
        self._end, self._hurry = threading.Event(), threading.Event()
        self._waiting = ThreadPoolExecutor(8, thread_name_prefix="serving")

    def run(self) -> None:
        """Run until SIGTERM, SIGINT or SIGHUP; requests are answered first, unless the signal comes twice."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._interrupt)
        try:
            self.proxy.start()
            while not self._end.is_set():
                try:
                    self.look()
                except (AyeayeError, OSError) as error:  # what serves goes on
                    self.say(str(error))
                self._end.wait(TICK)
        finally:
            self.stop()

    def look(self) -> None:
        self.memory, actions = plan(self.memory, self.observe())
        for action in actions:
            self.act(action)
        state = self.state()
        if state != self._told:
            state.write(self.workspace)
            self._told = state

    def stop(self) -> None:
        until = time.monotonic() + STOPPING
        self.proxy.finish()
        while self.proxy.alive and not self._hurry.is_set() and time.monotonic() < until:
            self._hurry.wait(TICK)
        self.proxy.remove()
        for each in self.running.values():
            if each.server and not each.stopping:
                each.stopping = self._waiting.submit(stop, each.server.process)
        self._waiting.shutdown()
        for each in self.running.values():
            shutil.rmtree(each.run, ignore_errors=True)
        (serving_folder(self.workspace) / "state.json").unlink(missing_ok=True)

    def say(self, text: str) -> None:
        """Say it, once in a row."""
        if text != self._said:
            self._said = text
            self._say(text)

    # Observing

    def observe(self) -> Observed:
        for each in self.running.values():
            each.instance = self._look_at(each)
        error = None
        if self._restoring and self._restoring.done():
            # Before the history is read: what it restored is seen at once.
            error, self._restoring = self._restoring.exception(), None
        return Observed(
            now=time.monotonic(),
            entries=self._entries(),
            address=self.address,
            instances={slot: each.instance for slot, each in self.running.items()},
            proxy_alive=self.proxy.alive,
            shadow=self.settings.shadow,
            restoring=self._restoring is not None,
            restore_error=error,
            is_intact=self.store.is_intact,
        )

    def _look_at(self, running: _Running) -> Instance:
        instance = running.instance
        if instance.role == "verifying" and running.verification and running.verification.done():
            error = running.verification.exception()
            return replace(instance, verified=error is None, fault=str(error) if error else None)
        if instance.role == "serving" and running.server and running.server.process.poll() is not None:
            return replace(instance, fault=f"ended{running.server.reason()}")
        if instance.role == "draining":
            with suppress(OSError):  # of a proxy that ended, and its connections with it
                return replace(instance, unanswered=self.proxy.unanswered(instance.slot))
            return replace(instance, unanswered=0)
        if instance.role == "stopping":
            return replace(instance, stopped=running.stopping is None or running.stopping.done())
        return instance

    def _entries(self) -> tuple[Entry, ...]:
        """The history as it is, or as it was while it cannot be read."""
        before, entries = self._read
        try:
            status = self._history.path.stat()
            stamp = status.st_mtime_ns, status.st_size
            if stamp != before:
                self._read = stamp, entries  # read once, though it be damaged
                self._read = stamp, tuple(self._history.entries())
        except (OSError, ReleaseError) as error:
            # What serves goes on while a person mends the history.
            self.say(f"The promotion history cannot be read: {error}")
        return self._read[1]

    def state(self) -> ServingState:
        """Return what state.json tells."""
        serving = next((each for each in self.running.values() if _is(each, "serving")), None)
        coming = next((each for each in self.running.values() if _is(each, "verifying")), None)
        shadow = self.running.get(SHADOW)
        return ServingState(
            bento=serving.instance.tag if serving else None,
            version=serving.instance.entry.to if serving else None,
            address=self.address,
            since=serving.since if serving else None,
            coming=coming.instance.tag if coming else None,
            failed=self.memory.failed,
            shadow=shadow.instance.tag if shadow and shadow.instance.role == "serving" else None,
        )

    # Acting

    def act(self, action: Action) -> None:
        if isinstance(action, Say):
            self.say(action.text)
        elif isinstance(action, Start):
            self.running[action.slot] = self._start(action.slot, action.entry)
        elif isinstance(action, Move):
            self._move(action.slot, action.role)
        elif isinstance(action, Restore):
            self._restoring = self._waiting.submit(self._restore, action)
        else:
            self.proxy.start()

    def _start(self, slot: int, entry: Entry) -> _Running:
        instance = Instance(entry, slot, time.monotonic())
        run = self.store.home / ".run" / ("shadow" if slot == SHADOW else f"serving-{slot}")
        environment = service_environment(self.settings) | self._environment(slot)
        try:
            server = BentoServer.launch(self.store, instance.tag, run, environment, aside=slot == SHADOW)
        except (ReleaseError, OSError) as error:
            return _Running(replace(instance, fault=str(error)), run)
        verification = self._waiting.submit(verify, self.store, server, entry.digests.get("bundle"))
        return _Running(instance, run, server, verification)

    def _environment(self, slot: int) -> dict[str, str]:
        if slot == SHADOW:
            # Rows of its own among the champion's predictions would look like the champion's.
            aside = {"AYEAYE_PREDICTIONS": "false", "AYEAYE_RATE": "", "AYEAYE_WORKERS": "1"}
            return {"AYEAYE_PROXY": "", _TRUSTED: "", **aside}
        # The proxy says who asks; the service decides who may speak for others, as without a proxy.
        told = {_TRUSTED: "", "AYEAYE_PROXY": os.environ.get(_TRUSTED, "127.0.0.1")}
        if self.proxy.copies is not None:
            told["AYEAYE_SHADOW"] = f"http://127.0.0.1:{self.proxy.copies}"
            told["AYEAYE_SHADOW_SHARE"] = str(self.settings.shadow)
        return told

    def _move(self, slot: int, role: Role) -> None:
        running = self.running[slot]
        running.instance = replace(running.instance, role=role)
        if role == "serving" and running.server:
            running.since = _time()
            self._through(self.proxy.open, slot, running.server.port)
        elif role == "draining":
            running.instance = replace(running.instance, until=time.monotonic() + self._patience(running))
            self._through(self.proxy.drain, slot)
        elif role == "stopping":
            self._through(self.proxy.close, slot)
            if running.server:
                running.stopping = self._waiting.submit(stop, running.server.process)
        elif role == "gone":
            shutil.rmtree(running.run, ignore_errors=True)
            del self.running[slot]

    def _through(self, change: Callable[..., None], *arguments: int) -> None:
        """Change the proxy; where it fails it is started again, with the slots as they should be."""
        try:
            change(*arguments)
        except (OSError, ReleaseError) as error:
            self.say(f"HAProxy refused a change: {error}")
            self.proxy.kill()

    def _patience(self, running: _Running) -> float:
        try:
            return self.store.settings(running.instance.tag).timeout + LINGER
        except ReleaseError:
            return self.settings.timeout + LINGER

    def _restore(self, action: Restore) -> bool:
        return promotion.restore(
            self.workspace,
            version=action.entry.to,
            tag=bento_of(action.entry),
            failed=action.failed,
            reason=action.reason,
            say=self._say,
        )

    def _interrupt(self, number: int, frame: object) -> None:
        (self._hurry if self._end.is_set() else self._end).set()


def _is(running: _Running, role: Role) -> bool:
    return running.instance.slot != SHADOW and running.instance.role == role


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
