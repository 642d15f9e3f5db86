"""Alerts: what a real Prefect server sends to a real webhook and a real mail server, and how often."""

from __future__ import annotations

import asyncore
import json
import smtpd
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from apprise import Apprise
from prefect_servers import Server
from workspaces import Place, wait_for

from ayeaye.core.errors import ParamsError
from ayeaye.core.params import Alerts
from ayeaye.flows import alerts

TOKEN = "to be kept"


class Receiver:
    """A webhook's other end: the calls it got."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        calls = self.calls

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                calls.append(({key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, event: str) -> list[dict[str, Any]]:
        bodies = [json.loads(body) for _, body in self.calls]
        return [body for body in bodies if body["event"] == event]


class Mailbox(smtpd.SMTPServer):
    """A mail server's other end: the mails it got."""

    def __init__(self) -> None:
        self.map: dict[int, Any] = {}
        super().__init__(("127.0.0.1", 0), None, map=self.map, decode_data=True)
        self.mails: list[tuple[list[str], str]] = []
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=asyncore.loop, kwargs={"map": self.map, "timeout": 0.1}, daemon=True).start()

    def process_message(self, peer: Any, sender: str, recipients: list[str], data: str, **more: Any) -> None:
        self.mails.append((recipients, data))


@contextmanager
def _settled(seconds: float = 4) -> Iterator[None]:
    """What comes twice would come now."""
    import time

    yield
    time.sleep(seconds)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()


@pytest.fixture(scope="module")
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    yield mailbox
    mailbox.close()


