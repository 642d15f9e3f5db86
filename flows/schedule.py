"""Runs that a schedule missed are made up once.

Prefect schedules weeks ahead. While its worker or its server is down the due runs wait, and all of them would
run afterwards, one after the other, each on the same data.
"""

from __future__ import annotations

from collections.abc import Callable

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.states import Cancelled
from prefect.types._datetime import now


def make_up_once(say: Callable[[str], None]) -> int:
    """Cancel the scheduled runs of this run's deployment that are due already; returns how many they were.

    Called at the start of a flow. This run does what each of them would have done. Those that a person started
    are left alone, and so is every run of no deployment.
    """
    context = FlowRunContext.get()
    this = context.flow_run if context else None
    if this is None or this.deployment_id is None:
        return 0
    with get_client(sync_client=True) as client:
        waiting = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[this.deployment_id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=now("UTC")),
            ),
        )
        missed = [run for run in waiting if run.auto_scheduled and run.id != this.id]
        for run in missed:
            client.set_flow_run_state(run.id, Cancelled(message=f"Made up for by {this.name}."))
    if missed:
        say(f"This run makes up for {len(missed)} that were missed.")
    return len(missed)
