"""Run-time classes across workers, restarts and models."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import services
from sqlalchemy import URL

from ayeaye.classifier import Classifier
from ayeaye.errors import CoincidentClasses, StoreError
from ayeaye.service.database import locate
from ayeaye.service.inference import Inference
from ayeaye.service.living import Living
from ayeaye.service.served import Served
from ayeaye.service.store import RuntimeClass, Store

WOLF = RuntimeClass("wolf", "a grey animal of dark forests that hunts in herds")


@pytest.fixture
def trained(animals: Path) -> Classifier:
    return Classifier.load(animals)


def test_a_class_of_one_worker_is_one_of_all_with_their_next_batch(
    trained: Classifier, tmp_path: Path
) -> None:
    first, second = (Living(trained, Store(locate(tmp_path))) for _ in range(2))
    assert second.latest().classifier is trained
    first._store.add(WOLF)
    assert second.latest().classifier.labels == first.fresh().classifier.labels == [*services.ANIMALS, "wolf"]
    kept = second.latest().classifier
    assert second.latest().classifier is kept  # made once a revision
    second._store.remove("Wolf", "")
    assert first.latest().classifier.labels == list(services.ANIMALS)


def test_of_two_classes_that_are_alike_and_come_at_once_one_is_kept_and_one_refused(
    animals: Path, address: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = address.render_as_string(hide_password=False)
    workers = [Inference(Served(animals, tmp_path / name, database=url)) for name in "ab"]
    compared, add = threading.Barrier(2), Store.add
    first = threading.local()

    def add_together(self: Store, new: RuntimeClass, after: int | None = None) -> int:
        if not hasattr(first, "came"):
            first.came = compared.wait(30)
        return add(self, new, after)

    monkeypatch.setattr(Store, "add", add_together)

    def added(number: int) -> bool:
        try:
            workers[number].add(RuntimeClass(f"wolf{number}", WOLF.description))
        except CoincidentClasses:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(added, range(2))) == [False, True]
    for worker in workers:
        assert len(worker.classes().classifier.labels) == len(services.ANIMALS) + 1
        assert worker.classes().refused == []
        worker.close()


def test_an_extended_classifier_scores_the_trained_classes_as_before(
    trained: Classifier, tmp_path: Path
) -> None:
    store = Store(locate(tmp_path))
    store.add(WOLF)
    extended = Living(trained, store).fresh().classifier
    X = np.stack([services.row(number) for number in range(8)])
    np.testing.assert_allclose(extended.scores(X)[:, :-1], trained.scores(X), atol=1e-6)


def test_classes_that_came_one_by_one_are_as_those_that_came_together(
    trained: Classifier, tmp_path: Path
) -> None:
    store = Store(locate(tmp_path))
    living = Living(trained, store)
    said = ("a grey bird", "a red animal of rivers", "no such thing quux", "a striped bird of mountains")
    for number, description in enumerate(said):
        store.add(RuntimeClass(f"kind{number}", "" if "quux" in description else description))
        living.fresh()
    one_by_one, together = living.fresh(), Living(trained, store).fresh()
    assert one_by_one.classifier.labels == together.classifier.labels
    assert one_by_one.refused == together.refused and len(together.refused) == 1
    X = np.stack([services.row(number) for number in range(8)])
    np.testing.assert_allclose(one_by_one.classifier.scores(X), together.classifier.scores(X), atol=1e-6)


def test_another_model_takes_what_it_can_and_says_why_not_the_rest(
    trained: Classifier, colours: Path, tmp_path: Path
) -> None:
    store = Store(locate(tmp_path))
    store.add(WOLF)
    store.add(RuntimeClass("Red", attributes={"r": 1.0, "g": 0.5, "b": 0.6}))
    store.add(RuntimeClass("pink", attributes={"r": 1.0, "g": 0.5, "b": 0.6}))
    now = Living(Classifier.load(colours), store).fresh()
    assert "pink" in now.classifier.labels
    assert "wolf" not in now.classifier.labels
    reasons = {kept.name: reason for kept, reason in now.refused}
    assert reasons["Red"] == "red is trained now"
    assert "wolf has no number for r, g, b" in reasons["wolf"]
    assert {each.name for each in Living(trained, store).fresh().classes} == {"wolf", "Red", "pink"}


def test_answers_go_on_while_the_store_cannot_be_asked(
    trained: Classifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(locate(tmp_path))
    store.add(WOLF)
    living = Living(trained, store)
    living.latest()
    for path in tmp_path.glob("service.db*"):
        path.unlink()
    (tmp_path / "service.db").mkdir()
    store.close()
    assert "wolf" in living.latest().classifier.labels
    assert "stay as they are" in caplog.text
    with pytest.raises(StoreError):
        living.fresh()
