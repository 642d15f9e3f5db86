"""A workspace on a Prefect server: its work pools, the deployments of prefect.yaml, and its alerts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from ayeaye.core.errors import WorkspaceError
from ayeaye.core.workspace import Workspace
from ayeaye.flows import place

POOL = "ayeaye"
PATIENCE = 900


def deploy(workspace: Workspace, url: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Bring the server whose API is at `url` up to prefect.yaml and to `alerts` of params.yaml.

    Idempotent. Returns `deployments`, `pools` and `alerts` by name; raises WorkspaceError where the server does
    not answer, does not take it, or has another workspace's schedules under these names.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from ayeaye.flows import alerts

    if "{{" in str(workspace.root):
        raise WorkspaceError(
            f"{workspace.root} has {{{{ in its name, which is a template to Prefect: move it"
        )
    found = read(workspace)
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        if fault := client.api_healthcheck():
            raise WorkspaceError(
                f"Prefect cannot be reached at {url} ({fault}): start it, or set PREFECT_API_URL to another"
            )
        try:
            _require_free(client, workspace)
            for pool in found["pools"]:
                _make_pool(client, pool)
            say(f"Deploying {', '.join(found['deployments'])}.")
            _prefect_deploy(workspace, url)
            made = alerts.apply(client, workspace, ids(client, workspace, found["deployments"]))
        except PrefectHTTPStatusError as error:
            raise WorkspaceError(
                f"Prefect at {url} did not take it: {str(error).splitlines()[0][:300]}"
            ) from error
    return {**found, "alerts": made, "server": url}


def plan(workspace: Workspace) -> dict[str, Any]:
    """What `deploy` would bring about, as far as the workspace's files say."""
    from ayeaye.flows import alerts

    return {**read(workspace), "alerts": alerts.planned(workspace)}


def read(workspace: Workspace) -> dict[str, list[str]]:
    """The `deployments` of prefect.yaml and their work `pools`, by name; raises WorkspaceError."""
    listed = _listed(workspace)
    pools = [pool for _, _, pool in listed]
    return {"deployments": [name for name, _, _ in listed], "pools": list(dict.fromkeys(pools))}


def _listed(workspace: Workspace) -> list[tuple[str, str, str]]:
    """Name, entrypoint and work pool of each deployment."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = workspace.root / "prefect.yaml"
    try:
        listed = YAML(typ="safe").load(path)["deployments"]
        return [(each["name"], each.get("entrypoint", ""), each["work_pool"]["name"]) for each in listed]
    except (OSError, YAMLError, KeyError, TypeError, AttributeError) as error:
        raise WorkspaceError(
            f"{path} lists no deployments with a name and a work pool ({type(error).__name__}: {error}): "
            "mend it or restore it with git"
        ) from None


def _require_free(client: Any, workspace: Workspace) -> None:
    """Raises WorkspaceError where another workspace, which is still there, has these names on the server."""
    listed = {(name, entrypoint) for name, entrypoint, _ in _listed(workspace)}
    for each in _named(client, [name for name, _ in listed]):
        folder = each.parameters.get("workspace", "/")
        if (each.name, each.entrypoint) not in listed or not place.exists(Path(folder)):
            continue
        if not place.is_of(folder, workspace):
            raise WorkspaceError(
                f"the deployment {each.name} on this Prefect server is that of {folder}: give those of "
                f"{workspace.root} names of their own in its prefect.yaml, and watch.retrain the new one"
            )


def _make_pool(client: Any, name: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def _prefect_deploy(workspace: Workspace, url: str) -> None:
    command = [sys.executable, "-m", "prefect", "deploy", "--all", "--no-prompt"]
    variables = {"PREFECT_API_URL": url, "AYEAYE_WORKSPACE": str(workspace.root)}
    environment = workspace.environment() | variables
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=workspace.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise WorkspaceError(
            f"`prefect deploy` to {url} was not done after {PATIENCE} s: see whether that server answers, then "
            "`ayeaye deploy`"
        ) from None
    if done.returncode:
        said = [
            line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).splitlines()
        ]
        raise WorkspaceError(
            f"prefect.yaml of {workspace.root} could not be deployed: {' '.join(filter(None, said))[-400:]}"
        )


def ids(client: Any, workspace: Workspace, names: list[str]) -> list[UUID]:
    """Of the workspace's deployments of these names, those that the server has."""
    # Another workspace may have one of the same name for a flow of its own.
    return [
        each.id
        for each in _named(client, names)
        if place.is_of(each.parameters.get("workspace", "/"), workspace)
    ]


def _named(client: Any, names: list[str]) -> list[Any]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    return client.read_deployments(
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=names)), limit=200
    )
