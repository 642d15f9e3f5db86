"""The stage `classes`: the class space, from words or attributes."""

from __future__ import annotations

from ayeaye.classspace.space import build
from ayeaye.data import checks
from ayeaye.data.table import ClassTable
from ayeaye.workspace import Workspace


def classes(workspace: Workspace) -> dict[str, object]:
    """Build the class space of every class in the table, check it, write it."""
    table = ClassTable.read(workspace.dataset / "classes.parquet")
    space = build(table, workspace.params.classes, workspace.resolve)
    checks.check_class_space(space.names, space.vectors, workspace.checks)
    space.save(workspace.class_space)
    return {"classes": len(space.names), "dimensions": int(space.vectors.shape[1])}
