"""Alerts: automations of the Prefect server that call a webhook and send mail, made from `alerts` in params.yaml.

An automation for each kind of event, one for each address that it goes to, so that a mail server that is down
keeps no webhook from being called. Where the addresses lie they are kept in Prefect's encrypted blocks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast
from urllib.parse import quote, unquote, urlencode, urlsplit
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from ayeaye.core.errors import ParamsError
from ayeaye.core.params import Alerts
from ayeaye.core.workspace import Workspace
from ayeaye.flows import events

# Secrets, which no params.yaml need hold.
WEBHOOK, TOKEN, SMTP_PASSWORD = "AYEAYE_ALERTS_WEBHOOK", "AYEAYE_ALERTS_TOKEN", "AYEAYE_SMTP_PASSWORD"
SECRETS = (WEBHOOK, TOKEN, SMTP_PASSWORD)
PAGE = 200
ENDED_BADLY = ["prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"]
HEARTBEAT, SILENCE = (
    "prefect.flow-run.heartbeat",
    timedelta(minutes=9),
)  # three heartbeats of Prefect's default

_RUN = {
    "flow": "{{ flow.name | default(none) | tojson }}",
    "run": "{{ flow_run.name | default(none) | tojson }}",
    "address": "{{ (flow_run | ui_url if flow_run else none) | tojson }}",
}
_FAILED = {
    **_RUN,
    "state": "{{ flow_run.state.name | tojson }}",
    "message": "{{ flow_run.state.message | tojson }}",
}
_HAPPENED = {
    **_RUN,
    "message": "{{ event.payload.message | tojson }}",
    "details": "{{ event.payload | tojson }}",
}
_AT = "\n\n{{ (flow_run | ui_url if flow_run else none) or '' }}"
_MAILED = {
    "failed": "{{ flow.name }} ({{ flow_run.name }}): {{ flow_run.state.message }}" + _AT,
    "happened": "{{ event.payload.message }}" + _AT,
}


def apply(client: SyncPrefectClient, workspace: Workspace, deployments: Sequence[UUID]) -> list[str]:
    """Bring the server's blocks and automations of this workspace up to its parameters; returns the latter's names.

    `deployments` are those whose failed runs are told. What is there and not wanted any more is deleted;
    a second call changes nothing.
    """
    wanted, blocks = [_dead_runs(workspace, deployments)], _save(workspace)
    for kind in workspace.params.alerts.events:
        trigger = _trigger(workspace, kind, deployments)
        for channel, block in blocks.items():
            wanted.append(
                AutomationCore(
                    name=_name(workspace, f"{kind} by {channel}"),
                    description=f"Made by `ayeaye deploy` for {workspace.root}.",
                    trigger=trigger,
                    actions=[_action(workspace, kind, channel, block)],
                )
            )
    there = _own(client, workspace)
    for automation in wanted:
        if known := there.pop(automation.name, None):
            # Of a model what was left to its defaults would not be sent, the types of what it holds included.
            whole = automation.model_dump(exclude={"owner_resource"})
            client.update_automation(known, AutomationCore.model_validate(whole))
        else:
            client.create_automation(automation)
    for id in there.values():
        client.delete_automation(id)
    return [automation.name for automation in wanted]


def planned(workspace: Workspace) -> list[str]:
    """What `apply` would send: the kinds of event, and how each of them is told."""
    channels = _channels(workspace.params.alerts)
    return [f"{kind} by {channel}" for kind in workspace.params.alerts.events for channel in channels]


def _channels(alerts: Alerts) -> dict[str, Block]:
    channels: dict[str, Block] = {}
    given = alerts.webhook.get_secret_value() if alerts.webhook else None
    if url := os.environ.get(WEBHOOK) or given:
        token = os.environ.get(TOKEN)
        authorization = {"authorization": f"Bearer {token}"} if token else {}
        channels["webhook"] = Webhook.model_validate(
            {"url": url, "headers": {"content-type": "application/json", **authorization}}
        )
    if alerts.recipients:
        # Of Prefect's blocks the one that takes any address of Apprise's as it is.
        channels["mail"] = SlackWebhook.model_validate({"url": mail_address(alerts)})
    return channels


def mail_address(alerts: Alerts) -> str:
    """Recipients and mail server as one address of Apprise's; the password is from the environment."""
    parts = urlsplit(alerts.smtp or "")
    host, port = parts.hostname or "", parts.port
    user, password = unquote(parts.username or ""), os.environ.get(SMTP_PASSWORD, "")
    if user and not password:
        raise ParamsError(f"alerts.smtp has the user {user}: set {SMTP_PASSWORD} to its password")
    mode = "ssl" if parts.scheme == "smtps" else "starttls" if user else "insecure"
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    query = {
        "smtp": host,
        "from": alerts.sender or alerts.recipients[0],
        "name": "ayeaye",
        "to": ",".join(alerts.recipients),
        "mode": mode,
        "format": "text",
    }
    scheme = "mailto" if mode == "insecure" else "mailtos"
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{login}{shown}{f':{port}' if port else ''}?{urlencode(query)}"


