"""Splits that stay: which picture is for training, validation or test, and which classes play unseen."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

TRAIN, VALIDATION, TEST_SEEN, TEST_UNSEEN = "train", "validation", "test_seen", "test_unseen"


def chance(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on seed and key alone."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def pretend_unseen(names: Sequence[str], seen: Sequence[bool], share: float, seed: int) -> list[bool]:
    """Marks the ceil(share * seen classes) seen classes of smallest hash; at least two seen ones are left."""
    candidates = sorted(
        (name for name, known in zip(names, seen, strict=True) if known), key=lambda n: (chance(seed, n), n)
    )
    count = min(math.ceil(share * len(candidates)), max(len(candidates) - 2, 0))
    chosen = set(candidates[:count])
    return [name in chosen for name in names]


def assign(
    labels: Mapping[str, str],
    seen: set[str],
    *,
    seed: int,
    test_share: float,
    validation_share: float,
    before: Mapping[str, str] | None = None,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The split of each picture, by id.

    A picture's split follows from its id and the seed, so it stays when others are added. `before` are splits
    of an earlier dataset, which are kept; `given` are splits that the source brings, of which train is
    divided into train and validation. Where the hash left a seen class without one, a new picture is moved:
    each class has a picture for training, from three on one for test, from four on one for validation.
    """
    before, given = before or {}, given or {}
    splits: dict[str, str] = {}
    fixed: set[str] = set()
    for id, label in labels.items():
        own = given.get(id)
        if label not in seen:
            splits[id] = TEST_UNSEEN
        elif own and own != TRAIN:
            splits[id] = own
        elif before.get(id) in (TRAIN, VALIDATION) or (not own and before.get(id) == TEST_SEEN):
            splits[id] = before[id]
        else:
            splits[id] = _drawn(chance(seed, id), 0.0 if own else test_share, validation_share)
            continue
        fixed.add(id)
    wanted = {TEST_SEEN: test_share, VALIDATION: validation_share}
    for members in _by_class(labels, seen).values():
        floors = {split for split, share in wanted.items() if share and not (given and split == TEST_SEEN)}
        _fill(members, splits, fixed, floors, set(given), seed)
    return splits


def _drawn(number: float, test_share: float, validation_share: float) -> str:
    if number < test_share:
        return TEST_SEEN
    return VALIDATION if number < test_share + validation_share else TRAIN


def _by_class(labels: Mapping[str, str], seen: set[str]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = defaultdict(list)
    for id, label in labels.items():
        if label in seen:
            members[label].append(id)
    return members


def _fill(
    members: list[str], splits: dict[str, str], fixed: set[str], floors: set[str], given: set[str], seed: int
) -> None:
    """Moves single pictures of one class, those of smallest hash first, until each split it needs has one."""
    order = sorted(members, key=lambda id: (chance(seed, id), id))
    needs = [TRAIN]
    needs += [TEST_SEEN] if len(members) >= 3 and TEST_SEEN in floors else []
    needs += [VALIDATION] if len(members) >= 4 and VALIDATION in floors else []
    for need in needs:
        counts = Counter(splits[id] for id in members)
        if counts[need]:
            continue
        # What one split needs must not be taken from another that has only that one.
        spare = [id for id in order if counts[splits[id]] > (1 if splits[id] in needs else 0)]
        movable = [id for id in spare if id not in fixed]
        if need == TRAIN:
            own = [id for id in order if id not in given]
            movable = movable[::-1] or [id for id in order if splits[id] == VALIDATION] or own
        if movable:
            splits[movable[0]] = need
