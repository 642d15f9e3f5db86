"""The champion at work here, without the service: labels for pictures and for folders of them."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ayeaye.classifier import Classifier
from ayeaye.data.decode import Limits
from ayeaye.errors import BundleError, PictureError, ReleaseError, SourceError
from ayeaye.files import replacing, sync_folder
from ayeaye.pipeline.progress import Progress
from ayeaye.release import bento
from ayeaye.release.promotion import record_of
from ayeaye.workspace import Workspace

COLUMNS = ("image", "label", "seen", "confidence", "model", "error", "known")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
BATCH = 64


def load(workspace: Workspace) -> tuple[Classifier, dict[str, Any]]:
    """The champion's classifier as it lies in its Bento, and `{version, bento}`."""
    state = record_of(workspace).state()
    if state.champion is None or state.bento is None:
        raise ReleaseError("there is no champion yet: run `ayeaye retrain`")
    folder = bento.folder_of(state.bento, workspace.bentos) / "src" / "bundle"
    again = f"make it again with `ayeaye promote {state.champion}`"
    if not folder.is_dir():
        raise ReleaseError(f"{state.bento} is gone from {workspace.bentos}: {again}")
    try:
        classifier = Classifier.load(folder)
    except BundleError:
        raise ReleaseError(f"{state.bento} in {workspace.bentos} is damaged: {again}") from None
    return classifier, {"version": state.champion, "bento": state.bento}


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


def label_folder(
    workspace: Workspace, folder: Path, out: Path, progress: Progress, labelling: str = "nearest"
) -> dict[str, Any]:
    """Write a row per picture below `folder` to a CSV file, which appears when it is complete.

    `labelling` is `nearest`, picture by picture, or `propagation`, where the pictures of the folder help to
    label each other. What an interrupted call of the same champion left beside the file is kept.
    """
    pictures = _pictures(folder)
    classifier, model = load(workspace)
    out.parent.mkdir(parents=True, exist_ok=True)
    label = _label_together if labelling == "propagation" else _label_one_by_one
    with progress.task("labelling", len(pictures)) as advance:
        done = label(workspace, classifier, pictures, out, model["bento"], advance)
    return {"pictures": len(pictures), **done, "out": str(out), "labelling": labelling, **model}


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures below a folder by their relative names, in order; raises SourceError where there are none."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: give one with pictures to label")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        raise SourceError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return {str(path.relative_to(folder)): path for path in paths}


Advance = Callable[[int], None]


def _label_one_by_one(
    workspace: Workspace,
    classifier: Classifier,
    pictures: dict[str, Path],
    out: Path,
    model: str,
    advance: Advance,
) -> dict[str, int]:
    """Rows are added to a part file, which takes the place of the CSV when all are there."""
    part = out.with_name(f"{out.name}.part")
    done = _kept(part, model)
    waiting = [(name, path) for name, path in pictures.items() if name not in done]
    failed = 0
    advance(len(pictures) - len(waiting))
    with part.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if part.stat().st_size == 0:
            writer.writerow(COLUMNS)
        for chunk in _chunks(waiting):
            found = _answers(classifier, workspace, [path for _, path in chunk], 1)
            for (name, _), answer in zip(chunk, found, strict=True):
                failed += "error" in answer
                writer.writerow(_row(name, answer, model))
            file.flush()
            os.fsync(file.fileno())
            advance(len(chunk))
    part.replace(out)
    sync_folder(out.parent)
    return {"labelled_now": len(waiting), "failed": failed}


