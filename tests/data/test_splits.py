"""Splits: stable, in their shares, and with something in each where it matters."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayeaye.data.splits import assign, chance, pretend_unseen

SHARES = {"seed": 0, "test_share": 0.25, "validation_share": 0.15}


def ids(count: int, label: str, start: int = 0) -> dict[str, str]:
    numbers = range(start, start + count)
    return {hashlib.sha256(f"{label}{number}".encode()).hexdigest(): label for number in numbers}


def test_chance_is_the_same_on_every_machine() -> None:
    assert chance(0, "aye-aye") == pytest.approx(0.82326703, abs=1e-8)
    assert chance(0, "aye-aye") != chance(1, "aye-aye")


def test_shares_are_met_on_many_pictures() -> None:
    counts = Counter(assign(ids(4000, "okapi"), {"okapi"}, **SHARES).values())
    assert counts["test_seen"] == pytest.approx(1000, abs=90)
    assert counts["validation"] == pytest.approx(600, abs=75)


def test_pictures_of_unseen_classes_are_for_the_test_alone() -> None:
    assert set(assign(ids(50, "aye-aye"), {"okapi"}, **SHARES).values()) == {"test_unseen"}


@given(st.integers(2, 30), st.integers(0, 30), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_no_picture_changes_its_split_when_others_are_added(first: int, more: int, seed: int) -> None:
    knobs = SHARES | {"seed": seed}
    before = assign(ids(first, "okapi"), {"okapi"}, **knobs)
    after = assign(ids(first + more, "okapi"), {"okapi"}, **knobs, before=before)
    assert {id: after[id] for id in before} == before


@given(st.integers(1, 12), st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_small_classes_have_a_picture_for_each_purpose(count: int, seed: int) -> None:
    counts = Counter(assign(ids(count, f"class{seed}"), {f"class{seed}"}, **SHARES | {"seed": seed}).values())
    assert counts["train"] >= 1
    assert count < 3 or counts["test_seen"] >= 1
    assert count < 4 or counts["validation"] >= 1


def test_another_seed_draws_other_splits() -> None:
    pictures = ids(100, "okapi")
    assert assign(pictures, {"okapi"}, **SHARES) != assign(pictures, {"okapi"}, **SHARES | {"seed": 1})


def test_a_share_of_zero_leaves_its_split_empty() -> None:
    splits = assign(ids(50, "okapi"), {"okapi"}, seed=0, test_share=0, validation_share=0)
    assert set(splits.values()) == {"train"}


def test_an_unseen_class_that_got_photographs_is_split_anew() -> None:
    pictures = ids(40, "aye-aye")
    before = assign(pictures, set(), **SHARES)
    after = assign(pictures, {"aye-aye"}, **SHARES, before=before)
    assert set(after.values()) == {"train", "validation", "test_seen"}


def test_splits_of_the_source_are_respected_and_validation_comes_out_of_train() -> None:
    pictures = ids(200, "okapi")
    own = {id: "test_seen" if number % 5 == 0 else "train" for number, id in enumerate(pictures)}
    splits = assign(pictures, {"okapi"}, **SHARES, given=own)
    assert {id for id, split in splits.items() if split == "test_seen"} == {
        id for id, split in own.items() if split == "test_seen"
    }
    assert 10 < Counter(splits.values())["validation"] < 45


def test_pretend_unseen_classes_are_a_stable_share_of_the_seen_ones() -> None:
    names = [f"class{number}" for number in range(20)]
    seen = [number < 15 for number in range(20)]
    chosen = pretend_unseen(names, seen, 0.25, 0)
    assert sum(chosen) == 4  # ceil(3.75)
    assert not any(mark for mark, known in zip(chosen, seen, strict=True) if not known)
    backwards = pretend_unseen(names[::-1], seen[::-1], 0.25, 0)
    assert backwards[::-1] == chosen
    assert pretend_unseen(names, seen, 0.25, 1) != chosen


def test_two_seen_classes_always_remain() -> None:
    assert pretend_unseen(["a", "b", "c"], [True, True, True], 0.9, 0).count(True) == 1
    assert pretend_unseen(["a", "b"], [True, True], 0.5, 0).count(True) == 0
