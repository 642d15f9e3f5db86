"""The field's own formats: small folders laid out as xlsa17, AWA2 and CUB are, and every fault by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from small_sources import Place, picture

from ayeaye.class_vectors.space import build
from ayeaye.core import params
from ayeaye.core.errors import ClassSpaceError, SourceError
from ayeaye.data.sources import Source, mat, open_source
from ayeaye.data.table import Dataset

Write = Callable[[Path, dict[str, Any]], None]
NAMES = ["antelope", "killer+whale", "003.Grizzly_bear", "dolphin", "blue+whale"]
PLAIN = ["antelope", "killer whale", "Grizzly bear", "dolphin", "blue whale"]


def opened(path: Path, source: str) -> Source:
    return open_source(params.Prepare(source=source, path=str(path)), Path)


def names_of(source: Source, role: str) -> list[str]:
    frame = source.classes.frame
    return frame.loc[frame["role"] == role, "name"].tolist()


# ---- xlsa17 ----


def write_v5(path: Path, variables: dict[str, Any]) -> None:
    cells = {name: np.array(value, object)[:, None] for name, value in variables.items() if _is_text(value)}
    savemat(path, {**variables, **cells}, do_compression=True)


def write_v73(path: Path, variables: dict[str, Any]) -> None:
    """As MATLAB writes it: axes in reverse, text as numbers (length, 1), a cell (1, n) of references to texts."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            if np.size(value) == 0:
                file[name] = np.array(np.shape(value), np.uint64)
                file[name].attrs["MATLAB_empty"] = np.uint8(1)
                continue
            if not _is_text(value):
                file[name] = np.asarray(value).T
                file[name].attrs["MATLAB_class"] = np.bytes_("double")
                continue
            cell = file.create_dataset(name, (1, len(value)), h5py.ref_dtype)
            cell.attrs["MATLAB_class"] = np.bytes_("cell")
            for place, text in enumerate(value):
                codes = np.frombuffer(text.encode("utf-16-le"), np.uint16)[:, None]
                stored = file.create_dataset(f"#refs#/{name}{place}", data=codes)
                stored.attrs["MATLAB_class"] = np.bytes_("char")
                cell[0, place] = stored.ref


