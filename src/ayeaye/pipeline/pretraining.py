"""What the backbone was pretrained on, and how the unseen classes do with and without those it has seen."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ayeaye.backbones.backbones import CHECKPOINT, Backbone, imagenet_categories
from ayeaye.core import contents
from ayeaye.core.errors import DataError
from ayeaye.core.params import Embed, Evaluate
from ayeaye.data.table import ClassTable
from ayeaye.evaluation import leakage, metrics
from ayeaye.evaluation.leakage import Flag, Named, Pair
from ayeaye.evaluation.metrics import Fold

IMAGENET = "imagenet-1k"
NAMES = "one class a line, such as `tench, Tinca tinca`"
HEADINGS = {
    "id",
    "index",
    "name",
    "names",
    "class",
    "label",
    "synset",
    "wnid",
    "synonyms",
    "class_id",
    "class_name",
}
HEADERS = {("child", "parent"), ("parent", "child")}
_INDEX = re.compile(r"(\d+)\s*[\s,:]\s*(?=\S)")
_SYNSET = re.compile(r"\bn\d{8}\b")


@dataclass(frozen=True)
class Pretraining:
    """The classes a backbone was pretrained on, in words how that is known, and whether it is."""

    classes: list[Named]
    said: str
    known: bool = True


def known_of(chosen: Embed, backbone: Backbone | None, resolve: Callable[[str], Path]) -> Pretraining:
    """From `embed.pretrained_on`, else from what is known of the weights; nothing for one trained here.

    Raises DataError where the file cannot be read.
    """
    if backbone and backbone.trained_here:
        return Pretraining([], "nothing: trained here, on seen classes alone")
    if chosen.pretrained_on and chosen.pretrained_on != IMAGENET:
        path = resolve(chosen.pretrained_on)
        named = read_names(path)
        return Pretraining(named, f"{len(named):,} classes of {path.name}")
    known = imagenet_categories() if chosen.pretrained_on else backbone.classes if backbone else ()
    if not known:
        return Pretraining([], "not known: embed.pretrained_on may list the classes", known=False)
    assumed = not chosen.pretrained_on and backbone and backbone.origin.startswith(CHECKPOINT)
    said = f"ImageNet-1k, {len(known):,} classes by the first name of each"
    said += ", assumed from the checkpoint's number of classes" if assumed else ""
    return Pretraining([Named(name) for name in known], said)


def comparable(classes: ClassTable, known: Pretraining) -> Pretraining:
    """What is known, or that nothing is where it lists synsets alone and no unseen class has one."""
    bare = bool(known.classes) and all(each.name == each.synset for each in known.classes)
    if bare and not any(classes.frame["synset"][~classes.seen]):
        return Pretraining(
            known.classes, f"{known.said}, of synsets alone: the class table needs synsets, too", False
        )
    return known


def flags(
    classes: ClassTable, known: Pretraining, pairs: Sequence[Pair]
) -> tuple[dict[str, Flag], dict[str, Flag]]:
    """The flags of the unseen classes that leak, by name, and those of the others that possibly do."""
    frame = classes.frame[~classes.seen]
    named = [
        Named(name, tuple(synonyms), synset)
        for name, synonyms, synset in zip(frame["name"], frame["synonyms"], frame["synset"], strict=True)
    ]
    sure = leakage.flags(named, known.classes, pairs)
    others = (each for each in named if each.name not in sure)
    return sure, leakage.possible(others, known.classes)


def apart(fold: Fold, flagged: np.ndarray, chosen: Evaluate) -> dict[str, dict[str, Any]]:
    """The figures on the `clean` and on the `flagged` unseen classes, each labelled among themselves in T1.

    `flagged` (C,) bool. `classes` and `pictures` count what each was measured on.
    """
    sides = {"clean": ~fold.seen & ~flagged, "flagged": ~fold.seen & flagged}
    return {side: _figures(fold, evaluated, chosen) for side, evaluated in sides.items()}


def _figures(fold: Fold, evaluated: np.ndarray, chosen: Evaluate) -> dict[str, Any]:
    return kept(
        metrics.measure(
            *fold, evaluated=evaluated, k=chosen.neighbours, resamples=chosen.bootstrap, seed=chosen.seed
        )
    )


def kept(figures: dict[str, Any]) -> dict[str, Any]:
    """Of what metrics.measure gives, what is kept of each side."""
    names = (*metrics.FIGURES, "T1_above_chance", "chance", "intervals")
    counts = figures["counts"]
    return {
        "classes": counts["classes_unseen"],
        "pictures": counts["pictures_unseen"],
        **{name: figures[name] for name in names},
    }


# ---- files ----


def read_names(path: Path) -> list[Named]:
    """The classes of a list in the forms that ImageNet's are passed around in; empty lines do not count.

    A line is `name, synonym, …` behind an optional index or synset `n01440764`, or with a tab and the synset after
    it; a heading such as `id,name` is skipped. A whole list or mapping of JSON or Python is read, too. Raises
    DataError.
    """
    lines = list(_lines(path, "embed.pretrained_on", NAMES))
    if lines[0][1].startswith(("{", "[")):
        return [_named(entry) for entry in _entries(path, "\n".join(line for _, line in lines))]
    given = [line for _, line in lines]
    heading = (
        {part.strip(' "').lower() for part in _parted(given[0])} if re.search("[,\t]", given[0]) else set()
    )
    if heading & HEADINGS:
        if strange := sorted(heading - HEADINGS):
            raise DataError(
                f"embed.pretrained_on {path} has a column {strange[0]!r}: expected {NAMES}, or the columns id and name"
            )
        given = given[1:]
    indexed = [_INDEX.match(line) for line in given]
    if len({found[1] for found in indexed if found}) == len(given):
        given = [line[found.end() :] for line, found in zip(given, indexed, strict=True) if found]
    return [_named(line) for line in given]


def _named(line: str) -> Named:
    line = line.replace('"', "")
    names, _, synset = line.partition("\t")
    if found := _SYNSET.search(line):
        synset = found[0]
        names = line.replace(synset, " ").replace("\t", ",")
    first, *others = [name.strip() for name in names.split(",") if name.strip()] or [synset.strip()]
    return Named(first, tuple(others), synset.strip())


def _entries(path: Path, text: str) -> Iterator[str]:
    """The lines that [name], {index: name}, {name: index} and {index: [synset, name]} would be."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    pairs = found.items() if isinstance(found, Mapping) else enumerate(found or ())
    for key, value in pairs:
        parts = [
            part for part in (key, *(value if isinstance(value, list) else [value])) if not _is_index(part)
        ]
        if not parts or not all(isinstance(part, str) for part in parts):
            found = None
            break
        yield ", ".join(parts)
    if not found:
        raise DataError(f"embed.pretrained_on {path} is no list or mapping of names: expected {NAMES}")


