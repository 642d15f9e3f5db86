"""Class vectors given as a file, one a class, such as sentence embeddings of the descriptions.

.npz      names (C,) text · vectors (C, k) numbers
.csv      a column `name`, all others numbers; parted by comma, semicolon or tab
.parquet  the same
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from ayeaye.core import contents
from ayeaye.core.errors import ClassSpaceError, listed
from ayeaye.core.unicode_checks import comparable, near

FORMATS = ".npz with names and vectors, or a .csv or .parquet with a column name and columns of numbers"


def read(path: Path, names: list[str]) -> pd.DataFrame:
    """The vectors (C, k) of `names`, in their order; other names in the file do not matter.

    A cell that is no number is NaN. Raises ClassSpaceError when the file is missing, damaged or of another
    form, and where it has no vector of a class, or two.
    """
    if not path.is_file():
        raise ClassSpaceError(f"{path} is not there: set classes.vectors to a {FORMATS}")
    expected = {".npz": "zip", ".parquet": "Parquet"}.get(path.suffix.lower(), "")
    try:
        if found := contents.foreign_file(path, expected):
            raise ClassSpaceError(f"{path} {found}; expected a {FORMATS}")
        frame = _read(path)
    except UnicodeDecodeError as error:
        raise ClassSpaceError(f"{path} {contents.unlike_utf8(path, error)}; expected a {FORMATS}") from None
    # zlib, pyarrow and pandas raise what the damaged bytes lead them to, the last two a kind of ValueError.
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # NumPy's own words recommend to load pickles, which nobody should.
        why = (
            "it holds Python objects: save its texts and numbers as such" if "pickle" in str(error) else error
        )
        raise ClassSpaceError(f"{path} cannot be read ({why}): expected a {FORMATS}") from None
    known = {comparable(name): name for name in names}
    frame.index = pd.Index([known.get(comparable(name), name) for name in frame.index])
    _check_names(path, frame.index, names)
    return frame.loc[names].reset_index(drop=True)


def _read(path: Path) -> pd.DataFrame:
    """Columns of numbers by name of the class."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _arrays(path)
    if suffix == ".csv":
        content = path.read_text(encoding="utf-8-sig")
        heading = content.partition("\n")[0]
        separator = max(",;\t", key=heading.count)
        # As text, so that a class may be called NA or 007.
        frame = pd.read_csv(io.StringIO(content), sep=separator, dtype=str, keep_default_na=False)
        frame = frame.rename(columns=lambda name: "name" if name.strip().lower() == "name" else name)
        if separator == ";":  # and so the comma is most often that of decimals
            frame = frame.apply(lambda cells: cells if cells.name == "name" else cells.str.replace(",", "."))
    elif suffix == ".parquet":
        frame = pd.read_parquet(path)
    else:
        raise ValueError(f"a file called *{path.suffix}")
    if "name" not in frame or len(frame.columns) < 2:
        raise ValueError(f"its columns are {listed([str(column) for column in frame])}")
    named = frame.set_index(frame["name"].astype(str)).drop(columns="name")
    numbers = named.apply(pd.to_numeric, errors="coerce")
    wordy = [str(column) for column in named if numbers[column].isna().all()]
    if wordy:
        raise ValueError(f"no number in column {listed(wordy)}")
    return numbers


def _arrays(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as file:
        missing = [key for key in ("names", "vectors") if key not in file.files]
        if missing:
            raise ValueError(f"no array {' and '.join(missing)}; it has {listed(list(file.files))}")
        names, vectors = file["names"], file["vectors"]
    if names.dtype.kind != "U" or vectors.dtype.kind not in "fiub":
        raise ValueError(f"names are {names.dtype} and vectors {vectors.dtype}, not text and numbers")
    if vectors.ndim != 2 or not vectors.size or names.shape != (len(vectors),):
        raise ValueError(f"names are of shape {names.shape} and vectors {vectors.shape}, not (C,) and (C, k)")
    return pd.DataFrame(vectors.astype(np.float64), names.tolist(), [str(k) for k in range(vectors.shape[1])])


def _check_names(path: Path, given: pd.Index, names: list[str]) -> None:
    missing = [name for name in names if name not in given]
    if missing:
        alike = near(missing[0], given[~given.isin(names)], 1)
        hint = f"; did you mean {alike[0]} for {missing[0]}?" if alike else ""
        raise ClassSpaceError(
            f"{path} has no vector of {len(missing)} of {len(names)} classes ({listed(missing)}): "
            f"add them under these names{hint}",
            missing,
        )
    wanted = given[given.isin(names)]
    if wanted.has_duplicates:
        twice = wanted[wanted.duplicated()].unique().tolist()
        raise ClassSpaceError(f"{path} has more than one vector of {listed(twice)}: keep one of each", twice)
