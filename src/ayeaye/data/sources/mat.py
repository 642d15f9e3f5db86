"""MATLAB files of either kind: v5 and v7, which SciPy reads, and v7.3, which is HDF5.

MATLAB writes HDF5 with the axes in reverse, text as UTF-16 numbers and a cell as references; what is given
back here is as MATLAB shows it, whichever kind it came from.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ayeaye.core import contents
from ayeaye.core.errors import SourceError

# What SciPy's and HDF5's readers raise on files that are cut short or of another kind.
_BROKEN = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
)


def read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some variables: numbers (rows, columns), texts and cells of texts (n,). Those not there are left out.

    Raises SourceError where the file is none of MATLAB's.
    """
    import h5py
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return {name: _of_hdf5(file, file[name]) for name in names if name in file}
        found = loadmat(path, variable_names=list(names))
        return {name: _of_v5(found[name]) for name in names if name in found}
    except (*_BROKEN, MatReadError) as error:
        raise _no_matlab(path, error) from None


def shape(path: Path, name: str) -> tuple[int, ...] | None:
    """The shape of a variable, None where there is none; nothing of it is read."""
    import h5py
    from scipy.io import whosmat
    from scipy.io.matlab import MatReadError

    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return tuple(reversed(file[name].shape)) if name in file else None
        return next((size for own, size, _ in whosmat(path) if own == name), None)
    except (*_BROKEN, MatReadError) as error:
        raise _no_matlab(path, error) from None


def _of_v5(value: np.ndarray) -> np.ndarray:
    if value.dtype.kind == "O":
        return np.array([str(np.ravel(item)[0]) if np.size(item) else "" for item in value.ravel(order="F")])
    return value.ravel() if value.dtype.kind == "U" else value


def _of_hdf5(file: Any, dataset: Any) -> np.ndarray:
    import h5py

    if dataset.attrs.get("MATLAB_empty"):
        return np.empty((0, 0))  # what is stored in its place is its shape
    values = dataset[()]
    if h5py.check_ref_dtype(dataset.dtype):
        return np.array([_text(file[reference][()]) for reference in values.ravel()])
    if dataset.attrs.get("MATLAB_class") == b"char":
        return np.array([_text(values)])
    return values.T


def _text(codes: np.ndarray) -> str:
    return np.ravel(codes).astype("<u2").tobytes().decode("utf-16-le").rstrip("\0")


def _no_matlab(path: Path, error: Exception) -> SourceError:
    found = contents.foreign_file(path, "HDF5") if path.is_file() else None
    if found:
        return SourceError(f"{path} is no MATLAB file: it {found}")
    return SourceError(f"{path} is no MATLAB file that can be read ({error}): fetch it again")
