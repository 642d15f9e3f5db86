"""Where the registry's files lie: at addresses that are relative to the workspace.

A path that MLflow writes into its database is absolute, and does not survive a folder that is moved or copied. So a
run's address is `ayeaye:/artifacts/RUN/artifacts`, below the registry's home. MLflow's server, and any program that
loads a model, resolves it by the entry point `mlflow.artifact_repository`.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ayeaye.core.paths import resolved, sqlite_path

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

SCHEME = "ayeaye"
LOCATION = f"{SCHEME}:/artifacts"
HOME = Path(".ayeaye", "mlflow")  # of a registry, in its workspace


def resolve(uri: str, home: Path) -> Path:
    """The folder of an address below a registry's home; raises ValueError where it leads out of it."""
    path = PurePosixPath(unquote(urlsplit(uri).path)).relative_to("/")
    if ".." in path.parts:
        raise ValueError(f"{uri} leads out of the workspace")
    return home / path


def repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    """What MLflow asks for an address: files of the workspace of its database, else of AYEAYE_WORKSPACE."""
    from mlflow import get_tracking_uri
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    home = _home(tracking_uri or get_tracking_uri())
    if home is None:
        raise MlflowException.invalid_parameter_value(
            f"{artifact_uri} lies in a workspace of ayeaye: set AYEAYE_WORKSPACE to its folder"
        )
    return LocalArtifactRepository(resolve(artifact_uri, home).as_uri(), tracking_uri, registry_uri)


def _home(tracking_uri: str) -> Path | None:
    database = sqlite_path(tracking_uri) if tracking_uri.startswith("sqlite") else None
    folder = database.absolute().parent if database else Path()
    if folder.parts[-2:] == HOME.parts:
        return folder
    workspace = os.environ.get("AYEAYE_WORKSPACE")
    return resolved(workspace) / HOME if workspace else None
