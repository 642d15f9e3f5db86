"""The champion at work here, without the service: labels for pictures and for folders of them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ayeaye.classifier import Classifier
from ayeaye.data.decode import Limits
from ayeaye.errors import PictureError, ReleaseError, SourceError
from ayeaye.files import sync_folder
from ayeaye.pipeline.progress import Progress
from ayeaye.release import bento
from ayeaye.release.promotion import record_of
from ayeaye.workspace import Workspace

COLUMNS = ("image", "label", "seen", "confidence", "model", "error")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
BATCH = 64


def load(workspace: Workspace) -> tuple[Classifier, dict[str, Any]]:
    """The champion's classifier as it lies in its Bento, and `{version, bento}`."""
    state = record_of(workspace).state()
    if state.champion is None or state.bento is None:
        raise ReleaseError("there is no champion yet: run `ayeaye retrain`")
    folder = bento.folder_of(state.bento, workspace.bentos) / "src" / "bundle"
    if not folder.is_dir():
        raise ReleaseError(
            f"{state.bento} is gone from {workspace.bentos}: make it again with `ayeaye serve`"
        )
    return Classifier.load(folder), {"version": state.champion, "bento": state.bento}


def classify(workspace: Workspace, images: Sequence[Path], top: int = 5) -> list[dict[str, Any]]:
    """An answer per picture as the service gives it, or `{image, error}`."""
    classifier, model = load(workspace)
    answers = []
    for chunk in _chunks(images):
        found = iter(_answers(classifier, workspace, chunk, top))
        answers += [
            {"image": str(path), **answer, "model": model} for path, answer in zip(chunk, found, strict=True)
        ]
    return answers


def label_folder(workspace: Workspace, folder: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Write a row per picture below `folder` to a CSV file, which appears when it is complete.

    Rows that an interrupted call of the same champion left beside it are kept.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: give one with pictures to label")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        raise SourceError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    classifier, model = load(workspace)
    part = out.with_name(f"{out.name}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    done = _kept(part, model["bento"])
    names = {str(path.relative_to(folder)): path for path in paths}
    waiting = [(name, path) for name, path in names.items() if name not in done]
    failed = 0
    with (
        part.open("a", newline="", encoding="utf-8") as file,
        progress.task("labelling", len(paths)) as advance,
    ):
        writer = csv.writer(file)
        if part.stat().st_size == 0:
            writer.writerow(COLUMNS)
        advance(len(names) - len(waiting))
        for chunk in _chunks(waiting):
            found = _answers(classifier, workspace, [path for _, path in chunk], 1)
            for (name, _), answer in zip(chunk, found, strict=True):
                failed += "error" in answer
                writer.writerow(
                    [name, answer.get("label", ""), answer.get("seen", ""), answer.get("confidence", ""),
                     model["bento"], answer.get("error", "")]
                )  # fmt: skip
            file.flush()
            os.fsync(file.fileno())
            advance(len(chunk))
    part.replace(out)
    sync_folder(out.parent)
    return {"pictures": len(paths), "labelled_now": len(waiting), "failed": failed, "out": str(out), **model}


def _answers(
    classifier: Classifier, workspace: Workspace, paths: Sequence[Path], top: int
) -> list[dict[str, Any]]:
    serve = workspace.params.serve
    limits = Limits(serve.max_bytes, serve.max_pixels)
    contents, unreadable = [], {}
    for number, path in enumerate(paths):
        try:
            # One byte more than allowed is enough to know that it is too large.
            with path.open("rb") as file:
                contents.append(file.read(limits.max_bytes + 1))
        except OSError as error:
            unreadable[number] = error.strerror or str(error)
    answers = iter(classifier.classify(contents, limits, top))
    results: list[dict[str, Any]] = []
    for number in range(len(paths)):
        answer = {"error": unreadable[number]} if number in unreadable else next(answers)
        results.append({"error": str(answer)} if isinstance(answer, PictureError) else answer)
    return results


def _kept(part: Path, model: str) -> set[str]:
    """Names of the rows already there; a torn last line and rows of another model are dropped."""
    if not part.is_file():
        return set()
    text = part.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.reader(io.StringIO(whole)))
    kept = [row for row in rows[1:] if len(row) == len(COLUMNS) and row[4] == model]
    with part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *kept])
    return {row[0] for row in kept}


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
