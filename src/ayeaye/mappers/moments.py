"""The second moment of the training images, and (XXᵀ + sI)⁻¹ X for any shift s."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from scipy.linalg import blas, block_diag, cho_factor, cho_solve, lapack

from ayeaye.mappers.base import class_means, remembered, unit

BLOCK = 2048  # rows


class Moment:
    """X (d, n) holds images as columns, Y (n, C') is one-hot; images weigh so that every class counts alike.

    Images are of unit length, then centred on the mean of the class means, `centre` (d,), then scaled to a mean
    square length of 1: without the centring all images look alike to a map without a constant. For one shift
    XXᵀ + sI is factorised; for many XXᵀ is brought to tridiagonal form once, a sixth of the work of finding
    eigenvectors, and then every shift is a matter of milliseconds. Where images are fewer than dimensions XᵀX
    takes its place, since (XXᵀ + sI)⁻¹X = X(XᵀX + sI)⁻¹. Otherwise only a block of images is held in float64.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        self.centre = class_means(X, y).mean(axis=0)
        self._rows: np.ndarray | None = None
        n, d = X.shape
        if n < d:
            blocks = list(_weighted(X, y, self.centre))
            self._rows = np.concatenate([rows for rows, _ in blocks])
            self._matrix = self._rows @ self._rows.T
            # XY is _rowsᵀ times the roots of weights, each in the column of its class (n, C').
            self._sums = block_diag(*(np.full((len(rows), 1), root) for rows, root in blocks))
        else:
            sums: list[np.ndarray] = []

            def rows_of_classes() -> Iterator[np.ndarray]:
                for rows, root in _weighted(X, y, self.centre):
                    sums.append(root * rows.sum(axis=0))
                    yield rows

            self._matrix = gram(rows_of_classes(), d)
            self._sums = np.stack(sums, axis=1)  # XY (d, C')
        self._square = max(float(np.trace(self._matrix)) / n, 1e-12)  # mean square length before scaling
        # Shifts below what rounding leaves of the smallest eigenvalues would meet negative ones.
        self._floor = 1e-14 * max(float(np.trace(self._matrix)), 1e-300)

    def solve(self, shifts: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(d, r): column j is (XXᵀ + s_j I)⁻¹ X Y t_j for shifts s (r,) > 0 and targets t (C', r)."""
        targets = self._sums @ targets
        shifts = np.maximum(shifts * self._square, self._floor)
        if len(np.unique(shifts)) == 1:
            shifted = self._matrix.copy(order="F")
            shifted[np.diag_indices(len(shifted))] += shifts[0]
            found = cho_solve(cho_factor(shifted, lower=True, overwrite_a=True), targets)
        else:
            found = self._tridiagonal.solve(shifts, targets)
        return np.sqrt(self._square) * (found if self._rows is None else self._rows.T @ found)

    @cached_property
    def _tridiagonal(self) -> Tridiagonal:
        return Tridiagonal(self._matrix)


@remembered
def moment(X: np.ndarray, y: np.ndarray) -> Moment:
    """The moment of images X (n, d) with labels y (n,), found once for all settings and methods."""
    return Moment(X, y)


class Tridiagonal:
    """A symmetric matrix M = Q T Qᵀ (m, m) with orthogonal Q and tridiagonal T, by Householder reflections.

    Only its lower triangle is read.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        work = int(lapack.dsytrd_lwork(len(matrix), lower=1)[0])
        reduced, self._diagonal, beside, self._tau, _ = lapack.dsytrd(matrix, lower=1, lwork=work)
        self._beside = beside if len(beside) else np.zeros(1)  # which dptsv asks for even of a single number
        self._reflections = np.asfortranarray(reduced[1:, :-1])

    def solve(self, shifts: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(m, r): column j is (M + s_j I)⁻¹ t_j, for shifts s (r,) > 0 and targets t (m, r)."""
        turned = self._turn(targets, "T")
        for shift in np.unique(shifts):
            columns = np.flatnonzero(shifts == shift)
            turned[:, columns] = lapack.dptsv(self._diagonal + shift, self._beside, turned[:, columns])[2]
        return self._turn(turned, "N")

    def _turn(self, columns: np.ndarray, which: str) -> np.ndarray:
        """Qᵀ (which T) or Q (N) times columns (m, r): Q leaves the first row alone."""
        turned = np.array(columns, order="F")
        if len(turned) > 1:
            work = 64 * turned.shape[1] + 64 * 65
            turned[1:] = lapack.dormqr("L", which, self._reflections, self._tau, turned[1:], work)[0]
        return turned


def gram(classes: Iterable[np.ndarray], d: int, precision: type = np.float64) -> np.ndarray:
    """Lower triangle (d, d) of the sum of RᵀR over the rows R (n, d) of each class, which are of that precision.

    Gathered into blocks: the product of one large block is many times as fast as that of many small ones.
    """
    total: np.ndarray = np.zeros((d, d), precision, order="F")
    syrk = blas.get_blas_funcs("syrk", (total,))
    held: list[np.ndarray] = []

    def add() -> np.ndarray:
        return syrk(1.0, np.concatenate(held).T, beta=1.0, c=total, lower=1, overwrite_c=1)

    for rows in classes:
        held.append(rows)
        if sum(map(len, held)) >= BLOCK:
            total = add()
            held.clear()
    return add() if held else total


def _weighted(X: np.ndarray, y: np.ndarray, centre: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Class by class its centred unit rows times the root of their weight, and that root; weights average to one."""
    classes, counts = np.unique(y, return_counts=True)
    for c, count in zip(classes, counts, strict=True):
        root = float(np.sqrt(len(y) / len(classes) / count))
        yield (unit(X[y == c].astype(np.float64)) - centre) * root, root
