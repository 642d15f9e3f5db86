"""What a source is, and what holds for every one of them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ayeaye.core.errors import DataError, SourceError, listed
from ayeaye.core.unicode_checks import clean, collisions, comparable, composed, near
from ayeaye.data.table import SEEN, TEXT, UNSEEN, ClassTable

ROLES = (SEEN, UNSEEN)
# Folders that tools, systems and makers of data sets leave, as `comparable` writes them; `BACKGROUND_Google` is
# Caltech's.
_LEFTOVER = re.compile(
    r"background( google)?|macosx|ipynb checkpoints|unknown|misc(ellaneous)?|others?|none|null|nan|junk|trash|clutter|"
    r"distractors?|thumbs?|thumbnails?|te?mp|unsorted|unlabell?ed|untitled folder( \d+)?|new folder( \(\d+\))?|"
    r".+ (- )?copy|copy of .+|lost\+found|\$recycle\.bin|@eadir|train|test|val(idation)?|images?"
)
LISTED = 5
MOST_COLLISIONS = 50


@dataclass(frozen=True)
class Entry:
    """One picture as a source names it.

    `stamp` changes whenever the content may have changed, and costs no reading; `split` is set where the
    source brings its own, and `reason` where it is known already that it cannot be read.
    """

    source: str
    label: str
    stamp: str
    split: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Source:
    """Entries in a fixed order, their classes, and `read`, which gives an entry's bytes.

    `read` may be called from several threads and raises PictureError for one that cannot be read. `dtype` and
    `width` describe the rows of features. `published`: its splits are those that others measure on, too, and stay.
    """

    kind: str
    origin: str
    classes: ClassTable
    entries: list[Entry]
    read: Callable[[Entry], bytes]
    dtype: str = ""
    width: int = 0
    published: bool = False


def class_table(frame: pd.DataFrame) -> ClassTable:
    """A class table from one frame in which the matrices are columns named `<matrix>/<column>`."""
    columns: dict[str, list[str]] = defaultdict(list)
    for name in frame:
        if "/" in str(name):
            columns[str(name).partition("/")[0]].append(str(name))
    matrices = {
        matrix: frame[names].rename(columns=lambda name: name.partition("/")[2])
        for matrix, names in columns.items()
    }
    texts = [name for name in (*TEXT, "synonyms") if name in frame]
    return ClassTable(frame[texts], matrices)


def check_classes(classes: ClassTable, origin: str) -> None:
    """Raises SourceError for names that are none or one, unknown roles, too few seen classes."""
    frame = classes.frame
    _check_names(classes, origin)
    wrong = frame[~frame["role"].isin(ROLES)]
    if len(wrong):
        named = [f"{row['name']} ({row['role']!r})" for _, row in wrong.iterrows()]
        raise SourceError(f"{origin}: unknown role of {listed(named)}; expected seen or unseen", named)
    if classes.seen.sum() < 2:
        raise SourceError(
            f"{origin}: {classes.seen.sum()} seen classes; at least two are needed to learn from"
        )


def _check_names(classes: ClassTable, origin: str) -> None:
    """Raises SourceError with all names that hold what nobody sees, and all that the service would take for one."""
    faults = []
    for name, synonyms, group in zip(
        *(classes.frame[column] for column in ("name", "synonyms", "group")), strict=True
    ):
        for text, what in ((name, ""), *((text, f"of {name}") for text in (*synonyms, group) if text)):
            try:
                clean(text, f"{text!r} {what}".strip())
            except DataError as error:
                faults.append(str(error))
    for matrix, frame in classes.matrices.items():
        for text in (matrix, *map(str, frame.columns)):
            try:
                clean(text, f"the column {text!r} of {matrix!r}")
            except DataError as error:
                faults.append(str(error))
        alike = collisions(map(str, frame.columns))
        faults += [f"the columns {' and '.join(map(repr, same))} of {matrix} are one name" for same in alike]
    if faults:
        raise SourceError(f"{origin}: {'; '.join(faults[:LISTED])}{_more(faults)}", faults)
    alike = collisions(classes.names)
    if twice := [same[0] for same in alike if len(set(same)) < len(same)]:
        raise SourceError(f"{origin}: classes listed twice: {listed(twice)}; give each class one row", twice)
    if alike:
        pairs = [" and ".join(same) for same in alike]
        raise SourceError(
            f"{origin}: names that are one but for case, width, spaces or marks that nobody sees: "
            f"{listed(pairs, MOST_COLLISIONS)}; give each class one row, or names that differ in their letters",
            pairs,
        )


def doubtful(names: Sequence[str], synonyms: Sequence[Sequence[str]] = ()) -> list[str]:
    """What a person may want to look at.

    Classes that look like leftovers, those whose names begin another's, and synonyms that name another class.
    """
    found = []
    owners = {comparable(name): name for name in names}
    shared = [
        f"{synonym} of {name}"
        for name, others in zip(names, synonyms, strict=False)
        for synonym in others
        if owners.get(comparable(synonym), name) != name
    ]
    if shared:
        found.append(f"synonyms that are the names of other classes: {listed(shared)}; take them out")
    if strange := [
        name for name in names if _LEFTOVER.fullmatch(comparable(name).replace("_", " ").strip(" ."))
    ]:
        found.append(
            f"classes that look like a data set's leftovers: {listed(strange)}; remove those that are none"
        )
    whole = {tuple(comparable(name).replace("_", " ").split()): name for name in names}
    begun = [
        f"{whole[words[:last]]} and {name}"
        for words, name in whole.items()
        for last in range(1, len(words))
        if words[:last] in whole
    ]
    if begun:
        found.append(
            f"classes whose names begin those of others: {listed(begun)}; make them one where they are the same thing"
        )
    return found


def _more(faults: Sequence[str]) -> str:
    return f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""


def labelled(entries: Iterable[Entry], known: Sequence[str], images: Path, table: str) -> list[Entry]:
    """The entries with their classes as the file `table` writes these, however their folders do.

    Raises SourceError for folders of classes that it does not know, and for several folders of one class.
    """
    names = {comparable(name): name for name in known}
    entries = list(entries)
    folders = dict.fromkeys(entry.label for entry in entries if entry.label)
    strangers = [label for label in folders if comparable(label) not in names]
    if strangers := sorted(strangers):
        counts = Counter(entry.label for entry in entries)
        named = [f"{name} ({counts[name]})" for name in strangers]
        named[:LISTED] = [
            said + nearest(name, known) for said, name in zip(named, strangers[:LISTED], strict=False)
        ]
        raise SourceError(
            f"{images}: pictures of classes without a row in {table}: {listed(named)}; "
            "add the rows or remove the folders",
            named,
        )
    if alike := [" and ".join(same) for same in collisions(folders)]:
        raise SourceError(
            f"{images}: folders of one class: {listed(alike, MOST_COLLISIONS)}; "
            "put the pictures of each class into one folder",
            alike,
        )
    return [
        replace(entry, label=names[comparable(entry.label)]) if entry.label else entry for entry in entries
    ]


def check_entries(source: Source) -> None:
    """Raises SourceError for a seen class with fewer than two pictures."""
    check_counts(source.classes, Counter(entry.label for entry in source.entries), source.origin)


def check_counts(
    classes: ClassTable, pictures: dict[str, int], origin: str, rejected: dict[str, int] | None = None
) -> None:
    seen = classes.frame.loc[classes.seen, "name"]
    for least, fault in ((1, "no pictures"), (2, "a single picture")):
        short = [name for name in seen if pictures.get(name, 0) == least - 1]
        if short:
            note = [
                f"{name} ({rejected[name]} rejected)" if rejected and rejected.get(name) else name
                for name in short
            ]
            raise SourceError(
                f"{origin}: seen classes with {fault}: {listed(note)}; add photographs (at least two, "
                "better twenty) or give them the role unseen",
                note,
            )


def nearest(word: str, known: Iterable[str]) -> str:
    found = near(word, known, 1, cutoff=0.8)
    return f" (did you mean {found[0]}?)" if found else ""


def stamp_of(path: Path) -> str:
    """Changes whenever the file may have changed."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def plain_name(name: str) -> str:
    """A published class name as a person writes it: `killer+whale`, `001.Black_footed_Albatross`."""
    return composed(re.sub(r"^\d+\.", "", name).replace("+", " ").replace("_", " "))
