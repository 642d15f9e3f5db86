"""The Python API: a classifier from a folder and from MLflow, and a workspace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from workspaces import UNSEEN, Place

import ayeaye
from ayeaye.core.errors import WorkspaceError


def test_importing_it_brings_no_numpy() -> None:
    program = "import ayeaye, sys; assert ayeaye.__version__ and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folder_that_is_no_workspace_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError):
        ayeaye.Workspace(tmp_path)


@pytest.mark.slow
def test_the_champion_is_loaded_from_the_workspace_a_folder_and_mlflow(copied: Place) -> None:
    import mlflow

    image = next((copied.source / "images" / UNSEEN[0]).iterdir()).read_bytes()
    with patch.dict(os.environ, copied.environment):  # a workspace writes its homes into the environment
        workspace = ayeaye.Workspace(copied.root)
        (expected,) = workspace.champion().classify([image])
        assert ayeaye.load(copied.root / "models" / "classifier").classify([image]) == [expected]
        mlflow.set_tracking_uri(f"sqlite:///{copied.root}/.ayeaye/mlflow/mlflow.db")
        try:
            assert ayeaye.load("models:/ayeaye@champion").classify([image]) == [expected]
        finally:
            mlflow.set_tracking_uri("")
        assert workspace.status()["champion"]["version"] == 1
        assert workspace.retrain()["outcome"] == "unchanged"
