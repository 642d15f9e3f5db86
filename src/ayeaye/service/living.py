"""The classifier as it is now: what was trained, and the classes that the store keeps."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ayeaye.classspace.later import NewClass
from ayeaye.errors import StoreError
from ayeaye.service.store import RuntimeClass, Store, comparable

if TYPE_CHECKING:
    from ayeaye.classifier import Classifier

PATIENCE = 30.0  # seconds until a store that could not be asked is asked again
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Now:
    """The classifier with the run-time classes of a revision; `refused` are those it cannot take, with the reason."""

    revision: int
    classifier: Classifier
    classes: Sequence[RuntimeClass] = ()
    refused: Sequence[tuple[RuntimeClass, str]] = ()

    @cached_property
    def names(self) -> dict[str, str]:
        """The names of all classes, by how names are compared."""
        return {comparable(name): name for name in self.classifier.labels}


class Living:
    """The trained classifier, extended by the classes in a store whenever its revision is another one.

    The store is asked each time, so a class that any worker was given is one of this worker's too from the next
    batch on. Its methods may wait for the database: call them off the event loop.
    """

    def __init__(self, trained: Classifier, store: Store) -> None:
        self.trained = trained
        self._store = store
        self._names = {comparable(name): name for name in trained.labels}
        self._lock = threading.Lock()
        self._now = Now(0, trained)
        self._ask_from = 0.0

    def fresh(self) -> Now:
        """As of now; raises StoreError where the store cannot be asked."""
        with self._lock:
            if self._store.revision() != self._now.revision:
                self._now = self._made(*self._store.classes())
            return self._now

    def latest(self) -> Now:
        """As of now, or as it last was while the store cannot be asked: answers go on without it."""
        if time.monotonic() < self._ask_from:
            return self._now
        try:
            return self.fresh()
        except StoreError as error:
            self._ask_from = time.monotonic() + PATIENCE
            _log.warning("the classes stay as they are for %g s: %s", PATIENCE, error)
            return self._now

    def trained_name(self, name: str) -> str | None:
        """The class that was trained and has this name, however it is written."""
        return self._names.get(comparable(name))

    def _made(self, revision: int, classes: Sequence[RuntimeClass]) -> Now:
        before = self._left(classes) or Now(0, self.trained)
        by_name = {each.name: each for each in classes[len(before.classes) :]}
        taken = {name: trained for name in by_name if (trained := self.trained_name(name))}
        free = [described(each) for name, each in by_name.items() if name not in taken]
        classifier, refused = before.classifier.reencode(free)
        reasons = [(by_name[new.name], reason) for new, reason in refused]
        reasons += [(by_name[name], f"{trained} is trained now") for name, trained in taken.items()]
        for left_out, reason in reasons:
            _log.warning("the run-time class %r is left out: %s", left_out.name, reason)
        return Now(revision, classifier, classes, [*before.refused, *reasons])

    def _left(self, classes: Sequence[RuntimeClass]) -> Now | None:
        """What is left of the classes as they were, to which those after them are added; None: begin anew."""
        before, by_name = self._now, {each.name: each for each in classes}
        kept = [each for each in before.classes if by_name.get(each.name) == each]
        gone = {each.name for each in before.classes}.difference(each.name for each in kept)
        if list(classes[: len(kept)]) != kept:
            return None
        if not gone:
            return before
        # One that was refused may have been so because of one that is gone.
        return (
            None
            if before.refused
            else replace(before, classifier=before.classifier.without(gone), classes=kept)
        )


def described(kept: RuntimeClass) -> NewClass:
    """A class of the store as the classifier takes it."""
    return NewClass(kept.name, kept.description, kept.synonyms, kept.attributes or {}, kept.vector)
