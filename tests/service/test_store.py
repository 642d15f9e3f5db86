"""What the service keeps, in SQLite and in PostgreSQL: run-time classes, their changes, feedback."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import PASSWORD, Proxy, Server
from sqlalchemy import URL, create_engine, text

from ayeaye.core.errors import Conflict, DataError, NotKept, Outdated, StoreError, StoreFull
from ayeaye.service.database import Database, locate
from ayeaye.service.store import Given, RuntimeClass, Store, StoreLimits, comparable

OKAPI = RuntimeClass(
    "okapi",
    "A giraffe of the forest, \N{SNOWMAN}.",
    ("forest giraffe", "mondonga"),
    {"legs": 4.0, "neck": 0.1},
    (0.1, -2.5e-17, 3.0),
    "ann",
)


@pytest.fixture
def store(address: URL) -> Iterator[Store]:
    opened = Store(address)
    yield opened
    opened.close()


# ---- run-time classes ----


def test_an_empty_store_is_at_revision_zero(store: Store) -> None:
    assert store.revision() == 0
    assert store.classes() == (0, [])
    assert store.changes() == []
    assert store.feedback() == []


def test_a_class_comes_back_as_it_was_given_and_its_time_is_utc(store: Store) -> None:
    before = datetime.now(UTC)
    revision = store.add(OKAPI)
    found_at, (found,) = store.classes()
    assert found_at == revision == store.revision()
    assert replace(found, created=None) == OKAPI
    assert found.created is not None and found.created.tzinfo is UTC
    assert before <= found.created <= before + timedelta(minutes=1)


def test_each_change_is_a_later_revision_that_another_worker_sees(store: Store, address: URL) -> None:
    other = Store(address)
    revisions = [store.add(OKAPI), other.add(RuntimeClass("quagga")), store.remove("OKAPI", "bob")]
    assert revisions == sorted(set(revisions))
    assert store.revision() == other.revision() == revisions[-1]
    assert [each.name for each in other.classes()[1]] == ["quagga"]
    other.close()


@pytest.mark.parametrize("same", ["Okapi", "okapi ", " OKAPI", "ｏｋａｐｉ", "oka\N{ZERO WIDTH JOINER}pi"])
def test_names_are_compared_without_case_width_and_spaces(store: Store, same: str) -> None:
    store.add(OKAPI)
    with pytest.raises(Conflict, match="okapi is there already"):
        store.add(RuntimeClass(same))
    assert len(store.changes()) == 1
    store.remove(same, "ann")
    assert store.classes()[1] == []


def test_ways_to_write_a_letter_are_one_name() -> None:
    assert (
        comparable("caf\u00e9 Stra\u00dfe")
        == comparable(" CAFE\u0301  STRASSE")
        != comparable("cafe strasse")
    )


def test_every_change_is_recorded_with_its_content_and_caller(store: Store) -> None:
    first = store.add(OKAPI)
    second = store.remove("okapi", "bob")
    third = store.add(replace(OKAPI, description="Another.", caller="cy"))
    found = store.changes()
    assert [(c.revision, c.action, c.name, c.caller) for c in found] == [
        (first, "add", "okapi", "ann"),
        (second, "remove", "okapi", "bob"),
        (third, "add", "okapi", "cy"),
    ]
    assert found[0].content == found[1].content == OKAPI.content()
    assert found[2].content["description"] == "Another."
    assert found[0].time <= found[1].time <= found[2].time and found[0].time.tzinfo is UTC
    assert store.changes(after=second) == found[2:]


def test_a_class_takes_the_place_of_the_one_of_its_name_in_one_change(address: URL) -> None:
    store = Store(address, StoreLimits(classes=2))
    store.add(RuntimeClass("Okapi", caller="ann"), instead=True)
    before = store.add(RuntimeClass("quagga"))
    revision = store.add(replace(OKAPI, caller="bob"), after=before, instead=True)
    found_at, (first, last) = store.classes()
    assert (found_at, first.name, replace(last, created=None)) == (
        revision,
        "quagga",
        replace(OKAPI, caller="bob"),
    )
    assert [(c.action, c.name, c.caller) for c in store.changes()] == [
        ("add", "Okapi", "ann"),
        ("add", "quagga", ""),
        ("replace", "okapi", "bob"),
    ]
    assert store.changes()[-1].content == OKAPI.content()
    with pytest.raises(Outdated):
        store.add(OKAPI, after=before, instead=True)
    with pytest.raises(StoreFull):
        store.add(RuntimeClass("zebu"), instead=True)
    assert [change.revision for change in store.changes(after=1, most=1)] == [2]
    store.close()


def test_a_class_is_kept_only_beside_those_it_was_compared_with(store: Store) -> None:
    first = store.add(OKAPI, after=0)
    with pytest.raises(Outdated, match="changed while quagga was added: add it again"):
        store.add(RuntimeClass("quagga"), after=0)
    assert store.revision() == first
    second = store.add(RuntimeClass("quagga"), after=first)
    store.remove("okapi", "")
    with pytest.raises(Outdated):
        store.add(OKAPI, after=second)


def test_classes_are_in_the_order_of_their_revisions_whatever_the_clocks_say(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, day in (("z", 3), ("a", 1), ("m", 1), ("b", 2)):
        monkeypatch.setattr("ayeaye.service.store._now", lambda day=day: datetime(2026, 1, day, tzinfo=UTC))
        store.add(RuntimeClass(name))
    assert [each.name for each in store.classes()[1]] == ["z", "a", "m", "b"]


def test_a_class_that_is_not_there_cannot_be_removed(store: Store) -> None:
    with pytest.raises(NotKept, match="no run-time class unicorn"):
        store.remove("unicorn", "ann")
    assert store.revision() == 0


def test_there_are_only_so_many_run_time_classes(address: URL) -> None:
    store = Store(address, StoreLimits(classes=2))
    store.add(RuntimeClass("a"))
    store.add(RuntimeClass("b"))
    with pytest.raises(StoreFull, match="there are 2 run-time classes"):
        store.add(RuntimeClass("c"))
    store.remove("a", "")
    store.add(RuntimeClass("c"))
    store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": " \N{ZERO WIDTH SPACE}"},
        {"description": "a\0b"},
        {"synonyms": ("\ud800",)},
        {"vector": (float("nan"),)},
        {"attributes": {"legs": float("inf")}},
    ],
)
def test_what_cannot_be_kept_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        replace(OKAPI, **wrong)


UNSEEN = {
    "escape": "\x1b[2J",
    "newline": "\n",
    "tab": "\t",
    "end of a string": "\x9c",
    "override": "\N{RIGHT-TO-LEFT OVERRIDE}",
    "mark of order": "\N{ZERO WIDTH NO-BREAK SPACE}",
    "tag": "\N{TAG LATIN SMALL LETTER A}",
}


@pytest.mark.parametrize("unseen", UNSEEN.values(), ids=UNSEEN)
@pytest.mark.parametrize("field", ["name", "synonyms", "attributes", "label"])
def test_a_character_that_nobody_sees_is_refused_in_names(store: Store, field: str, unseen: str) -> None:
    name, said = (
        f"ok{unseen}api",
        f"holds the character U\\+{ord(unseen[0]):04X}.*, which nobody sees: remove it",
    )
    with pytest.raises(DataError, match=said):
        match field:
            case "label":
                store.give("a", name, "ann")
            case "name":
                RuntimeClass(name)
            case "synonyms":
                replace(OKAPI, synonyms=("giraffe", name))
            case _:
                replace(OKAPI, attributes={name: 1.0})


def test_the_character_is_named_where_it_has_a_name() -> None:
    with pytest.raises(DataError) as refused:
        RuntimeClass("ok\N{RIGHT-TO-LEFT OVERRIDE}api")
    assert str(refused.value) == (
        "the name of the class holds the character U+202E (RIGHT-TO-LEFT OVERRIDE), which nobody sees: remove it"
    )


def test_names_keep_the_joiners_of_their_script_and_descriptions_their_lines(store: Store) -> None:
    name, said = (
        "می\N{ZERO WIDTH NON-JOINER}خواهم",
        "one\r\n\ttwo\N{SOFT HYPHEN}fold \N{LEFT-TO-RIGHT MARK}three",
    )
    store.add(RuntimeClass(name, said, (name,)))
    (found,) = store.classes()[1]
    assert (found.name, found.description, found.synonyms) == (name, said, (name,))
    with pytest.raises(DataError, match=r"the description of okapi holds the character U\+001B"):
        replace(OKAPI, description="red \x1b[31m")


def test_what_was_kept_before_stays_readable_and_can_be_removed(store: Store, address: URL) -> None:
    store.add(OKAPI)
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("UPDATE ayeaye_classes SET name = 'oka\x1bpi'"))
    assert [each.name for each in store.classes()[1]] == ["oka\x1bpi"]
    store.remove("okapi", "ann")
    assert store.classes()[1] == []
    engine.dispose()


# ---- several processes ----


def test_of_two_workers_that_add_one_name_at_once_exactly_one_wins(store: Store, address: URL) -> None:
    rounds = 15
    results = _together(_adder, 2, address, rounds)
    for number in range(rounds):
        assert sorted(result[number] for result in results) == ["added", "there"]
    assert len(store.classes()[1]) == len(store.changes()) == rounds


def test_writers_take_turns_and_readers_do_not_wait(store: Store, address: URL) -> None:
    """Else a later revision could be seen before an earlier one, and a worker miss a class for good."""
    other = Database(address)
    with ThreadPoolExecutor(1) as pool:
        with other.writing():
            added = pool.submit(store.add, OKAPI)
            assert not wait([added], timeout=0.5).done
            assert store.revision() == 0
        assert added.result(30) == 1
    other.close()


def test_a_reader_never_sees_a_revision_without_its_classes(store: Store, address: URL) -> None:
    seen, *_ = _together(_reader_or_writer, 3, address, 25)
    added = {change.revision: change.name for change in store.changes()}
    assert len(seen) > 1
    for revision, names in seen:
        assert set(names) == {name for at, name in added.items() if at <= revision}


def test_several_processes_may_make_the_database_at_once(address: URL) -> None:
    assert _together(_opener, 4, address, 0) == [0] * 4
    assert Store(address).add(OKAPI) == 1


def _together(work: Callable[..., Any], processes: int, *arguments: Any) -> list[Any]:
    """What `work(number, barrier, *arguments)` gives in each of so many fresh processes."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        barrier = manager.Barrier(processes)
        with context.Pool(processes) as pool:
            waiting = [pool.apply_async(work, (number, barrier, *arguments)) for number in range(processes)]
            return [result.get(60) for result in waiting]


