"""Sources: what they give, and every fault by name."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sources import CLASSES, picture, write_csv, write_source

from ayeaye.class_vectors.space import build, check
from ayeaye.core import params
from ayeaye.core.errors import CoincidentClasses, IncompleteClass, PictureError, SourceError
from ayeaye.data.sources import Source, open_source, read_classes
from ayeaye.data.sources.base import Entry, doubtful, labelled

PICTURES = {"okapi": 3, "zebra": 3}


def opened(path: Path | None, source: str = "folder") -> Source:
    return open_source(params.Prepare(source=source, path=str(path) if path else None), Path)


def made(tmp_path: Path, rows: list[dict[str, Any]] = CLASSES, pictures: dict[str, int] = PICTURES) -> Path:
    return write_source(tmp_path / "source", rows, pictures)


def changed(which: str, **cells: Any) -> list[dict[str, Any]]:
    return [row | cells if row["name"] == which else row for row in CLASSES]


# ---- folder ----


def test_a_folder_gives_its_pictures_sorted_and_its_classes_in_order(tmp_path: Path) -> None:
    source = opened(made(tmp_path))
    assert [entry.source for entry in source.entries] == [
        f"{name}/{number:03d}.png" for name in ("okapi", "zebra") for number in range(3)
    ]
    assert source.classes.names == ["okapi", "zebra", "aye-aye"]
    assert source.read(source.entries[0]) == picture(0)


def told(source: Source) -> dict[str, str]:
    """Why entries cannot be read."""
    reasons = {}
    for entry in source.entries:
        try:
            source.read(entry)
        except PictureError as error:
            reasons[entry.source] = str(error)
    return reasons


def test_hidden_files_and_what_file_managers_leave_are_ignored(tmp_path: Path) -> None:
    path = made(tmp_path)
    for name in (".DS_Store", "Thumbs.db", "._001.png", "desktop.ini"):
        (path / "images" / "okapi" / name).write_bytes(b"x")
    (path / "images" / ".cache").mkdir()
    assert len(opened(path).entries) == 6


def test_links_to_pictures_and_to_folders_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    path = made(tmp_path)
    other = tmp_path / "other" / "deep"
    other.mkdir(parents=True)
    for number in range(2):
        (other / f"{number}.png").write_bytes(picture(90 + number))
    (other.parent / "single.PNG").write_bytes(picture(99))
    (path / "images/okapi/link.png").symlink_to(other.parent / "single.PNG")
    (path / "images/aye-aye").symlink_to(other.parent)
    source = opened(path)
    labels = {entry.source: entry.label for entry in source.entries}
    assert labels["okapi/link.png"] == "okapi"
    assert [name for name in labels if labels[name] == "aye-aye"] == [
        "aye-aye/deep/0.png",
        "aye-aye/deep/1.png",
        "aye-aye/single.PNG",
    ]
    assert not told(source)
    assert {entry.source: source.read(entry) for entry in source.entries}["aye-aye/deep/1.png"] == picture(91)


def test_a_source_behind_a_link_is_as_the_source(tmp_path: Path) -> None:
    path = made(tmp_path)
    (path / "images").rename(tmp_path / "elsewhere")
    (path / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(path)
    source = opened(tmp_path / "link")
    assert len(source.entries) == 6 and not told(source)


def test_links_in_circles_and_to_what_is_read_already_are_told_and_never_followed_twice(
    tmp_path: Path,
) -> None:
    path = made(tmp_path)
    images = path / "images"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "back").symlink_to(outside)
    (outside / "new.png").write_bytes(picture(98))
    (images / "okapi/out").symlink_to(outside)
    (images / "okapi/self").symlink_to(images / "okapi")
    (images / "okapi/up").symlink_to(tmp_path)
    (images / "zebra/okapis").symlink_to(images / "okapi")
    (images / "zebra/out").symlink_to(outside)
    source = opened(path)
    assert told(source) == {
        f"{name}": f"a link to a folder that is read already, or holds it ({where})"
        for name, where in (
            ("okapi/out/back", "okapi/out"),
            ("okapi/self", "okapi"),
            ("okapi/up", "above this one"),
            ("zebra/okapis", "okapi"),
            ("zebra/out", "okapi/out"),
        )
    }
    assert len(source.entries) == 6 + 5 + 1


def test_what_is_no_readable_file_is_told_and_waited_for_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path)
    okapi = path / "images" / "okapi"
    os.mkfifo(okapi / "pipe.png")
    (okapi / "piped.png").symlink_to(okapi / "pipe.png")
    (okapi / "device.png").symlink_to("/dev/zero")
    (okapi / "broken.png").symlink_to(tmp_path / "nowhere")
    (okapi / "round.png").symlink_to(okapi / "round.png")
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(okapi)  # a socket's address must be short
        bound.bind("socket.png")
    Path(os.fsdecode(os.fsencode(okapi) + b"/caf\xe9.png")).write_bytes(picture(97))
    found = told(opened(path))
    irregular = "is no regular file, but a pipe, a socket or a device"
    assert {found.pop(f"okapi/{name}.png") for name in ("pipe", "piped", "device", "socket")} == {irregular}
    assert found == {
        "okapi/broken.png": f"a link to {tmp_path / 'nowhere'}, which is not there",
        "okapi/round.png": "cannot be read (Too many levels of symbolic links)",
        "okapi/caf\\xe9.png": "its name is not UTF-8: rename it",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = made(tmp_path)
    (path / "images/okapi/000.png").chmod(0)
    (path / "images/zebra/closed").mkdir(mode=0)
    denied = "cannot be read (Permission denied)"
    assert told(opened(path)) == {"okapi/000.png": denied, "zebra/closed": denied}


def test_pictures_in_subfolders_belong_to_the_class_folder(tmp_path: Path) -> None:
    path = made(tmp_path)
    (path / "images/okapi/2024").mkdir()
    (path / "images/okapi/2024/a.png").write_bytes(picture(50))
    labels = {entry.source: entry.label for entry in opened(path).entries}
    assert labels["okapi/2024/a.png"] == "okapi"


def test_optional_columns_are_read(tmp_path: Path) -> None:
    rows = [
        row
        | {"synonyms": "a; b|apple, green", "group": "g", "synset": "n0", "neck": number, "2d/x": 1 - number}
        for number, row in enumerate(CLASSES)
    ]
    write_csv(tmp_path / "classes.csv", rows)
    classes = read_classes(tmp_path / "classes.csv")
    assert classes.frame["synonyms"].tolist() == [["a", "b", "apple, green"]] * 3
    assert classes.matrices["attributes"]["neck"].tolist() == [0, 1, 2]
    assert classes.matrices["2d"]["x"].tolist() == [1, 0, -1]


def test_a_byte_order_mark_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_bytes('\ufeffName,role,description\r\n\r\nzebra,Seen,"a, b"\r\nokapi,seen,c\r\n'.encode())
    assert read_classes(path).frame[["name", "role", "description"]].to_numpy().tolist() == [
        ["zebra", "seen", "a, b"],
        ["okapi", "seen", "c"],
    ]


def test_a_class_without_any_attribute_is_left_to_the_class_space(tmp_path: Path) -> None:
    rows = [
        row | {"neck": "" if row["name"] == "aye-aye" else 1, "ears": "" if row["name"] == "aye-aye" else 2}
        for row in CLASSES
    ]
    write_csv(tmp_path / "classes.csv", rows)
    values = read_classes(tmp_path / "classes.csv").matrices["attributes"].to_numpy()
    assert np.isnan(values[2]).all() and np.isfinite(values[:2]).all()


def test_composed_and_decomposed_names_are_the_same_class(tmp_path: Path) -> None:
    path = made(tmp_path, [*CLASSES, {"name": "k\u00e4fer", "role": "seen", "description": "beetle"}])
    (path / "images" / "ka\u0308fer").mkdir()
    for number in range(2):
        (path / "images" / "ka\u0308fer" / f"{number}.png").write_bytes(picture(70 + number))
    assert sum(entry.label == "k\u00e4fer" for entry in opened(path).entries) == 2


def test_a_folder_is_that_of_its_class_however_it_is_written(tmp_path: Path) -> None:
    path = made(tmp_path)
    (path / "images" / "okapi").rename(path / "images" / "Okapi ")
    assert {entry.label for entry in opened(path).entries} == {"okapi", "zebra"}


def test_folders_of_one_class_are_named_together(tmp_path: Path) -> None:
    path = made(tmp_path, pictures={"okapi": 2, "OKAPI": 2, "zebra": 2, "ｚebra": 2})
    with pytest.raises(SourceError, match="folders of one class: OKAPI and okapi, zebra and ｚebra; put"):
        opened(path)


def test_all_names_that_are_one_are_told_at_once(tmp_path: Path) -> None:
    rows = [
        *CLASSES,
        *({"name": n, "role": "unseen", "description": n} for n in ("Okapi", "ZEBRA ", "aye\u00a0aye")),
    ]
    with pytest.raises(
        SourceError, match=r"names that are one .*: okapi and Okapi, zebra and ZEBRA; give each"
    ):
        opened(made(tmp_path, rows))


@pytest.mark.parametrize("column", ["name", "synonyms", "group"])
@pytest.mark.parametrize("character", ["\x07", "\n", "\u200b", "\u202e"])
def test_characters_that_nobody_sees_are_refused_in_every_kind_of_name(
    tmp_path: Path, column: str, character: str
) -> None:
    rows = changed("aye-aye", **{column: f"aye{character}aye"})
    with pytest.raises(SourceError, match=rf"holds the character U\+{ord(character):04X}.*remove it"):
        opened(made(tmp_path, rows))


def test_a_group_is_one_however_it_is_written(tmp_path: Path) -> None:
    rows = [row | {"group": group} for row, group in zip(CLASSES, ("Fruit", "fruit ", "ｆruit"), strict=True)]
    assert opened(made(tmp_path, rows)).classes.frame["group"].tolist() == ["Fruit"] * 3


def test_columns_in_two_ways_to_write_an_accent_are_one(tmp_path: Path) -> None:
    rows = [row | {"gro\u0308\u00dfe": 1, "h\u00f6he": number} for number, row in enumerate(CLASSES)]
    assert list(opened(made(tmp_path, rows)).classes.matrices["attributes"]) == [
        "gr\u00f6\u00dfe",
        "h\u00f6he",
    ]
    with pytest.raises(SourceError, match="a column is named twice or not at all: h\u00f6he"):
        opened(made(tmp_path / "2", [row | {"ho\u0308he": 1} for row in rows]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["si\u200bze"], r"the column 'si.*ze' of 'attributes' holds the character U\+200B"),
        (["/colour"], "the column '' of '' is empty"),
        (["size/"], "the column '' of 'size' is empty"),
        (["Grévy's", "Grévy’s"], "the columns \"Grévy's\" and 'Grévy’s' of attributes are one name"),
    ],
)
def test_names_of_columns_are_names_too(tmp_path: Path, columns: list[str], message: str) -> None:
    rows = [row | dict.fromkeys(columns, number) for number, row in enumerate(CLASSES)]
    with pytest.raises(SourceError, match=message):
        opened(made(tmp_path, rows))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed("okapi", role="known"), r"unknown role of okapi \('known'\); expected seen or unseen"),
        ([*CLASSES, CLASSES[0] | {"description": "x"}], "classes listed twice: okapi"),
        (changed("okapi", name=""), "line 2: the name is empty"),
        (
            [row | {"neck": "long" if row["name"] == "zebra" else 1} for row in CLASSES],
            r"line 3 \(zebra\), column neck: 'long' is not a number",
        ),
        (
            [row | {"neck": "nan" if row["name"] == "zebra" else 1} for row in CLASSES],
            "column neck: 'nan' is not a number",
        ),
        (
            [row | {"synonym": "horse"} for row in CLASSES],
            r"column synonym: 'horse' is not a number.*did you mean synonyms",
        ),
        (
            [row | {"neck": 1, "ears": "" if row["name"] == "zebra" else 1} for row in CLASSES],
            r"line 3 \(zebra\), column ears: the cell is empty",
        ),
        (
            [{"name": row["name"], "description": row["description"]} for row in CLASSES],
            "has no column role: it has name, description",
        ),
        (CLASSES[1:], r"pictures of classes without a row in classes.csv: okapi \(3\)"),
        (changed("zebra", role="unseen"), "1 seen classes; at least two"),
        (
            [*CLASSES, {"name": "gnu", "role": "seen", "description": "Beard."}],
            "seen classes with no pictures: gnu",
        ),
        ([], "classes.csv is empty"),
    ],
)
def test_a_fault_in_the_class_table_is_named(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    path = made(tmp_path, rows or CLASSES)
    if not rows:
        (path / "classes.csv").write_text("")
    with pytest.raises(SourceError, match=message):
        opened(path)


def test_a_misspelt_folder_is_answered_with_the_nearest_class(tmp_path: Path) -> None:
    path = made(tmp_path, pictures=PICTURES | {"okapis": 2})
    with pytest.raises(SourceError, match=r"okapis \(2\) \(did you mean okapi\?\)"):
        opened(path)


def test_thousands_of_folders_that_the_table_does_not_know_are_told_at_once() -> None:
    known = [f"species {number:04}" for number in range(5000)]
    entries = [Entry(f"{name}s/0.png", f"{name}s", "") for name in known]
    began = time.process_time()
    with pytest.raises(
        SourceError, match=r"species 0000s \(1\) \(did you mean species 0000\?\).* 4995 more; add"
    ):
        labelled(entries, known, Path("images"), "classes.csv")
    assert time.process_time() - began < 3


def test_a_seen_class_with_one_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"seen classes with a single picture: zebra"):
        opened(made(tmp_path, pictures={"okapi": 3, "zebra": 1}))


def test_missing_and_empty_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"prepare.path is not set"):
        opened(None)
    with pytest.raises(SourceError, match=r"no folder .*nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"has no classes.csv and no images/"):
        opened(tmp_path)
    (tmp_path / "images").mkdir()
    write_csv(tmp_path / "classes.csv", CLASSES)
    with pytest.raises(SourceError, match=r"images holds no pictures"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,role,description\nä,seen,x\n".encode("latin-1"), "is not UTF-8"),
        (b"name,role,description\nokapi,seen,Stripes, legs\n", "line 2: 4 cells under 3 columns"),
        (b'name,role,description\nokapi,seen,"Stripes\n', "is not valid CSV"),
        (b"name;role;description\nokapi;seen;x\n", "separated by commas"),
        (b"name,role,description,role\nokapi,seen,x,seen\n", "named twice or not at all: role"),
        (b"name,role,description\n", "holds no classes"),
    ],
)
def test_a_classes_csv_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "classes.csv").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_classes(tmp_path / "classes.csv")


def test_descriptions_are_not_needed_where_names_are_read_alone(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("name,role\nokapi,seen\nzebra,seen\n")
    table = read_classes(tmp_path / "classes.csv")
    assert table.frame["description"].tolist() == ["", ""]
    assert build(table, params.Classes(source="tfidf"), Path).names == ["okapi", "zebra"]
    with pytest.raises(IncompleteClass, match=r"describe them, or set classes\.text to names"):
        build(table, params.Classes(source="tfidf", text="descriptions"), Path)


def test_equal_descriptions_stop_those_alone_who_read_them(tmp_path: Path) -> None:
    rows = [
        row | {"description": "TODO", "neck": number + 1, "tail": 3 - number**2}
        for number, row in enumerate(CLASSES)
    ]
    table = opened(made(tmp_path, rows)).classes
    for settings in (params.Classes(source="attributes"), params.Classes(source="tfidf", text="names")):
        assert len(build(table, settings, Path).names) == len(CLASSES)
    for source in ("tfidf", "word2vec"):
        with pytest.raises(CoincidentClasses, match="okapi and zebra have the same description") as met:
            check(table, params.Classes(source=source), Path)
        assert "okapi and aye-aye" in met.value.details[1]


@pytest.mark.parametrize(
    ("cells", "folders", "message"),
    [
        ({"role": "sene"}, 0, "unknown role"),
        ({"role": "seen"}, 0, "seen classes with no pictures"),
        ({"role": "unseen", "group": "a\u200bb"}, 0, "holds the character"),
        (None, 1, "pictures of classes without a row"),
    ],
)
def test_all_that_a_message_cuts_short_is_in_its_details(
    tmp_path: Path, cells: dict[str, str] | None, folders: int, message: str
) -> None:
    names = [f"beast {number}" for number in range(8)]
    rows = [] if cells is None else [{**CLASSES[0], **cells, "name": name} for name in names]
    with pytest.raises(SourceError, match=message) as met:
        opened(made(tmp_path, [*CLASSES, *rows], PICTURES | dict.fromkeys(names, folders)))
    assert len(met.value.details) == 8 and "beast 7" in met.value.details[7]


def test_a_seen_class_with_a_slash_in_its_name_can_have_no_folder(tmp_path: Path) -> None:
    path = made(tmp_path, [*CLASSES, {"name": "cat/dog", "role": "seen", "description": "Both."}])
    with pytest.raises(SourceError, match="seen classes with a / in their name: cat/dog; no folder"):
        opened(path)


def test_a_folder_with_a_space_at_its_end_is_that_of_its_class(tmp_path: Path) -> None:
    path = made(tmp_path, CLASSES)
    (path / "images" / "zebra").rename(path / "images" / "zebra ")
    assert "zebra" in {entry.label for entry in opened(path).entries}


def test_the_real_class_table_is_read(shared_data: Path) -> None:
    classes = read_classes(shared_data / "grocery/classes.csv")
    assert (len(classes.names), int(classes.seen.sum())) == (81, 61)
    assert classes.frame.loc[0, "group"] == "Apple"


# ---- bestiary ----


def test_the_bestiary_is_drawn_the_same_twice() -> None:
    first, again = (open_source(params.Prepare(species=32, pictures=4), Path) for _ in range(2))
    assert len(first.entries) == 32 * 4
    assert first.entries == again.entries
    assert first.read(first.entries[7]) == again.read(again.entries[7])
    assert first.read(first.entries[7]) != first.read(first.entries[6])
    roles = dict(zip(first.classes.names, first.classes.frame["role"], strict=True))
    assert roles["aye-aye"] == "unseen"
    assert first.classes.matrices["attributes"].shape[0] == 32


# ---- features ----


def arrays(**other: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        "features": rng.normal(size=(30, 5)).astype(np.float16),
        "labels": np.repeat([0, 1, 2], 10),
        "split": np.array((["train"] * 8 + ["test_seen"] * 2) * 2 + ["test_unseen"] * 10),
        "class_names": np.array(["okapi", "zebra", "aye-aye"]),
        "role": np.array(["seen", "seen", "unseen"]),
        "attributes": rng.normal(size=(3, 4)),
        "wiki2vec": rng.normal(size=(3, 7)).astype(np.float32),
    }
    return {name: array for name, array in (found | other).items() if array is not None}


def archived(tmp_path: Path, **other: Any) -> Path:
    np.savez(tmp_path / "features.npz", **arrays(**other))
    return tmp_path / "features.npz"


def test_features_are_rows_with_their_classes_splits_and_matrices(tmp_path: Path) -> None:
    source = opened(archived(tmp_path), "features")
    assert (source.kind, source.dtype, source.width) == ("features", "float16", 5)
    assert source.entries[9].split == "test_seen" and source.entries[29].label == "aye-aye"
    assert source.read(source.entries[3]) == arrays()["features"][3].tobytes()
    assert {name: matrix.shape for name, matrix in source.classes.matrices.items()} == {
        "attributes": (3, 4),
        "wiki2vec": (3, 7),
    }


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"features": None}, "has no array features"),
        ({"labels": None}, "has no array labels"),
        ({"role": None}, "has no array role"),
        (
            {"features": np.zeros(30, np.float32)},
            r"features is float32 of shape \(30,\); expected floats of shape \(n, d\)",
        ),
        ({"features": np.zeros((30, 5), int)}, "features is int64"),
        ({"class_names": np.arange(3)}, "class_names is int64; expected text"),
        (
            {"description": np.array([b"\xe4"] * 3)},
            r"description holds b'\\xe4'; expected UTF-8",
        ),
        ({"labels": np.zeros(29, int)}, r"labels is of shape \(29,\); expected \(30,\)"),
        ({"labels": np.full(30, 3)}, "labels must be whole numbers from 0 to 2"),
        ({"labels": np.zeros(30)}, "labels must be whole numbers"),
        ({"attributes": np.zeros((4, 3))}, r"attributes is of shape \(4, 3\); expected \(3, k\)"),
        ({"attributes": np.full((3, 2), "x")}, "class matrix attributes is <U1"),
        ({"split": np.full(30, "val")}, "unknown split val; expected train, test_seen, test_unseen"),
        (
            {"split": np.full(30, "train")},
            "10 rows contradict their class, the first of them row 20: train of a unseen class",
        ),
        (
            {"role": np.array(["seen", "seen", "hidden"]), "split": None},
            r"unknown role of aye-aye \('hidden'\)",
        ),
        ({"class_names": np.array(["okapi", "okapi", "aye-aye"])}, "classes listed twice: okapi"),
        ({"labels": np.array([0, 1, 2], object).repeat(10)}, "is not an .npz of plain arrays"),
    ],
)
def test_a_fault_in_a_file_of_features_is_named(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        opened(archived(tmp_path, **other), "features")


def test_texts_of_features_may_be_bytes_and_roles_are_folded(tmp_path: Path) -> None:
    texts = {
        "class_names": ["okapi", "zebra", "höhlenbär"],
        "role": ["Seen", "seen ", "UNSEEN"],
        "description": ["Brown.", "Striped.", "Haust in Höhlen."],
        "split": arrays()["split"].tolist(),
    }
    as_bytes = {name: np.array([text.encode() for text in said]) for name, said in texts.items()}
    source = opened(archived(tmp_path, **as_bytes), "features")
    found = source.classes.frame
    assert found["name"].tolist() == texts["class_names"]
    assert found["description"].tolist() == texts["description"]
    assert found["role"].tolist() == ["seen", "seen", "unseen"]
    assert source.entries[29].split == "test_unseen"


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(SourceError, match=r"is not an .npz of plain arrays"):
        opened(tmp_path / "x.npz", "features")


def test_a_missing_file_of_features_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file .*x.npz"):
        opened(tmp_path / "x.npz", "features")


# Names to look at


@pytest.mark.parametrize(
    "name",
    [
        "BACKGROUND_Google",
        "__MACOSX",
        ".ipynb_checkpoints",
        "unknown",
        "Misc",
        "Thumbs",
        "New Folder (2)",
        "cat copy",
    ],
)
def test_what_looks_like_a_leftover_is_warned_of(name: str) -> None:
    (said,) = doubtful(["okapi", name, "zebra"])
    assert said.startswith(f"classes that look like a data set's leftovers: {name};")


def test_a_name_that_begins_another_is_warned_of() -> None:
    (said,) = doubtful(["Faces", "Faces_easy", "okapi", "zebra finch", "zebrafish"])
    assert said.startswith("classes whose names begin those of others: Faces and Faces_easy;")


def test_a_synonym_that_names_another_class_is_warned_of() -> None:
    (said,) = doubtful(["cougar", "Puma"], [["puma", "mountain lion"], ["puma"]])
    assert said == "synonyms that are the names of other classes: puma of cougar; take them out"


def test_names_of_animals_and_things_raise_no_doubt() -> None:
    assert doubtful(
        ["okapi", "mountain zebra", "zebra", "image sensor", "train station", "test tube", "thumb"]
    ) == ["classes that look like a data set's leftovers: thumb; remove those that are none"]


def test_thousands_of_names_are_looked_at_at_once() -> None:
    began = time.process_time()
    assert doubtful([f"species {number} of many words in a name" for number in range(20_000)]) == []
    assert time.process_time() - began < 5
