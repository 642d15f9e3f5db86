"""`ayeaye serve` behind HAProxy: promotions and faults under load, and who asks through it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import rolling
import workspaces
from rolling import Released
from workspaces import Place

from ayeaye.core.errors import DataError, SmokeTestFailed
from ayeaye.core.params import Serve
from ayeaye.core.workspace import Workspace
from ayeaye.deployment import proxy, serving
from ayeaye.packaging.bento import BentoStore
from ayeaye.packaging.server import CLIENT_HEADER, BentoServer
from ayeaye.packaging.serving_state import ServingState, serving_folder
from ayeaye.release import promotion
from ayeaye.release.record import Record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(proxy.installed() is None, reason="HAProxy is not installed"),
]
NOISE = {"Content-Type": "application/octet-stream"}


@dataclass
class Pair:
    """A workspace with two versions whose Bentos are there; the first is champion."""

    place: Place
    workspace: Workspace
    first: Released
    second: Released
    contents: list[bytes]

    @property
    def observed(self) -> dict[str, Any]:
        found = ServingState.observe(self.workspace)
        return asdict(found) if found else {}

    @property
    def actions(self) -> list[str]:
        return [entry.action for entry in promotion.record_of(self.workspace).entries()]


def pair_of(place: Place) -> Pair:
    workspace = Workspace(place.root)
    registry = promotion.registry_of(workspace)
    state = promotion.record_of(workspace).state()
    assert state.champion and state.bento
    path = workspace.classifier / "bundle.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "temperature": content["temperature"] * 1.01}))
    second = promotion.register(workspace, "c" * 40)
    registry.tag(second, gate="passed")
    second = registry.version(second.number)
    tag = promotion.pack(workspace, second)
    limits = BentoStore(workspace.bentos).limits(tag)
    golden = promotion.golden_requests(workspace, registry.bundle(second), limits)
    BentoStore(workspace.bentos).keep_golden(tag, golden)
    first = Released(registry.version(state.champion), state.bento)
    return Pair(place, workspace, first, Released(second, tag), rolling.pictures(workspace))


@pytest.fixture(scope="module")
def pair(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(trained.copy(tmp_path_factory.mktemp("pair")))


@pytest.fixture(scope="module")
def url(pair: Pair) -> Iterator[str]:
    """The address of the pair's service, which listens on every address of the machine."""
    with rolling.served(pair.workspace, "--host", "0.0.0.0") as url:
        yield url


@contextmanager
def asked(url: str, content: bytes, every: float = 0.05) -> Iterator[list[int]]:
    """Requests one after the other meanwhile: their statuses, 0 for one without an answer."""
    done, statuses = threading.Event(), list[int]()

    def ask() -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            while not done.wait(every):
                try:
                    statuses.append(client.post("/classify", content=content, headers=NOISE).status_code)
                except httpx.HTTPError:
                    statuses.append(0)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        done.set()
        thread.join()


def wait_until(ready: Callable[[], object], complaint: str, seconds: float = 120) -> None:
    workspaces.wait_for(ready, seconds, complaint)


def test_promotions_and_rollbacks_under_load_lose_no_request(pair: Pair, url: str) -> None:
    assert pair.observed["bento"] == pair.first.tag
    rolled = rolling.roll(
        pair.workspace, url, pair.contents, [pair.second, pair.first], swaps=2, rate=8, seed=1
    )
    assert rolled.seen.lost == []
    assert rolled.seen.statuses == {200: len(rolled.seen.latencies)}
    assert set(rolled.answers) == {pair.first.tag, pair.second.tag}
    assert min(rolled.answers.values()) > 10


def test_promote_and_rollback_of_a_person_are_served(pair: Pair, url: str) -> None:
    with asked(url, pair.contents[0]) as statuses:
        done = pair.place("promote", pair.second.version.number, "--json")
        assert done.code == 0, done.err
        wait_until(lambda: pair.observed["bento"] == pair.second.tag, "the promoted Bento is not served")
        serving_now = pair.place.status["serving"]
        assert (serving_now["version"], serving_now["failed"]) == (pair.second.version.number, None)
        assert f"Serving: {pair.second.tag} on http://0.0.0.0:" in pair.place("status").out
        assert pair.place("rollback").code == 0
        wait_until(lambda: pair.observed["bento"] == pair.first.tag, "the Bento rolled back to is not served")
    assert set(statuses) == {200}