def _is_index(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and value.strip().isdecimal())


def read_pairs(path: Path) -> list[Pair]:
    """`child parent` pairs, one a line, parted by a tab, a comma or, of names without any, by spaces.

    A first line `child,parent` or `parent,child` is a heading. Raises DataError with the line that is no pair.
    """
    pairs: list[Pair] = []
    swapped = False
    for number, line in _lines(path, "embed.hierarchy", "child,parent"):
        parts = [part.strip() for part in _parted(line)]
        if len(parts) != 2 or not all(parts):
            raise DataError(
                f"embed.hierarchy {path}, line {number} is {line[:60]!r}: expected child,parent; "
                "names with spaces need a comma or a tab between the two"
            )
        heading = (parts[0].lower(), parts[1].lower())
        if not pairs and heading in HEADERS:
            swapped = heading[0] == "parent"
        else:
            pairs.append((parts[1], parts[0]) if swapped else (parts[0], parts[1]))
    return pairs


def _parted(line: str) -> list[str]:
    if "\t" in line:
        return line.split("\t")
    return next(csv.reader([line])) if "," in line else re.split(r"\s+", line)


def _lines(path: Path, knob: str, expected: str) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"{knob} names {path}, which is not there: expected a text file, {expected}"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{knob} {path} {contents.unlike_utf8(path, error)}; expected {expected}") from None
    except OSError as error:
        raise DataError(
            f"{knob} {path} cannot be read as UTF-8 text ({error}): expected {expected}"
        ) from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError(f"{knob} {path} is empty: expected {expected}")
    if found := contents.foreign(text[: contents.HEAD].encode()):
        raise DataError(f"{knob} {path} {found}; expected {expected}")
    yield from lines
