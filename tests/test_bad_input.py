"""Everything bad that a person can give the command line: a clear error, and nothing lost or half-written."""

from __future__ import annotations

import csv
import io
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import workspaces
from PIL import Image
from workspaces import Done, Place, ayeaye, paint

pytestmark = pytest.mark.slow
FIRST, SECOND = "paint 000", "paint 001"
PICTURES = workspaces.PICTURES * len(workspaces.paints())


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str], small: tuple[str, ...]
) -> Place:
    """A workspace with a dataset, and nothing else yet."""
    folder = tmp_path_factory.mktemp("prepared")
    place = workspaces.make(
        folder / "workspace", workspaces.write_paints(folder / "paints"), environment, *small
    )
    assert place("prepare").code == 0
    return place


@pytest.fixture
def place(prepared: Place, tmp_path: Path) -> Place:
    """The prepared workspace and its source, for a test to spoil."""
    return copy_to(prepared, tmp_path)


def copy_to(place: Place, folder: Path) -> Place:
    root, source = folder / "workspace", folder / "paints"
    shutil.copytree(place.root, root, symlinks=True)
    shutil.copytree(place.source, source)
    copied = Place(root, source, place.environment)
    copied.set(f"prepare.path={source}")
    return copied


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_of(done: Done, code: int = 1) -> str:
    """The error of a command that failed as it should: one or two lines on standard error."""
    assert done.code == code, done.err or done.out
    assert "Traceback" not in done.out + done.err
    said = done.err[done.err.rindex("error: ") :].strip()
    assert 0 < len(said.splitlines()) <= 2, said
    return said.removeprefix("error: ")


def refused(place: Place, *command: object) -> str:
    """The error of a command that must leave the dataset, the class space and the bundle as they were."""
    before = [files(place.root / name) for name in ("data", "models", "release")]
    said = error_of(place(*command))
    assert [files(place.root / name) for name in ("data", "models", "release")] == before
    return said


# The source


def rows(place: Place, change: Callable[[list[dict[str, str]]], object]) -> None:
    """Change the rows of classes.csv."""
    path = place.source / "classes.csv"
    with path.open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    change(found)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)


def no_folder(place: Place) -> None:
    shutil.rmtree(place.source)


def empty_folder(place: Place) -> None:
    no_folder(place)
    place.source.mkdir()


def no_pictures(place: Place) -> None:
    shutil.rmtree(place.source / "images")
    (place.source / "images").mkdir()


def one_picture(place: Place) -> None:
    for path in sorted((place.source / "images" / FIRST).iterdir())[1:]:
        path.unlink()


def same_name(place: Place) -> None:
    rows(place, lambda found: found.append(dict(found[0], description="Another one.")))


def unknown_role(place: Place) -> None:
    rows(place, lambda found: found[0].update(role="sene"))


def no_row(place: Place) -> None:
    rows(place, lambda found: found.pop(0))


def same_picture(place: Place) -> None:
    (place.source / "images" / FIRST / "copy.png").write_bytes(paint(SECOND, 0))
    place.set("prepare.duplicates=error")


def many_broken(place: Place) -> None:
    for path in (place.source / "images").glob("*/000.png"):
        path.write_bytes(b"")


SOURCES = {
    no_folder: r"prepare\.path: no folder .*expected one with images/<class>/\* and classes\.csv",
    empty_folder: r"has no classes\.csv and no images/: expected",
    no_pictures: r"images holds no pictures: expected images/<class>/\*",
    one_picture: rf"seen classes with a single picture: {FIRST}; add photographs",
    same_name: rf"classes listed twice: {FIRST}; give each class one row",
    unknown_role: rf"unknown role of {FIRST} \('sene'\); expected seen or unseen",
    no_row: rf"pictures of classes without a row in classes\.csv: {FIRST} \({workspaces.PICTURES}\)",
    same_picture: rf"1 picture is under two classes: {FIRST}/copy\.png .* and {SECOND}/000\.png .*; remove one",
    many_broken: rf"more than \d+ of {PICTURES} pictures cannot be used .*empty file \(0 bytes\).*rejected",
}


@pytest.mark.parametrize(
    ("spoil", "expected"), SOURCES.items(), ids=lambda each: getattr(each, "__name__", "")
)
def test_a_bad_source_is_named_and_the_dataset_stays(
    place: Place, spoil: Callable[[Place], None], expected: str
) -> None:
    spoil(place)
    said = refused(place, "prepare")
    assert re.search(expected, said), said


