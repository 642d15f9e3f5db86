"""Drift: whether answers in production still come from what a classifier was tried on.

Answers in production (the traffic) are held against what the same classifier answered on pictures held out of its
training (the reference). Classes are of another popularity in production than among held-out pictures, and that is
no drift. So the reference is weighted: its classes get the frequencies that explain best what was answered in the
traffic. What is still different then is in the pictures. A figure has drifted when its difference is large enough
to matter and too large for chance: of 100,000 answers any difference is significant, of 100 a large one may be none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ayeaye.core.errors import DataError
from ayeaye.core.params import WATCHED
from ayeaye.core.unit_vectors import unit

MOST = 5000  # answers of either side that are compared, and pictures of the reference
NEIGHBOURS = 5
_ROUNDS = 100  # of expectation maximisation
_PRIOR = (
    0.1  # pictures of each class; 1 would make two hundred answers of a hundred classes look evenly spread
)
_FEWEST = 10  # answers, or what weights leave of them, without which nothing is said of a figure


@dataclass(frozen=True)
class Answers:
    """n answers: label (n,) text, seen, known (n,) bool, confidence, margin (n,), vectors (n, m) in the common space.

    An answer whose picture has no vector there has NaNs.
    """

    label: np.ndarray
    seen: np.ndarray
    known: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray) -> Answers:
        return Answers(**{name: values[rows] for name, values in vars(self).items()})

    def without_unseen_names(self) -> Answers:
        """The same where no unseen class has a name, or a place in the space."""
        vectors = np.where(self.seen[:, None], self.vectors, np.nan)
        return replace(self, label=np.where(self.seen, self.label, ""), vectors=vectors)


def stacked(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Stack vectors into (n, m), m being their usual length; those of another length, such as none, are NaN."""
    lengths = np.array([len(each) for each in vectors], dtype=int)
    width = int(np.bincount(lengths).argmax()) if lengths.any() else 0
    width = width or int(lengths.max(initial=0))
    matrix = np.full((len(lengths), width), np.nan, np.float32)
    for row, vector in zip(matrix, vectors, strict=True):
        if len(vector) == width:
            row[:] = vector
    return matrix


@dataclass(frozen=True)
class Reference:
    """What was answered on held-out pictures, and their true classes (n,).

    Where unseen classes have no pictures, seen classes that were held out whole stand in for them. Their true
    class is "" and so is an answer among those that they stood beside: any unseen class.
    """

    answers: Answers
    truth: np.ndarray

    @property
    def stand_ins(self) -> bool:
        return bool((self.truth == "").any())


@dataclass(frozen=True)
class Figure:
    """One figure on both sides, their difference and its threshold, and the chance of such a difference (p).

    difference  confidence, margin, and of vectors the distances from the reference: the Wasserstein distance of the
                distributions over the reference's standard deviation; none_of_these: of the shares; label:
                Cramér's V of label and period, corrected for its bias
    """

    figure: str
    reference: float
    traffic: float
    difference: float
    p: float
    threshold: float
    significance: float

    @property
    def drifted(self) -> bool:
        return self.difference >= self.threshold and self.p <= self.significance

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "drifted": self.drifted}


@dataclass(frozen=True)
class Comparison:
    """What was found; `weights` (n,) are the reference's, `answers` the traffic that was compared, `distances` of
    both, see there, `strange` the share of traffic whose label was never answered on the reference, such as a class
    of run time."""

    figures: list[Figure]
    weights: np.ndarray
    answers: Answers
    distances: tuple[np.ndarray, np.ndarray]
    strange: float

    @property
    def worth(self) -> float:
        """How many held-out pictures of equal weight tell as much as these (Kish 1965).

        Few, where the traffic is of few classes: then little can be told to be more than chance.
        """
        return _worth(self.weights)

    @property
    def drifted(self) -> list[str]:
        return [figure.figure for figure in self.figures if figure.drifted]


