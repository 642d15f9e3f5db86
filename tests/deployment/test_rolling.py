"""`ayeaye serve` behind HAProxy: promotions and faults under load, and who asks through it."""

from __future__ import annotations

import json
import socket
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

from ayeaye.core.workspace import Workspace
from ayeaye.deployment import proxy
from ayeaye.packaging.bento import BentoStore
from ayeaye.packaging.server import CLIENT_HEADER
from ayeaye.packaging.serving_state import ServingState
from ayeaye.release import promotion

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


def _bento(pair: Pair) -> tuple[Any, int | None]:
    """The process of the Bento that serves, and its port."""
    for each in psutil.Process(pair.observed["pid"]).children():
        with suppress(psutil.Error):
            words = each.cmdline()
            if "--port" in words and pair.first.tag.partition(":")[2] in " ".join(words):
                return each, int(words[words.index("--port") + 1])
    return None, None


def test_what_it_started_ends_with_it(pair: Pair, url: str) -> None:
    """SIGKILL to it alone; the module's service goes on, so this is one of a copy."""
    copy = pair.place.copy(Path(str(pair.workspace.root.parent) + "-killed"))
    workspace = Workspace(copy.root)
    with rolling.served(workspace) as other:
        found = ServingState.observe(workspace)
        assert found
        leader = psutil.Process(found.pid)
        processes = leader.children(recursive=True)
        assert {"haproxy"} < {each.name() for each in processes}
        with asked(other, pair.contents[0]) as statuses:
            wait_until(lambda: statuses, "it does not answer")
            leader.kill()
            _, alive = psutil.wait_procs(processes, 30)
        assert alive == []
    assert ServingState.observe(workspace) is None
    assert copy.status["serving"] is None


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