def _adder(number: int, barrier: Any, address: URL, rounds: int) -> list[str]:
    store, results = Store(address), []
    for each in range(rounds):
        barrier.wait()
        try:
            store.add(RuntimeClass(f"class {each}", caller=str(number)))
            results.append("added")
        except Conflict:
            results.append("there")
    return results


def _reader_or_writer(number: int, barrier: Any, address: URL, rounds: int) -> list[Any]:
    store = Store(address)
    seen: list[tuple[int, list[str]]] = []
    barrier.wait()
    if number:
        for each in range(rounds):
            store.add(RuntimeClass(f"class {number} {each}"))
        return []
    while not seen or len(seen[-1][1]) < 2 * rounds:
        revision, classes = store.classes()
        seen.append((revision, [each.name for each in classes]))
    return seen


def _opener(number: int, barrier: Any, address: URL, rounds: int) -> int:
    barrier.wait()
    return Store(address).revision()


# ---- the database ----


def test_a_database_of_a_newer_schema_is_refused(store: Store, address: URL) -> None:
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("UPDATE ayeaye_schema SET version_num = '9999'"))
    with pytest.raises(StoreError, match="made by a newer ayeaye: upgrade"):
        Store(address)
    with pytest.raises(StoreError, match="newer ayeaye"):  # nor does one that is open write into it
        store.add(OKAPI)
    engine.dispose()


