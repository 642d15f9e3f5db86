"""The watch for drift: the champion's answers in production beside those on pictures held out of its training.

checks/drift/index.html     what was found, self-contained
checks/drift/drift.json     the same for machines, and when drift last started a retraining
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ayeaye.core.errors import ReleaseError
from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.evaluation import drift
from ayeaye.evaluation.drift import Comparison, Reference
from ayeaye.pipeline import reference
from ayeaye.release.promotion import record_of, registry_of
from ayeaye.service import answer_log
from ayeaye.service.review import url_of

DRIFT, NONE, TOO_FEW, NO_CHAMPION = ("drift", "none", "too few answers", "no champion")
NOTHING_YET = "there is no champion to watch yet: run `ayeaye retrain`"
EARLIER = 4  # times as long a period before the one that is looked at is what its labels are held against
MOST_LABELS = 12  # shown, of those that came more or less often


@dataclass(frozen=True)
class Watched:
    """What was looked at, and what was found where there was enough; `labels` and `earlier` (n,) are of the traffic."""

    version: int
    since: datetime
    until: datetime
    labels: np.ndarray
    earlier: np.ndarray
    reference: Reference | None = None
    comparison: Comparison | None = None
    minimum: int = 0

    @property
    def verdict(self) -> str:
        if self.comparison is None:
            return TOO_FEW
        return DRIFT if self.comparison.drifted else NONE

    @property
    def message(self) -> str:
        answers = (
            f"{len(self.labels)} answers of version {self.version} since {self.since:%Y-%m-%d %H:%M} UTC"
        )
        if self.comparison is None:
            return f"{answers}: too few to judge, {self.minimum} are needed (watch.minimum_answers)."
        if not self.comparison.drifted:
            return f"No drift in {answers}."
        return f"Drift of {', '.join(map(_said, self.comparison.drifted))} in {answers}."

    def as_dict(self) -> dict[str, Any]:
        found = self.comparison
        return {
            "version": self.version,
            "since": self.since.isoformat(timespec="seconds"),
            "until": self.until.isoformat(timespec="seconds"),
            "verdict": self.verdict,
            "message": self.message,
            "answers": len(self.labels),
            "compared": len(found.answers) if found else 0,
            "strange": round(found.strange, 4) if found else None,
            "earlier": len(self.earlier),
            "reference": len(self.reference.truth) if self.reference else 0,
            "worth": round(found.worth) if found else 0,
            "stand_ins": bool(self.reference and self.reference.stand_ins),
            "figures": [figure.as_dict() for figure in found.figures] if found else [],
        }


def look(workspace: Workspace, days: float | None = None, now: datetime | None = None) -> Watched:
    """Compare the champion's answers of the last days; nothing is written.

    Raises ReleaseError when there is no champion or no reference of it, and StoreError when the log cannot be read.
    """
    chosen, champion = workspace.params.watch, require_champion(workspace)
    until = now or datetime.now(UTC)
    length = timedelta(days=chosen.days if days is None else days)
    since = until - length
    with answer_log.reading(url_of(workspace)) as database:
        answers = answer_log.predictions(database, champion, since, until)
        earlier = answer_log.labels(database, champion, since - EARLIER * length, since)
    watched = Watched(champion, since, until, answers.label, earlier, minimum=chosen.minimum_answers)
    if len(answers) < chosen.minimum_answers:
        return watched
    path = registry_of(workspace).artifact(champion, "reference.parquet")
    if path is None:
        raise ReleaseError(
            f"version {champion} has no answers on held-out pictures to compare with: it was evaluated by an "
            "earlier ayeaye; retrain"
        )
    held_out = reference.load(path)
    found = drift.compare(
        held_out,
        answers,
        # Few labels of an hour or two say nothing about popularity.
        earlier if len(earlier) >= chosen.minimum_answers else earlier[:0],
        chosen.maximum,
        chosen.significance,
    )
    return replace(watched, reference=held_out, comparison=found)


def require_champion(workspace: Workspace) -> int:
    """The version to watch; raises ReleaseError where there is none yet."""
    champion = record_of(workspace).state().champion
    if champion is None:
        raise ReleaseError(NOTHING_YET)
    return champion


# ---- what is left of it ----


def write(workspace: Workspace, watched: Watched, started: dict[str, Any] | None = None) -> Path:
    """Write the page and drift.json; returns the page. `started` is the retraining that was started, if one was."""
    from ayeaye.service import drift_page

    folder = workspace.checks / "drift"
    write_atomic(folder / "index.html", drift_page.render(watched, moved_labels(watched)).encode())
    content = {
        **watched.as_dict(),
        "retraining": started,
        "last_retraining": started or last_retraining(workspace),
    }
    write_atomic(folder / "drift.json", json.dumps(content, indent=1).encode())
    return folder / "index.html"


def last_retraining(workspace: Workspace) -> dict[str, Any] | None:
    """The newest retraining that drift started: `time` (ISO 8601), `version`, `run`, `url`."""
    try:
        return json.loads((workspace.checks / "drift" / "drift.json").read_bytes())["last_retraining"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rests_until(workspace: Workspace) -> datetime | None:
    """Until when drift starts no retraining, since it started one; None where it may."""
    last = last_retraining(workspace)
    if not last:
        return None
    rests = datetime.fromisoformat(last["time"]) + timedelta(days=workspace.params.watch.cooldown)
    return rests if rests > datetime.now(UTC) else None


def moved_labels(watched: Watched) -> list[dict[str, Any]]:
    """The labels whose share changed most since the earlier period, as rows."""
    if not len(watched.earlier) or not len(watched.labels):
        return []
    names = np.unique(np.concatenate([watched.earlier, watched.labels]))
    before, now = (
        np.bincount(np.searchsorted(names, labels), minlength=len(names)) / len(labels)
        for labels in (watched.earlier, watched.labels)
    )
    order = np.argsort(-np.abs(now - before), kind="stable")[:MOST_LABELS]
    return [{"label": str(names[c]), "earlier": float(before[c]), "now": float(now[c])} for c in order]


def markdown(watched: Watched) -> str:
    """The verdict and a table of the figures."""
    lines = [f"**{watched.verdict}**", "", watched.message, ""]
    if watched.comparison:
        lines += ["| figure | held out | traffic | difference | threshold | p | drifted |", f"|{'---|' * 7}"]
        for figure in watched.comparison.figures:
            numbers = (figure.reference, figure.traffic, figure.difference, figure.threshold)
            cells = [_said(figure.figure), *(f"{number:.3f}" for number in numbers), f"{figure.p:.2g}"]
            lines.append(f"| {' | '.join([*cells, 'yes' if figure.drifted else 'no'])} |")
    return "\n".join(lines)


def _said(figure: str) -> str:
    return figure.replace("_", " ")
