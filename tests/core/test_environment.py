"""What redirects a child goes out of its environment, what a person set on purpose stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import certifi
import httpx
import pytest

from ayeaye.core import environment
from ayeaye.core.environment import GUARD, LATER, amended, unused
from ayeaye.core.processes import await_start, free_port, guarded, start, stop

PROXY = "http://user:secret@proxy.example.org:3128"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_OBJECT_DIRECTORY",
            "GIT_PREFIX",
            "GIT_NAMESPACE",
        ),
        *(
            "GIT_ALTERNATE_OBJECT_DIRECTORIES",
            "GIT_CEILING_DIRECTORIES",
            "GIT_COMMON_DIR",
            "GIT_CONFIG_COUNT",
        ),
        *(
            "GIT_CONFIG_KEY_0",
            "GIT_CONFIG_PARAMETERS",
            "GIT_TEMPLATE_DIR",
            "GIT_DEFAULT_HASH",
            "GIT_AUTHOR_DATE",
        ),
        *("GIT_QUARANTINE_PATH", "GIT_LITERAL_PATHSPECS", "GIT_SHALLOW_FILE", "GIT_EXTERNAL_DIFF"),
        *("PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONIOENCODING"),
        *("DVC_EXP_NAME", "DVC_STAGE", "DVC_ROOT", "GX_CLOUD_ACCESS_TOKEN", "WEB_CONCURRENCY", "UVICORN_UDS"),
        *("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"),
        *("BENTOML_CONFIG", "BENTOML_CONFIG_OPTIONS", "BENTOML_PORT", "GUNICORN_CMD_ARGS"),
        *("PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_CLOUD_API_URL", "PREFECT_SERVER_API_BASE_PATH"),
    ],
)
def test_what_redirects_goes(name: str) -> None:
    assert name not in amended({name: "x"})


@pytest.mark.parametrize(
    "name",
    [
        *("GIT_AUTHOR_NAME", "GIT_COMMITTER_EMAIL", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO"),
        *(
            "AWS_ACCESS_KEY_ID",
            "PGPASSWORD",
            "MLFLOW_TRACKING_TOKEN",
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_S3_ENDPOINT_URL",
        ),
        *(
            "MLFLOW_BACKEND_STORE_URI",
            "MLFLOW_ARTIFACTS_DESTINATION",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        ),
        *("PREFECT_LOGGING_LEVEL", "PREFECT_API_AUTH_STRING", "DVC_GLOBAL_CONFIG_DIR", "BENTOML_HOME"),
        *(
            "OMP_NUM_THREADS",
            "CUDA_VISIBLE_DEVICES",
            "LC_ALL",
            "TERM",
            "COLUMNS",
            "NO_COLOR",
            "HOME",
            "PYTHONHASHSEED",
        ),
        *("PYTHONDONTWRITEBYTECODE", "AYEAYE_TOKEN", "FORWARDED_ALLOW_IPS", "XDG_CONFIG_HOME", "PATH"),
    ],
)
def test_what_a_person_set_on_purpose_stays(name: str) -> None:
    assert amended({name: "x"})[name] == "x"


def test_of_a_persons_git_settings_only_who_they_are_is_read() -> None:
    made = amended(amended({"GIT_CONFIG_GLOBAL": "/home/ann/gitconfig"}))
    assert made["GIT_CONFIG_GLOBAL"] == str(environment.GIT_CONFIG) and made["GIT_CONFIG_NOSYSTEM"] == "1"
    own = environment.with_own_git(made)
    assert own["GIT_CONFIG_GLOBAL"] == "/home/ann/gitconfig" and "GIT_CONFIG_NOSYSTEM" not in own
    assert "GIT_CONFIG_GLOBAL" not in environment.with_own_git(amended({}))


def test_git_settings_that_are_chosen_later_win() -> None:
    made = amended({"HOME": "/home/ann"}) | {"GIT_CONFIG_GLOBAL": "/home/ann/gitconfig"}
    assert environment.with_own_git(amended(made))["GIT_CONFIG_GLOBAL"] == "/home/ann/gitconfig"


@pytest.mark.parametrize("name", ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME"])
def test_git_commits_for_nobody_without_a_name(name: str) -> None:
    assert name not in amended({name: ""}) and name not in amended({name: " "})


def test_a_prefect_server_of_ones_choice_keeps_all_that_belongs_to_it() -> None:
    given = {
        "PREFECT_API_URL": "https://prefect.example.org/api",
        "PREFECT_API_KEY": "k",
        "PREFECT_PROFILE": "work",
    }
    assert given.items() <= amended(given).items()
    assert "PREFECT_API_URL" not in amended({"PREFECT_API_URL": ""})


def test_our_own_prefect_server_and_its_clients_know_one_password() -> None:
    given = {"PREFECT_SERVER_API_AUTH_STRING": "a:b", "PREFECT_API_AUTH_STRING": "another's"}
    assert amended(given)["PREFECT_API_AUTH_STRING"] == "a:b"


def test_figures_are_drawn_without_a_screen_and_stages_run_by_a_shell() -> None:
    made = amended({"MPLBACKEND": "module://matplotlib_inline.backend_inline", "SHELL": "/usr/sbin/nologin"})
    assert made["MPLBACKEND"] == "Agg" and made["SHELL"] == "/bin/sh"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_loopback_is_reached_without_a_proxy_and_the_rest_through_it(name: str) -> None:
    made = amended({name: PROXY, "NO_PROXY": ".corp.example.org", "no_proxy": "10.0.0.1 localhost"})
    assert made[name] == PROXY
    hosts = "10.0.0.1,localhost,.corp.example.org,127.0.0.1,::1"
    assert made["NO_PROXY"] == made["no_proxy"] == hosts


def test_without_proxies_nothing_is_said_of_them() -> None:
    star = amended({"HTTP_PROXY": PROXY, "NO_PROXY": "*"})
    assert star["NO_PROXY"] == star["no_proxy"] == "*"  # known where it stands alone
    assert not {"NO_PROXY", "no_proxy"} & amended({"PATH": "/bin"}).keys()


@pytest.mark.parametrize(
    "hosts",
    [
        *("[::1]", "::1/128,fd00::/8", "a b", "*", "*.corp, .corp", "localhost:8080"),
        *("[::1]:8080", "localhost:*", "é.corp", "fd00::1", "10.0.0.0/8", "https://a.corp"),
    ],
)
@pytest.mark.parametrize("proxy", [PROXY, ""])
def test_no_list_of_hosts_is_a_traceback_of_a_client(
    hosts: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_of(monkeypatch, {"HTTP_PROXY": proxy, "NO_PROXY": hosts})
    with httpx.Client() as client:
        assert isinstance(client, httpx.Client)


def test_of_hosts_without_a_proxy_those_that_can_be_read_stay() -> None:
    hosts = "[::1]:8080,localhost:*,é.corp,::1/128,fd00::1,10.0.0.0/8,.corp,a:8080"
    assert amended({"NO_PROXY": hosts})["NO_PROXY"] == (
        "fd00::1,10.0.0.0/8,.corp,a:8080,127.0.0.1,localhost,::1"
    )


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "socks4://127.0.0.1:1080", "ftp://127.0.0.1"])
def test_a_proxy_that_no_client_knows_is_told_of_and_not_used(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    assert list(unused({"ALL_PROXY": proxy})) == ["ALL_PROXY"]
    environment_of(monkeypatch, {"ALL_PROXY": proxy, "all_proxy": proxy})
    with httpx.Client():
        pass


@pytest.mark.parametrize("proxy", ["http://user:p#ss@proxy:3128", "user:p/ss@proxy", "http://proxy:port"])
def test_a_proxy_that_is_no_url_is_told_of_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((name, reason),) = unused({"HTTP_PROXY": proxy}).items()
    assert name == "HTTP_PROXY" and reason.startswith("it is no URL") and proxy not in reason
    environment_of(monkeypatch, {"HTTP_PROXY": proxy, "https_proxy": proxy})
    with httpx.Client():
        pass


def test_a_socks_proxy_is_used_where_its_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: object())
    assert amended({"ALL_PROXY": "socks5h://127.0.0.1:1080"})["ALL_PROXY"]


@pytest.mark.parametrize(
    "name",
    [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "PREFECT_API_SSL_CERT_FILE",
        "TMPDIR",
    ],
)
def test_a_file_is_used_where_it_is_there(name: str, tmp_path: Path) -> None:
    there = certifi.where() if name.endswith(("FILE", "BUNDLE")) else str(tmp_path)
    assert amended({name: there})[name] == there
    assert name not in amended({name: str(tmp_path / "gone")})
    assert unused({name: str(tmp_path / "gone")}) == {name: f"there is no {tmp_path / 'gone'}"}


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "PREFECT_API_SSL_CERT_FILE"])
def test_a_file_without_certificates_is_not_used(name: str, tmp_path: Path) -> None:
    for path in (os.devnull, str(tmp_path)):
        assert unused({name: path}) == {name: f"{path} holds no certificates that can be read"}
        assert name not in amended({name: path})


def test_keys_of_connections_are_logged_where_they_can_be(tmp_path: Path) -> None:
    assert unused({"SSLKEYLOGFILE": str(tmp_path / "keys")}) == {}
    for path in (tmp_path, tmp_path / "gone" / "keys"):
        assert list(unused({"SSLKEYLOGFILE": str(path)})) == ["SSLKEYLOGFILE"]
        assert "SSLKEYLOGFILE" not in amended({"SSLKEYLOGFILE": str(path)})


def test_what_is_amended_stays_as_it_is(tmp_path: Path) -> None:
    given = {"HTTP_PROXY": PROXY, "PYTHONPATH": f"{tmp_path}:here", "PREFECT_SERVER_API_AUTH_STRING": "a:b"}
    assert amended(amended(given)) == amended(given)


def environment_of(monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str]) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        for each in (name, name.lower()):
            monkeypatch.delenv(each, raising=False)
    for name, value in amended(given).items():
        monkeypatch.setenv(name, value)


# Python's path


def hidden(folder: Path) -> Path:
    """Modules that would hide Python's own, ours and others'."""
    for name in ("random", "queue", "types", "typing_extensions", "mine"):
        (folder / f"{name}.py").write_text("taken = True\n")
    for name in ("flows", "ayeaye"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("taken = True\n")
    return folder


def test_the_modules_of_pythonpath_and_of_the_current_folder_come_last(tmp_path: Path) -> None:
    folder = hidden(tmp_path)
    made = amended({**os.environ, "PYTHONPATH": str(folder)})
    assert made["PYTHONPATH"] == str(GUARD) and made[LATER] == str(folder)
    program = (
        "import random, queue, types, ayeaye.flows.schedule, mine; print(random.randrange(1), mine.taken)"
    )
    for env in (made, guarded(made)):
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, cwd=folder, capture_output=True, text=True
        )
        assert done.stdout.split() == ["0", "True"], done.stderr


def test_a_process_that_nobody_guards_outlives_its_parent(tmp_path: Path) -> None:
    made = amended({**os.environ, "PYTHONPATH": str(tmp_path)})
    child = "import os, sys, time; time.sleep(1); open(sys.argv[1], 'w').close()"
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])"
    subprocess.run([sys.executable, "-c", program, child, str(tmp_path / "there")], env=made, check=True)
    until = time.monotonic() + 60
    while not (tmp_path / "there").exists():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize(
    "way", [["-m", "ayeaye"], ["-c", "import sys; from ayeaye.cli import main; sys.exit(main())"]]
)
def test_the_command_line_starts_beside_modules_of_the_same_names(tmp_path: Path, way: list[str]) -> None:
    folder = hidden(tmp_path)
    (folder / "types.py").unlink()  # with that Python itself does not start
    (folder / "ayeaye" / "__init__.py").unlink()
    (folder / "ayeaye").rmdir()
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, *way, "--version"], env=env, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_where_ayeaye_itself_is_found_by_pythonpath_it_stays_first() -> None:
    source = str(environment.PACKAGE.parent)
    assert amended({"PYTHONPATH": source})["PYTHONPATH"] == os.pathsep.join((str(GUARD), source))


# Waiting for what starts

SLOW = """
import http.server, sys, time
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    sum(range(10_000))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler).serve_forever()
"""


class Starting:
    """A server that computes before it listens."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.port = free_port()
        command = [sys.executable, "-c", SLOW, str(self.port), str(seconds)]
        self.process = start(command, env=os.environ, cwd=folder, log=subprocess.DEVNULL)
        self.said: list[str] = []

    def ready(self) -> bool:
        try:
            httpx.get(f"http://127.0.0.1:{self.port}", timeout=1, trust_env=False)
        except httpx.HTTPError:
            return False
        return True

    def ended(self) -> str | None:
        return None if self.process.poll() is None else f"it ended with {self.process.returncode}"

    def wait(self, **limits: float) -> str | None:
        try:
            return await_start(
                "the slow one", self.ready, self.ended, lambda: self.process.pid, self.said.append, **limits
            )
        finally:
            stop(self.process)


def test_what_computes_is_waited_for_and_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ayeaye.core.processes._TOLD", 1.0)
    starting = Starting(tmp_path, 5)
    assert starting.wait(stalled=3) is None
    assert starting.said and starting.said[0].startswith("Still waiting for the slow one (")


def test_what_hangs_is_given_up(tmp_path: Path) -> None:
    starting = Starting(tmp_path, 60)
    starting.process.send_signal(signal.SIGSTOP)
    reason = starting.wait(stalled=2)
    assert reason is not None and "the slow one did not answer within" in reason and "did nothing" in reason


def test_what_computes_for_ever_is_given_up_in_the_end(tmp_path: Path) -> None:
    reason = Starting(tmp_path, 600).wait(longest=3)
    assert reason is not None and "did nothing" not in reason


def test_what_ends_is_not_waited_for(tmp_path: Path) -> None:
    starting = Starting(tmp_path, 600)
    starting.process.kill()
    assert starting.wait() == "it ended with -9"