def test_what_is_kept_is_there_when_it_is_opened_again(address: URL) -> None:
    first = Store(address)
    revision = first.add(OKAPI)
    first.close()
    assert Store(address).classes()[0] == revision


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "service.db").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match=r"service\.db cannot be used \(file is not a database\)"):
        Store(locate(tmp_path))


def test_a_writer_that_never_gets_its_turn_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ayeaye.service.database.PATIENCE", 0.2)
    store = Store(locate(tmp_path))
    other = sqlite3.connect(tmp_path / "service.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.revision() == 0  # readers do not wait for writers
    with pytest.raises(StoreError, match="database is locked"):
        store.add(OKAPI)
    other.close()
    assert store.add(OKAPI) == 1


def test_the_password_is_in_no_message_representation_or_log(
    postgres: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = postgres.create("secret")
    shown = [repr(Store(url)), str(Store(url.set(query={"application_name": "ayeaye"})))]
    for wrong in (url.set(database="nothing"), url.set(password=PASSWORD + "x"), url.set(port=1)):
        with pytest.raises(StoreError) as caught:
            Store(wrong)
        shown.append(str(caught.value))
    shown += [record.getMessage() for record in caplog.records]
    assert "ayeaye:***@127.0.0.1" in shown[0]
    assert not any(secret in line for line in shown for secret in (PASSWORD, "w/rd", "p%40ss"))


def test_a_connection_that_the_server_closed_is_opened_anew(postgres: Server) -> None:
    url = postgres.create("closed")
    store, other = Store(url), create_engine(url)
    assert store.revision() == 0
    ends = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with other.connect() as connection:
        assert connection.execute(text(ends)).all()
    assert store.add(OKAPI) == store.revision() == 1
    store.close()
    other.dispose()


def test_a_server_that_stands_still_is_given_up_and_used_again_when_it_goes_on(
    proxied: tuple[Proxy, URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, url = proxied
    store = Store(url)
    monkeypatch.setattr("ayeaye.service.database.ANSWER", 0.3)
    proxy.flowing.clear()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(store.revision)
        try:
            with pytest.raises(StoreError, match=r"timeout|no answer"):
                asked.result(20)
        finally:
            proxy.flowing.set()
    monkeypatch.undo()
    assert store.add(OKAPI) == store.revision() == 1
    store.close()


# ---- a file that is moved away, deleted or replaced while it is open ----


def moved(folder: Path, to: Path, pattern: str = "service.db*") -> None:
    to.mkdir(exist_ok=True)
    for path in sorted(folder.glob(pattern)):
        path.rename(to / path.name)


@pytest.mark.parametrize("pattern", ["service.db", "service.db*"])
def test_a_database_that_was_moved_away_takes_nothing_until_it_is_back(tmp_path: Path, pattern: str) -> None:
    state, away = tmp_path / "state", tmp_path / "away"
    store = Store(locate(state))
    store.add(OKAPI)
    moved(state, away, pattern)
    left = sorted(state.iterdir())
    for _ in range(2):
        for use in (lambda: store.add(RuntimeClass("quagga")), store.revision, store.classes, store.pending):
            with pytest.raises(
                StoreError, match="is not there any more: put it back, or start the service again"
            ):
                use()
    assert sorted(state.iterdir()) == left
    moved(away, state)
    assert store.add(RuntimeClass("quagga")) == store.revision() == 2
    store.close()
    again = Store(locate(state))
    assert [each.name for each in again.classes()[1]] == ["okapi", "quagga"]
    again.close()


def test_a_database_that_was_deleted_is_made_anew_by_a_start_alone(tmp_path: Path) -> None:
    store = Store(locate(tmp_path))
    store.add(OKAPI)
    for path in tmp_path.glob("service.db*"):
        path.unlink()
    with pytest.raises(StoreError, match="is not there any more"):
        store.add(RuntimeClass("quagga"))
    assert list(tmp_path.iterdir()) == []
    started = Store(locate(tmp_path))
    assert started.add(RuntimeClass("quagga")) == store.revision() == 1
    started.close()
    store.close()


def test_another_database_in_its_place_counts_at_once(tmp_path: Path) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    store, backup, worker = Store(locate(state)), Store(locate(other)), Store(locate(state))
    store.add(OKAPI)
    backup.add(RuntimeClass("quagga"))
    backup.close()
    before = store.openings
    moved(state, tmp_path / "away")
    moved(other, state, "service.db")
    for each in (store, worker):
        assert [found.name for found in each.classes()[1]] == ["quagga"]
    assert store.openings != before
    assert store.add(OKAPI) == worker.revision() == 2
    worker.close()
    store.close()


def test_another_database_is_not_mixed_with_what_was_left_of_the_one_before(tmp_path: Path) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    store, backup = Store(locate(state)), Store(locate(other))
    store.add(OKAPI)
    backup.add(RuntimeClass("quagga"))
    backup.close()
    (other / "service.db").replace(state / "service.db")
    with pytest.raises(
        StoreError, match=r"was replaced, and service\.db-wal and service\.db-shm beside it are of the"
    ):
        store.classes()
    for ending in ("-wal", "-shm"):
        (state / f"service.db{ending}").unlink()
    assert [found.name for found in store.classes()[1]] == ["quagga"]
    store.close()


def test_what_is_no_database_of_ours_is_not_made_one_while_running(tmp_path: Path) -> None:
    state = tmp_path / "state"
    store = Store(locate(state))
    moved(state, tmp_path / "away")
    (state / "service.db").touch()
    with pytest.raises(StoreError, match="no such table"):
        store.add(OKAPI)
    moved(tmp_path / "away", state)
    assert store.add(OKAPI) == 1
    store.close()


def test_a_change_is_not_acknowledged_where_the_file_goes_meanwhile(tmp_path: Path) -> None:
    database = Database(locate(tmp_path / "state"))
    with pytest.raises(StoreError, match="moved away while it was written"), database.writing():
        moved(tmp_path / "state", tmp_path / "away")
    database.close()


def test_any_folder_can_hold_it(tmp_path: Path) -> None:
    folder = tmp_path / "we?ird #1 100% %41 ~x é"
    database = Database(locate(folder))
    with database.writing():
        pass
    database.close()
    assert (folder / "service.db").is_file() and list(tmp_path.iterdir()) == [folder]


def test_none_but_their_owner_reads_what_is_kept(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        kept = [
            tmp_path / name for name in ("service.db", "service.db-wal", "service.db-shm", "service.db.lock")
        ]
        for _ in range(2):  # new, and as it was found
            store = Store(locate(tmp_path))
            store.add(RuntimeClass("okapi"))
            assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o600] * 4
            store.remove("okapi", "")
            store.close()
            kept[0].chmod(0o644)
    finally:
        os.umask(before)


# ---- addresses ----


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense-secret",
        "mysql://u:secret@h/d",
        "postgresql+psycopg://u@h:secret/d",
        "postgresql+psycopg://u:a@secret@h/d",
        "sqlite://",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_being_shown(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(StoreError) as caught:
        locate(tmp_path, wrong)
    assert "secret" not in str(caught.value) and "address of the service's database" in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_addresses_as_hosts_give_them_are_understood(tmp_path: Path, scheme: str) -> None:
    assert locate(tmp_path, f"{scheme}://u@h/d").drivername == "postgresql+psycopg"


# ---- feedback ----

PICTURE = b"not looked into here"
PICTURE_ID = hashlib.sha256(PICTURE).hexdigest()


def test_feedback_waits_to_be_decided(store: Store) -> None:
    first = store.give("answer-1", "okapi", "ann", PICTURE, PICTURE_ID, 3).id
    second = store.give("answer-2", "zebra", "bob", picture_id=PICTURE_ID).id
    one, two = store.pending()
    assert (one.id, one.answer, one.label, one.caller, one.model_version) == (
        first,
        "answer-1",
        "okapi",
        "ann",
        3,
    )
    assert (one.has_picture, one.picture_bytes, one.picture_id) == (True, len(PICTURE), PICTURE_ID)
    assert (two.id, two.has_picture, two.picture_bytes, two.model_version) == (second, False, 0, None)
    assert one.status == two.status == "pending" and one.decided is None and one.time.tzinfo is UTC
    assert store.picture(first) == PICTURE and store.picture(second) is None


def test_a_label_is_kept_as_the_name_of_a_class_is(store: Store) -> None:
    store.give("a", " cafe\u0301  au lait ", "ann")
    assert store.pending()[0].label == "caf\u00e9 au lait"
    for blank in ("", "  ", "\N{ZERO WIDTH JOINER}"):
        with pytest.raises(DataError, match="the label is empty: give one"):
            store.give("b", blank, "ann")


def test_accepted_feedback_keeps_its_picture_until_it_is_kept_elsewhere(store: Store) -> None:
    id = store.give("a", "okapi", "ann", PICTURE).id
    decided = store.decide(id, True, "rea", "well seen")
    assert (decided.status, decided.reviewer, decided.reason) == ("accepted", "rea", "well seen")
    assert decided.decided is not None and decided.decided >= decided.time
    assert store.pending() == [] and store.feedback("accepted") == [decided] and store.picture(id) == PICTURE
    store.forget_picture(id)
    assert store.picture(id) is None and store.find(id).picture_bytes == len(PICTURE)


def test_a_rejected_picture_is_forgotten(store: Store) -> None:
    id = store.give("a", "okapi", "ann", PICTURE).id
    assert store.decide(id, False, "rea", "a zebra").has_picture is False
    assert store.picture(id) is None


def test_deciding_twice_alike_changes_nothing_and_otherwise_is_a_conflict(store: Store) -> None:
    id = store.give("a", "okapi", "ann").id
    decided = store.decide(id, True, "rea")
    assert store.decide(id, True, "another") == decided
    with pytest.raises(Conflict, match=f"feedback {id} was accepted by rea"):
        store.decide(id, False, "another")
    with pytest.raises(NotKept, match="no feedback 99"):
        store.decide(99, True, "rea")


def test_only_so_much_feedback_may_be_pending(address: URL) -> None:
    store = Store(address, StoreLimits(feedback=2, picture_bytes=2 * len(PICTURE)))
    first = store.give("a", "okapi", "ann", PICTURE).id
    second = store.give("b", "okapi", "ann").id
    with pytest.raises(StoreFull, match="2 pieces of feedback are pending"):
        store.give("c", "okapi", "ann")
    store.decide(first, True, "rea")
    store.decide(second, True, "rea")
    store.give("c", "okapi", "ann", PICTURE)
    with pytest.raises(
        StoreFull, match="40 bytes of pictures"
    ):  # accepted ones count until they are elsewhere
        store.give("d", "okapi", "ann", b"x")
    store.give("d", "okapi", "ann")
    store.close()


def test_the_same_feedback_again_is_kept_once(address: URL) -> None:
    """Else a caller that tries again fills the room that there is."""
    store = Store(address, StoreLimits(feedback=1, picture_bytes=len(PICTURE)))
    first = store.give("a", "okapi", "ann", PICTURE)
    for again in (store.give("a", " okapi", "ann", PICTURE), store.give("a", "okapi", "ann")):
        assert again == Given(first.id, new=False, picture=True)
    assert [each.id for each in store.pending()] == [first.id]
    store.decide(first.id, False, "rea")
    assert store.give("a", "okapi", "ann") == Given(first.id + 1, new=True, picture=False)
    store.close()


def test_what_a_caller_says_later_of_an_answer_takes_the_place_of_what_was_said(address: URL) -> None:
    store = Store(address, StoreLimits(feedback=2, picture_bytes=len(PICTURE)))
    first = store.give("a", "okapi", "ann", PICTURE)
    other = store.give("a", "okapi", "bob")
    later = store.give("a", "zebra", "ann")
    assert later.new and later.picture and later.id > other.id  # a number of its own: nobody has looked at it
    assert [(each.id, each.label, each.picture_id) for each in store.pending()] == [
        (other.id, "okapi", None),
        (later.id, "zebra", PICTURE_ID),
    ]
    assert store.picture(later.id) == PICTURE
    with pytest.raises(NotKept):
        store.decide(first.id, True, "rea")
    store.close()


def test_a_picture_that_comes_later_makes_it_another_number(store: Store) -> None:
    without, shown = store.give("a", "okapi", "ann"), store.give("a", "okapi", "ann", PICTURE)
    assert (without.picture, shown.picture, shown.new) == (False, True, True) and shown.id > without.id
    assert [each.has_picture for each in store.pending()] == [True]


def test_the_picture_must_be_the_one_that_was_answered(store: Store) -> None:
    with pytest.raises(DataError, match="not the one of answer a"):
        store.give("a", "okapi", "ann", b"another", PICTURE_ID)
    with pytest.raises(DataError, match="is empty"):
        store.give("a", "okapi", "ann", b"")
    assert store.pending() == []
