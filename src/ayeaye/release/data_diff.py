"""Two datasets of a workspace side by side: as a record, and as a page with pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ayeaye.core.errors import DataError, DataGone
from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.data.decode import ANY, decode
from ayeaye.data.difference import Difference, compare
from ayeaye.release import datasets
from ayeaye.release.datasets import Kept
from ayeaye.reporting import report
from ayeaye.versioning import stores

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 60  # pictures of each kind on a page


@dataclass(frozen=True)
class Shown:
    """A picture on the page; `picture` is None where its bytes are no longer kept, or are features."""

    id: str
    said: str
    picture: str | None


def diff(
    workspace: Workspace, before: str, after: str, out: Path | None = None
) -> tuple[Difference, dict[str, Any]]:
    """What has changed, and a record of it for JSON; with `out` a page of it is written there too.

    `before` and `after` are digests of DVC's, versions, aliases, or `now`. Only manifests and class tables are
    fetched, and with `out` the pictures that it shows. Raises DataGone where a dataset is no longer kept, and what
    `datasets.digest_of` raises.
    """
    with stores.objects(workspace) as objects, ExitStack() as stack:
        old, new = (
            stack.enter_context(datasets.opened(workspace, objects, name)) for name in (before, after)
        )
        found = compare(old.dataset, new.dataset)
        record = {
            "before": {"name": before, "digest": old.digest},
            "after": {"name": after, "digest": new.digest},
            **found.as_dict(),
        }
        if out:
            write_atomic(out, page(found, old, new, (before, after)).encode())
            record["page"] = str(out)
    return found, record


def page(found: Difference, old: Kept, new: Kept, names: tuple[str, str]) -> str:
    """One self-contained page."""
    galleries = [
        ("Added", len(found.added), list(_shown(found.added, new, _placed))),
        ("Removed", len(found.removed), list(_shown(found.removed, old, _placed))),
        ("Under another class", len(found.relabelled), list(_shown(found.relabelled, new, _changed))),
        ("In another split", len(found.moved), list(_shown(found.moved, new, _changed))),
    ]
    return (
        report.templates(TEMPLATES)
        .get_template("data_diff.html.j2")
        .render(
            names=names,
            digests=(old.digest, new.digest),
            pictures=(len(old.dataset.manifest), len(new.dataset.manifest)),
            found=found,
            classes_changed=found.classes_changed.to_dict("records"),
            counts=found.recounted.to_dict("records"),
            galleries=galleries,
        )
    )


def _placed(row: Any) -> str:
    return f"{row.label} ({row.split})"


def _changed(row: Any) -> str:
    of = f"{row.label}: " if hasattr(row, "label") else ""
    return f"{of}{row.before} → {row.after}"


def _shown(frame: pd.DataFrame, kept: Kept, said: Any) -> Iterator[Shown]:
    """The first of each class, then the second ones, up to SHOWN."""
    key = "label" if "label" in frame else "after"
    turn = frame.groupby(key).cumcount()
    chosen = frame.assign(turn=turn).sort_values(["turn", key, "id"]).head(SHOWN)
    for row in chosen.itertuples():
        yield Shown(str(row.id), said(row), _thumbnail(kept, str(row.id)))


def _thumbnail(kept: Kept, id: str) -> str | None:
    if kept.dataset.kind == "features":
        return None
    try:
        return report.thumbnail(decode(kept.picture(id), ANY, target=168), 168)
    except (DataGone, DataError):
        return None
