"""What has changed from one dataset to another: classes, pictures, labels and splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ayeaye.data.table import ClassTable, Dataset

DESCRIBED = ("description", "synonyms", "group", "synset")


@dataclass(frozen=True)
class Difference:
    """From `before` to `after`.

    `classes_changed` has a row for each property of a class in both that has changed: name, what, before, after;
    `what` is role, one of DESCRIBED, or the name of a class matrix, whose values are then not told. `added` and
    `removed` are rows of the manifests: id, label, split, source. `relabelled` and `moved` are pictures in both, of
    another class and in another split: id, before, after, and for moved the label. `counts` has a row per class:
    name, before, after, added, removed.
    """

    classes_added: list[str]
    classes_removed: list[str]
    classes_changed: pd.DataFrame
    added: pd.DataFrame
    removed: pd.DataFrame
    relabelled: pd.DataFrame
    moved: pd.DataFrame
    counts: pd.DataFrame

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            name: value.to_dict("records") if isinstance(value, pd.DataFrame) else value
            for name, value in self.__dict__.items()
        }

    @property
    def recounted(self) -> pd.DataFrame:
        """The rows of `counts` of classes that gained, lost or changed in number."""
        counts = self.counts
        return counts[(counts["added"] + counts["removed"] > 0) | (counts["before"] != counts["after"])]

    @property
    def nothing(self) -> bool:
        return not any(
            len(each)
            for each in (
                self.classes_added, self.classes_removed, self.classes_changed,
                self.added, self.removed, self.relabelled, self.moved,
            )
        )  # fmt: skip


def compare(before: Dataset, after: Dataset) -> Difference:
    """A picture is the same by its id, a class by its name: a renamed class is one less and one more."""
    names = [set(each.classes.names) for each in (before, after)]
    columns = ["id", "label", "split", "source"]
    old, new = before.manifest[columns], after.manifest[columns]
    both = old.merge(new, on="id", suffixes=("_before", "_after"))
    relabelled = both[both["label_before"] != both["label_after"]]
    moved = both[both["split_before"] != both["split_after"]]
    added = new[~new["id"].isin(old["id"])].reset_index(drop=True)
    removed = old[~old["id"].isin(new["id"])].reset_index(drop=True)
    return Difference(
        classes_added=sorted(names[1] - names[0]),
        classes_removed=sorted(names[0] - names[1]),
        classes_changed=_classes(before.classes, after.classes),
        added=added,
        removed=removed,
        relabelled=_pairs(relabelled, "label"),
        moved=_pairs(moved, "split").assign(label=moved["label_after"].tolist()),
        counts=_counts(old, new, added, removed, sorted(names[0] | names[1])),
    )


def _classes(before: ClassTable, after: ClassTable) -> pd.DataFrame:
    rows = []
    old, new = before.index(), after.index()
    for name in sorted(old.keys() & new.keys()):
        ours, theirs = before.frame.iloc[old[name]], after.frame.iloc[new[name]]
        rows += [
            (name, what, _text(ours[what]), _text(theirs[what]))
            for what in ("role", *DESCRIBED)
            if ours[what] != theirs[what]
        ]
        for matrix in sorted(before.matrices.keys() | after.matrices.keys()):
            was, is_ = _values(before, matrix, old[name]), _values(after, matrix, new[name])
            if was is None or is_ is None or not np.array_equal(was, is_, equal_nan=True):
                rows.append((name, matrix, "", ""))
    return pd.DataFrame(rows, columns=["name", "what", "before", "after"])


def _values(table: ClassTable, matrix: str, row: int) -> np.ndarray | None:
    return table.matrices[matrix].iloc[row].to_numpy() if matrix in table.matrices else None


def _text(value: Any) -> str:
    return "; ".join(value) if isinstance(value, list) else str(value)


def _pairs(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    chosen = frame[["id", f"{column}_before", f"{column}_after"]].reset_index(drop=True)
    return chosen.rename(columns={f"{column}_before": "before", f"{column}_after": "after"})


def _counts(
    old: pd.DataFrame, new: pd.DataFrame, added: pd.DataFrame, removed: pd.DataFrame, names: list[str]
) -> pd.DataFrame:
    parts = {"before": old, "after": new, "added": added, "removed": removed}
    counted = {
        name: frame["label"].value_counts().reindex(names, fill_value=0) for name, frame in parts.items()
    }
    return pd.DataFrame({"name": names, **{name: values.to_numpy(int) for name, values in counted.items()}})
