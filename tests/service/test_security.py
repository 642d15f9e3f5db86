"""Who may change what is served, how often one may ask, and what headers say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import services
from small_bundle import picture
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ayeaye.core.errors import BundleError, ReleaseError
from ayeaye.core.params import Serve
from ayeaye.packaging.server import CLIENT_HEADER
from ayeaye.service.security import HEADERS, Guard, RateLimiter
from ayeaye.service.served import Served, settings

PINK = {"name": "pink", "attributes": {"r": 1.0, "g": 0.5, "b": 0.6}}
AWAY = ("192.0.2.7", 50000)
TOKEN = "s3cret-ü"


def changes(client: services.TestClient, headers: Mapping[str, str] | None = None) -> set[int]:
    """The statuses of every request that changes something, or tells who did."""
    said = {"answer": f"3-{'0' * 64}-{'0' * 12}", "label": "red"}
    return {
        client.post("/classes", json=PINK, headers=headers).status_code,
        client.put("/classes/pink", json=PINK, headers=headers).status_code,
        client.delete("/classes/pink", headers=headers).status_code,
        client.get("/changes", headers=headers).status_code,
        client.post("/feedback", json=said, headers=headers).status_code,
    }


@pytest.mark.parametrize("client", [services.LOCAL, ("::1", 5), ("127.8.8.8", 5)])
def test_without_a_token_changes_come_from_this_machine(
    colours: Path, tmp_path: Path, client: tuple[str, int]
) -> None:
    with services.within(Served(colours, tmp_path), client) as (asking, _):
        assert changes(asking) == {200, 201}


def test_without_a_token_changes_from_elsewhere_are_refused_with_what_to_do(
    colours: Path, tmp_path: Path
) -> None:
    with services.within(Served(colours, tmp_path), AWAY) as (asking, _):
        assert changes(asking) == {403}
        assert "AYEAYE_TOKEN" in asking.post("/classes", json=PINK).json()["error"]
        assert asking.post("/classify", files={"image": picture("red")}).status_code == 200
        assert asking.get("/classes").json()["revision"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "192.0.2.7"},
        {"Forwarded": "for=192.0.2.7"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-Host": "attacker.example"},
        {"X-Forwarded-Proto": "https"},
        {"Host": "attacker.example"},
        {"Host": "[broken"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost"},
        {"Origin": "http://127.0.0.1:8930"},
        {"Host": "127.0.0.1:8911", "Origin": "http://127.0.0.1:8930"},
    ],
    ids=str,
)
def test_a_proxy_and_a_page_of_another_site_are_not_this_machine(
    colours: Path, tmp_path: Path, headers: dict[str, str]
) -> None:
    with services.within(Served(colours, tmp_path)) as (asking, _):
        assert changes(asking, headers) == {403}


def test_the_page_of_the_service_may_change_it(colours: Path, tmp_path: Path) -> None:
    with services.within(Served(colours, tmp_path)) as (asking, _):
        for host in ("127.0.0.1", "localhost:8911", "[::1]:8911"):
            assert changes(asking, {"Host": host, "Origin": f"http://{host}"}) == {200, 201}


def test_a_proxy_that_says_nothing_of_itself_is_known_by_its_old_protocol() -> None:
    """As nginx asks where it was told an address and nothing else."""
    scope: dict[str, Any] = {"type": "http", "client": services.LOCAL, "headers": [(b"host", b"127.0.0.1")]}
    Guard(None).check(Request(scope | {"http_version": "1.1"}))
    with pytest.raises(HTTPException) as refused:
        Guard(None).check(Request(scope | {"http_version": "1.0"}))
    assert refused.value.status_code == 403


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_service_without_a_token_warns_of_proxies(
    token: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    Guard(token)
    assert ("AYEAYE_TOKEN" in caplog.text) == (token is None)
    assert TOKEN not in caplog.text


def test_behind_the_proxy_of_serve_who_asks_is_whom_it_names(colours: Path, tmp_path: Path) -> None:
    served = Served(colours, tmp_path, proxy="127.0.0.1", settings=Serve(rate="10/hour"))
    with services.within(served) as (asking, inference):
        assert changes(asking, {CLIENT_HEADER: "127.0.0.1"}) == {200, 201}
        assert changes(asking, {CLIENT_HEADER: "192.0.2.7"}) == {403}
        # Two proxies: the other one, on this machine, speaks for its client, and says so.
        other = {CLIENT_HEADER: "127.0.0.1", "X-Forwarded-For": "192.0.2.9"}
        assert changes(asking, other) == {403}
        # One elsewhere is believed nothing.
        forged = {CLIENT_HEADER: "192.0.2.10", "X-Forwarded-For": "127.0.0.1"}
        assert changes(asking, forged) == {403}
        for client, left in (("127.0.0.1", 5), ("192.0.2.7", 5), ("192.0.2.9", 5), ("192.0.2.10", 5)):
            (rate,) = inference.limiter._rates
            stats = inference.limiter._windows.get_window_stats(rate, client)
            assert stats.remaining == left, client


def test_without_that_proxy_nobody_can_name_another(colours: Path, tmp_path: Path) -> None:
    with services.within(Served(colours, tmp_path), AWAY) as (asking, _):
        assert changes(asking, {CLIENT_HEADER: "127.0.0.1"}) == {403}
    with services.within(Served(colours, tmp_path, proxy="127.0.0.1"), AWAY) as (asking, _):
        assert changes(asking, {CLIENT_HEADER: "127.0.0.1"}) == {403}


def test_with_a_token_it_alone_decides(colours: Path, tmp_path: Path) -> None:
    right = {"Authorization": f"Bearer {TOKEN}".encode()}
    with services.within(Served(colours, tmp_path, token=TOKEN), AWAY) as (asking, _):
        for wrong in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN):
            assert changes(asking, {"Authorization": wrong.encode()}) == {401}  # type: ignore[dict-item]
        response = asking.post("/classes", json=PINK)
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in response.text
        assert changes(asking, right) == {200, 201}  # type: ignore[arg-type]
    with services.within(Served(colours, tmp_path, token=TOKEN)) as (asking, _):
        assert changes(asking) == {401}


def test_the_token_comes_from_the_environment_or_a_file(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AYEAYE_BUNDLE", str(colours))
    assert Served.here().token is None
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n", encoding="utf-8-sig")  # as Notepad does
    monkeypatch.setenv("AYEAYE_TOKEN_FILE", str(path))
    assert Served.here().token == TOKEN
    assert TOKEN not in repr(Served.here())
    monkeypatch.setenv("AYEAYE_TOKEN", "other")
    assert Served.here().token == "other"
    monkeypatch.delenv("AYEAYE_TOKEN")
    path.write_text("\n")
    with pytest.raises(ReleaseError, match="holds no token"):
        Served.here()
    path.unlink()
    with pytest.raises(ReleaseError, match="cannot be read"):
        Served.here()


def test_state_lies_where_it_is_said_and_never_in_the_bento(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AYEAYE_BUNDLE", str(colours))
    for variable in ("AYEAYE_STATE", "BENTOML_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert Served.here().state == tmp_path / "xdg" / "ayeaye" / "ayeaye"
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    assert Served.here().state == tmp_path / "home" / "ayeaye" / "ayeaye"
    monkeypatch.setenv("AYEAYE_STATE", str(tmp_path / "here"))
    monkeypatch.setenv("AYEAYE_DATABASE", "sqlite:////tmp/x.db")
    assert Served.here().state == tmp_path / "here"
    assert Served.here().database == "sqlite:////tmp/x.db"
    assert "x.db" not in repr(Served.here())


def test_the_rate_is_that_of_each_client(colours: Path, tmp_path: Path) -> None:
    served = Served(colours, tmp_path, settings=Serve(rate="3/minute;100/hour"))
    with services.within(served, AWAY) as (asking, inference):
        assert [asking.get("/model").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        refused = asking.post("/classify", files={"image": picture("red")})
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert "3 per 1 minute" in refused.json()["error"]
        inference.limiter.check("192.0.2.8")


def test_opening_the_page_does_not_count_towards_the_rate(colours: Path, tmp_path: Path) -> None:
    served = Served(colours, tmp_path, settings=Serve(rate="3/minute"))
    with services.within(served, AWAY) as (asking, _):
        for _ in range(5):
            for path in ("/", "/page.css", "/page.js", "/icon.svg"):
                assert asking.get(path).status_code == 200
            assert asking.get("/samples/0123456789abcdef").status_code == 404
        assert [asking.get("/samples").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_one_client_has_three_quarters_of_what_a_worker_answers_at_once(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Served(colours, tmp_path).most_of_one == 192
    assert Served(colours, tmp_path, settings=Serve(concurrency=1)).most_of_one == 1
    monkeypatch.setenv("AYEAYE_WORKERS", "4")
    assert Served(colours, tmp_path).most_of_one == 48


@pytest.mark.parametrize("concurrency", [1, 256, 1000])
def test_no_picture_that_is_let_in_finds_too_many_waiting(
    colours: Path, tmp_path: Path, concurrency: int
) -> None:
    served = Served(colours, tmp_path, settings=Serve(concurrency=concurrency))
    with services.within(served) as (_, inference):
        assert inference._batcher.waiting >= concurrency


def test_the_network_of_an_ipv6_client_is_one_client() -> None:
    limiter = RateLimiter("1/hour")
    limiter.check("2001:db8::1")
    limiter.check("2001:db8:0:1::1")
    with pytest.raises(HTTPException):
        limiter.check("2001:db8::ffff")


def test_a_wrong_rate_raises_meaningful_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AYEAYE_RATE", "often")
    with pytest.raises(BundleError, match="expected a rate such as 20/second"):
        settings()
    monkeypatch.setenv("AYEAYE_RATE", "")
    assert settings().rate is None


@pytest.mark.parametrize("path", ["/model", "/nothing", "/classify", "/openapi.json"])
def test_every_answer_has_the_headers(client: services.TestClient, path: str) -> None:
    headers: Any = client.get(path).headers
    assert {name: headers.get(name) for name in HEADERS} == HEADERS


def test_a_page_may_use_nothing_of_the_browser_and_stands_alone(client: services.TestClient) -> None:
    headers = client.get("/").headers
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"] and "microphone=()" in headers["Permissions-Policy"]
