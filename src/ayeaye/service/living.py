"""The classifier as it is now: what was trained, and the classes that the store keeps."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ayeaye.class_vectors.new_class import NewClass
from ayeaye.core.errors import StoreError
from ayeaye.core.unicode_checks import comparable, shown
from ayeaye.service.store import RuntimeClass, Store

if TYPE_CHECKING:
    from ayeaye.classifier.model import Classifier

PATIENCE = 30.0  # seconds until a store that could not be asked is asked again
ANSWER = 1.0  # seconds that answers wait for the store
_Changed = tuple[int, int, list[RuntimeClass]]  # the opening, the revision and its classes
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Now:
    """The classifier with the run-time classes of a revision; `refused` are those it cannot take, with the reason.

    `opening` says of which database it is a revision: one that was put in the place of another counts on its own.
    """

    revision: int
    classifier: Classifier
    classes: Sequence[RuntimeClass] = ()
    refused: Sequence[tuple[RuntimeClass, str]] = ()
    opening: int = 0

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
        self._now, self._as_of = Now(0, trained, opening=store.openings), 0.0
        self._ask_from = 0.0
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="classes")
        self._late: Future[_Changed | None] | None = None  # a question that waits for its answer

    def fresh(self) -> Now:
        """As of now; raises StoreError where the store cannot be asked."""
        asked = time.monotonic()
        return self._as_told(asked, self._ask())

    def latest(self) -> Now:
        """As of now, or as it last was while the store cannot be asked or is silent: answers go on without it."""
        late, asked = self._late, time.monotonic()
        if asked < self._ask_from or (late and not late.done()):
            return self._now
        try:
            if late:
                self._late = None
                late.result()
            question = self._asking.submit(self._ask)
            return self._as_told(asked, question.result(ANSWER))
        except TimeoutError:
            self._late = question
            _log.warning(
                "the classes stay as they are until their store answers: it is silent for %g s", ANSWER
            )
        except StoreError as error:
            self._ask_from = time.monotonic() + PATIENCE
            _log.warning("the classes stay as they are for %g s: %s", PATIENCE, error)
        return self._now

    def trained_name(self, name: str) -> str | None:
        """The class that was trained and has this name, however it is written."""
        return self._names.get(comparable(name))

    def _ask(self) -> _Changed | None:
        """What the store says, where it is of another revision or database."""
        revision, opening = self._store.revision(), self._store.openings
        if (opening, revision) == (self._now.opening, self._now.revision):
            return None
        return opening, *self._store.classes()

    def _as_told(self, asked: float, changed: _Changed | None) -> Now:
        """With what the store said to a question of some time (monotonic), unless a later one is known."""
        with self._lock:
            self._ask_from = 0.0  # it can be asked
            if changed and asked >= self._as_of and changed[:2] != (self._now.opening, self._now.revision):
                self._now, self._as_of = self._made(*changed), asked
                self._now.classifier.lowest  # noqa: B018  # once and here, as answers are made on the event loop
            return self._now

    def _made(self, opening: int, revision: int, classes: Sequence[RuntimeClass]) -> Now:
        before = self._left(classes) or Now(0, self.trained)
        by_name = {each.name: each for each in classes[len(before.classes) :]}
        taken = {name: trained for name in by_name if (trained := self.trained_name(name))}
        free = [described(each) for name, each in by_name.items() if name not in taken]
        classifier, refused = before.classifier.reencode(free)
        reasons = [(by_name[new.name], reason) for new, reason in refused]
        reasons += [(by_name[name], f"{trained} is trained now") for name, trained in taken.items()]
        for left_out, reason in reasons:
            _log.warning("the run-time class %r is left out: %s", left_out.name, shown(reason))
        return Now(revision, classifier, classes, [*before.refused, *reasons], opening)

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