def _label_together(
    workspace: Workspace,
    classifier: Classifier,
    pictures: dict[str, Path],
    out: Path,
    model: str,
    advance: Advance,
) -> dict[str, int]:
    """Embeddings are kept, chunk by chunk, in a folder beside the CSV, until every picture has its own."""
    parts = out.with_name(f"{out.name}.embeddings")
    kept = _kept_embeddings(parts, model)
    waiting = [(name, path) for name, path in pictures.items() if name not in kept]
    advance(len(pictures) - len(waiting))
    for chunk in _chunks(waiting):
        found = _of_contents(workspace, [path for _, path in chunk], classifier.read)
        embedded = {name: result for (name, _), result in zip(chunk, found, strict=True)}
        _keep_embeddings(parts, model, embedded)
        kept |= embedded
        advance(len(chunk))
    answers = _answers_together(classifier, {name: kept[name] for name in pictures})
    with replacing(out) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *(_row(name, answers[name], model) for name in pictures)])
    shutil.rmtree(parts)
    failed = sum(isinstance(kept[name], str) for name, _ in waiting)
    return {"labelled_now": len(waiting), "failed": failed}


def _answers_together(
    classifier: Classifier, embedded: dict[str, np.ndarray | str]
) -> dict[str, dict[str, Any]]:
    """The answer for each picture of a batch, or `{error}`."""
    answers = {name: {"error": error} for name, error in embedded.items() if isinstance(error, str)}
    rows = {name: row for name, row in embedded.items() if not isinstance(row, str)}
    if not rows:
        return answers
    X = np.stack(list(rows.values()))
    # Whether a picture is of any class at all is asked of it alone: the threshold was fitted so.
    known = classifier.known(classifier.scores(X))
    found = classifier.answers(classifier.propagated(X), top=1)
    return answers | {
        name: {**answer, "known": bool(each)} for name, answer, each in zip(rows, found, known, strict=True)
    }


def _row(name: str, answer: dict[str, Any], model: str) -> list[Any]:
    found = {**answer, "image": name, "model": model}
    return [found.get(column, "") for column in COLUMNS]


def _answers(
    classifier: Classifier, workspace: Workspace, paths: Sequence[Path], top: int
) -> list[dict[str, Any]]:
    """The answer for each picture as the service gives it, or `{error}`."""
    found = _of_contents(
        workspace, paths, lambda contents, limits: classifier.classify(contents, limits, top)
    )
    return [{"error": answer} if isinstance(answer, str) else answer for answer in found]


Result = TypeVar("Result")
Work = Callable[[list[bytes], Limits], Sequence[Result | PictureError]]


def _of_contents(workspace: Workspace, paths: Sequence[Path], work: Work[Result]) -> list[Result | str]:
    """What `work` makes of each file's bytes, or why it cannot be read."""
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
    worked = iter(work(contents, limits))
    results: list[Result | str] = []
    for number in range(len(paths)):
        result = unreadable[number] if number in unreadable else next(worked)
        results.append(str(result) if isinstance(result, PictureError) else result)
    return results


def _kept_embeddings(parts: Path, model: str) -> dict[str, np.ndarray | str]:
    """The embeddings, or reasons why there are none, that are there already; those of another model go."""
    kept: dict[str, np.ndarray | str] = {}
    for path in sorted(parts.glob("*.npz")):
        with np.load(path, allow_pickle=False) as part:
            if part["model"].item() != model:
                path.unlink()
                continue
            rows = iter(part["embeddings"])
            for name, error in zip(part["names"].tolist(), part["errors"].tolist(), strict=True):
                kept[name] = error or next(rows)
    return kept


def _keep_embeddings(parts: Path, model: str, embedded: dict[str, np.ndarray | str]) -> None:
    rows = [row for row in embedded.values() if not isinstance(row, str)]
    errors = [error if isinstance(error, str) else "" for error in embedded.values()]
    # Named by its first picture: the same pictures never lie in two parts.
    name = hashlib.sha256(next(iter(embedded)).encode()).hexdigest()[:16]
    with replacing(parts / f"{name}.npz") as part, part.open("wb") as file:
        np.savez(
            file,
            model=np.array(model),
            names=np.array(list(embedded)),
            errors=np.array(errors),
            embeddings=np.stack(rows) if rows else np.zeros((0, 0), np.float32),
        )


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