def compare(
    reference: Reference,
    traffic: Answers,
    earlier: np.ndarray,
    thresholds: Mapping[str, float],
    significance: float = 0.01,
    seed: int = 0,
) -> Comparison:
    """Hold the traffic against the reference, and its labels against `earlier` (n,), those of traffic before it.

    `thresholds` are of the names in params.WATCHED; a figure without one is left out, and so is one of which too few
    answers tell. `significance` is of all figures together (Bonferroni). Labels cannot be held against the
    reference, whose popularity is no one's. Raises DataError without any answer on one of the sides.
    """
    if not len(reference.truth) or not len(traffic):
        raise DataError(
            f"{len(traffic)} answers and a reference of {len(reference.truth)}: one of each is needed"
        )
    wanted = [name for name in WATCHED if name in thresholds]
    alone = significance / max(1, len(wanted))
    labels = traffic.label
    chance = np.random.default_rng(seed)
    if len(traffic) > MOST:
        traffic = traffic.take(np.sort(chance.choice(len(traffic), MOST, replace=False)))
    if reference.stand_ins:
        traffic = traffic.without_unseen_names()
    familiar = np.isin(traffic.label, reference.answers.label)
    strange, traffic = 1 - float(familiar.mean()), traffic.take(familiar)
    weights = prevalence(reference.truth, reference.answers.label, traffic.label)
    found: dict[str, _Found] = {}
    apart = np.zeros(0), np.zeros(0)
    if len(traffic):
        answers = reference.answers
        apart = distances(answers, traffic)
        found = {
            "confidence": _shape(answers.confidence, traffic.confidence, weights),
            "margin": _shape(answers.margin, traffic.margin, weights),
            "none_of_these": _share(~answers.known, ~traffic.known, weights),
            "vectors": _shape(*apart, weights),
        }
    found["label"] = _labels(earlier, labels)
    figures = [
        Figure(name, *values, thresholds[name], alone)
        for name in wanted
        if (values := found.get(name)) is not None
    ]
    return Comparison(figures, weights, traffic, apart, strange)


def prevalence(truth: np.ndarray, answered: np.ndarray, traffic: np.ndarray) -> np.ndarray:
    """Weights (n,) of the pictures of a reference, summing to 1, under which classes are as frequent as in traffic.

    Of the true classes `truth` (n,) and the labels `answered` (n,) on the reference and of the labels in `traffic`
    (t,), all of which were answered on it: the most likely frequencies, found by expectation maximisation (Saerens
    et al. 2002) from hard answers (as Lipton et al. 2018). A little of each class is taken to be in the traffic
    beforehand, so that none is impossible.
    """
    from scipy.sparse import csr_matrix

    classes, y = np.unique(truth, return_inverse=True)
    names, a = np.unique(answered, return_inverse=True)
    pictures = np.bincount(y)
    answers_of = csr_matrix((1 / pictures[y], (a, y)), (len(names), len(classes)))  # columns sum to 1
    seen = np.bincount(np.searchsorted(names, traffic), minlength=len(names))
    share = np.full(len(classes), 1 / len(classes))
    for _ in range(_ROUNDS):
        expected = share * (answers_of.T @ (seen / (answers_of @ share)))
        share = (expected + _PRIOR) / (len(traffic) + _PRIOR * len(classes))
    return share[y] / pictures[y]


_Found = tuple[float, float, float, float] | None  # on the reference, in the traffic, their difference, p