def huge_png(side: int = 20_000) -> bytes:
    """A whole PNG of side x side black pixels, in a few dozen kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


def photograph(number: int, width: int = 48, height: int = 32) -> Image.Image:
    chance = np.random.default_rng(number)
    return Image.fromarray(chance.integers(0, 60, (height, width, 3), dtype=np.uint8))


def test_a_broken_picture_goes_to_quarantine_and_the_run_continues(place: Place) -> None:
    broken = {
        "truncated.jpg": (encoded(photograph(1), "JPEG")[:-300], "damaged or truncated picture"),
        "empty.jpg": (b"", "empty file (0 bytes)"),
        "text.jpg": (b"This is no picture.\n" * 50, "not a picture of a known format"),
        "huge.png": (huge_png(), "too many pixels; at most 100,000,000 are allowed"),
    }
    for name, (content, _) in broken.items():
        (place.source / "images" / FIRST / name).write_bytes(content)
    done = place("prepare", "--json")
    assert done.code == 0, done.err
    assert (done.json["rejected"], done.json["pictures"]) == (len(broken), PICTURES)
    quarantine = pd.read_parquet(place.root / "data" / "dataset" / "quarantine.parquet")
    found = {
        Path(source).name: reason
        for source, reason in zip(quarantine["source"], quarantine["reason"], strict=True)
    }
    assert found.keys() == broken.keys()
    for name, (_, reason) in broken.items():
        assert found[name].startswith(reason)


def test_unusual_pictures_are_taken_in_and_embedded(place: Place) -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6
    frames = [photograph(number) for number in (7, 8, 9)]
    deep = np.random.default_rng(5).integers(0, 16_000, (32, 48)).astype(np.uint16)
    unusual = {
        "cmyk.jpg": encoded(photograph(2).convert("CMYK"), "JPEG"),
        "palette.png": encoded(photograph(3).quantize(16), "PNG"),
        "deep.png": encoded(Image.fromarray(deep), "PNG"),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "rotated.jpg": encoded(photograph(4), "JPEG", exif=rotated),
    }
    for name, content in unusual.items():
        (place.source / "images" / FIRST / name).write_bytes(content)
    done = place("prepare", "--json")
    assert done.code == 0, done.err
    assert (done.json["rejected"], done.json["pictures"]) == (0, PICTURES + len(unusual))
    manifest = pd.read_parquet(place.root / "data" / "dataset" / "manifest.parquet")
    row = manifest[manifest["source"].str.endswith("rotated.jpg")].iloc[0]
    shard = pd.read_parquet(place.root / "data" / "dataset" / "shards" / f"{row['shard']}.parquet")
    assert (shard["width"][row["row"]], shard["height"][row["row"]]) == (32, 48)
    done = place("embed", "--json")
    assert done.code == 0, done.err
    assert done.json["pictures"] == PICTURES + len(unusual)


# Parameters


def test_an_unknown_parameter_is_answered_with_the_nearest_known_one(place: Place) -> None:
    params = place.root / "params.yaml"
    params.write_text(params.read_text().replace("  mapper:", "  maper:"))
    assert "unknown parameter train.maper; did you mean mapper?" in refused(place, "retrain")


@pytest.mark.parametrize(
    "content", [b"prepare: [\n", b"prepare: {source\n  x", b"\xff\xfe\x00", b"\0", b"- a\n", b""]
)
def test_a_corrupt_params_file_says_where_and_what_to_do(place: Place, content: bytes) -> None:
    (place.root / "params.yaml").write_bytes(content)
    for command in ("retrain", "status", "train"):
        said = refused(place, command)
        assert "params.yaml" in said
        assert "restore it with git" in said or "expected prepare, embed" in said


SETTINGS = {
    "nonsense": "expected section.key=value",
    "train=ridge": "expected section.key=value",
    "train.mapper=rigde": 'train.mapper is "rigde": expected one of drop_last, eszsl, prototype, rank, ridge, sae',
    "train.maper=ridge": "unknown parameter train.maper; did you mean mapper?",
    "trian.mapper=ridge": "unknown parameter trian; did you mean train?",
    "embed.backbone.name=x": "backbone is a value, not a section",
    "embed.epochs=-1": "embed.epochs is -1: input should be greater than or equal to 0",
    "embed.epochs=many": 'embed.epochs is "many": input should be a valid integer',
    "release.minimum.T1x=0.1": "unknown figure release.minimum.T1x; did you mean T1?",
    "embed.backbone=resnt18": "torchvision has no such classification model; did you mean resnet18?",
    "classes.vectors=no: such.vec": "expected a file, or files by source (fasttext, glove, sentences, word2vec), not",
    "train.mapper=[": 'train.mapper is "[": expected one of',
    "release.minimum.T1=[": "release.minimum.T1 is [: this is not valid YAML",
}


@pytest.mark.parametrize(("setting", "expected"), SETTINGS.items(), ids=SETTINGS)
def test_a_wrong_setting_is_refused_before_anything_is_written(
    place: Place, tmp_path: Path, setting: str, expected: str
) -> None:
    before = (place.root / "params.yaml").read_bytes()
    assert expected in error_of(place("set", setting))
    assert (place.root / "params.yaml").read_bytes() == before
    assert expected in error_of(ayeaye("init", tmp_path / "new", "--set", setting))
    assert not (tmp_path / "new").exists()


USAGE = {
    ("serve", "--port", "99999"): "--port",
    ("serve", "--port", "http"): "--port",
    ("promote", "0"): "VERSION",
    ("promote", "first"): "VERSION",
    ("promote",): "Missing argument 'VERSION'",
    ("classify",): "Missing argument 'IMAGE...'",
    ("explain",): "Missing argument 'IMAGE'",
    ("retrian",): "Did you mean 'retrain'",
    ("retrain", "--fast"): "No such option: --fast",
}


@pytest.mark.parametrize(("command", "expected"), USAGE.items(), ids=" ".join)
def test_a_wrong_option_is_one_line_that_leads_to_the_help(command: tuple[str, ...], expected: str) -> None:
    said = error_of(ayeaye(*command), 2)
    assert expected in said
    assert "--help`" in said


# Words and weights


def test_a_class_without_any_known_word_is_named_with_the_nearest_spellings(
    place: Place, tmp_path: Path
) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("4 3\npant 1 0 0\nprint 0 1 0\n000 0 0 1\n001 0 1 1\n")
    place.set("classes.source=word2vec", f"classes.vectors={vectors}", "classes.text=names")
    said = refused(place, "classes")
    assert "paint 002" in said
    assert "pant" in said


NETWORKS = {
    "resnet18": "does not fit resnet18",
    "mobilenet_v3_large": "does not fit mobilenet_v3_large",
}


@pytest.mark.parametrize(("network", "expected"), NETWORKS.items(), ids=NETWORKS)
def test_a_checkpoint_that_does_not_fit_is_refused(place: Place, network: str, expected: str) -> None:
    place.set(f"embed.backbone={network}")
    assert expected in refused(place, "embed")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_checkpoint_is_refused(place: Place, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    place.set(f"embed.weights={tmp_path / 'weights.pth'}")
    assert "weights.pth is not a readable checkpoint" in refused(place, "embed")
    place.set(f"embed.weights={tmp_path / 'nothing.pth'}")
    assert "neither a checkpoint file nor weights of" in refused(place, "embed")


# The workspace


def test_a_folder_that_is_no_workspace_is_not_made_one(tmp_path: Path) -> None:
    for command in ("retrain", "status", "serve", "embed", "rollback"):
        assert "is not a workspace: make one with `ayeaye init DIR`" in error_of(
            ayeaye(command, "--workspace", tmp_path)
        )
    assert list(tmp_path.iterdir()) == []


def test_without_a_champion_there_is_nothing_to_serve_or_to_ask(place: Place) -> None:
    picture = next((place.source / "images" / FIRST).iterdir())
    for command in (
        ("serve",),
        ("classify", picture),
        ("explain", picture),
        ("label", place.source, "--out", place.root / "x.csv"),
    ):
        assert "no champion" in refused(place, *command)
    assert "there is no previous champion" in refused(place, "rollback")
    assert "has no version 7; known, newest first: none" in refused(place, "promote", 7)
    assert not (place.root / "x.csv").exists()


def test_stages_out_of_their_order_say_which_comes_first(place: Place) -> None:
    for command, expected in (("train", "class space"), ("evaluate", "run `ayeaye")):
        assert expected in refused(place, command)


def test_without_git_a_run_says_how_to_lay_it_down_and_init_does(place: Place) -> None:
    shutil.rmtree(place.root / ".git")
    assert "has no .git: lay them down with `ayeaye init" in refused(place, "retrain")
    shutil.rmtree(place.root / ".dvc")
    assert "has no .git and no .dvc" in refused(place, "retrain")
    before = (place.root / "params.yaml").read_bytes()
    done = ayeaye("init", place.root)
    assert done.code == 0, done.err
    assert (place.root / "params.yaml").read_bytes() == before
    assert subprocess.run(["git", "rev-parse", "HEAD"], cwd=place.root, capture_output=True).returncode == 0


def test_a_machine_without_git_is_told_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    shutil.rmtree(place.root / ".git")
    assert "git is not installed" in error_of(ayeaye("init", place.root))


# What is away, full or damaged


def test_an_mlflow_server_that_is_away_stops_a_run_that_is_finished_later(copied: Place) -> None:
    before = copied.status["champion"]
    copied.set("release.tracking=http://127.0.0.1:9")
    said = refused(copied, "retrain")
    assert "MLflow cannot be reached at http://127.0.0.1:9" in said
    copied.set("release.tracking=")
    assert copied.retrain()["outcome"] == "unchanged"
    assert copied.status["champion"] == before


def test_a_remote_that_is_away_stops_a_run_that_is_finished_later(copied: Place, tmp_path: Path) -> None:
    before = copied.status["champion"]
    workspaces.add_pictures(copied.source, FIRST, range(100, 108))
    (tmp_path / "file").write_text("in the way")
    remotes = {
        str(tmp_path / "file"): "prepare.remote .*file cannot be used",
        "http://127.0.0.1:9/remote": "the dataset could not be pushed to prepare.remote http://127.0.0.1:9/remote",
    }
    for remote, expected in remotes.items():
        copied.set(f"prepare.remote={remote}")
        said = error_of(copied("retrain"))
        assert re.search(expected, said), said
        assert copied.status["champion"] == before
    copied.set(f"prepare.remote={tmp_path / 'remote'}", "release.minimum={T1: 1.01}")
    assert copied.retrain(expect=3)["version"] == 2
    assert files(tmp_path / "remote")


@pytest.mark.parametrize("name", ["mapper.safetensors", "bundle.json", "class_space/space.safetensors"])
def test_a_corrupt_bundle_is_refused_and_made_again(copied: Place, name: str) -> None:
    before = copied.status["champion"]
    bundle = copied.root / "models" / "classifier"
    (bundle / name).write_bytes(b"rubbish")
    said = error_of(copied("evaluate"))
    assert str(bundle) in said
    assert "dvc checkout" in said or "train again" in said
    assert copied.retrain()["outcome"] == "unchanged"
    assert copied.status["champion"] == before


def test_a_champion_whose_bundle_is_corrupt_is_not_asked(copied: Place) -> None:
    tag = copied.status["champion"]["bento"]
    bundle = copied.root / ".ayeaye/bentoml/bentos" / tag.replace(":", "/") / "src/bundle"
    (bundle / "mapper.safetensors").write_bytes(b"rubbish")
    picture = next((copied.source / "images" / FIRST).iterdir())
    assert "is damaged" in refused(copied, "classify", picture)


def limited(place: Place, command: str, size: int) -> Done:
    """A command in a process that can write no file beyond `size` bytes, as on a disk that fills up."""
    done = subprocess.run(
        [workspaces.PROGRAM, command, "--workspace", str(place.root)],
        env={**os.environ, **place.environment},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_disk_that_fills_up_stops_each_stage_and_leaves_no_half_file(place: Place) -> None:
    workspaces.add_pictures(place.source, FIRST, range(100, 104))
    stages = {
        "prepare": ("data/dataset", 4_000),
        "embed": ("data/embeddings", 100_000),
        "classes": ("data/class_space", 1_000),
        "train": ("models/classifier", 10_000),
        "evaluate": ("reports", 10_000),
    }
    for command, (folder, size) in stages.items():
        before = files(place.root / folder)
        said = error_of(limited(place, command, size))
        assert re.search("File too large|Cannot be written whole", said), (command, said)
        if command == "prepare":
            assert files(place.root / folder) == before
        assert not list(place.root.rglob(".*.part")), command
        done = place(command)
        assert done.code == 0, (command, done.err)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can only be mounted by root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize(
    "room",
    [pytest.param(10_000, marks=pytest.mark.soak), 400_000, pytest.param(2_000_000, marks=pytest.mark.soak)],
)
def test_on_a_full_disk_a_run_stops_and_is_finished_when_there_is_room(
    trained: Place, small_disk: Path, room: int
) -> None:
    place = trained.copy(small_disk)
    before = place.status["champion"]
    workspaces.add_pictures(place.source, FIRST, range(100, 104))
    filler = small_disk / "filler"
    free = shutil.disk_usage(small_disk).free
    filler.write_bytes(bytes(free - room))
    done = subprocess.run(
        [workspaces.PROGRAM, "retrain", "--workspace", str(place.root)],
        # With a Prefect server of its own, whose database is on the same disk.
        env={key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        capture_output=True,
        text=True,
    )
    said = error_of(Done(done.returncode, done.stdout, done.stderr))
    assert "No space left" in said or "full" in said, said
    filler.unlink()
    assert place.status["champion"] == before
    assert place.retrain()["outcome"] in ("promoted", "unchanged")
    assert not list(place.root.rglob(".*.part"))


# A fault of ours


@pytest.mark.parametrize(
    ("command", "expected"),
    {
        """python -c "raise ValueError('a bug')" """: "stage classes failed .*ValueError: a bug; what it printed",
        "kill -9 $$": "stage classes was ended by SIGKILL",
        "echo unheard of >&2; exit 4": "failed to run: .*exited with 4.*unheard of",
    }.items(),
)
def test_a_stage_that_breaks_shows_what_broke_it(copied: Place, command: str, expected: str) -> None:
    before = copied.status["champion"]
    pipeline = copied.root / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("cmd: ayeaye classes", f"cmd: {command.strip()}"))
    said = error_of(copied("retrain"))
    assert re.search(expected, said), said
    assert copied.status["champion"] == before