def _is_text(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


@pytest.fixture(params=[write_v5, write_v73], ids=["v5", "v7.3"])
def write(request: pytest.FixtureRequest) -> Write:
    return request.param


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


def features() -> np.ndarray:
    """(3, 12): each column is a picture."""
    return np.arange(36.0).reshape(12, 3).T / 7


def resnet(**other: Any) -> dict[str, Any]:
    # Four pictures of class 1, four of 2, two of 3, two of 4; class 5 has none.
    found = {"features": features(), "labels": column(1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4)} | other
    return {name: value for name, value in found.items() if value is not None}


def splits(**other: Any) -> dict[str, Any]:
    """As published for AWA2: train_loc and val_loc together are trainval_loc and test_seen_loc."""
    found: dict[str, Any] = {
        "allclasses_names": NAMES,
        "att": np.arange(10.0).reshape(2, 5),
        "original_att": np.arange(15.0).reshape(3, 5),
        "trainval_loc": column(1, 2, 3, 7, 6, 5, 9, 10),
        "test_seen_loc": column(4, 8),
        "test_unseen_loc": column(11, 12),
        "train_loc": column(1, 2, 3, 4, 9, 10),
        "val_loc": column(5, 6, 7, 8),
    }
    return {name: value for name, value in (found | other).items() if value is not None}


def xlsa17(folder: Path, write: Write, res: dict[str, Any], att: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "res101.mat", res)
    write(folder / "att_splits.mat", att)
    return folder


def test_both_kinds_of_matlab_files_give_the_published_features_and_splits(
    tmp_path: Path, write: Write
) -> None:
    source = opened(xlsa17(tmp_path, write, resnet(), splits()), "xlsa17")
    assert (source.kind, source.dtype, source.width) == ("features", "float32", 3)
    assert source.classes.names == PLAIN
    # A class that nobody photographed is unseen, too.
    assert names_of(source, "unseen") == ["dolphin", "blue whale"]
    assert [entry.split for entry in source.entries] == [
        *["train"] * 3, "test_seen", *["train"] * 3, "test_seen", *["train"] * 2, *["test_unseen"] * 2,
    ]  # fmt: skip
    assert [entry.label for entry in source.entries[3:9:5]] == ["antelope", "Grizzly bear"]
    assert source.read(source.entries[4]) == features().T[4].astype("<f4").tobytes()
    matrices = {name: matrix.to_numpy() for name, matrix in source.classes.matrices.items()}
    np.testing.assert_array_equal(matrices["attributes"], splits()["att"].T)
    np.testing.assert_array_equal(matrices["original_attributes"], splits()["original_att"].T)


def test_no_test_picture_comes_to_tuning_although_val_loc_lists_them(tmp_path: Path, write: Write) -> None:
    place = Place(tmp_path / "work", xlsa17(tmp_path / "source", write, resnet(), splits()))
    summary = place.prepare(source="xlsa17", validation_share=0.2)
    assert summary.splits["test_seen"] == summary.splits["test_unseen"] == 2
    dataset = Dataset.load(place.dataset)
    split = dict(zip(dataset.manifest["source"], dataset.manifest["split"], strict=True))
    assert split["3"] == split["7"] == "test_seen"
    assert dict(zip(PLAIN, dataset.classes.pretend_unseen.tolist(), strict=True)) == {
        "antelope": False, "killer whale": True, "Grizzly bear": False, "dolphin": False, "blue whale": False,
    }  # fmt: skip


def test_a_class_that_only_test_pictures_put_into_val_loc_is_no_validation_class(
    tmp_path: Path, write: Write
) -> None:
    # Without picture 4, a test one, val_loc has nothing of class 1; class 2 is in both.
    att = splits(train_loc=column(1, 2, 3, 5), val_loc=column(4, 6, 7, 8))
    source = opened(xlsa17(tmp_path, write, resnet(), att), "xlsa17")
    assert not source.classes.pretend_unseen.any()


def test_published_splits_stay_though_a_row_contradicts_another(tmp_path: Path, write: Write) -> None:
    # As AwA1's features have it: rows of two classes alike, and one in training and in test.
    X = features()
    X[:, 6], X[:, 11], X[:, 3] = X[:, 0], X[:, 1], X[:, 2]
    place = Place(tmp_path / "work", xlsa17(tmp_path / "source", write, resnet(features=X), splits()))
    summary = place.prepare(source="xlsa17", validation_share=0)
    assert (summary.pictures, summary.rejected, summary.duplicates) == (12, 0, 0)
    dataset = Dataset.load(place.dataset)
    split = {
        int(row): part
        for row, part in zip(dataset.manifest["source"], dataset.manifest["split"], strict=True)
    }
    assert [split[row] for row in range(12)] == [
        *["train"] * 3, "test_seen", *["train"] * 3, "test_seen", *["train"] * 2, *["test_unseen"] * 2,
    ]  # fmt: skip
    shards = dataset.shards()
    kept = dataset.features(shards[0])[dataset.manifest["row"]]
    np.testing.assert_allclose(kept, X.T[dataset.manifest["source"].astype(int)], rtol=1e-6)
    assert (dataset.about["in_two_classes"], dataset.about["in_two_splits"]) == (2, 2)
    with pytest.raises(SourceError, match=r"2 pictures are under two classes: row 0 \(antelope\) and row 6 "):
        place.prepare(source="xlsa17", duplicates="error")


def test_published_validation_splits_are_not_needed_and_pictures_in_no_split_are_left_out(
    tmp_path: Path, write: Write
) -> None:
    att = splits(
        train_loc=None, val_loc=None, att=None, original_att=None, trainval_loc=column(1, 2, 5, 6, 9, 10)
    )
    source = opened(xlsa17(tmp_path, write, resnet(), att), "xlsa17")
    assert [entry.source for entry in source.entries] == ["0", "1", "3", "4", "5", "7", "8", "9", "10", "11"]
    assert source.classes.matrices == {}


@pytest.mark.parametrize(
    ("res", "att", "message"),
    [
        ({"features": None}, {}, r"res101.mat has no features: expected features \(d, n\)"),
        ({"labels": None}, {}, "res101.mat has no labels"),
        (
            {},
            {"trainval_loc": None, "test_seen_loc": None},
            "att_splits.mat has no trainval_loc, test_seen_loc",
        ),
        ({"labels": column(*[1] * 11)}, {}, r"features is of shape \(3, 12\) and there are 11 labels"),
        ({"features": features().T}, {}, r"features is of shape \(12, 3\) and there are 12 labels"),
        ({"labels": column(*[6] * 12)}, {}, "labels holds 6; expected whole numbers from 1 to 5"),
        ({"labels": column(*[0] * 12)}, {}, "labels holds 0; expected whole numbers from 1 to 5"),
        ({}, {"trainval_loc": column(1, 13)}, "trainval_loc holds 13; expected whole numbers from 1 to 12"),
        ({}, {"val_loc": column(0, 5)}, "val_loc holds 0; expected whole numbers from 1 to 12"),
        ({}, {"test_seen_loc": column(1.5)}, "test_seen_loc holds 1.5"),
        ({}, {"test_seen_loc": column(np.nan)}, "test_seen_loc holds nan"),
        ({}, {"test_seen_loc": ["a", "b"]}, "test_seen_loc is <U1; expected whole numbers"),
        ({}, {"att": np.ones((5, 2))}, r"att is float64 of shape \(5, 2\); expected numbers \(k, 5\)"),
        ({}, {"test_seen_loc": column(4, 1)}, "picture 1 is in trainval_loc and in test_seen_loc"),
        (
            {},
            {"trainval_loc": column(1, 5, 11), "test_unseen_loc": column(12)},
            "classes in trainval_loc and in test_unseen_loc: dolphin",
        ),
        (
            {},
            {"trainval_loc": column(1, 2, 3, 9, 10)},
            "classes of test_seen_loc without a picture in trainval_loc: killer whale",
        ),
        ({}, {"allclasses_names": ["a", "b", "c", "a", "d"]}, "classes listed twice: a"),
    ],
)
def test_a_fault_in_a_published_split_is_named(
    tmp_path: Path, write: Write, res: dict[str, Any], att: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        opened(xlsa17(tmp_path, write, resnet(**res), splits(**att)), "xlsa17")


def test_files_that_are_missing_or_not_of_matlab_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no res101.mat and no att_splits.mat"):
        opened(tmp_path, "xlsa17")
    xlsa17(tmp_path, write_v5, resnet(), splits())
    whole = (tmp_path / "att_splits.mat").read_bytes()
    for content in (b"", b"no matlab", whole[: len(whole) // 2], b"\x89HDF\r\n\x1a\n broken"):
        (tmp_path / "att_splits.mat").write_bytes(content)
        with pytest.raises(SourceError, match=r"att_splits.mat (is no MATLAB file|has no )"):
            opened(tmp_path, "xlsa17")


def test_text_beyond_ascii_and_an_empty_array_are_read_alike(tmp_path: Path, write: Write) -> None:
    variables = {"names": ["Käfer", "\U0001f40b"], "row": np.arange(3.0)[None], "empty": np.empty((0, 0))}
    write(tmp_path / "x.mat", variables)
    found = mat.read(tmp_path / "x.mat", ("names", "row", "empty", "nothing"))
    assert found["empty"].shape == (0, 0)
    assert found["names"].tolist() == ["Käfer", "\U0001f40b"]
    assert found["row"].shape == mat.shape(tmp_path / "x.mat", "row") == (1, 3)
    assert "nothing" not in found and mat.shape(tmp_path / "x.mat", "nothing") is None


# ---- AWA2 ----

AWA2 = {
    "classes.txt": "     1\tantelope\n     2\tkiller+whale\n     3\tdolphin\n",
    "predicates.txt": "     1\tblack\n     2\tstripes\n",
    "predicate-matrix-continuous.txt": " 10.5   0.0\n 80.0   1.0 \n 3 4\n",
    "predicate-matrix-binary.txt": "1 0\n1 0\n0 1\n",
    "trainclasses.txt": "antelope\nkiller+whale\n",
    "testclasses.txt": "dolphin\n",
}


def awa2(folder: Path, **changes: str | None) -> Path:
    """Changes are by the file's name with `_` for dots and dashes; None leaves the file out."""
    files = {name: changes.get(name.replace(".", "_").replace("-", "_"), text) for name, text in AWA2.items()}
    for name, count in (("antelope", 3), ("killer+whale", 2), ("dolphin", 1)):
        (folder / "JPEGImages" / name).mkdir(parents=True)
        for number in range(count):
            file = folder / "JPEGImages" / name / f"{name}_1000{number}.jpg"
            file.write_bytes(picture(len(name) * 10 + number, form="JPEG"))
    for name, text in files.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_awa2_is_read_as_published(tmp_path: Path) -> None:
    source = opened(awa2(tmp_path), "awa2")
    assert source.classes.names == ["antelope", "killer whale", "dolphin"]
    assert names_of(source, "unseen") == ["dolphin"]
    assert [(entry.source, entry.label) for entry in source.entries[-2:]] == [
        ("killer+whale/killer+whale_10000.jpg", "killer whale"),
        ("killer+whale/killer+whale_10001.jpg", "killer whale"),
    ]
    assert source.read(source.entries[-1]) == picture(121, form="JPEG")
    matrices = source.classes.matrices
    assert list(matrices["attributes"]) == ["black", "stripes"]
    assert matrices["attributes"].to_numpy().tolist() == [[10.5, 0], [80, 1], [3, 4]]
    assert matrices["binary"].to_numpy().tolist() == [[1, 0], [1, 0], [0, 1]]


def test_awa2_becomes_a_dataset(tmp_path: Path) -> None:
    place = Place(tmp_path / "work", awa2(tmp_path / "source"))
    assert place.prepare(source="awa2").splits["test_unseen"] == 1


def test_without_the_continuous_matrix_the_binary_one_is_taken(tmp_path: Path) -> None:
    source = opened(awa2(tmp_path, predicate_matrix_continuous_txt=None), "awa2")
    assert source.classes.matrices["attributes"].to_numpy().tolist() == [[1, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes_txt": None}, "has no classes.txt: expected JPEGImages/, classes.txt"),
        ({"predicates_txt": None}, "has no predicates.txt"),
        ({"classes_txt": "antelope\n"}, "classes.txt, line 1 is 'antelope': expected a number and a name"),
        ({"classes_txt": "1 antelope\n3 dolphin\n"}, "classes.txt has no number 2"),
        ({"classes_txt": "1 antelope\n1 dolphin\n"}, "line 2: number 1 comes twice"),
        ({"classes_txt": ""}, "classes.txt has no number 1"),
        ({"predicate_matrix_binary_txt": "1 0\n1 0\n"}, "binary.txt has 2 rows; expected 3, one per class"),
        (
            {"predicate_matrix_binary_txt": "1 0\n1\n0 1\n"},
            "binary.txt, line 2: 1 numbers; expected 2 attributes",
        ),
        ({"predicate_matrix_binary_txt": "1 0\n1 x\n0 1\n"}, "binary.txt, line 2: could not convert .*'x'"),
        ({"predicate_matrix_binary_txt": "1 0\n1 nan\n0 1\n"}, "line 2: holds a number that is not finite"),
        (
            {"testclasses_txt": "dolphins\n"},
            r"testclasses.txt: classes that classes.txt does not know: dolphins \(did you mean dolphin\?\)",
        ),
        ({"testclasses_txt": "dolphin\nantelope\n"}, "classes in both of .*: antelope; expected each in one"),
        ({"testclasses_txt": ""}, "classes in neither of .*: dolphin"),
        (
            {"classes_txt": "1 antelope\n2 killer+whale\n", "testclasses_txt": "killer+whale"},
            "classes in both of .*: killer",
        ),
    ],
)
def test_a_fault_in_awa2_is_named(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        opened(awa2(tmp_path, **changes), "awa2")


def test_a_folder_of_a_class_that_awa2_does_not_list_is_named(tmp_path: Path) -> None:
    path = awa2(tmp_path)
    (path / "JPEGImages" / "dolphin").rename(path / "JPEGImages" / "dolphine")
    with pytest.raises(
        SourceError, match=r"without a row in classes.txt: dolphine \(1\) \(did you mean dolphin"
    ):
        opened(path, "awa2")


# ---- CUB ----

CUB = {
    "classes.txt": "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n3 003.Sooty_Albatross\n",
    "images.txt": "".join(
        f"{number} {name}/{number}.jpg\n"
        for number, name in enumerate(
            ["001.Black_footed_Albatross"] * 2 + ["002.Laysan_Albatross"] * 2 + ["003.Sooty_Albatross"] * 2, 1
        )
    ),
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n5 3\n6 3\n",
    "attributes/attributes.txt": "1 has_bill_shape::curved_(up_or_down)\n2 has_size::large_(16_-_32_in)\n",
    "attributes/class_attribute_labels_continuous.txt": "0.5 99.1\n1 2\n3 4\n",
}


def cub(folder: Path, files: dict[str, str | None] | None = None) -> Path:
    path = folder / "CUB_200_2011"
    (path / "attributes").mkdir(parents=True)
    for line in CUB["images.txt"].splitlines():
        number, name = line.split()
        (path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "images" / name).write_bytes(picture(int(number), form="JPEG"))
    for file, text in (CUB | (files or {})).items():
        if text is not None:
            (path / file).write_text(text)
    return path


def test_cub_is_read_as_published(tmp_path: Path) -> None:
    (tmp_path / "testclasses.txt").write_text("002.Laysan_Albatross\n")
    source = opened(cub(tmp_path), "cub")
    assert source.classes.names == ["Black footed Albatross", "Laysan Albatross", "Sooty Albatross"]
    assert names_of(source, "unseen") == ["Laysan Albatross"]
    assert (source.entries[2].source, source.entries[2].label) == (
        "002.Laysan_Albatross/3.jpg",
        "Laysan Albatross",
    )
    assert source.read(source.entries[2]) == picture(3, form="JPEG")
    attributes = source.classes.matrices["attributes"]
    assert attributes.columns[1] == "has_size::large_(16_-_32_in)"
    np.testing.assert_allclose(attributes.to_numpy(), [[0.5, 99.1], [1, 2], [3, 4]], rtol=1e-6)


def test_cub_without_a_split_has_seen_classes_alone(tmp_path: Path) -> None:
    assert names_of(opened(cub(tmp_path), "cub"), "unseen") == []


def test_attributes_are_asked_for_where_the_class_space_reads_them(tmp_path: Path) -> None:
    bare = dict.fromkeys(file for file in CUB if file.startswith("attributes/"))
    without = [
        name.replace(".", "_").replace("-", "_")
        for name in AWA2
        if name not in ("classes.txt", "testclasses.txt")
    ]
    for source in (
        opened(cub(tmp_path / "cub", bare), "cub"),
        opened(awa2(tmp_path / "awa2", **dict.fromkeys(without)), "awa2"),
    ):
        assert source.classes.matrices == {}
        build(source.classes, params.Classes(source="tfidf"), Path)
        with pytest.raises(ClassSpaceError, match=r"attributes: no such source or .*, which has no matrices"):
            build(source.classes, params.Classes(source="attributes"), Path)


def test_cub_takes_both_lists_and_the_attribute_names_from_beside_it(tmp_path: Path) -> None:
    lists = {
        "trainvalclasses.txt": "001.Black_footed_Albatross\n003.Sooty_Albatross\n",
        "testclasses.txt": "002.Laysan_Albatross\n",
        "attributes/attributes.txt": None,
    }
    path = cub(tmp_path, lists)
    (tmp_path / "attributes.txt").write_text(CUB["attributes/attributes.txt"])
    assert names_of(opened(path, "cub"), "unseen") == ["Laysan Albatross"]


def test_a_listed_bird_that_is_not_there_is_rejected_alone(tmp_path: Path) -> None:
    files = {"images.txt": CUB["images.txt"] + "7 003.Sooty_Albatross/7.jpg\n"}
    path = cub(
        tmp_path / "source", files | {"image_class_labels.txt": CUB["image_class_labels.txt"] + "7 3\n"}
    )
    summary = Place(tmp_path / "work", path).prepare(source="cub")
    assert (summary.pictures, summary.rejected) == (6, 1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"images.txt": None}, "has no images.txt: expected images/, images.txt"),
        ({"attributes/attributes.txt": None}, "has no attributes.txt: expected it in"),
        ({"image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n5 3\n"}, "image 6 is in one of"),
        (
            {"image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n5 3\n6 4\n"},
            "image 6 is of class 4; expected .* 1 to 3",
        ),
        ({"image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n5 3\n6 x\n"}, "image 6 is of class x"),
        ({"images.txt": "1 ../../secret.jpg\n", "image_class_labels.txt": "1 1\n"}, "outside of images/"),
        (
            {"attributes/class_attribute_labels_continuous.txt": "1 2 3\n" * 3},
            "line 1: 3 numbers; expected 2 attributes",
        ),
        ({"testclasses.txt": "Laysan\n"}, "testclasses.txt: classes that classes.txt does not know: Laysan"),
        (
            {
                "testclasses.txt": "003.Sooty_Albatross\n",
                "trainvalclasses.txt": "001.Black_footed_Albatross\n",
            },
            "classes in neither of .*: 002.Laysan_Albatross",
        ),
    ],
)
def test_a_fault_in_cub_is_named(tmp_path: Path, files: dict[str, str | None], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        opened(cub(tmp_path, files), "cub")


@pytest.mark.parametrize("source", ["xlsa17", "awa2", "cub"])
def test_a_path_that_is_not_set_or_not_there_is_named(tmp_path: Path, source: str) -> None:
    with pytest.raises(SourceError, match=f"prepare.source={source} it names the folder with"):
        open_source(params.Prepare(source=source), Path)
    with pytest.raises(SourceError, match=r"nowhere(;| has no)"):
        opened(tmp_path / "nowhere", source)
