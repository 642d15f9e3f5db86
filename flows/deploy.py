"""A workspace on a Prefect server: its work pools, the deployments of prefect.yaml, and its alerts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from ayeaye.errors import WorkspaceError
from ayeaye.workspace import Workspace

POOL = "ayeaye"
PATIENCE = 300


def deploy(workspace: Workspace, url: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Bring the server whose API is at `url` up to prefect.yaml and to `alerts` of params.yaml.

    Idempotent. Returns `deployments`, `pools` and `alerts` by name; raises WorkspaceError where the server does
    not answer or does not take it.
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
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = workspace.root / "prefect.yaml"
    try:
        listed = YAML(typ="safe").load(path)["deployments"]
        names = [each["name"] for each in listed]
        pools = [each["work_pool"]["name"] for each in listed]
    except (OSError, YAMLError, KeyError, TypeError, AttributeError) as error:
        raise WorkspaceError(
            f"{path} lists no deployments with a name and a work pool ({type(error).__name__}: {error}): "
            "mend it or restore it with git"
        ) from None
    return {"deployments": names, "pools": list(dict.fromkeys(pools))}


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
    environment = {**os.environ, **workspace.environment(), **variables}
    done = subprocess.run(
        command,
        env=environment,
        cwd=workspace.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if done.returncode:
        said = [
            line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).splitlines()
        ]
        raise WorkspaceError(
            f"prefect.yaml of {workspace.root} could not be deployed: {' '.join(filter(None, said))[-400:]}"
        )


def ids(client: Any, workspace: Workspace, names: list[str]) -> list[UUID]:
    """Of the workspace's deployments of these names, those that the server has."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    named = client.read_deployments(
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=names)), limit=200
    )
    # Another workspace may have one of the same name for a flow of its own.
    return [each.id for each in named if each.parameters.get("workspace") == str(workspace.root)]