def test_one_that_does_not_start_changes_nothing_and_is_undone_when_the_workspace_is_free(
    pair: Pair, url: str
) -> None:
    mapper = BentoStore(pair.workspace.bentos).bundle(pair.second.tag) / "mapper.safetensors"
    whole = mapper.read_bytes()
    mapper.write_bytes(b"rubbish")
    before = len(pair.actions)
    try:
        with asked(url, pair.contents[0]) as statuses:
            with pair.workspace.lock():
                promotion.crown(pair.workspace, pair.second.version, pair.second.tag, actor="ann", why=[])
                wait_until(lambda: pair.observed["failed"], "the failure is not told")
                time.sleep(1)
                assert pair.actions[before:] == ["promote"]
                assert pair.observed["bento"] == pair.first.tag
                said = pair.place("status").out
                assert f"{pair.second.tag} could not be served" in said
                assert f"That is not the champion's Bento, {pair.second.tag}." in said.replace("\n", " ")
            wait_until(lambda: pair.actions[before:] == ["promote", "restore"], "it is not restored", 20)
        assert set(statuses) == {200}
    finally:
        mapper.write_bytes(whole)
    state = promotion.record_of(pair.workspace).state()
    assert (state.champion, state.bento) == (pair.first.version.number, pair.first.tag)
    assert state.entry and "is damaged" in state.entry.why[0]
    assert pair.observed["bento"] == pair.first.tag


def test_requests_are_as_they_are_without_the_proxy(pair: Pair, url: str) -> None:
    """The same to the Bento itself, on its own port."""
    direct = f"http://127.0.0.1:{_bento(pair)[1]}"

    def chunks() -> Iterator[bytes]:
        yield pair.contents[0][:100]
        yield pair.contents[0][100:]

    requests: list[dict[str, Any]] = [
        {"url": "/classify", "files": {"image": pair.contents[0]}},
        {"url": "/classify", "content": pair.contents[0], "headers": NOISE},
        {"url": "/classify", "content": chunks(), "headers": NOISE},
        {"url": "/classify", "content": b"x" * 21_000_000, "headers": NOISE},
        {"url": "/classify", "content": b"x", "headers": {"Content-Type": "text/plain"}},
        {"url": "/nothing", "content": b""},
        {"url": "/samples?" + "&".join(f"label={'x' * 190}" for _ in range(100)), "method": "GET"},
        {"url": "/classify", "method": "DELETE"},
        {"url": "/readyz", "method": "GET"},
    ]
    for request in requests:
        answers = []
        for base in (direct, url):
            if request.get("content").__class__.__name__ == "generator":
                request = {**request, "content": chunks()}
            with httpx.Client(base_url=base, trust_env=False, timeout=60) as client:
                answers.append(client.request(request.get("method", "POST"), **_without(request, "method")))
        one, other = answers
        assert one.status_code == other.status_code
        assert _stable(one) == _stable(other)
        names = [set(each.headers) - {"date", "connection", "transfer-encoding"} for each in answers]
        assert names[0] == names[1]


