"""The page of a watch: verdict and figures, then the distributions as Evidently draws them, in one file."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ayeaye.evaluation.drift import Comparison, Reference
from ayeaye.reporting import report

if TYPE_CHECKING:
    from ayeaye.service.watch import Watched

# What is drawn, under the figure whose threshold it has.
TEMPLATES = Path(__file__).parent / "templates"
DRAWN = {
    "confidence": "confidence",
    "margin": "margin",
    "none_of_these": "none of these",
    "vectors": "distance from held-out pictures",
}


def render(watched: Watched, labels: Sequence[Mapping[str, Any]]) -> str:
    found = watched.comparison
    drawn = distributions(watched.reference, found) if watched.reference and found else None
    return (
        report.templates(TEMPLATES)
        .get_template("drift.html.j2")
        .render(
            watched=watched.as_dict(),
            figures=found.figures if found else [],
            labels=labels,
            distributions=drawn.get_html_str(as_iframe=True) if drawn else None,
        )
    )


def distributions(reference: Reference, found: Comparison) -> Any:
    """Evidently's snapshot of the reference, weighted, and the traffic, with the same differences and thresholds.

    It is given no text: what a caller could have named a class would get into a script of the page.
    """
    os.environ["DO_NOT_TRACK"] = "1"  # read when it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _mend_pandas()
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        logging.getLogger("evidently").setLevel(logging.ERROR)
        sides = frames(reference, found)
        columns = [name for name in sides[0] if all(each[name].notna().any() for each in sides)]
        thresholds = {
            DRAWN[figure.figure]: figure.threshold for figure in found.figures if figure.figure in DRAWN
        }
        # Its distance is in standard deviations where ours is of shares.
        share = DRAWN["none_of_these"]
        if share in thresholds:
            thresholds[share] /= max(float(np.std(sides[0][share])), 0.001)
        definition = DataDefinition(numerical_columns=columns)
        held_out, traffic = (Dataset.from_pandas(each[columns], definition) for each in sides)
        drawn = [
            ValueDrift(column=name, method="wasserstein", threshold=thresholds[name])
            for name in columns
            if name in thresholds
        ]
        return Report(drawn, include_tests=False).run(traffic, held_out)


def _mend_pandas() -> None:
    """Evidently 0.7 imports a private function that pandas 3.1 no longer has, for a test that is not made here."""
    from pandas.core.dtypes import common

    if not hasattr(common, "infer_dtype_from_object"):
        common.infer_dtype_from_object = None  # type: ignore[attr-defined]


def frames(reference: Reference, found: Comparison) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reference and traffic in the columns of DRAWN; pictures of the reference are repeated by their weights."""
    shares = np.cumsum(found.weights) / found.weights.sum()
    n = len(shares)
    rows = np.minimum(np.searchsorted(shares, (np.arange(n) + 0.5) / n), n - 1)
    sides = [
        pd.DataFrame(
            {
                "confidence": answers.confidence,
                "margin": answers.margin,
                "none of these": (~answers.known).astype(float),
                "distance from held-out pictures": distances,
            }
        )
        for answers, distances in zip((reference.answers, found.answers), found.distances, strict=True)
    ]
    return sides[0].iloc[rows].reset_index(drop=True), sides[1]
