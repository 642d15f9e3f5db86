"""What MLflow calls to load a registered bundle: `mlflow.pyfunc.load_model("models:/ayeaye@champion")`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayeaye.classifier.model import Classifier


class Model:
    """A classifier that takes paths, or a frame with a column `path`, and gives an answer for each."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        paths = model_input["path"] if hasattr(model_input, "columns") else model_input
        answers = self.classifier.classify([Path(path).read_bytes() for path in paths])
        return [
            {"error": str(answer)} if isinstance(answer, Exception) else dict(answer) for answer in answers
        ]


def _load_pyfunc(path: str) -> Model:
    return Model(Classifier.load(Path(path)))
