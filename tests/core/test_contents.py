"""Files that are not what their names promise, told by what they hold, at every door."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.class_vectors import sentences, space, words
from ayeaye.core import params
from ayeaye.core.contents import foreign, unlike_utf8
from ayeaye.core.errors import AyeayeError, BackboneError, ClassSpaceError, DataError, SourceError
from ayeaye.data.sources import open_source, read_classes
from ayeaye.data.table import ClassTable
from ayeaye.pipeline import pretraining

TABLE = "name,role,description\nokapi,seen,Stripes on the legs\nzebra,seen,Stripes all over\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def workbook() -> bytes:
    import zipfile

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/workbook.xml", "<workbook/>")
    return content.getvalue()


def archive() -> bytes:
    import zipfile

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("glove.6B.50d.txt", "the 1 2 3")
    return content.getvalue()


def arrays(**given: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **given)
    return content.getvalue()


FOREIGN = {
    "gzip": (gzip.compress(TABLE.encode()), "compressed with gzip: unpack it with gunzip"),
    "bzip2": (bz2.compress(TABLE.encode()), "compressed with bzip2"),
    "xz": (lzma.compress(TABLE.encode()), "compressed with xz"),
    "zip": (archive(), "is a zip archive: unpack it"),
    "Excel": (workbook(), "is an Excel workbook: save it as CSV UTF-8"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is an Excel workbook"),
    "web page": (PAGE, "is a web page, such as an error"),
    "answer of S3": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "is a web page"),
    "Git LFS": (POINTER, "is a pointer of Git LFS, not the file itself: run `git lfs pull`"),
    "UTF-16": (TABLE.encode("utf-16"), "is UTF-16: save it as UTF-8"),
    "UTF-16 without a mark": (TABLE.encode("utf-16-le"), "is UTF-16: save it as UTF-8"),
    "pickle": (pickle.dumps({"lemur": [1.0]}), "is a pickle of Python"),
    "zeros": (bytes(2000), "holds zeros alone"),
    "npz": (arrays(a=np.ones(3)), r"is an \.npz of NumPy"),
}
PLAIN = (
    b"",
    TABLE.encode(),
    ("\ufeff" + TABLE).encode(),
    b"the 0.1 0.2\nof 0.3 0.4\n",
    b'{"name": "<html>"}',
    b"\x80",
)


@pytest.fixture(params=FOREIGN)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_plain_text_is_not_foreign() -> None:
    assert [foreign(content) for content in PLAIN] == [None] * len(PLAIN)


def test_what_is_expected_is_not_foreign() -> None:
    assert foreign(arrays(a=np.ones(3)), "zip") is None
    assert foreign(pickle.dumps({}), "zip", "pickle") is None
    assert foreign(gzip.compress(b"x"), "gzip") is None


def refused(error: type[AyeayeError], said: str) -> pytest.RaisesExc[AyeayeError]:
    return pytest.raises(error, match=said)


def test_every_door_of_text_says_what_a_file_is(kind: str, tmp_path: Path) -> None:
    content, said = FOREIGN[kind]
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with refused(SourceError, said):
        read_classes(path)
    with refused(DataError, said):
        pretraining.read_names(path)
    with refused(ClassSpaceError, said):
        sentences.read(path, ["okapi"])
    table = ClassTable(pd.DataFrame({"name": ["a", "b"], "role": "seen", "description": ["c d", "e f"]}))
    with refused(ClassSpaceError, said):
        space.build(table, params.Classes(source="word2vec", corpus="file.csv"), lambda name: tmp_path / name)


@pytest.mark.parametrize("kind", ["zip", "web page", "Git LFS", "UTF-16", "pickle", "Excel"])
def test_word_vectors_say_what_a_file_is(kind: str, tmp_path: Path) -> None:
    content, said = FOREIGN[kind]
    (tmp_path / "vectors.txt").write_bytes(content)
    with refused(ClassSpaceError, f"holds no word vectors: it {said}"):
        words.read(tmp_path / "vectors.txt")


@pytest.mark.parametrize("kind", ["web page", "Git LFS", "gzip", "zeros"])
def test_weights_and_features_say_what_a_file_is(kind: str, tmp_path: Path) -> None:
    from ayeaye.backbones import checkpoints

    content, said = FOREIGN[kind]
    (tmp_path / "weights.pth").write_bytes(content)
    with refused(BackboneError, f"is not a readable checkpoint .it .*{said}"):
        checkpoints.read(tmp_path / "weights.pth")
    (tmp_path / "features.npz").write_bytes(content)
    settings = params.Prepare(source="features", path="features.npz")
    with refused(SourceError, f"is not an .npz of plain arrays: it .*{said}"):
        open_source(settings, lambda name: tmp_path / name)


def test_vectors_with_python_objects_are_not_read_and_nobody_is_told_to_allow_them(tmp_path: Path) -> None:
    (tmp_path / "v.npz").write_bytes(arrays(names=np.array(["okapi"], object), vectors=np.ones((1, 2))))
    with pytest.raises(ClassSpaceError, match="it holds Python objects") as met:
        sentences.read(tmp_path / "v.npz", ["okapi"])
    assert "allow_pickle" not in str(met.value)


def test_text_in_latin_1_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_bytes("name,role\nokapi,seen\nkäfer,seen\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"is not UTF-8 .*line 3, near 'käfer,see.*iconv"):
        read_classes(path)
    with pytest.raises(UnicodeDecodeError) as met:
        path.read_text(encoding="utf-8")
    assert "line 3" in unlike_utf8(path, met.value)
