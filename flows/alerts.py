"""Alerts: automations of the Prefect server that call a webhook and send mail, made from `alerts` in params.yaml.

An automation for each kind of event, one for each address that it goes to, so that a mail server that is down
keeps no webhook from being called. Where the addresses lie they are kept in Prefect's encrypted blocks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast
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
ENDED_BADLY = {"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"}
HEARTBEAT = "prefect.flow-run.heartbeat"
SILENCE = timedelta(minutes=9)  # three heartbeats of Prefect's default

# Prefect's templates: of a webhook's JSON, and of a mail.
_ADDRESS = "(flow_run | ui_url if flow_run else none)"
_RUN = {
    "flow": "{{ flow.name | default(none) | tojson }}",
    "run": "{{ flow_run.name | default(none) | tojson }}",
    "address": f"{{{{ {_ADDRESS} | tojson }}}}",
}
_FAILED = {
    "state": "{{ flow_run.state.name | tojson }}",
    "message": "{{ flow_run.state.message | tojson }}",
}
_HAPPENED = {"message": "{{ event.payload.message | tojson }}", "details": "{{ event.payload | tojson }}"}
_FAILED_MAIL = "{{ flow.name }} ({{ flow_run.name }}): {{ flow_run.state.message }}"
_HAPPENED_MAIL = "{{ event.payload.message }}"


def apply(client: SyncPrefectClient, workspace: Workspace, deployments: Sequence[UUID]) -> list[str]:
    """Bring the server's blocks and automations of this workspace up to its parameters; return the latter's names.

    `deployments` are those whose failed runs are told. What is there and not wanted any more is deleted;
    a second call changes nothing.
    """
    wanted, there = list(_Automations(workspace, deployments).all()), _there(client, workspace)
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
    """Return what `apply` would send: the kinds of event, and how each of them is told."""
    alerts = workspace.params.alerts
    return [f"{kind} by {channel}" for kind in alerts.events for channel in _channels(alerts)]


def mail_address(alerts: Alerts) -> str:
    """Return the Apprise URL of mail server and recipients. The password comes from the environment."""
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


def _channels(alerts: Alerts) -> dict[str, Block]:
    channels: dict[str, Block] = {}
    given = alerts.webhook.get_secret_value() if alerts.webhook else None
    if url := os.environ.get(WEBHOOK) or given:
        headers = {"content-type": "application/json"}
        if token := os.environ.get(TOKEN):
            headers["authorization"] = f"Bearer {token}"
        channels["webhook"] = Webhook.model_validate({"url": url, "headers": headers})
    if alerts.recipients:
        # Of Prefect's blocks the one that takes any address of Apprise's as it is.
        channels["mail"] = SlackWebhook.model_validate({"url": mail_address(alerts)})
    return channels


def _there(client: SyncPrefectClient, workspace: Workspace) -> dict[str, UUID]:
    """The workspace's automations by name, also those from when release.model had another name."""
    found: dict[str, UUID] = {}
    seen = 0
    while page := client.read_automations(limit=PAGE, offset=seen):
        seen += len(page)
        found |= {each.name: each.id for each in page}
    return {name: id for name, id in found.items() if name.startswith(f"ayeaye {workspace.identity[:12]} ")}


@dataclass(frozen=True)
class _Automations:
    """What the server should have of a workspace."""

    workspace: Workspace
    deployments: Sequence[UUID]

    def all(self) -> Iterator[AutomationCore]:
        yield self._dead_runs()
        alerts = self.workspace.params.alerts
        for channel, block in _channels(alerts).items():
            name = f"ayeaye-{self.workspace.identity[:12]}-{channel}"
            saved = cast(UUID, block.save(name, overwrite=True))
            for kind in alerts.events:
                action = self._call(kind, saved) if channel == "webhook" else self._mail(kind, saved)
                yield self._automation(f"{kind} by {channel}", self._trigger(kind), action)

    def _automation(
        self, what: str, trigger: EventTrigger, action: CallWebhook | SendNotification | ChangeFlowRunState
    ) -> AutomationCore:
        return AutomationCore(
            name=f"ayeaye {self.workspace.identity[:12]} ({self.workspace.params.release.model}): {what}",
            description=f"Made by `ayeaye deploy` for {self.workspace.root}.",
            trigger=trigger,
            actions=[action],
        )

    def _trigger(self, kind: str) -> EventTrigger:
        """Fires once for each event of that kind in this workspace."""
        if kind == "failed":
            return EventTrigger(
                expect=ENDED_BADLY,
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=self._of_deployments(),
                posture=Posture.Reactive,
                threshold=1,
            )
        return EventTrigger(
            expect={events.PREFIX + kind},
            match={"prefect.resource.id": events.resource(self.workspace)},
            posture=Posture.Reactive,
            threshold=1,
        )

    def _dead_runs(self) -> AutomationCore:
        """Calls a run crashed whose process has fallen silent, so that it is told, and waits for nothing for ever."""
        trigger = EventTrigger(
            after={HEARTBEAT},
            expect={"prefect.flow-run.*"},  # another one, the end, or that it is scheduled again
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=self._of_deployments(),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        )
        crashed = ChangeFlowRunState(
            force=False,
            state=StateType.CRASHED,
            name="Crashed",
            message="Its process fell silent; the next run goes on.",
        )
        return self._automation("runs that died", trigger, crashed)

    def _of_deployments(self) -> dict[str, str | list[str]]:
        ids = [f"prefect.deployment.{id}" for id in self.deployments]
        return {"prefect.resource.role": "deployment", "prefect.resource.id": ids}

    def _mail(self, kind: str, block: UUID) -> SendNotification:
        body = _FAILED_MAIL if kind == "failed" else _HAPPENED_MAIL
        return SendNotification(
            block_document_id=block,
            subject=f"ayeaye: {self.workspace.params.release.model} {kind}",
            body=f"{body}\n\n{{{{ {_ADDRESS} or '' }}}}",
        )

    def _call(self, kind: str, block: UUID) -> CallWebhook:
        """The payload is a template of JSON; what Prefect puts into it is encoded there."""
        model, root = self.workspace.params.release.model, str(self.workspace.root)
        fixed = {"event": kind, "model": model, "workspace": root}
        pairs = {key: _literal(value) for key, value in fixed.items()}
        pairs["occurred"] = "{{ event.occurred | string | tojson }}"
        pairs |= _RUN | (_FAILED if kind == "failed" else _HAPPENED)
        payload = ", ".join(f"{_literal(key)}: {value}" for key, value in pairs.items())
        return CallWebhook(block_document_id=block, payload=f"{{{payload}}}")


def _literal(text: str) -> str:
    """JSON that holds no template, whatever a folder is called."""
    return json.dumps(text).replace("{", r"\u007b")
