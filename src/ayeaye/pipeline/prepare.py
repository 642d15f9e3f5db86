"""Before the stages: the dataset brought up to its source, its shards kept from run to run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ayeaye.data import removal
from ayeaye.data.prepare_dataset import prepare as prepare_dataset
from ayeaye.pipeline.faults import listed_in
from ayeaye.pipeline.progress import Progress
from ayeaye.workspace import Workspace


def prepare(workspace: Workspace, progress: Progress, *, dry_run: bool = False) -> dict[str, Any]:
    """Check and publish the dataset; the caller holds the workspace. Returns what it holds and what is new."""
    with listed_in(workspace.faults("prepare")), progress.done_of("reading pictures") as report:
        summary = prepare_dataset(
            workspace.params.prepare,
            workspace.dataset,
            workspace.resolve,
            report,
            dry_run=dry_run,
            cache=workspace.state / "source-index.json",
            docs=workspace.checks,
            feedback=workspace.feedback,
            removed=removal.read(workspace.removed),
        )
    return asdict(summary)
