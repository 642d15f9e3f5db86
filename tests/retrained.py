"""A workspace with a history of two versions, and what tests ask of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import workspaces
from workspaces import Place

ADDED, MOVED = "paint 000", "paint 001"


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def data(place: Place, *arguments: object) -> workspaces.Done:
    command, *rest = arguments
    return workspaces.ayeaye("data", command, "--workspace", place.root, *rest, environment=place.environment)


def snapshot(root: Path) -> dict[str, str]:
    """Every file of a workspace but logs, locks and what DVC and git remember of what they have looked at."""
    passing = (".git/", ".dvc/tmp/", ".ayeaye/logs/", ".ayeaye/prefect/", ".ayeaye/dvc/", "params.yaml")
    files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {
        name: digest_of(path.read_bytes())
        for name, path in files.items()
        if not name.startswith(passing) and not name.endswith((".lock", "/lock", "mlflow.db"))
    }
