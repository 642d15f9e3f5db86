"""The promotion record: what follows from it, and what it notices."""

from __future__ import annotations

import json
import multiprocessing
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from ayeaye.core.errors import ReleaseError
from ayeaye.release.record import Record, State


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "release" / "record.jsonl")


def test_an_empty_record_has_no_champion(record: Record) -> None:
    assert record.state() == State(None, None, None)
    assert record.entries() == []


def test_a_promotion_makes_the_champion_before_it_the_previous_one(record: Record) -> None:
    record.append("promote", 1, actor="retrain", digests={"bento": "ayeaye:v1-a"})
    record.append("promote", 2, actor="retrain", digests={"bento": "ayeaye:v2-b"})
    state = record.state()
    assert (state.champion, state.previous, state.bento) == (2, 1, "ayeaye:v2-b")


def test_a_rollback_swaps_champion_and_previous(record: Record) -> None:
    for version in (1, 2):
        record.append("promote", version, actor="retrain")
    record.append("rollback", 1, actor="ann", why=["worse on okapis"])
    assert (record.state().champion, record.state().previous) == (1, 2)


def test_a_refusal_leaves_the_champion(record: Record) -> None:
    record.append("promote", 1, actor="retrain")
    record.append("refuse", 2, actor="retrain", why=["H: 0.01 is below 0.1"])
    assert (record.state().champion, record.state().previous) == (1, None)
    assert record.entries()[-1].from_ == 1


def test_promoting_the_champion_again_keeps_the_previous_one(record: Record) -> None:
    for version in (1, 2, 2):
        record.append("promote", version, actor="retrain")
    assert (record.state().champion, record.state().previous) == (2, 1)


def test_the_bento_of_a_version_is_the_last_one_it_was_promoted_with(record: Record) -> None:
    record.append("promote", 1, actor="a", digests={"bento": "x:v1-old"})
    record.append("promote", 1, actor="a", digests={"bento": "x:v1-new"})
    assert record.bento(1) == "x:v1-new"
    assert record.bento(2) is None


def test_entries_survive_a_round_trip_with_any_text(record: Record) -> None:
    written = record.append("promote", 3, actor="Zoë\u2028\n", why=["a\r\nb", "ε ≥ 1"])
    assert record.entries() == [written]


@pytest.mark.parametrize("kept", [1, 10, -2])
def test_a_line_that_a_kill_tore_is_passed_over_and_then_dropped(record: Record, kept: int) -> None:
    record.append("promote", 1, actor="retrain")
    whole = record.path.read_bytes()
    record.append("promote", 2, actor="retrain")
    torn = record.path.read_bytes()[len(whole) :][:kept]
    record.path.write_bytes(whole + torn)
    assert record.state().champion == 1
    record.append("promote", 3, actor="retrain")
    assert [entry.to for entry in record.entries()] == [1, 3]


def test_an_entry_that_lacks_only_its_newline_counts(record: Record) -> None:
    record.append("promote", 1, actor="retrain")
    record.append("promote", 2, actor="retrain")
    record.path.write_bytes(record.path.read_bytes().removesuffix(b"\n"))
    assert record.state().champion == 2
    record.append("promote", 3, actor="retrain")
    assert [entry.to for entry in record.entries()] == [1, 2, 3]


def test_a_changed_line_raises_meaningful_error(record: Record) -> None:
    for version in (1, 2):
        record.append("promote", version, actor="retrain", why=["passed"])
    lines = record.path.read_text().splitlines()
    first = json.loads(lines[0]) | {"why": ["bribed"]}
    record.path.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    with pytest.raises(ReleaseError, match=r"line 1 was changed after it was written"):
        record.entries()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_line_raises_meaningful_error(record: Record, lost: int) -> None:
    for version in (1, 2, 3):
        record.append("promote", version, actor="retrain")
    lines = record.path.read_text().splitlines(keepends=True)
    del lines[lost]
    record.path.write_text("".join(lines))
    with pytest.raises(ReleaseError, match=f"line {lost + 1} does not follow"):
        record.state()


def test_a_line_of_rubbish_raises_meaningful_error_and_nothing_is_appended(record: Record) -> None:
    record.append("promote", 1, actor="retrain")
    record.path.write_bytes(record.path.read_bytes() + b"rubbish\n")
    before = record.path.read_bytes()
    with pytest.raises(ReleaseError, match="line 2 is not an entry"):
        record.append("promote", 2, actor="retrain")
    assert record.path.read_bytes() == before


def _append(path: Path, first: int) -> None:
    for version in range(first, first + 20):
        Record(path).append("promote", version, actor=str(first))


def test_processes_that_append_at_once_keep_one_chain(record: Record) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(record.path, first)) for first in (100, 200)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert sorted(entry.to for entry in record.entries()) == [*range(100, 120), *range(200, 220)]


def test_what_waits_does_so_until_a_word_about_it_or_another_champion(record: Record) -> None:
    record.append("promote", 1, actor="retrain")
    record.append("pending", 2, actor="retrain")
    pending = record.state().pending
    assert pending is not None and (pending.to, pending.from_, record.state().champion) == (2, 1, 1)
    record.append("refuse", 3, actor="retrain")
    record.append("promote", 1, actor="retrain", why=["packed again"])
    assert record.state().pending == pending
    record.append("refuse", 2, actor="ann")
    assert record.state().pending is None
    record.append("pending", 3, actor="retrain")
    record.append("pending", 4, actor="retrain")
    assert (pending := record.state().pending) and pending.to == 4
    record.append("promote", 5, actor="ann")
    assert record.state().pending is None  # it was compared with champion 1


def test_after_a_restoration_all_is_as_before_what_could_not_be_served(record: Record) -> None:
    for version in (1, 2, 3):
        record.append("promote", version, actor="retrain", digests={"bento": f"ayeaye:v{version}-a"})
    record.append("restore", 2, actor="service", digests={"bento": "ayeaye:v2-a"})
    state = record.state()
    assert (state.champion, state.previous, state.bento) == (2, 1, "ayeaye:v2-a")


@pytest.mark.parametrize(
    ("promoted", "restored", "previous"),
    [([1, 2, 3], 1, None), ([1, 2, 2], 1, None), ([1, 2, 3, 4], 2, 1), ([1, 2, 2], 2, 1)],
)
def test_what_could_not_be_served_is_never_previous(
    record: Record, promoted: list[int], restored: int, previous: int | None
) -> None:
    for version in promoted:
        record.append("promote", version, actor="retrain")
    record.append("restore", restored, actor="service")
    assert (record.state().champion, record.state().previous) == (restored, previous)


def test_figures_are_kept_and_signed(record: Record) -> None:
    record.append("promote", 1, actor="retrain", figures={"H": 0.5})
    assert record.entries()[0].figures == {"H": 0.5}
    record.path.write_text(record.path.read_text().replace("0.5", "0.6"))
    with pytest.raises(ReleaseError, match="was changed"):
        record.entries()


def test_entries_of_before_figures_were_kept_still_verify(record: Record) -> None:
    line = record.append("promote", 1, actor="retrain")
    assert "figures" not in json.loads(record.path.read_text())
    assert record.entries() == [line]


def test_a_clock_that_jumps_back_changes_nothing(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    record.append("promote", 1, actor="retrain")
    monkeypatch.setattr("ayeaye.release.record.datetime", Yesterday)
    record.append("promote", 2, actor="retrain")
    first, second = record.entries()
    assert second.time < first.time
    assert (record.state().champion, record.state().previous) == (2, 1)


class Yesterday(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) - timedelta(days=1)
