"""What a bundle answers on pictures held out of its training: what its answers in production are held against.

truth        the true class, label the answer; "" in either is any unseen class, see `drift.Reference`
seen, known, confidence, margin, vector     as in the prediction log, empty where there is no vector
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ayeaye.classifier import calibration
from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import DataError
from ayeaye.core.files import replacing
from ayeaye.evaluation.drift import MOST, Answers, Reference, stacked
from ayeaye.evaluation.metrics import Fold
from ayeaye.pipeline.examples import Examples


def answers(classifier: Classifier, X: np.ndarray) -> Answers:
    """What the classifier answers on pictures with these embeddings (n, d)."""
    vectors = classifier.mapper.map_images(X)
    scores = classifier.scores_of(vectors)
    best = scores.argmax(axis=1)
    confidence = classifier.confidences(scores)[np.arange(len(X)), best]
    return Answers(
        label=np.array(classifier.labels)[best],
        seen=classifier.seen[best],
        known=confidence >= classifier.threshold,
        confidence=confidence.astype(np.float64),
        margin=_margin(scores),
        vectors=vectors,
    )


def of_pictures(data: Examples, classifier: Classifier, seed: int) -> Reference:
    """The answers on the test pictures of seen and of unseen classes."""
    rows = data.rows("test_seen", "test_unseen")
    return _bounded(Reference(answers(classifier, data.X[rows]), np.array(data.names)[data.y[rows]]), seed)


def of_folds(
    data: Examples,
    classifier: Classifier,
    folds: list[Fold],
    temperatures: list[float],
    thresholds: list[float],
    columns: np.ndarray,
    seed: int,
) -> Reference:
    """The answers on the test pictures of seen classes, and those that each fold gave on classes it did not know.

    The latter stand in for pictures of unseen classes. Their vectors would be of another space.
    """
    rows = data.rows("test_seen")
    known = answers(classifier, data.X[rows])
    width = known.vectors.shape[1]
    names = np.array(data.names)[columns]
    parts = [known]
    for fold, temperature, threshold in zip(folds, temperatures, thresholds, strict=True):
        strangers = ~fold.seen[fold.y]
        scores = calibration.stack(fold.scores[strangers], fold.seen, fold.gamma)
        best = scores.argmax(axis=1)
        confidence = calibration.probabilities(scores, temperature)[np.arange(len(best)), best]
        parts.append(
            Answers(
                label=names[best],
                seen=fold.seen[best],
                known=confidence >= threshold,
                confidence=confidence.astype(np.float64),
                margin=_margin(scores),
                vectors=np.full((len(best), width), np.nan, np.float32),
            )
        )
    whole = Answers(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(known)})
    truth = np.concatenate([np.array(data.names)[data.y[rows]], np.full(len(whole) - len(known), "")])
    return _bounded(Reference(whole.without_unseen_names(), truth), seed)


def _margin(scores: np.ndarray) -> np.ndarray:
    """(n,) the best of scores (n, C) over the second best; 0 where there is one class alone."""
    if scores.shape[1] < 2:
        return np.zeros(len(scores))
    two = np.partition(scores, -2, axis=1)[:, -2:].astype(np.float64)
    return two[:, 1] - two[:, 0]


def _bounded(reference: Reference, seed: int) -> Reference:
    """At most so many pictures as are compared, in which every class has its turn."""
    order = np.random.default_rng(seed).permutation(len(reference.truth))
    turn = pd.Series(reference.truth[order]).groupby(reference.truth[order]).cumcount().to_numpy()
    rows = np.sort(order[np.argsort(turn, kind="stable")[:MOST]])
    return Reference(reference.answers.take(rows), reference.truth[rows])


# ---- the file ----


def save(reference: Reference, path: Path) -> None:
    found = reference.answers
    there = np.isfinite(found.vectors).all(axis=1)
    offsets = np.concatenate([[0], np.cumsum(there * found.vectors.shape[1])]).astype(np.int32)
    vectors = pa.array(found.vectors[there].astype(np.float16).ravel())
    columns = {name: values for name, values in vars(found).items() if name != "vectors"}
    table = pa.table(
        {
            "truth": reference.truth.astype(str),
            **{name: values.astype(str) if name == "label" else values for name, values in columns.items()},
            "vector": pa.ListArray.from_arrays(pa.array(offsets), vectors),
        }
    )
    with replacing(path) as part:
        pq.write_table(table, part, compression="zstd")


def load(path: Path) -> Reference:
    """Raises DataError for a damaged file."""
    try:
        table = pq.read_table(path)
        return Reference(_answers_of(table), table["truth"].to_numpy().astype(str))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}): retrain to make it again") from None


def _answers_of(table: pa.Table) -> Answers:
    columns = ("label", "seen", "known", "confidence", "margin")
    label, seen, known, confidence, margin = (table[name].to_numpy() for name in columns)
    return Answers(
        label=label.astype(str),
        seen=seen.astype(bool),
        known=known.astype(bool),
        confidence=confidence.astype(np.float64),
        margin=margin.astype(np.float64),
        vectors=stacked(list(table["vector"].to_numpy())),
    )
