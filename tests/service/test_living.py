"""Run-time classes across workers, restarts and models."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import services
from databases import Proxy
from sqlalchemy import URL
from workspaces import wait_for

from ayeaye.class_vectors.new_class import NewClass
from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import CoincidentClasses, StoreError
from ayeaye.service.database import locate
from ayeaye.service.inference import Inference
from ayeaye.service.living import Living
from ayeaye.service.served import Served
from ayeaye.service.store import RuntimeClass, Store

WOLF = RuntimeClass("wolf", "a grey animal of dark forests that hunts in herds")


@pytest.fixture
def trained(animals: Path) -> Classifier:
    return Classifier.load(animals)


def test_a_class_of_one_worker_is_one_of_all_with_their_next_batch(trained: Classifier, address: URL) -> None:
    first, second = (Living(trained, Store(address)) for _ in range(2))
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

    def add_together(self: Store, new: RuntimeClass, after: int | None = None, **options: Any) -> int:
        if not hasattr(first, "came"):
            first.came = compared.wait(30)
        return add(self, new, after, **options)

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
        assert len(worker.living.fresh().classifier.labels) == len(services.ANIMALS) + 1
        assert worker.living.fresh().refused == []
        worker.close()


def test_an_extended_classifier_scores_the_trained_classes_as_before(
    trained: Classifier, address: URL
) -> None:
    store = Store(address)
    store.add(WOLF)
    extended = Living(trained, store).fresh().classifier
    X = np.stack([services.row(number) for number in range(8)])
    np.testing.assert_allclose(extended.scores(X)[:, :-1], trained.scores(X), atol=1e-6)


def test_classes_that_came_one_by_one_are_as_those_that_came_together(
    trained: Classifier, address: URL
) -> None:
    store = Store(address)
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


def test_a_removal_encodes_nothing_and_leaves_what_a_new_worker_has(
    trained: Classifier, address: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(address)
    living = Living(trained, store)
    kinds = ("a grey bird", "a red animal of rivers", "a striped bird of mountains", "a brown bird of grass")
    for number, description in enumerate(kinds):
        store.add(RuntimeClass(f"kind{number}", description))
    living.fresh()
    encoded, reencode = [], Classifier.reencode

    def recorded(self: Classifier, classes: Sequence[NewClass]) -> Any:
        encoded.extend(each.name for each in classes)
        return reencode(self, classes)

    monkeypatch.setattr(Classifier, "reencode", recorded)
    store.remove("kind1", "")
    store.add(WOLF)
    store.remove("kind3", "")
    store.add(RuntimeClass("kind3", "a grey animal that swims"))  # another one of that name
    now = living.fresh()
    assert encoded == ["wolf", "kind3"]
    new = Living(trained, store).fresh()
    assert (
        now.classifier.labels
        == new.classifier.labels
        == [*services.ANIMALS, "kind0", "kind2", "wolf", "kind3"]
    )
    X = np.stack([services.row(number) for number in range(8)])
    np.testing.assert_allclose(now.classifier.scores(X), new.classifier.scores(X), atol=1e-6)


def test_a_class_that_was_said_anew_is_so_on_every_worker_and_alone_encoded(
    animals: Path, address: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = address.render_as_string(hide_password=False)
    first, second = (Inference(Served(animals, tmp_path / name, database=url)) for name in "ab")
    first.add(WOLF)
    first.add(RuntimeClass("lobo", "a grey animal that swims"))
    before = second.living.latest().classifier
    encoded, reencode = [], Classifier.reencode

    def recorded(self: Classifier, classes: Sequence[NewClass]) -> Any:
        encoded.extend(each.name for each in classes)
        return reencode(self, classes)

    monkeypatch.setattr(Classifier, "reencode", recorded)
    said, new = first.put(RuntimeClass("Wolf", "a red bird of mountains"))
    assert (said["revision"], new) == (3, False)
    now = second.living.latest().classifier
    assert now.labels == [*services.ANIMALS, "lobo", "Wolf"] and encoded == ["Wolf", "Wolf"]
    assert not np.allclose(now.space.vectors[-1], before.space.vectors[-2])
    with pytest.raises(CoincidentClasses):
        second.put(RuntimeClass("wolf", "a grey animal that swims"))
    for worker in (first, second):
        worker.close()


def test_a_class_refused_for_being_like_another_is_taken_when_that_one_goes(
    trained: Classifier, address: URL
) -> None:
    store = Store(address)
    living = Living(trained, store)
    store.add(WOLF)
    store.add(RuntimeClass("lobo", WOLF.description))
    assert [each.name for each, _ in living.fresh().refused] == ["lobo"]
    store.remove("wolf", "")
    assert living.fresh().refused == [] and living.fresh().classifier.labels[-1] == "lobo"


def test_another_model_takes_what_it_can_and_says_why_not_the_rest(
    trained: Classifier, colours: Path, address: URL
) -> None:
    store = Store(address)
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


def test_the_classes_are_those_of_the_database_that_is_there(trained: Classifier, tmp_path: Path) -> None:
    """Also where its revision has the number of that of the one before."""
    store, other = Store(locate(tmp_path / "state")), Store(locate(tmp_path / "other"))
    store.add(WOLF)
    other.add(RuntimeClass("lobo", "a grey animal that swims"))
    other.close()
    living = Living(trained, store)
    assert living.latest().classifier.labels[-1] == "wolf"
    (tmp_path / "state").rename(tmp_path / "away")
    assert living.latest().classifier.labels[-1] == "wolf"
    with pytest.raises(StoreError):
        living.fresh()
    (tmp_path / "other").rename(tmp_path / "state")
    assert living.fresh().classifier.labels == [*services.ANIMALS, "lobo"]
    (tmp_path / "state").rename(tmp_path / "other")
    (tmp_path / "away").rename(tmp_path / "state")
    assert living.latest().classifier.labels == [*services.ANIMALS, "wolf"]
    store.close()


def test_answers_go_on_while_the_store_is_silent(
    trained: Classifier,
    proxied: tuple[Proxy, URL],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("ayeaye.service.living.PATIENCE", 0.1)
    proxy, url = proxied
    store = Store(url)
    store.add(WOLF)
    living = Living(trained, store)
    assert "wolf" in living.latest().classifier.labels
    proxy.flowing.clear()
    with ThreadPoolExecutor(1) as threads:
        try:
            for _ in range(3):
                assert "wolf" in threads.submit(living.latest).result(10).classifier.labels
        finally:
            proxy.flowing.set()
    assert "silent" in caplog.text
    store.remove("wolf", "")
    wait_for(lambda: "wolf" not in living.latest().classifier.labels, 20, "the store is not asked again")
    store.close()
