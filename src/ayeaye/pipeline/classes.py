"""The stage `classes`: the class space, from words or attributes."""

from __future__ import annotations

import json
from pathlib import Path

from ayeaye.class_vectors.space import ClassSpace, build
from ayeaye.class_vectors.text import shown_left_out
from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.data import checks
from ayeaye.data.table import ClassTable
from ayeaye.pipeline.faults import listed_in

LEFT_OUT = "left_out.json"  # beside the class space: words that are not known, by class


def classes(workspace: Workspace) -> dict[str, object]:
    """Build the class space of every class in the table, check it, write it."""
    table = ClassTable.read(workspace.dataset / "classes.parquet")
    with listed_in(workspace.faults("classes")):
        space = build(table, workspace.params.classes, workspace.resolve)
    checks.check_class_space(space.names, space.vectors, workspace.checks)
    space.save(workspace.class_space)
    built = {"classes": len(space.names), "dimensions": int(space.vectors.shape[1])}
    return {**built, **_told(space, workspace.class_space / LEFT_OUT)}


def _told(space: ClassSpace, path: Path) -> dict[str, str]:
    """What vectors were made without: descriptions, and words, all of these in a file and the first in a line."""
    path.unlink(missing_ok=True)
    said = {"not read": space.unread} if space.unread else {}
    if not (found := space.left_out):
        return said
    write_atomic(path, json.dumps(found, indent=1, ensure_ascii=False).encode() + b"\n")
    counts = f"{sum(map(len, found.values()))} words that are not known, of {len(found)} classes"
    return {**said, "left out": f"{counts}: {shown_left_out(found)}; see {path}"}
