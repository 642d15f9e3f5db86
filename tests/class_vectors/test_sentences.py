"""Vectors of classes from a file: every format read, in the order of the classes; what is wrong is named."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.class_vectors.sentences import read
from ayeaye.core.errors import ClassSpaceError

NAMES = ["Seal", "NA", "käfer", "007"]
VECTORS = np.array([[1.0, 0.5, -2.0], [0.25, 0.0, 1.0], [0.0, 1.0, 0.0], [3.0, 1.0, 2.0]])
FRAME = pd.DataFrame({"name": NAMES, "x": VECTORS[:, 0], "y": VECTORS[:, 1], "z": VECTORS[:, 2]})

FORMATS: dict[str, Callable[[Path], None]] = {
    ".npz": lambda path: np.savez(path, names=np.array(NAMES), vectors=VECTORS.astype(np.float16)),
    ".csv": lambda path: FRAME.to_csv(path, index=False),
    ".parquet": lambda path: FRAME.to_parquet(path),
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_vectors_in_the_order_of_the_classes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"vectors{suffix}"
    FORMATS[suffix](path)
    found = read(path, ["007", "käfer", "NA"])
    np.testing.assert_array_equal(found.to_numpy(), VECTORS[[3, 2, 1]])
    assert found.index.tolist() == [0, 1, 2]


def test_how_a_name_is_written_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "vectors.csv"
    path.write_bytes("\ufeffname,x\nKa\u0308fer ,2\n".encode())
    assert read(path, ["käfer"]).to_numpy().tolist() == [[2.0]]


@pytest.mark.parametrize(
    "content", ["Name,x,y\nSeal,1.5,2\n", "name;x;y\nSeal;1,5;2\n", "NAME \tx\ty\nSeal\t1.5\t2\n"]
)
def test_a_csv_is_read_in_the_dialects_that_spreadsheets_write(content: str, tmp_path: Path) -> None:
    (tmp_path / "vectors.CSV").write_text(content)
    assert read(tmp_path / "vectors.CSV", ["Seal"]).to_numpy().tolist() == [[1.5, 2.0]]


def test_a_csv_in_latin_1_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "vectors.csv").write_bytes("name,x\nKäfer,1\n".encode("latin-1"))
    with pytest.raises(
        ClassSpaceError, match=r"vectors.csv is not UTF-8 .*: save it as UTF-8, such as with `iconv"
    ):
        read(tmp_path / "vectors.csv", ["Käfer"])


def test_a_cell_without_a_number_is_nan(tmp_path: Path) -> None:
    path = tmp_path / "vectors.csv"
    path.write_text("name,x,y\nSeal,1,\nFox,one,2\n")
    np.testing.assert_array_equal(read(path, ["Fox", "Seal"]), [[np.nan, 2], [1, np.nan]])


def test_classes_without_a_vector_are_named(tmp_path: Path) -> None:
    FORMATS[".csv"](tmp_path / "vectors.csv")
    with pytest.raises(ClassSpaceError, match=r"2 of 3 classes \(Sael, Fox\).*did you mean Seal for Sael"):
        read(tmp_path / "vectors.csv", ["Sael", "NA", "Fox"])


def test_a_name_that_is_another_class_is_not_suggested(tmp_path: Path) -> None:
    FORMATS[".csv"](tmp_path / "vectors.csv")
    with pytest.raises(ClassSpaceError, match=r"1 of 2 classes \(Sael\): add them under these names$"):
        read(tmp_path / "vectors.csv", ["Sael", "Seal"])


def test_two_vectors_of_a_class_are_refused_and_of_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "vectors.csv").write_text("name,x\nSeal,1\nSeal,2\nFox,3\n")
    assert read(tmp_path / "vectors.csv", ["Fox"]).to_numpy().tolist() == [[3.0]]
    with pytest.raises(ClassSpaceError, match="more than one vector of Seal"):
        read(tmp_path / "vectors.csv", ["Fox", "Seal"])


def arrays(**given: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **given)


def content(given: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(given)


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("v.npz", arrays(names=np.array(NAMES)), "no array vectors; it has names"),
        ("v.npz", arrays(names=np.array(NAMES, object), vectors=VECTORS), "it holds Python objects"),
        ("v.npz", arrays(names=np.array(NAMES), vectors=VECTORS.astype(str)), "not text and numbers"),
        ("v.npz", arrays(names=np.array(NAMES[1:]), vectors=VECTORS), r"shape \(3,\) and vectors \(4, 3\)"),
        ("v.npz", arrays(names=np.array(NAMES), vectors=VECTORS[:, 0]), "vectors"),
        ("v.npz", content(pickle.dumps({"Seal": [1.0]})), "pickle"),
        ("v.npz", content(b"PK\x03\x04 cut short"), "cannot be read"),
        ("v.npz", content(b""), "cannot be read"),
        ("v.csv", content(b""), "cannot be read"),
        ("v.csv", content(b"class,x\nSeal,1\n"), "its columns are class, x"),
        ("v.csv", content(b"name\nSeal\n"), "its columns are name"),
        ("v.csv", content(b"name,x\n\xff\xfe,1\n"), "utf-8"),
        ("v.parquet", content(b"PAR1 cut short"), "cannot be read"),
        (
            "v.parquet",
            lambda path: pd.DataFrame({"name": ["Seal"], "v": [[1.0, 2.0]]}).to_parquet(path),
            "cannot be read",
        ),
        ("v.pkl", content(pickle.dumps(FRAME)), "is a pickle of Python"),
    ],
)
def test_a_file_of_another_form_is_refused(
    name: str, write: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(ClassSpaceError, match=said) as caught:
        read(tmp_path / name, NAMES)
    assert "expected a .npz with names and vectors" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClassSpaceError, match=r"nowhere\.npz is not there: set classes\.vectors"):
        read(tmp_path / "nowhere.npz", NAMES)
