"""Before the stages: the dataset brought up to its source, its shards kept from run to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from ayeaye.class_vectors.space import unread
from ayeaye.core.workspace import Workspace
from ayeaye.data import removal
from ayeaye.data.prepare_dataset import prepare as prepare_dataset
from ayeaye.data.table import ClassTable
from ayeaye.pipeline.faults import listed_in
from ayeaye.pipeline.progress import Progress


def prepare(
    workspace: Workspace,
    progress: Progress,
    *,
    dry_run: bool = False,
    examine: Callable[[ClassTable, str], None] | None = None,
) -> dict[str, Any]:
    """Check and publish the dataset; the caller holds the workspace. Returns what it holds and what is new.

    `examine` is called with the class table and the dataset's kind before a picture is read.
    """
    told = list[str]()

    def look(table: ClassTable, kind: str) -> None:
        told.extend(filter(None, [unread(table, workspace.params.classes)]))
        if examine:
            examine(table, kind)

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
            examine=look,
        )
    return asdict(replace(summary, warnings=[*summary.warnings, *told]))
