"""Commands about the servers around a workspace: schedules, pages, alerts and the service, all on one machine."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from ayeaye.cli.common import HERE, AsJson, Folder, app, print_result, say, workspace_at

command = partial(app.command, rich_help_panel="Platform")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")]


@command()
def up(
    workspace: Folder = HERE,
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Of the Prefect server.")] = 4200,
    worker_port: Annotated[int, typer.Option(min=1, max=65535, help="Of the worker's health.")] = 4201,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Of the MLflow server.")] = 5000,
    service_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of the service (params: serve.port).")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Start the whole platform on this machine: Prefect server and worker, MLflow server, the service.

    Schedules and alerts are deployed. Returns once all of it answers, and prints the addresses; the service
    waits for the first champion where there is none. What fails is started again. Logs are in .ayeaye/logs.
    Everything listens on loopback alone, but for the service where serve.host says otherwise. Called again, it
    starts what is missing.
    """
    from ayeaye.flows import platform

    found = workspace_at(workspace)
    ports = platform.Ports(prefect_port, worker_port, mlflow_port, service_port or found.params.serve.port)
    if dry_run:
        is_up, planned = platform.Running.find(found) is not None, platform.Running.planned(found, ports)
        if not is_up:
            platform.require_free(found, ports)
        parts = ", ".join(platform.programs(found, ports))
        result = {"up": is_up, "programs": parts, "addresses": planned.addresses, "dry_run": True}
        print_result(result if as_json else result | planned.addresses, as_json)
        return
    running = platform.up(found, ports, say)
    print_result(asdict(running) if as_json else running.addresses, as_json)


@command()
def down(workspace: Folder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Stop what `ayeaye up` started, the worker first.

    A run at work is stopped, and goes on at the next `ayeaye up`.
    """
    from ayeaye.flows import platform

    found = workspace_at(workspace)
    stopped = platform.Running.find(found) is not None if dry_run else platform.down(found, say)
    print_result({"was_up": stopped, "dry_run": dry_run}, as_json)


@command()
def deploy(workspace: Folder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Bring a Prefect server up to prefect.yaml and to `alerts` in params.yaml: work pool, schedules, automations.

    The server is that of `ayeaye up`, which does this too, else the one of PREFECT_API_URL. To be called after
    either file was changed. Secrets of the alerts are read from AYEAYE_ALERTS_WEBHOOK, AYEAYE_ALERTS_TOKEN and
    AYEAYE_SMTP_PASSWORD and lie in Prefect's encrypted blocks.
    """
    from ayeaye.flows import deploy as deploying
    from ayeaye.flows.server import deployment_api

    found = workspace_at(workspace)
    api = deployment_api(found)
    deployed = deploying.plan(found) if dry_run else deploying.deploy(found, api, say)
    result = {**asdict(deployed), "server": api.url, "dry_run": dry_run}
    shown = {key: ", ".join(value) if isinstance(value, list) else value for key, value in result.items()}
    print_result(result if as_json else shown, as_json)
