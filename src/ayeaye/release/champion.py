"""The champion at work here, without the service: labels for pictures and for folders of them."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import BundleError, PictureError, ReleaseError, SourceError
from ayeaye.core.files import replacing
from ayeaye.core.workspace import Workspace
from ayeaye.data.decode import Limits
from ayeaye.data.sources.pictures import Found, below
from ayeaye.packaging.bento import BentoStore
from ayeaye.pipeline.progress import Progress
from ayeaye.release.promotion import record_of

COLUMNS = ("image", "label", "seen", "confidence", "model", "error", "known")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
BATCH = 64


def load(workspace: Workspace) -> tuple[Classifier, dict[str, Any]]:
    """The champion's classifier as it lies in its Bento, and `{version, bento}`."""
    state = record_of(workspace).state()
    if state.champion is None or state.bento is None:
        raise ReleaseError("there is no champion yet: run `ayeaye retrain`")
    folder = BentoStore(workspace.bentos).bundle(state.bento)
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
        for path, answer in zip(chunk, _answers(classifier, workspace, chunk, top), strict=True):
            made = {} if "error" in answer else {"model": model}
            answers.append({"image": str(path), **answer, **made})
    return answers


def explain(
    workspace: Workspace, image: Path, label: str | None = None, against: str | None = None
) -> dict[str, Any]:
    """Why the champion labels a picture so, see `Classifier.explain`; raises PictureError and DataError."""
    classifier, model = load(workspace)
    embedding = _of_contents(workspace, [image], classifier.read)[0]
    if isinstance(embedding, str):
        raise PictureError(f"{image}: {embedding}")
    return {"image": str(image), **classifier.explain(embedding, label, against), "model": model}


def label_folder(
    workspace: Workspace, folder: Path, out: Path, progress: Progress, labelling: str = "nearest"
) -> dict[str, Any]:
    """Write a row per picture below `folder` to a CSV file, which appears when it is complete.

    `labelling` is `nearest`, picture by picture, or `propagation`, where the pictures of the folder help to
    label each other. Embeddings are kept in a folder beside the CSV until it is there, so that an interrupted call
    goes on with those of the same files and the same champion.
    """
    pictures, others = _pictures(folder)
    classifier, model = load(workspace)
    stamps = {_stamp(each.path, model["bento"]): each.path for each in pictures if not each.reason}
    kept = out.with_name(f"{out.name}.parts")
    there = {stamp for part in kept.glob("*.npz") for stamp in _read(part)}
    waiting = [stamp for stamp in stamps if stamp not in there]
    with progress.task("labelling", len(stamps)) as advance:
        advance(len(stamps) - len(waiting))
        for chunk in _chunks(waiting):
            paths = [stamps[stamp] for stamp in chunk]
            _keep(kept, dict(zip(chunk, _of_contents(workspace, paths, classifier.read), strict=True)))
            advance(len(chunk))
    answers = _labelled(classifier, kept, list(stamps), labelling)
    by_path = {path: answers[stamp] for stamp, path in stamps.items()}
    found = {each.name: by_path.get(each.path, {"error": each.reason}) for each in pictures}
    with replacing(out) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = (_row(name, answer, model["bento"]) for name, answer in found.items())
        csv.writer(file).writerows([COLUMNS, *rows])
    shutil.rmtree(kept, ignore_errors=True)
    return {
        "pictures": len(pictures),
        "labelled_now": sum("error" not in answers[stamp] for stamp in waiting),
        "failed": sum("error" in answer for answer in found.values()),
        "other_files": others,
        "out": str(out),
        "labelling": labelling,
        **model,
    }


def _pictures(folder: Path) -> tuple[list[Found], int]:
    """The pictures below a folder, also those that cannot be read, and how many other files are there; raises
    SourceError where there are no pictures."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: give one with pictures to label")
    found = below(folder)
    pictures = [
        each
        for each in found
        if each.path.suffix.lower() in SUFFIXES
        or each.path.is_dir()
        or (each.path.is_symlink() and not each.path.exists())  # there may be pictures behind it
    ]
    if not pictures:
        raise SourceError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return pictures, len(found) - len(pictures)


def _stamp(path: Path, model: str) -> str:
    """Of a file as it is now and of the model that looks at it."""
    status = path.stat()
    text = json.dumps([str(path.absolute()), status.st_size, status.st_mtime_ns, model])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


Embedded = dict[str, np.ndarray | str]  # by stamp: an embedding, or why there is none


def _labelled(
    classifier: Classifier, kept: Path, stamps: Sequence[str], labelling: str
) -> dict[str, dict[str, Any]]:
    """The answer for each picture, or `{error}`, by stamp."""
    batches: Iterable[Embedded] = map(_read, sorted(kept.glob("*.npz")))
    label = _one_by_one
    if labelling == "propagation":
        found = {stamp: row for batch in batches for stamp, row in batch.items()}
        batches, label = [{stamp: found[stamp] for stamp in stamps}], _together
    answers: dict[str, dict[str, Any]] = {}
    for batch in batches:
        rows = {stamp: row for stamp, row in batch.items() if not isinstance(row, str)}
        answers |= {stamp: {"error": row} for stamp, row in batch.items() if isinstance(row, str)}
        if rows:
            answers |= zip(rows, label(classifier, np.stack(list(rows.values()))), strict=True)
    return answers


def _one_by_one(classifier: Classifier, X: np.ndarray) -> list[dict[str, Any]]:
    return classifier.answers(classifier.scores(X), top=1)


def _together(classifier: Classifier, X: np.ndarray) -> list[dict[str, Any]]:
    # Whether a picture is of any class at all is asked of it alone: the threshold was fitted so.
    known = classifier.known(classifier.scores(X))
    answers = classifier.answers(classifier.propagated(X), top=1)
    return [{**answer, "known": bool(each)} for answer, each in zip(answers, known, strict=True)]


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
    limits = Limits.of(serve)
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


def _keep(kept: Path, embedded: Embedded) -> None:
    rows = [row for row in embedded.values() if not isinstance(row, str)]
    # Named by its first picture: the same pictures never lie in two parts.
    with replacing(kept / f"{next(iter(embedded))}.npz") as part, part.open("wb") as file:
        np.savez(
            file,
            stamps=np.array(list(embedded)),
            errors=np.array([row if isinstance(row, str) else "" for row in embedded.values()]),
            embeddings=np.stack(rows) if rows else np.zeros((0, 0), np.float32),
        )


def _read(part: Path) -> Embedded:
    with np.load(part, allow_pickle=False) as found:
        rows = iter(found["embeddings"])
        pairs = zip(found["stamps"].tolist(), found["errors"].tolist(), strict=True)
        return {stamp: error or next(rows) for stamp, error in pairs}


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
