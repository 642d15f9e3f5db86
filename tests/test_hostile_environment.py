"""init, retrain, label and serve among variables that hooks, notebooks, CI and other projects export, all at once."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
import workspaces
from workspaces import Done, wait_for

from ayeaye.core.processes import free_port, start, stop

GIT_CONFIG = """[commit]
	gpgsign = true
[tag]
	gpgsign = true
[gpg]
	program = /bin/false
[core]
	hooksPath = {hooks}
	autocrlf = true
	fsmonitor = /bin/false
	excludesFile = {ignored}
[init]
	templateDir = {templates}
	defaultObjectFormat = sha256
[user]
	name = Ann
	email = ann@example.org
"""
MODULES = ("random", "queue", "typing_extensions", "utils")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of another project, whose hook runs ayeaye, with settings, programs and modules around it."""
    folder = tmp_path_factory.mktemp("other")
    subprocess.run(["git", "init", "--quiet", folder / "project"], check=True)
    (folder / "project" / "file").write_text("theirs\n")
    for part in ("hooks", "templates/hooks", "bin", "modules/flows"):
        (folder / part).mkdir(parents=True)
    for program in (
        "hooks/post-commit",
        "hooks/prepare-commit-msg",
        "templates/hooks/prepare-commit-msg",
        "bin/ayeaye",
    ):
        (folder / program).write_text("#!/bin/sh\nexit 9\n")
        (folder / program).chmod(0o755)
    for name in (*MODULES, "flows/__init__"):
        (folder / "modules" / f"{name}.py").write_text("")
    (folder / "ignored").write_text("*.yaml\n*.lock\n")
    names = {"hooks": folder / "hooks", "templates": folder / "templates", "ignored": folder / "ignored"}
    (folder / "gitconfig").write_text(GIT_CONFIG.format(**names))
    return folder


@pytest.fixture(scope="module")
def hostile(other: Path) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {
        "GIT_DIR": str(other / "project" / ".git"),
        "GIT_INDEX_FILE": str(other / "project" / ".git" / "index"),
        "GIT_WORK_TREE": str(other / "project"),
        "GIT_CONFIG_GLOBAL": str(other / "gitconfig"),
        "GIT_TEMPLATE_DIR": str(other / "templates"),
        **dict.fromkeys(("HTTP_PROXY", "https_proxy"), "http://127.0.0.1:1"),
        "ALL_PROXY": "socks5://127.0.0.1:1",
        "NO_PROXY": "[::1]",
        "REQUESTS_CA_BUNDLE": "/gone",
        "SSL_CERT_FILE": "/gone",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PATH": f"{other / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SHELL": "/bin/false",
        "PYTHONPATH": str(other / "modules"),
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "1",
        "PREFECT_API_KEY": "theirs",
        "PREFECT_PROFILE": "theirs",
        "PREFECT_SERVER_API_AUTH_STRING": "ann:secret",
        "PREFECT_SERVER_API_BASE_PATH": "/theirs",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://ann@127.0.0.1:1/theirs",
        "MLFLOW_EXPERIMENT_NAME": "theirs",
        "MLFLOW_REGISTRY_URI": "http://127.0.0.1:1",
        "MLFLOW_RUN_ID": "0" * 32,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        "BENTOML_CONFIG": "/gone.yaml",
        "BENTOML_CONFIG_OPTIONS": "api_server.port=1",
        "DVC_EXP_NAME": "theirs",
        "DVC_ROOT": str(other / "project"),
        "GX_CLOUD_ACCESS_TOKEN": "theirs",
        "GX_CLOUD_BASE_URL": "http://127.0.0.1:1",
        "HOME": str(other.with_name("gone")),
        "TMPDIR": str(other / "gone"),
        "WEB_CONCURRENCY": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "20",
        "LC_ALL": "C",
        "TERM": "dumb",
    }


def ayeaye(other: Path, hostile: Mapping[str, str], *arguments: object) -> Done:
    command = [workspaces.PROGRAM, *map(str, arguments)]
    done = subprocess.run(
        command, env=hostile, cwd=other / "modules", capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return Done(done.returncode, done.stdout, done.stderr)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_no_variable_leads_init_retrain_label_and_serve_astray(
    other: Path, hostile: Mapping[str, str], small: tuple[str, ...], tmp_path: Path
) -> None:
    before = files_of(other)
    root, source = tmp_path / "workspace", workspaces.write_paints(tmp_path / "paints")
    settings = [part for each in (f"prepare.path={source}", *small) for part in ("--set", each)]
    laid = ayeaye(other, hostile, "init", root, *settings)
    assert laid.code == 0, laid.err
    trained = ayeaye(other, hostile, "retrain", "--workspace", root, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["outcome"] == "promoted"
    assert (
        "ALL_PROXY is not used" in trained.err
        and "SSL_CERT_FILE is not used: there is no /gone" in trained.err
    )

    log = subprocess.run(["git", "log", "--format=%an %s"], cwd=root, capture_output=True, text=True).stdout
    assert log.splitlines()[-1] == "Ann Lay down the workspace"
    assert log.startswith("Ann Retrain on dataset ")
    assert b"\r" not in (root / "params.yaml").read_bytes()

    labels = tmp_path / "labels.csv"
    labelled = ayeaye(
        other, hostile, "label", source / "images" / workspaces.UNSEEN[0], "--out", labels, "-w", root
    )
    assert labelled.code == 0, labelled.err
    assert workspaces.UNSEEN[0] in labels.read_text()

    port = free_port()
    command = [workspaces.PROGRAM, "serve", "--workspace", str(root), "--port", str(port)]
    with (tmp_path / "serve.log").open("wb") as output:
        process = start(command, env=hostile, cwd=other / "modules", log=output)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: _answers(f"{url}/readyz"), 300, "the service is not ready")
            picture = next((source / "images" / workspaces.UNSEEN[0]).iterdir()).read_bytes()
            answer = httpx.post(f"{url}/classify", files={"image": picture}, timeout=60, trust_env=False)
            assert answer.status_code == 200, answer.text
            assert json.loads(answer.text)["label"]
        finally:
            stop(process)
    assert files_of(other) == before


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
