"""The Python API: load a classifier, and drive a workspace.

>>> import ayeaye
>>> classifier = ayeaye.load("shop/models/classifier")  # doctest: +SKIP
>>> ayeaye.Workspace("shop").retrain()["outcome"]  # doctest: +SKIP
'promoted'
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ayeaye.core import workspace as core

if TYPE_CHECKING:
    from ayeaye.classifier.model import Classifier


def load(source: str | Path) -> Classifier:
    """Load a classifier from a bundle's folder or from MLflow.

    `source` is a folder such as `shop/models/classifier`, or an address of MLflow's registry such as
    `models:/shop@champion` or `models:/shop/3`, which is looked up at MLflow's tracking URI.

    Raises BundleError when there is no bundle or it is damaged, and MLflow's errors when it cannot be downloaded.
    """
    from ayeaye.classifier.model import Classifier

    if not str(source).startswith(("models:/", "runs:/")):
        return Classifier.load(Path(source))
    import mlflow

    return Classifier.load(Path(mlflow.artifacts.download_artifacts(str(source))) / "bundle")


class Workspace:
    """A workspace, as made by `ayeaye init`.

    `log` is called with each line of progress; by default progress is not shown.
    Raises WorkspaceError when `folder` is no workspace.
    """

    def __init__(self, folder: str | Path = ".", log: Callable[[str], None] = lambda line: None) -> None:
        self._folder, self._log = core.Workspace.find(Path(folder)).root, log

    def retrain(self) -> dict[str, Any]:
        """Run everything, as `ayeaye retrain` does, and return what `ayeaye retrain --json` prints.

        `outcome` is `promoted`, `pending`, `unchanged` or `refused`. Raises AyeayeError when a step fails.
        """
        return retrain(self._opened(), self._log)

    def status(self) -> dict[str, Any]:
        """Return what `ayeaye status --json` prints."""
        from ayeaye.release.status import status

        return status(self._opened())

    def champion(self) -> Classifier:
        """Load the champion's classifier from its Bento. Raises ReleaseError when there is none."""
        from ayeaye.release import champion

        return champion.load(self._opened())[0]

    def _opened(self) -> core.Workspace:
        """Anew for each call: another workspace may have changed the environment since."""
        return core.Workspace.opened(self._folder, self._log)


def retrain(workspace: core.Workspace, log: Callable[[str], None]) -> dict[str, Any]:
    """Retrain a workspace that was opened, against the Prefect server that is configured or one of its own."""
    # A fault is raised here; Prefect's own traceback of it stays in the run's log.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from ayeaye.flows.server import server
    from ayeaye.versioning import dvc

    dvc.require(workspace)
    _ = workspace.params  # a fault in them shows before anything starts
    with server(workspace, log) as started:
        # Importing the flow takes as long as the server's start: side by side.
        from ayeaye.flows.retrain import run

        return run(workspace, started(), say=log)