@pytest.fixture(scope="module")
def place(
    trained: Place, receiver: Receiver, mailbox: Mailbox, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """A workspace whose alerts go to both, and whose next version the gate refuses."""
    place = trained.copy(tmp_path_factory.mktemp("alerted"))
    path = place.root / "prefect.yaml"
    # Beside those of other tests on the same server.
    path.write_text(path.read_text().replace("- name: ", "- name: alerted-"))
    place.set(
        f"alerts.smtp=smtp://127.0.0.1:{mailbox.port}", "alerts.email=[one@example.org, two@example.org]"
    )
    place.set("alerts.sender=ayeaye@example.org", "release.maximum.seen_bias=-1", "train.folds=4")
    environment = {alerts.WEBHOOK: receiver.url, alerts.TOKEN: TOKEN}
    return Place(place.root, place.source, {**place.environment, **environment})


@pytest.fixture(scope="module")
def deployed(place: Place, server: Server) -> Iterator[dict[str, Any]]:
    """The deployment weekly-retrain of the workspace, as `ayeaye deploy` left it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alerts, "SILENCE", timedelta(seconds=10))
        done = place("deploy", "--json")
    assert done.code == 0, done.err
    assert TOKEN not in done.out + done.err
    yield server.get("deployments/name/retrain/alerted-weekly-retrain")
    place.set("alerts.events=[]", "alerts.email=", "alerts.smtp=")
    assert place("deploy").code == 0


@pytest.mark.slow
def test_to_deploy_twice_changes_nothing(place: Place, server: Server, deployed: dict[str, Any]) -> None:
    def there() -> dict[str, str]:
        found = httpx.post(f"{server.url}/automations/filter", json={}, timeout=30).json()
        return {each["name"]: each["id"] for each in found if _is_of(place, each)}

    before = there()
    assert len(before) == 4 * 2 + 1  # kinds of event by channels, and the one about dead runs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alerts, "SILENCE", timedelta(seconds=10))
        assert place("deploy").code == 0
    assert there() == before


@pytest.mark.slow
def test_a_failed_run_is_told_once(
    place: Place, server: Server, deployed: dict[str, Any], receiver: Receiver, mailbox: Mailbox
) -> None:
    run = server.start_run(deployed["id"])
    with _settled():
        server.set_state(run["id"], "FAILED", 'The disk is "full" {{ here }}')
        wait_for(lambda: receiver.of("failed") and len(mailbox.mails) >= 2, 60, "nobody was told")
    (told,) = receiver.of("failed")
    assert told["run"] == run["name"]
    assert (told["flow"], told["state"]) == ("retrain", "Failed")
    assert told["message"] == 'The disk is "full" {{ here }}'
    assert told["workspace"] == str(place.root)
    assert run["id"] in told["address"]
    headers, _ = receiver.calls[-1]
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["content-type"] == "application/json"
    assert sorted(recipients for recipients, _ in mailbox.mails) == [["one@example.org"], ["two@example.org"]]
    for _, mail in mailbox.mails:
        assert "Subject: ayeaye: ayeaye failed" in mail
        assert "From: ayeaye <ayeaye@example.org>" in mail


@pytest.mark.soak
@pytest.mark.slow
def test_a_run_that_falls_silent_is_called_crashed_and_told_once(
    server: Server, deployed: dict[str, Any], receiver: Receiver
) -> None:
    before = len(receiver.of("failed"))
    run = server.start_run(deployed["id"])
    server.emit("prefect.flow-run.heartbeat", f"prefect.flow-run.{run['id']}", deployed["id"])
    with _settled():
        wait_for(lambda: len(receiver.of("failed")) > before, 90, "nobody was told")
    (told,) = receiver.of("failed")[before:]
    assert (told["run"], told["state"]) == (run["name"], "Crashed")
    assert server.get(f"flow_runs/{run['id']}")["state"]["type"] == "CRASHED"


@pytest.mark.slow
def test_what_happens_in_another_workspace_is_not_told(
    server: Server, deployed: dict[str, Any], receiver: Receiver
) -> None:
    before = len(receiver.calls)
    flow = server.post("flows/", name=f"another {uuid.uuid4()}")
    other = server.post("deployments/", name="another", flow_id=flow["id"])
    run = server.start_run(other["id"])
    with _settled():
        server.set_state(run["id"], "FAILED", "not ours")
        server.emit("ayeaye.refused", "ayeaye.workspace.another", other["id"])
    assert len(receiver.calls) == before


@pytest.mark.slow
def test_a_refusal_is_told_once(place: Place, deployed: dict[str, Any], receiver: Receiver) -> None:
    with _settled():
        outcome = place.retrain(expect=3)
        wait_for(lambda: receiver.of("refused"), 60, "nobody was told")
    (told,) = receiver.of("refused")
    assert told["message"] == outcome["message"]
    assert told["details"]["version"] == outcome["version"]
    assert told["flow"] == "retrain"


@pytest.mark.parametrize(
    ("smtp", "scheme", "mode", "port"),
    [
        ("smtp://user@127.0.0.1:587", "mailtos", "starttls", 587),
        ("smtps://us%40er@mail.example.org:465", "mailtos", "ssl", 465),
    ],
)
def test_the_address_of_a_mail_server_is_one_of_apprise(
    smtp: str, scheme: str, mode: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "p@ss:w/rd%41?&"
    monkeypatch.setenv(alerts.SMTP_PASSWORD, password)
    url = alerts.mail_address(Alerts(smtp=smtp, email=["one@example.org", "two@example.org"]))
    assert url.startswith(f"{scheme}://")
    plugin = Apprise.instantiate(url)
    assert plugin is not None
    assert (plugin.password, plugin.secure_mode, plugin.port) == (password, mode, port)
    assert {address for _, address in plugin.targets} == {"one@example.org", "two@example.org"}
    assert plugin.smtp_host in smtp


def test_a_user_of_a_mail_server_needs_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(alerts.SMTP_PASSWORD, raising=False)
    with pytest.raises(ParamsError, match=alerts.SMTP_PASSWORD):
        alerts.mail_address(Alerts(smtp="smtp://user@mail.example.org", email="one@example.org"))


def _is_of(place: Place, automation: dict[str, Any]) -> bool:
    return str(place.root) in automation["description"]
