"""A workspace on a Prefect server: its work pools, the deployments of prefect.yaml, and its alerts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from ayeaye.core.errors import WorkspaceError
from ayeaye.core.workspace import Workspace
from ayeaye.flows import place
from ayeaye.flows.prefect_api import PrefectApi

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

SECONDS = 900  # that `prefect deploy` may take


@dataclass(frozen=True)
class Deployment:
    """A deployment of prefect.yaml, and its work pool."""

    name: str
    entrypoint: str
    pool: str


@dataclass(frozen=True)
class Deployed:
    """What a server has of a workspace, by name; `alerts` are its automations."""

    deployments: list[str]
    pools: list[str]
    alerts: list[str]


def deploy(workspace: Workspace, api: PrefectApi, say: Callable[[str], None]) -> Deployed:
    """Apply prefect.yaml and `alerts` of params.yaml to a Prefect server. Calling it again changes nothing.

    Raises WorkspaceError where the server does not answer, does not take it, or has another workspace's schedules
    under these names.
    """
    from prefect.exceptions import PrefectHTTPStatusError

    from ayeaye.flows import alerts

    if "{{" in str(workspace.root):
        raise WorkspaceError(
            f"{workspace.root} has {{{{ in its name, which is a template to Prefect: move it"
        )
    planned = plan(workspace)
    with api.client() as client:
        if fault := client.api_healthcheck():
            raise WorkspaceError(
                f"Prefect cannot be reached at {api.url} ({fault}): start it, or set PREFECT_API_URL to another"
            )
        try:
            _require_free(client, workspace)
            for pool in planned.pools:
                _make_pool(client, pool)
            say(f"Deploying {', '.join(planned.deployments)}.")
            _prefect_deploy(workspace, api)
            made = alerts.apply(client, workspace, ids(client, workspace, planned.deployments))
        except PrefectHTTPStatusError as error:
            raise WorkspaceError(_refusal(api, error.response.status_code, str(error))) from error
    return Deployed(planned.deployments, planned.pools, made)


def plan(workspace: Workspace) -> Deployed:
    """Return what `deploy` would bring about, as far as the workspace's files say; raises WorkspaceError."""
    from ayeaye.flows import alerts

    listed = deployments(workspace)
    pools = list(dict.fromkeys(each.pool for each in listed))
    return Deployed([each.name for each in listed], pools, alerts.planned(workspace))


def deployments(workspace: Workspace) -> list[Deployment]:
    """Return the deployments of prefect.yaml; raises WorkspaceError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = workspace.root / "prefect.yaml"
    try:
        listed = YAML(typ="safe").load(path)["deployments"]
        return [
            Deployment(each["name"], each.get("entrypoint", ""), each["work_pool"]["name"]) for each in listed
        ]
    except (OSError, YAMLError, KeyError, TypeError, AttributeError) as error:
        raise WorkspaceError(
            f"{path} lists no deployments with a name and a work pool ({type(error).__name__}: {error}): "
            "mend it or restore it with git"
        ) from None


def ids(client: SyncPrefectClient, workspace: Workspace, names: Sequence[str]) -> list[UUID]:
    """Return the ids of the workspace's deployments of these names that the server has."""
    # Another workspace may have one of the same name for a flow of its own.
    return [
        each.id
        for each in _named(client, names)
        if place.belongs_to(each.parameters.get("workspace", "/"), workspace)
    ]


def _named(client: SyncPrefectClient, names: Sequence[str]) -> list[DeploymentResponse]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    wanted = DeploymentFilter(name=DeploymentFilterName(any_=list(names)))
    return client.read_deployments(deployment_filter=wanted, limit=200)


def _require_free(client: SyncPrefectClient, workspace: Workspace) -> None:
    """Raises WorkspaceError where another workspace, which is still there, has these names on the server."""
    listed = {(each.name, each.entrypoint) for each in deployments(workspace)}
    for each in _named(client, [name for name, _ in listed]):
        folder = each.parameters.get("workspace", "/")
        if (each.name, each.entrypoint) not in listed or not place.exists(Path(folder)):
            continue
        if not place.belongs_to(folder, workspace):
            raise WorkspaceError(
                f"the deployment {each.name} on this Prefect server is that of {folder}: give those of "
                f"{workspace.root} names of their own in its prefect.yaml, and watch.retrain the new one"
            )


def _make_pool(client: SyncPrefectClient, name: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def _prefect_deploy(workspace: Workspace, api: PrefectApi) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "deploy", "--all", "--no-prompt"],
            env={**workspace.environment(), **api.environment(), "AYEAYE_WORKSPACE": str(workspace.root)},
            cwd=workspace.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise WorkspaceError(
            f"`prefect deploy` to {api.url} was not done after {SECONDS} s: see whether that server answers, then "
            "`ayeaye deploy`"
        ) from None
    if done.returncode:
        said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).split())
        raise WorkspaceError(f"prefect.yaml of {workspace.root} could not be deployed: {said[-400:]}")


def _refusal(api: PrefectApi, status: int, message: str) -> str:
    if status == 401:
        return (
            f"Prefect at {api.url} asks for a password (401): set PREFECT_API_AUTH_STRING to what its server has as "
            "PREFECT_SERVER_API_AUTH_STRING, such as admin:secret"
        )
    return f"Prefect at {api.url} rejected a request: {message.splitlines()[0][:300]}"