def _save(workspace: Workspace) -> dict[str, UUID]:
    """The blocks of the channels on the server, by channel."""
    return {
        channel: cast(UUID, block.save(f"ayeaye-{workspace.identity[:12]}-{channel}", overwrite=True))
        for channel, block in _channels(workspace.params.alerts).items()
    }


def _action(workspace: Workspace, kind: str, channel: str, block: UUID) -> CallWebhook | SendNotification:
    if channel == "webhook":
        return CallWebhook(block_document_id=block, payload=_payload(workspace, kind))
    body = _MAILED["failed" if kind == "failed" else "happened"]
    subject = f"ayeaye: {workspace.params.release.model} {kind}"
    return SendNotification(block_document_id=block, subject=subject, body=body)


def _payload(workspace: Workspace, kind: str) -> str:
    """The template of a webhook's JSON; what Prefect puts into it is encoded there."""
    fixed = {"event": kind, "model": workspace.params.release.model, "workspace": str(workspace.root)}
    pairs = {key: _literal(value) for key, value in fixed.items()}
    pairs["occurred"] = "{{ event.occurred | string | tojson }}"
    pairs |= _FAILED if kind == "failed" else _HAPPENED
    return "{" + ", ".join(f"{_literal(key)}: {value}" for key, value in pairs.items()) + "}"


def _literal(text: str) -> str:
    """JSON that holds no template, whatever a folder is called."""
    return json.dumps(text).replace("{", r"\u007b")


def _trigger(workspace: Workspace, kind: str, deployments: Sequence[UUID]) -> EventTrigger:
    """Fires once for each event of that kind in this workspace."""
    if kind == "failed":
        return EventTrigger(
            expect=set(ENDED_BADLY),
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of_deployments(deployments),
            posture=Posture.Reactive,
            threshold=1,
        )
    return EventTrigger(
        expect={events.PREFIX + kind},
        match={"prefect.resource.id": events.resource(workspace)},
        posture=Posture.Reactive,
        threshold=1,
    )


def _dead_runs(workspace: Workspace, deployments: Sequence[UUID]) -> AutomationCore:
    """Calls a run crashed whose process has fallen silent, so that it is told, and waits for nothing for ever."""
    return AutomationCore(
        name=_name(workspace, "runs that died"),
        description=f"Made by `ayeaye deploy` for {workspace.root}.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={"prefect.flow-run.*"},  # another one, the end, or that it is scheduled again
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of_deployments(deployments),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                force=False,
                state=StateType.CRASHED,
                name="Crashed",
                message="Its process fell silent; the next run goes on.",
            )
        ],
    )


def _of_deployments(deployments: Sequence[UUID]) -> dict[str, Any]:
    return {
        "prefect.resource.role": "deployment",
        "prefect.resource.id": [f"prefect.deployment.{id}" for id in deployments],
    }


def _name(workspace: Workspace, what: str) -> str:
    return f"ayeaye {workspace.identity[:12]} ({workspace.params.release.model}): {what}"


def _own(client: SyncPrefectClient, workspace: Workspace) -> dict[str, UUID]:
    """By name, also those from when release.model had another name."""
    found: dict[str, UUID] = {}
    seen = 0
    while page := client.read_automations(limit=PAGE, offset=seen):
        seen += len(page)
        found |= {each.name: each.id for each in page}
    return {name: id for name, id in found.items() if name.startswith(f"ayeaye {workspace.identity[:12]} ")}
