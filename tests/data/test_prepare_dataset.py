"""Preparing a dataset: what is taken in, what is not, and that nothing is half done."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sources import CLASSES, Place, picture, write_csv, write_source

from ayeaye.core import params
from ayeaye.core.errors import CheckFailed, DataError, SourceError
from ayeaye.data.checks import check_dataset
from ayeaye.data.prepare_dataset import prepare, quarantine
from ayeaye.data.repeats import copies_of
from ayeaye.data.table import ClassTable, Dataset


def huge_png(side: int = 20_000) -> bytes:
    content = io.BytesIO()
    Image.new("1", (side, side)).save(content, "PNG")
    return content.getvalue()


def saved(image: Image.Image, form: str) -> bytes:
    content = io.BytesIO()
    image.save(content, form)
    return content.getvalue()


# ---- what is taken in ----


def test_a_folder_becomes_a_dataset(place: Place) -> None:
    summary = place.prepare(docs=True)
    assert (summary.pictures, summary.classes, summary.seen, summary.new, summary.rejected) == (
        28,
        3,
        2,
        28,
        0,
    )
    assert summary.splits["test_unseen"] == 4
    dataset = Dataset.load(place.dataset)
    assert dataset.digest() == summary.digest
    assert dataset.manifest["source"].is_monotonic_increasing
    assert (place.checks / "index.html").is_file()


def test_the_same_folder_gives_the_same_bytes_in_another_workspace(place: Place) -> None:
    place.prepare()
    other = Place(place.root / "other", place.source)
    other.prepare()
    assert {n: content for n, (_, content) in place.files().items()} == {
        n: content for n, (_, content) in other.files().items()
    }


def test_preparing_again_touches_nothing(place: Place) -> None:
    place.prepare(docs=True)
    before = place.files()
    docs = (place.checks / "dataset/index.html").stat().st_mtime_ns
    again = place.prepare(docs=True)
    assert (again.changed, again.new, again.decoded) == (False, 0, 0)
    assert place.files() == before
    assert (place.checks / "dataset/index.html").stat().st_mtime_ns == docs


def test_without_the_cache_known_pictures_are_still_not_decoded(place: Place) -> None:
    place.prepare()
    before = place.files()
    place.cache.unlink()
    assert place.prepare().decoded == 0
    place.cache.write_text("{damaged")
    assert place.prepare().decoded == 0
    assert place.files() == before


def test_new_pictures_make_a_new_shard_and_leave_the_old_one_alone(place: Place) -> None:
    first = place.prepare()
    before = place.files()
    splits = Dataset.load(place.dataset).manifest.set_index("id")["split"]
    for number in range(5):
        (place.source / "images/zebra" / f"new{number}.png").write_bytes(picture(500 + number))
    summary = place.prepare()
    assert (summary.new, summary.decoded, summary.new_shards, summary.shards) == (5, 5, 1, first.shards + 1)
    for name, kept in before.items():
        if name.startswith("shards/"):
            assert place.files()[name] == kept
    after = Dataset.load(place.dataset).manifest.set_index("id")["split"]
    assert after.loc[splits.index].tolist() == splits.tolist()


def test_a_removed_picture_leaves_the_manifest_and_comes_back_undecoded(place: Place) -> None:
    place.prepare()
    gone = place.source / "images/okapi/003.png"
    content = gone.read_bytes()
    gone.unlink()
    assert place.prepare().removed == 1
    gone.write_bytes(content)
    back = place.prepare()
    assert (back.new, back.decoded) == (1, 0)


def test_relabelling_touches_the_manifest_alone(place: Place) -> None:
    place.prepare()
    before = place.files()
    images = place.source / "images"
    (images / "okapi/000.png").rename(images / "zebra/moved.png")
    assert place.prepare().decoded == 0
    assert {name for name, kept in place.files().items() if before[name] != kept} == {"manifest.parquet"}


def test_shards_that_no_row_refers_to_are_dropped(place: Place) -> None:
    place.prepare(shard_bytes=5000)
    many = len(Dataset.load(place.dataset).shards())
    shutil.rmtree(place.source / "images/aye-aye")
    for number in range(12):
        (place.source / "images/okapi" / f"{number:03d}.png").write_bytes(picture(900 + number))
    place.prepare(shard_bytes=5000)
    dataset = Dataset.load(place.dataset)
    assert many > 3
    assert sorted(path.stem for path in (place.dataset / "shards").iterdir()) == dataset.shards()


def test_unseen_classes_need_no_pictures(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", CLASSES, {"okapi": 6, "zebra": 6})
    summary = Place(tmp_path / "work", source).prepare()
    assert (summary.unseen, summary.splits.get("test_unseen", 0)) == (1, 0)


def test_one_picture_twice_in_a_class_is_kept_once_and_counted(place: Place) -> None:
    okapi = place.source / "images/okapi"
    shutil.copy(okapi / "000.png", okapi / "copy.png")
    summary = place.prepare()
    assert (summary.pictures, summary.duplicates) == (28, 1)
    assert "okapi/copy.png" not in Dataset.load(place.dataset).manifest["source"].tolist()
    again = place.prepare()
    assert (again.changed, again.duplicates) == (False, 1)


def with_contradiction(place: Place, pairs: int = 1) -> None:
    for number in range(pairs):
        name = f"{number:03d}.png"
        shutil.copy(place.source / "images/okapi" / name, place.source / f"images/zebra/copy{name}")


def test_pictures_under_two_classes_are_quarantined_on_both_sides(place: Place) -> None:
    with_contradiction(place)
    for _ in range(2):  # the second time the pictures are known
        summary = place.prepare(max_rejected=0.1)
        assert (summary.pictures, summary.rejected, summary.duplicates) == (27, 2, 0)
        assert quarantine(place.dataset)["reason"].tolist() == [
            "the same picture as zebra/copy000.png (zebra)",
            "the same picture as okapi/000.png (okapi)",
        ]
    (place.source / "images/zebra/copy000.png").unlink()
    assert place.prepare(max_rejected=0.1).pictures == 28


def test_contradictions_count_as_rejected_and_are_all_named_at_once(place: Place) -> None:
    with_contradiction(place, 7)
    said = r"more than 1 of 35 pictures .*okapi/000.png: the same .*, or set prepare.duplicates to keep"
    with pytest.raises(SourceError, match=said) as met:
        place.prepare()
    assert [line.partition(":")[0] for line in met.value.details] == [
        *(f"okapi/{number:03d}.png" for number in range(7)),
        *(f"zebra/copy{number:03d}.png" for number in range(7)),
    ]


def test_contradictions_can_be_an_error(place: Place) -> None:
    with_contradiction(place, 7)
    said = (
        r"7 pictures are under two classes: okapi/000.png \(okapi\) and zebra/copy000.png \(zebra\); .*2 more"
    )
    with pytest.raises(SourceError, match=said) as met:
        place.prepare(duplicates="error")
    assert len(met.value.details) == 7


def test_contradictions_can_be_kept_under_ids_of_their_own(place: Place) -> None:
    before = place.prepare()
    with_contradiction(place)
    for changed in (True, False):
        summary = place.prepare(duplicates="keep", docs=True)
        assert (summary.pictures, summary.rejected, summary.changed) == (29, 0, changed)
    dataset = Dataset.load(place.dataset)
    rows = dataset.manifest.set_index("source")
    first, copy = rows.loc["okapi/000.png"], rows.loc["zebra/copy000.png"]
    assert first.id == hashlib.sha256((place.source / "images/okapi/000.png").read_bytes()).hexdigest()
    assert dataset.picture(first.id) == dataset.picture(copy.id)
    assert (first.id != copy.id, first.label, copy.label) == (True, "okapi", "zebra")
    assert dataset.about["in_two_classes"] == 1
    (place.source / "images/zebra/copy000.png").unlink()
    after = place.prepare(duplicates="keep")
    assert (after.digest, after.changed) == (before.digest, True)


def test_a_removed_picture_does_not_come_back_as_a_copy(place: Place) -> None:
    with_contradiction(place)
    place.prepare(duplicates="keep")
    rows = Dataset.load(place.dataset).manifest.set_index("source")
    kept = [rows.loc[name].id for name in ("okapi/000.png", "zebra/copy000.png")]
    assert kept[1] in copies_of(kept[:1], ["okapi", "zebra"])
    assert place.prepare(duplicates="keep", removed=frozenset(kept[1:])).pictures == 28
    assert place.prepare(duplicates="keep", removed=frozenset(kept[:1])).pictures == 27


def test_unusual_pictures_are_taken_in(place: Place) -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (20, 20), dtype=np.uint16)
    animated = io.BytesIO()
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    rotated = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10)).save(rotated, "JPEG", exif=exif)
    unusual = {
        "cmyk.jpg": saved(Image.new("CMYK", (9, 9), (9, 8, 7, 6)), "JPEG"),
        "palette.png": saved(Image.new("RGB", (9, 9), (9, 8, 7)).quantize(4), "PNG"),
        "deep.png": saved(Image.fromarray(noise), "PNG"),
        "animated.gif": animated.getvalue(),
        "rotated.jpg": rotated.getvalue(),
    }
    for name, content in unusual.items():
        (place.source / "images/zebra" / name).write_bytes(content)
    summary = place.prepare()
    assert (summary.pictures, summary.rejected) == (33, 0)


# ---- what is not ----


BAD = {
    "empty.jpg": (b"", "empty file"),
    "text.jpg": (b"this is no picture", "not a picture"),
    "cut.jpg": (picture(7, 64, "JPEG")[:-900], "truncated"),
    "huge.png": (huge_png(), "at most 100,000,000"),
}


def test_bad_pictures_go_to_the_quarantine_with_reasons(place: Place) -> None:
    for name, (content, _) in BAD.items():
        (place.source / "images/okapi" / name).write_bytes(content)
    (place.source / "images/loose.png").write_bytes(picture(77))
    summary = place.prepare(max_rejected=0.2)
    assert (summary.pictures, summary.rejected) == (28, 5)
    reasons = quarantine(place.dataset).set_index("source")["reason"].to_dict()
    for name, (_, reason) in BAD.items():
        assert reason in reasons[f"okapi/{name}"]
    assert "lies in no class folder" in reasons["loose.png"]
    again = place.prepare(max_rejected=0.2)
    assert (again.rejected, again.changed) == (5, False)


def test_a_single_bad_picture_never_stops_a_small_set(place: Place) -> None:
    (place.source / "images/okapi/text.jpg").write_bytes(b"text")
    assert place.prepare(max_rejected=0.001).rejected == 1


def test_where_none_may_be_rejected_a_single_bad_picture_stops(place: Place) -> None:
    (place.source / "images/okapi/text.jpg").write_bytes(b"text")
    with pytest.raises(SourceError, match=r"more than 0 of 29 pictures cannot be used \(okapi/text.jpg"):
        place.prepare(max_rejected=0.0)


def test_too_many_bad_pictures_stop_with_the_first_of_them(place: Place) -> None:
    place.prepare()
    before = place.files()
    for name, (content, _) in BAD.items():
        (place.source / "images/okapi" / name).write_bytes(content)
    with pytest.raises(
        SourceError, match=r"more than 1 of 32 pictures .*okapi/cut.jpg: damaged.*max_rejected"
    ):
        place.prepare()
    assert place.files() == before


def test_a_mended_picture_is_read_again(place: Place) -> None:
    bad = place.source / "images/okapi/text.jpg"
    bad.write_bytes(b"text")
    place.prepare()
    bad.write_bytes(picture(321))
    summary = place.prepare()
    assert (summary.rejected, summary.decoded, summary.new) == (0, 1, 1)


def test_limits_come_from_the_parameters_also_for_what_was_read_already(place: Place) -> None:
    (place.source / "images/okapi/large.png").write_bytes(picture(5, 100))
    assert place.prepare(max_pixels=5000).rejected == 1
    assert place.prepare(max_pixels=20_000).rejected == 0


def test_narrower_limits_hold_for_pictures_that_were_taken_under_wider_ones(place: Place) -> None:
    (place.source / "images/okapi/large.png").write_bytes(picture(5, 100))
    assert place.prepare().rejected == 0
    assert place.prepare(max_pixels=5000).rejected == 1


def test_a_picture_that_the_service_would_refuse_is_not_taken_in(place: Place) -> None:
    (place.source / "images/okapi/line.png").write_bytes(saved(Image.new("L", (2, 60_000)), "PNG"))
    assert place.prepare().rejected == 1
    reason = quarantine(place.dataset).set_index("source").loc["okapi/line.png", "reason"]
    assert reason.startswith("2 by 60000 pixels: too narrow to be looked at")


def test_a_link_is_taken_in_and_one_to_nowhere_is_told_until_it_leads_somewhere(place: Place) -> None:
    okapi = place.source / "images/okapi"
    outside = place.source.parent / "outside.png"
    (okapi / "link.png").symlink_to(outside)
    assert (place.prepare().rejected, len(quarantine(place.dataset))) == (1, 1)
    assert "which is not there" in quarantine(place.dataset)["reason"][0]
    outside.write_bytes(picture(700))
    summary = place.prepare()
    assert (summary.rejected, summary.new, summary.pictures) == (0, 1, 29)


def test_a_class_left_with_one_readable_picture_is_refused(place: Place) -> None:
    for number in range(1, 12):
        (place.source / f"images/zebra/{number:03d}.png").write_bytes(b"text")
    with pytest.raises(SourceError, match=r"a single picture: zebra \(11 rejected\)"):
        place.prepare(max_rejected=0.9)


# ---- nothing is half done ----


def test_a_dry_run_writes_nothing_and_finds_what_a_real_one_finds(place: Place) -> None:
    dry = place.prepare(dry_run=True)
    assert not place.root.exists()
    assert dry == place.prepare()


def test_a_candidate_that_fails_its_checks_is_not_published(place: Place) -> None:
    place.prepare()
    before = place.files()
    (place.source / "images/zebra/new.png").write_bytes(picture(600))
    rows = [row | {"synset": "n1"} for row in CLASSES]
    write_csv(place.source / "classes.csv", rows)
    # The shard is damaged behind the manifest's back: it keeps its name and loses its rows.
    shard = next((place.dataset / "shards").iterdir())
    progress = [shard]

    def damage(done: int, total: int) -> None:
        progress.pop().write_bytes(b"PAR1")

    with pytest.raises(CheckFailed, match=r"shards hold every row that the manifest names"):
        place.prepare(damage, docs=True)
    after = place.files()
    assert all(after[name] == kept for name, kept in before.items() if not name.startswith("shards/"))
    assert "Failed" in (place.checks / "dataset/index.html").read_text()
    healed = place.prepare()
    assert (healed.pictures, healed.decoded) == (29, 28)


def test_data_docs_of_a_failed_candidate_do_not_outlive_it(place: Place) -> None:
    place.prepare(docs=True)
    shutil.rmtree(place.checks)
    place.prepare(docs=True)
    page = place.checks / "dataset/index.html"
    assert "Failed" not in page.read_text()
    dataset = Dataset.load(place.dataset)
    with pytest.raises(CheckFailed):
        check_dataset(dataclasses.replace(dataset, manifest=dataset.manifest[:0]), place.checks)
    assert "Failed" in page.read_text()
    assert place.prepare(docs=True).changed is False
    assert "Failed" not in page.read_text()


def test_a_half_published_dataset_is_completed_with_its_splits(place: Place) -> None:
    place.prepare()
    whole = place.files()
    classes = ClassTable.read(place.dataset / "classes.parquet")
    classes.take(np.array([0, 2])).write(place.dataset / "classes.parquet")
    (place.dataset / ".manifest.parquet.abc.part").write_bytes(b"left by a killed run")
    place.prepare()
    assert {n: content for n, (_, content) in place.files().items()} == {n: c for n, (_, c) in whole.items()}


KILLED = """
import os, signal, sys
from pathlib import Path
from ayeaye.core import params
from ayeaye.data.prepare_dataset import prepare

