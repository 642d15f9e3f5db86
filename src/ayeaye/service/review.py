"""What a reviewer decides about feedback, and how what is accepted becomes part of the next dataset."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from ayeaye.core.errors import Conflict, DataError, NotKept, PictureError
from ayeaye.core.files import replacing
from ayeaye.core.workspace import Workspace
from ayeaye.data import decode
from ayeaye.data.sources import feedback as folder
from ayeaye.data.sources.base import nearest
from ayeaye.data.table import SEEN, Dataset
from ayeaye.packaging.server import service_environment
from ayeaye.service.database import locate
from ayeaye.service.store import ACCEPTED, REJECTED, Feedback, Status, Store, check_undecided

FORGOTTEN = "forgotten"
NO_PICTURE = "counts for monitoring alone: no picture was sent along"
FEATURES = "counts for monitoring alone: the dataset holds features, not pictures"


def place_of(workspace: Workspace) -> dict[str, str]:
    """Where the service is that a workspace's parameters and the environment describe, as for `ayeaye serve`."""
    serve = workspace.params.serve
    return service_environment(serve.model_copy(update={"state": str(workspace.resolve(serve.state))}))


def store_of(workspace: Workspace) -> Store:
    """The store of that service."""
    return Store(url_of(workspace))


def url_of(workspace: Workspace) -> URL:
    """The address of its database."""
    return locate(state_of(workspace), place_of(workspace)["AYEAYE_DATABASE"])


def state_of(workspace: Workspace) -> Path:
    """The folder of what it keeps."""
    return Path(place_of(workspace)["AYEAYE_STATE"])


class Review:
    """Of one workspace's feedback. Killed anywhere, the next call of `deliver` completes what was accepted."""

    def __init__(self, workspace: Workspace, store: Store) -> None:
        self.workspace, self.store = workspace, store

    def pending(self) -> list[dict[str, Any]]:
        """What waits to be decided, the oldest first."""
        return [_shown(each) for each in self.store.pending()]

    def decide(
        self, id: int, accepted: bool, reviewer: str, reason: str = "", *, dry_run: bool = False
    ) -> dict[str, Any]:
        """Accept or reject feedback; `{id, error}` where it cannot be, so that others still are."""
        try:
            if dry_run:
                return self._planned(id, accepted)
            return self.accept(id, reviewer, reason) if accepted else self.reject(id, reviewer, reason)
        except (DataError, Conflict, NotKept) as error:
            return {"id": id, "error": str(error)}

    def accept(self, id: int, reviewer: str, reason: str = "") -> dict[str, Any]:
        """Accept feedback; a picture that came with it is in the next dataset, as one of its label.

        Raises DataError where its class is not in the class table, or the picture contradicts another.
        """
        outcome = self._outcome(self.store.find(id))
        decided = self.store.decide(id, True, reviewer, reason)
        self.deliver()
        return {**_shown(decided), "outcome": outcome}

    def reject(self, id: int, reviewer: str, reason: str) -> dict[str, Any]:
        """Reject feedback; a picture that came with it is forgotten."""
        return {**_shown(self.store.decide(id, False, reviewer, reason)), "outcome": FORGOTTEN}

    def _planned(self, id: int, accepted: bool) -> dict[str, Any]:
        """What `accept` or `reject` would answer; nothing is changed."""
        found = self.store.find(id)
        status: Status = ACCEPTED if accepted else REJECTED
        check_undecided(found, status)
        outcome = self._outcome(found) if accepted else FORGOTTEN
        return {**_shown(found), "status": status, "outcome": outcome}

    def _outcome(self, found: Feedback) -> str:
        """What comes of feedback when it is accepted; raises DataError where it must not be."""
        if found.status == ACCEPTED:
            return "as it was before"
        return self._admit(found) if found.has_picture else NO_PICTURE

    def deliver(self) -> int:
        """Move the pictures of accepted feedback to where `prepare` reads them; returns how many."""
        waiting = [each for each in self.store.feedback(ACCEPTED) if each.has_picture]
        if not waiting:
            return 0
        dataset = Dataset.load(self.workspace.dataset)
        for each in waiting:
            content = self.store.picture(each.id)
            if content is not None and dataset.kind == "images":
                folder.keep(self.workspace.feedback, dataset.classes.find(each.label) or each.label, content)
            self.store.forget_picture(each.id)
        return len(waiting)

    def forget(self, ids: Collection[str], *, dry_run: bool = False) -> list[int]:
        """Drop the pictures with these SHA-256 that wait with feedback; returns the numbers of the feedback."""
        held = [each.id for each in self.store.feedback() if each.has_picture and each.picture_id in ids]
        for id in [] if dry_run else held:
            self.store.forget_picture(id)
        return held

    def write_pictures(self, out: Path) -> list[Path]:
        """Pending pictures as PNG files named by number, to be looked at; those that cannot be read are left out.

        They are written anew: a reviewer's viewer never opens bytes that a stranger sent.
        """
        written = []
        for each in self.store.pending():
            content = self.store.picture(each.id)
            if content is not None:
                try:
                    picture = decode.decode(content, self._limits)
                except PictureError:
                    continue
                with replacing(out / f"{each.id}.png") as part:
                    picture.save(part, "PNG")
                written.append(out / f"{each.id}.png")
        return written

    @property
    def _limits(self) -> decode.Limits:
        return decode.Limits.of(self.workspace.params.prepare)

    def _admit(self, found: Feedback) -> str:
        """What comes of a picture when it is accepted; raises DataError where it must not be."""
        dataset = Dataset.load(self.workspace.dataset)
        if dataset.kind != "images":
            return FEATURES
        named = f"feedback {found.id} ({found.label})"
        label = dataset.classes.find(found.label)
        if label is None:
            raise DataError(
                f"{named}: the class table has no such class{nearest(found.label, dataset.classes.names)}; "
                "add a row for it and run `ayeaye prepare`, or reject the feedback"
            )
        try:
            decode.decode(self.store.picture(found.id) or b"", self._limits)
        except PictureError as error:
            raise DataError(f"{named}: the picture cannot be used ({error}); reject the feedback") from None
        ids = dict(zip(dataset.manifest["id"], dataset.manifest["label"], strict=True))
        for where, labels in (("dataset", ids), ("accepted feedback", folder.kept(self.workspace.feedback))):
            other = labels.get(found.picture_id or "", label)
            if dataset.classes.find(other) != label:
                raise DataError(
                    f"{named}: the same picture is in the {where} as {other}; mend that, or reject the feedback"
                )
        role = dataset.classes.frame.loc[dataset.classes.index()[label], "role"]
        alone = "" if role == SEEN else ", for the test alone: the class is unseen in the class table"
        return f"enters the next dataset as {label}{alone}"


def _shown(each: Feedback) -> dict[str, Any]:
    return {
        "id": each.id,
        "time": each.time.isoformat(timespec="seconds"),
        "answer": each.answer,
        "label": each.label,
        "caller": each.caller,
        "model_version": each.model_version,
        "picture_id": each.picture_id,
        "picture_bytes": each.picture_bytes,
        "status": each.status,
        "reviewer": each.reviewer,
        "reason": each.reason,
    }