def _without(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


def _stable(answer: httpx.Response) -> Any:
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return answer.text
    content = answer.json()
    return _without(content, "id") if isinstance(content, dict) else content


def test_changes_come_from_this_machine_alone_and_nobody_can_say_otherwise(pair: Pair, url: str) -> None:
    given = {"answer": f"1-{'0' * 64}-{'0' * 12}", "label": "paint 000"}
    port = httpx.URL(url).port
    assert httpx.post(f"{url}/feedback", json=given, trust_env=False).status_code == 201
    away = _own_address()
    if away is None:
        pytest.skip("this machine has no address but loopback")
    local = {"Host": f"127.0.0.1:{port}"}
    for headers in (local, {**local, CLIENT_HEADER: "127.0.0.1"}, {**local, "X-Forwarded-For": "127.0.0.1"}):
        answer = httpx.post(f"http://{away}:{port}/feedback", json=given, headers=headers, trust_env=False)
        assert answer.status_code == 403
    picture = {"content": pair.contents[0], "headers": NOISE}
    assert httpx.post(f"http://{away}:{port}/classify", trust_env=False, **picture).status_code == 200


def _own_address() -> str | None:
    addresses = (
        each.address
        for all in psutil.net_if_addrs().values()
        for each in all
        if each.family == socket.AF_INET
    )
    return next((address for address in addresses if not address.startswith("127.")), None)


def test_a_workspace_is_served_once(pair: Pair, url: str) -> None:
    done = pair.place("serve", "--port", "0")
    assert done.code == 1
    pid = pair.observed["pid"]
    assert f"is served already by process {pid} on http://0.0.0.0:" in done.err


def test_a_bento_and_a_proxy_that_die_come_back(pair: Pair, url: str) -> None:
    process, port = _bento(pair)
    process.kill()
    wait_until(lambda: _bento(pair)[1] not in (None, port), "the Bento is not started again")
    wait_until(lambda: pair.observed["bento"] == pair.first.tag, "the Bento does not answer again")
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    for each in psutil.Process(pair.observed["pid"]).children():
        if each.name() == "haproxy":
            each.kill()
    wait_until(lambda: pair.observed["bento"] == pair.first.tag, "the proxy is not started again", 20)


def _bento(pair: Pair) -> tuple[Any, int | None]:
    """The process of the Bento that serves, and its port."""
    for each in psutil.Process(pair.observed["pid"]).children():
        with suppress(psutil.Error):
            words = each.cmdline()
            if "--port" in words and pair.first.tag.partition(":")[2] in " ".join(words):
                return each, int(words[words.index("--port") + 1])
    return None, None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_it_started_ends_with_it(pair: Pair, number: signal.Signals, url: str) -> None:
    """A signal to it alone; the module's service goes on, so this is one of a copy that serves nothing yet."""
    copy = pair.place.copy(Path(str(pair.workspace.root.parent) + f"-{number.name}"))
    workspace = Workspace(copy.root)
    with rolling.served(workspace) as other:
        found = ServingState.observe(workspace)
        assert found
        leader = psutil.Process(found.pid)
        processes = leader.children(recursive=True)
        assert {"haproxy"} < {each.name() for each in processes}
        with asked(other, pair.contents[0]) as statuses:
            wait_until(lambda: statuses, "it does not answer")
            leader.send_signal(number)
            _, alive = psutil.wait_procs(processes, 30)
        assert alive == []
    assert ServingState.observe(workspace) is None
    assert copy.status["serving"] is None
    assert (serving_folder(workspace) / "state.json").exists() == (number == signal.SIGKILL)


def test_without_a_proxy_it_says_that_a_promotion_needs_a_restart(pair: Pair) -> None:
    copy = pair.place.copy(Path(str(pair.workspace.root.parent) + "-plain"))
    copy.set("serve.proxy=none")
    workspace = Workspace(copy.root)
    with rolling.served(workspace) as url:
        said = (workspace.root.parent / "serve.log").read_text()
        assert "serve.proxy is none: after a promotion, start `ayeaye serve` again." in said
        found = ServingState.observe(workspace)
        assert found and (found.bento, found.address) == (pair.first.tag, url)
    assert ServingState.observe(workspace) is None


def test_a_version_that_waits_answers_a_share_in_the_shadow(pair: Pair) -> None:
    copy = pair.place.copy(Path(str(pair.workspace.root.parent) + "-shadow"))
    copy.set("serve.shadow=1")
    workspace = Workspace(copy.root)
    version = promotion.registry_of(workspace).version(pair.second.version.number)
    with rolling.served(workspace) as url:
        promotion.enter(
            workspace, "pending", version, actor="ann", why=[], digests={"bento": pair.second.tag}
        )
        wait_until(
            lambda: getattr(ServingState.observe(workspace), "shadow", None), "the challenger is not started"
        )
        found = ServingState.observe(workspace)
        assert found and (found.bento, found.shadow) == (pair.first.tag, pair.second.tag)
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            for content in pair.contents[:8]:
                answer = client.post("/classify", content=content, headers=NOISE)
                assert answer.json()["model"]["bento"] == pair.first.tag
        wait_until(lambda: copy("shadow", "--json").json, "nothing is compared", 60)
        (compared,) = copy("shadow", "--json").json
        assert (compared["bento"], compared["shadow"]) == (pair.first.tag, pair.second.tag)
        assert (compared["answers"], compared["failed"], compared["agreement"]) == (8, 0, 1.0)
        assert pair.second.tag in copy("shadow").out
        # It is promoted: the shadow goes.
        rolling.crown(workspace, Released(version, pair.second.tag), "promote")
        wait_until(lambda: not getattr(ServingState.observe(workspace), "shadow", None), "the shadow stays")


@pytest.mark.soak
def test_twenty_promotions_and_rollbacks_at_half_the_capacity_lose_no_request(
    trained: Place, tmp_path: Path
) -> None:
    place = trained.copy(tmp_path)
    # While another Bento starts, two cores stand still for seconds, in which more come than wait by default.
    place.set("serve.concurrency=1024")
    assert place("promote", 1).code == 0
    pair = pair_of(place)
    with rolling.served(pair.workspace) as url:
        rate = 0.5 * rolling.capacity(url, pair.contents)
        rolled = rolling.roll(pair.workspace, url, pair.contents, [pair.second, pair.first], 20, rate)
    assert rolled.seen.lost == []
    assert rolled.seen.statuses == {200: len(rolled.seen.latencies)}
    assert len(rolled.seconds) == 20


# What the supervisor decides, and what it is given to serve: the Bentos and the proxy are stand-ins


class Slots:
    """In place of the proxy."""

    def __init__(self) -> None:
        self.alive, self.copies = True, None

    def open(self, slot: int, port: int) -> None: ...

    def drain(self, slot: int) -> None: ...

    def close(self, slot: int) -> None: ...

    def remove(self) -> None: ...

    def unanswered(self, slot: int) -> int:
        return 0

    def finish(self) -> None:
        self.alive = False


@dataclass
class Scene:
    """A supervisor, the Bentos that are whole, how often each still fails, and which were tried."""

    record: Record
    said: list[str]
    whole: set[str]
    failing: dict[str, int]
    tried: list[str]
    supervisor: Any = None

    def promote(self, version: int) -> None:
        self.whole.add(tag := f"a:v{version}")
        self.record.append("promote", version, actor="ann", digests={"bento": tag})

    @property
    def serving(self) -> str | None:
        return self.supervisor._serving and self.supervisor._serving.tag

    def look_until(self, ready: Callable[[], object], complaint: str) -> None:
        def looked() -> object:
            self.supervisor._look()
            return ready()

        workspaces.wait_for(looked, 10, complaint)

    def last(self) -> tuple[str, int]:
        newest = self.record.entries()[-1]
        return newest.action, newest.to


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    workspace = Workspace(tmp_path)
    (tmp_path / ".ayeaye" / "serving").mkdir(parents=True)
    scene = Scene(promotion.record_of(workspace), [], set(), {}, [])

    def launch(store: BentoStore, tag: str, *_: object) -> BentoServer:
        process = subprocess.Popen(["sleep", "60"], start_new_session=True)
        return BentoServer(tag, process, 1, echo=False)

    def prove(store: BentoStore, server: BentoServer, *_: object) -> None:
        scene.tried.append(server.tag)
        if scene.failing.get(server.tag):
            scene.failing[server.tag] -= 1
            raise SmokeTestFailed(f"{server.tag} is busy")

    def restore(*, version: int, tag: str, failed: str, reason: str, say: serving.Say) -> bool:
        assert scene.record.state().bento == failed
        scene.record.append("restore", version, actor="service", why=[reason], digests={"bento": tag})
        return True

    monkeypatch.setattr(BentoServer, "launch", launch)
    monkeypatch.setattr(serving, "verify", prove)
    monkeypatch.setattr(BentoStore, "is_intact", lambda self, tag: tag in scene.whole)
    monkeypatch.setattr(serving, "PAUSES", (0.02,))
    slots: Any = Slots()
    scene.supervisor = serving._Supervisor(workspace, Serve(), slots, restore, scene.said.append)
    yield scene
    scene.supervisor._stop()


def test_a_record_that_lost_its_end_or_is_another_changes_nothing_that_is_served(scene: Scene) -> None:
    scene.promote(1)
    scene.promote(2)
    scene.look_until(lambda: scene.serving == "a:v2", "the champion is not served")
    path = scene.record.path
    content = path.read_bytes()
    path.write_bytes(content.splitlines(keepends=True)[0])
    scene.look_until(lambda: "does not go on from the 2 entries" in scene.said[-1], "it is not said")
    path.unlink()
    for version in (1, 3, 1):
        scene.promote(version)
    for _ in range(5):
        scene.supervisor._look()
        time.sleep(0.02)
    assert (scene.serving, scene.tried) == ("a:v2", ["a:v2"])
    path.write_bytes(content)
    scene.promote(1)
    scene.look_until(lambda: scene.serving == "a:v1", "the restored record is not followed")


def test_where_the_champion_does_not_start_the_newest_whole_one_before_it_serves(scene: Scene) -> None:
    for version in (1, 2, 3, 4):
        scene.promote(version)
    scene.whole.remove("a:v3")
    scene.failing = {"a:v4": 9, "a:v2": 9}
    scene.look_until(lambda: scene.last() == ("restore", 1), "nothing is restored")
    assert scene.serving == "a:v1"
    assert scene.tried == ["a:v4", "a:v4", "a:v2", "a:v2", "a:v1"]
    assert scene.record.entries()[-1].why == ("a:v4 is busy",)
    assert scene.supervisor._failed == {"bento": "a:v4", "reason": "a:v4 is busy"}
    scene.look_until(lambda: scene.supervisor._serving.entry.action == "restore", "it is not read")
    assert len(scene.tried) == 5


def test_where_none_starts_all_are_tried_again(scene: Scene) -> None:
    scene.promote(1)
    scene.promote(2)
    scene.failing = {"a:v1": 2, "a:v2": 3}
    scene.look_until(lambda: scene.serving == "a:v2", "the champion is given up for good")
    assert scene.tried == ["a:v2", "a:v2", "a:v1", "a:v1", "a:v2", "a:v2"]
    assert scene.last() == ("promote", 2)
    assert scene.supervisor._failed is None


@pytest.mark.parametrize(("times", "served", "last"), [(1, "a:v2", "promote"), (2, "a:v1", "restore")])
def test_one_that_fails_is_tried_once_more_before_it_is_given_up(
    scene: Scene, times: int, served: str, last: str
) -> None:
    scene.promote(1)
    scene.look_until(lambda: scene.serving == "a:v1", "the champion is not served")
    scene.promote(2)
    scene.failing = {"a:v2": times}
    scene.look_until(lambda: scene.tried == ["a:v1", "a:v2", "a:v2"], "it is not tried again")
    scene.look_until(lambda: scene.last()[0] == last and scene.serving == served, "it ends otherwise")


@pytest.fixture
def outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose champion's Bento is whole, but not what would be packed today."""

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


def test_serving_waits_for_no_retrain_where_there_is_a_whole_bento(outdated: Workspace) -> None:
    said: list[str] = []
    began = time.monotonic()
    with outdated.lock():
        assert serving.champion_bento(Workspace(outdated.root), said.append) == "a:v1"
    assert time.monotonic() - began < 5
    assert len(said) == 1
    assert "busy" in said[0]
    assert "Served is a:v1 as it was promoted." in said[0]


@pytest.mark.parametrize("error", [DataError("no shard"), OSError("no space left on device")])
def test_what_cannot_be_packed_anew_is_served_as_it_is(
    outdated: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def renew(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(promotion, "renew", renew)
    said: list[str] = []
    assert serving.champion_bento(outdated, said.append) == "a:v1"
    assert said == [f"{error}\nServed is a:v1 as it was promoted."]


def test_serving_says_that_the_record_lost_its_end_and_packs_nothing_for_it(
    outdated: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = promotion.record_of(outdated)
    content = record.path.read_bytes()
    second = record.append("promote", 2, actor="ann", digests={"bento": "a:v2"})
    monkeypatch.setattr(promotion.registry_of(outdated), "anchor", f"2 {second.digest}")
    record.path.write_bytes(content)
    said: list[str] = []
    assert serving.champion_bento(outdated, said.append) == "a:v1"
    assert "its end was removed" in said[0]
    assert "Served is a:v1" in said[0]
    assert len(record.entries()) == 1
