"""How well class vectors agree with what the classes look like.

Everywhere `vectors` (C, k) are class vectors and `visual` (C, d) the mean embeddings of the same classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ayeaye.core.errors import ClassSpaceError

NEIGHBOURS = 5


def judge(
    vectors: np.ndarray, visual: np.ndarray, described: np.ndarray | None = None, seed: int = 0
) -> dict[str, Any]:
    """Every figure of this module, with what chance would give; of fewer than 4 classes they are None.

    `described` (C, T) are the classes by their descriptions alone, where the vectors have it from names, too:
    names that tell enough would hide that the descriptions are those of other classes. `descriptions_p` is the
    p-value of these, None without them.
    """
    classes = len(vectors)
    if classes < 4:
        return {"classes": classes, "rho": None, "p": None, "descriptions_p": None}
    k = _usable(NEIGHBOURS, classes)
    found = spearman(vectors, visual, seed=seed)
    alone = None if described is None else spearman(described, visual, seed=seed)["p"]
    return {
        "classes": classes,
        **found,
        "descriptions_p": alone,
        "neighbours": k,
        "neighbour_overlap": neighbour_overlap(vectors, visual, k),
        "neighbour_overlap_chance": k / (classes - 1),
        "leave_one_out_rank": leave_one_out_rank(vectors, visual),
    }


def spearman(
    vectors: np.ndarray, visual: np.ndarray, permutations: int = 999, seed: int = 0
) -> dict[str, float]:
    """Rank correlation of the two spaces' class distances, and its one-sided permutation p-value.

    Whole classes are permuted, not pairs, since pairs that share a class are not independent (Mantel 1967).
    """
    from scipy.stats import rankdata

    _check(vectors, visual, least=4)
    rows, columns = np.triu_indices(len(vectors), 1)
    a = _standard(rankdata(-_cosines(vectors)[rows, columns]))
    ranks = np.zeros((len(vectors), len(vectors)))
    ranks[rows, columns] = _standard(rankdata(-_cosines(visual)[rows, columns]))
    ranks += ranks.T
    rho = float(a @ ranks[rows, columns])
    rng = np.random.default_rng(seed)
    beyond = 0
    for _ in range(permutations):
        order = rng.permutation(len(vectors))
        beyond += float(a @ ranks[order[rows], order[columns]]) >= rho - 1e-12
    return {"rho": rho, "p": (1 + beyond) / (1 + permutations)}


def neighbour_overlap(vectors: np.ndarray, visual: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Mean share of a class's k nearest classes that are the same in both spaces; chance is k / (C - 1)."""
    _check(vectors, visual, least=3)
    k = _usable(k, len(vectors))
    near = [_neighbours(space, k) for space in (vectors, visual)]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)]))


def leave_one_out_rank(vectors: np.ndarray, visual: np.ndarray, penalty: float = 0.3) -> dict[str, float]:
    """Rank (1 is best) of a class's own mean near what a ridge of all other classes predicts for it.

    The left-out predictions of kernel ridge regression in closed form (Allen 1974); chance is (C + 1) / 2, and
    `relative` the mean over chance: 1 knows nothing.
    """
    _check(vectors, visual, least=4)
    targets = _unit(visual)
    targets = targets - targets.mean(axis=0)
    inverse = np.linalg.inv(_unit(vectors) @ _unit(vectors).T + penalty * np.eye(len(vectors)))
    predicted = targets - (inverse @ targets) / np.diag(inverse)[:, None]
    cosines = _unit(predicted) @ _unit(targets).T
    ranks = 1 + (cosines > np.diag(cosines)[:, None]).sum(axis=1)
    mean, chance = float(ranks.mean()), (len(vectors) + 1) / 2
    return {"mean": mean, "median": float(np.median(ranks)), "chance": chance, "relative": mean / chance}


def _usable(k: int, classes: int) -> int:
    """k cut to fewer than all other classes, of which every overlap would be whole."""
    return min(k, classes - 2)


def _check(vectors: np.ndarray, visual: np.ndarray, least: int) -> None:
    if len(vectors) != len(visual):
        raise ClassSpaceError(f"{len(vectors)} class vectors, but {len(visual)} mean embeddings")
    if len(vectors) < least:
        raise ClassSpaceError(f"{len(vectors)} classes: the class space is judged on {least} or more")
    if not (np.isfinite(vectors).all() and np.isfinite(visual).all()):
        raise ClassSpaceError("class vectors or mean embeddings hold NaN: no quality can be given")


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _cosines(rows: np.ndarray) -> np.ndarray:
    """(C, C) of rows centred over the classes, as a mapper sees them."""
    rows = np.asarray(rows, np.float64)
    unit = _unit(rows - rows.mean(axis=0))
    return unit @ unit.T


def _standard(ranks: np.ndarray) -> np.ndarray:
    ranks = ranks - ranks.mean()
    return ranks / max(float(np.linalg.norm(ranks)), 1e-12)


def _neighbours(rows: np.ndarray, k: int) -> np.ndarray:
    cosines = _cosines(rows)
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]