def die(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

source, work = Path(sys.argv[1]), Path(sys.argv[2])
settings = params.Prepare(source="folder", path=str(source), shard_bytes=4000)
prepare(settings, work / "dataset", Path, die, cache=work / "pictures.json")
"""


def run_and_kill(place: Place, at: int) -> int:
    command = [sys.executable, "-c", KILLED, str(place.source), str(place.root), str(at)]
    return subprocess.run(command, check=False, capture_output=True, timeout=120).returncode


def test_a_run_killed_while_reading_leaves_the_old_dataset_and_is_completed(place: Place) -> None:
    assert run_and_kill(place, 20) == -signal.SIGKILL
    assert len(list((place.dataset / "shards").glob("*.parquet"))) > 1
    with pytest.raises(DataError, match=r"holds no dataset"):
        Dataset.load(place.dataset)
    completed = place.prepare(shard_bytes=4000)
    # Pictures in shards that were whole are not decoded again.
    assert 0 < completed.decoded < 28
    undisturbed = Place(place.root / "undisturbed", place.source)
    undisturbed.prepare(shard_bytes=4000)
    assert {n: c for n, (_, c) in place.files().items()} == {
        n: c for n, (_, c) in undisturbed.files().items()
    }
    before = place.files()
    for number in range(9):
        (place.source / "images/zebra" / f"new{number}.png").write_bytes(picture(500 + number))
    assert run_and_kill(place, 5) == -signal.SIGKILL
    after = place.files()
    assert {name: after[name] for name in before} == before
    assert len(Dataset.load(place.dataset).manifest) == 28


FULL_DISK = """
import resource, sys
from pathlib import Path
from ayeaye.core import params
from ayeaye.data.prepare_dataset import prepare
from ayeaye.core.errors import DataError

source, work = Path(sys.argv[1]), Path(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    prepare(params.Prepare(source="folder", path=str(source)), work / "dataset", Path)
except DataError as error:
    sys.exit(str(error))
"""


def test_a_disk_that_takes_no_more_is_named_and_leaves_the_old_dataset(place: Place) -> None:
    place.prepare()
    before = place.files()
    for number in range(20):
        (place.source / "images/zebra" / f"new{number}.png").write_bytes(picture(500 + number))
    command = [sys.executable, "-c", FULL_DISK, str(place.source), str(place.root)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert "the dataset could not be written" in run.stderr and "it is as it was before" in run.stderr
    assert place.files() == before


# ---- other sources ----


def test_features_become_a_dataset_of_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5)).astype(np.float16)
    X[1] = X[0]
    split = np.array((["train"] * 16 + ["test_seen"] * 4) * 2 + ["test_unseen"] * 20)
    np.savez(
        tmp_path / "x.npz",
        features=X,
        labels=np.repeat([0, 1, 2], 20),
        split=split,
        class_names=np.array(["okapi", "zebra", "aye-aye"]),
        role=np.array(["seen", "seen", "unseen"]),
        attributes=rng.normal(size=(3, 4)),
    )
    settings = params.Prepare(source="features", path="x.npz")
    work = {
        "folder": tmp_path / "dataset",
        "resolve": lambda path: tmp_path / path,
        "cache": tmp_path / "index",
    }
    summary = prepare(settings, **work)
    dataset = Dataset.load(tmp_path / "dataset")
    assert (summary.kind, summary.pictures, summary.duplicates) == ("features", 59, 1)
    rows = dataset.manifest["source"].astype(int).to_numpy()
    assert np.array_equal(dataset.features(dataset.shards()[0])[dataset.manifest["row"]], X[rows])
    given = split[rows]
    assert (dataset.manifest["split"][given != "train"] == given[given != "train"]).all()
    assert set(dataset.manifest["split"][given == "train"]) == {"train", "validation"}
    assert json.loads((tmp_path / "dataset/dataset.json").read_text())["dtype"] == "float16"
    assert prepare(settings, **work).changed is False


def test_the_bestiary_is_drawn_once(tmp_path: Path) -> None:
    settings = params.Prepare(species=32, pictures=4)
    work = {"folder": tmp_path / "dataset", "resolve": Path, "cache": tmp_path / "index"}
    drawn = []
    first = prepare(settings, progress=lambda done, total: drawn.append(total), **work)
    assert first.pictures == len(drawn) == 128
    again = prepare(settings, progress=lambda done, total: drawn.append(total), **work)
    assert (again.changed, len(drawn)) == (False, 128)


@pytest.mark.slow
def test_the_real_photographs_are_taken_in_once(tmp_path: Path, shared_data: Path) -> None:
    place = Place(tmp_path / "work", shared_data / "grocery")
    summary = place.prepare()
    assert (summary.pictures, summary.classes, summary.unseen, summary.rejected) == (3232, 81, 20, 0)
    start = time.perf_counter()
    assert place.prepare().changed is False
    assert time.perf_counter() - start < 5