def _worth(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def _shape(reference: np.ndarray, traffic: np.ndarray, weights: np.ndarray) -> _Found:
    """Means, the distance of the two distributions, and its chance; values that are NaN are left out."""
    from scipy.stats import wasserstein_distance

    there = np.isfinite(reference)
    reference, weights, traffic = reference[there], weights[there], traffic[np.isfinite(traffic)]
    if min(len(reference), len(traffic)) < _FEWEST:
        return None
    mean = float(weights @ reference / weights.sum())
    spread = float(np.sqrt(weights @ (reference - mean) ** 2 / weights.sum()))
    distance = float(wasserstein_distance(reference, traffic, weights)) / max(spread, 1e-6)
    return mean, float(traffic.mean()), distance, _kolmogorov(reference, traffic, weights)[1]


def _share(reference: np.ndarray, traffic: np.ndarray, weights: np.ndarray) -> _Found:
    from scipy.stats import norm

    before, now = float(weights @ reference / weights.sum()), float(traffic.mean())
    ours, theirs = _worth(weights), len(traffic)
    pooled = (before * ours + now * theirs) / (ours + theirs)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / ours + 1 / theirs))
    p = 2 * norm.sf(abs(now - before) / deviation) if deviation else 1.0
    return before, now, abs(now - before), float(p)


def distances(reference: Answers, traffic: Answers) -> tuple[np.ndarray, np.ndarray]:
    """How far each picture (n,), (t,) lies from the nearest few of the reference; NaN for one without a vector.

    A distance is one less the cosine, the mean over the nearest (Sun et al. 2022): pictures of a rare class lie as
    near as those of a popular one; pictures of a class that is new, or from a broken lens, lie farther.
    """
    from sklearn.neighbors import NearestNeighbors

    found = tuple(np.full(len(each), np.nan) for each in (reference, traffic))
    ours, theirs = (
        np.flatnonzero(np.isfinite(each.vectors).all(axis=1) & (each.vectors != 0).any(axis=1))
        for each in (reference, traffic)
    )
    if len(ours) > NEIGHBOURS and len(theirs):
        known = unit(reference.vectors[ours])
        near = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(known)
        # Asked without pictures it leaves out each one itself. Half the squared distance of unit vectors is 1 - cosine.
        found[0][ours] = (near.kneighbors()[0] ** 2).mean(axis=1) / 2
        found[1][theirs] = (near.kneighbors(unit(traffic.vectors[theirs]))[0] ** 2).mean(axis=1) / 2
    return found[0], found[1]


def _kolmogorov(reference: np.ndarray, traffic: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """The largest difference of the two cumulative distributions, and its chance (Kolmogorov, Smirnov)."""
    from scipy.stats import kstwobign

    at = np.sort(np.concatenate([reference, traffic]))
    order = np.argsort(reference, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weights[order]) / weights.sum()])
    ours = below[np.searchsorted(reference[order], at, side="right")]
    theirs = np.searchsorted(np.sort(traffic), at, side="right") / len(traffic)
    largest = float(np.abs(ours - theirs).max())
    worth = _worth(weights)
    return largest, float(kstwobign.sf(largest * np.sqrt(worth * len(traffic) / (worth + len(traffic)))))


def _labels(earlier: np.ndarray, labels: np.ndarray) -> _Found:
    """The share of the commonest label of either period, and how much the period tells of the label.

    Cramér's V after Bergsma (2013): without that correction many labels alone would make it large.
    """
    from scipy.stats import chi2_contingency

    if min(len(earlier), len(labels)) < _FEWEST:
        return None
    names, number = np.unique(np.concatenate([earlier, labels]), return_inverse=True)
    if len(names) < 2:
        return 1.0, 1.0, 0.0, 1.0
    before, now = (np.bincount(each, minlength=len(names)) for each in np.split(number, [len(earlier)]))
    tested = chi2_contingency(np.stack([before, now]))
    n, freedom = len(number), len(names) - 1
    columns = len(names) - freedom**2 / (n - 1)
    excess = max(0.0, tested.statistic / n - freedom / (n - 1))
    V = np.sqrt(excess / max(1e-12, min(columns - 1, 1 - 1 / (n - 1))))
    return float(before.max() / len(earlier)), float(now.max() / len(labels)), float(V), float(tested.pvalue)
