"""What the command line shows a person: tables of decisions, versions and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from ayeaye.classifier.explanation import phrase
from ayeaye.core.errors import listed
from ayeaye.core.unicode_checks import shown
from ayeaye.data.difference import Difference
from ayeaye.pipeline.evaluate import HEADLINE
from ayeaye.release import comparison, gate
from ayeaye.reporting import report

_COLOURS = {"yes": "green", "no": "red", "open": "yellow", gate.NOTHING: "dim"}


def outcome(result: Mapping[str, Any]) -> None:
    console = Console()
    # Where nothing is new the decision is an old one: `ayeaye status` tells of it.
    if result.get("decision") and result.get("outcome") != "unchanged":
        decision(result["decision"], console)
    console.print(result["message"], markup=False, soft_wrap=True)


def decision(raw: Mapping[str, Any], console: Console) -> None:
    """The gate table: every threshold with its figure."""
    made = gate.from_dict(raw)
    console.print(f"Gate: version {raw['version']}, estimated on {made.estimated_on}", style="italic")
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = [column for column in gate.COLUMNS if column != "why"]
    for column in columns:
        # The name of a slice is as long as that of its group.
        table.add_column(column, no_wrap=column != "figure", overflow="fold")
    rows = gate.table(made)
    for row in rows:
        colour = _COLOURS[row["passed"]]
        table.add_row(*(f"[{colour}]{row[c]}[/]" if c == "passed" else escape(row[c]) for c in columns))
    console.print(table if rows else "No threshold is set, and there is no champion to compare with.")
    if made.figures_of != gate.ALL:
        console.print(f"Figures of {made.figures_of}.", markup=False, soft_wrap=True)
    if made.stand_in:
        console.print(f"In the trial {made.stand_in}.", markup=False, soft_wrap=True)
    if made.not_judged:
        console.print(f"{gate.too_small(made)}.", markup=False, soft_wrap=True)
    for check, row in zip(made.checks, rows, strict=True):
        # Where a figure keeps its threshold, the row says it all.
        if check.passed is not True or check.value is None:
            console.print(f"{row['figure']}: {row['why']}", markup=False, soft_wrap=True)


def compared(found: Mapping[str, Any], most: int = 5) -> None:
    """Two versions side by side: figures, what the gate would say, slices, the classes that moved most."""
    console = Console()
    title = f"Version {found['b']['version']} against version {found['a']['version']}"
    console.print(f"{title}, on {comparison.measured_on(found)}.", markup=False, soft_wrap=True)
    _rows(comparison.figure_rows(found), console)
    console.print(comparison.sentence(found), markup=False, soft_wrap=True)
    console.print(comparison.verdict(found), markup=False, soft_wrap=True)
    for reason in found["gate"]["reasons"]:
        console.print(f"    {reason}", markup=False, soft_wrap=True)
    _rows(
        comparison.slice_rows(found),
        console,
        "Slices, the largest loss first; the bounds share one risk of error",
    )
    if found["not_judged"]:
        console.print(f"Too small to be judged: {listed(found['not_judged'])}.", markup=False, soft_wrap=True)
    moved = [
        row
        for row, each in zip(comparison.class_rows(found), found["classes"], strict=True)
        if each["difference"] != 0
    ]
    left = max(0, len(moved) - 2 * most)
    ends = [*moved[:most], *moved[-most:]] if left else moved
    _rows(ends, console, f"Classes that moved most{f', {left} between them left out' if left else ''}")
    _rows(comparison.differing_rows(found), console, "What differs")
    for row in comparison.role_rows(found):
        console.print(
            f"{row['number']} {row['classes']}: {listed(row['which'])}", markup=False, soft_wrap=True
        )


def _rows(rows: Sequence[Mapping[str, Any]], console: Console, title: str | None = None) -> None:
    """Rows of the same keys as a table; nothing where there are none."""
    if not rows:
        return
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for key in rows[0]:
        table.add_column(escape(key), overflow="fold")
    for row in rows:
        table.add_row(*(escape(report.shown(value)) for value in row.values()))
    console.print(table)


def drift(found: Mapping[str, Any]) -> None:
    """What the watch found: a row per figure, then what it comes to."""
    console = Console()
    if found["figures"]:
        title = f"Answers of version {found['version']}"
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("figure", "held out", "traffic", "difference", "threshold", "p", "drifted"):
            table.add_column(column, no_wrap=True)
        for row in found["figures"]:
            said = "yes" if row["drifted"] else "no"
            numbers = (f"{row[name]:.3f}" for name in ("reference", "traffic", "difference", "threshold"))
            drifted = f"[{'red' if row['drifted'] else 'green'}]{said}[/]"
            table.add_row(row["figure"].replace("_", " "), *numbers, f"{row['p']:.2g}", drifted)
        console.print(table)
    console.print(found["message"], markup=False, soft_wrap=True)
    if "page" in found:
        console.print(f"Report: {found['page']}", markup=False, soft_wrap=True)


def status(state: Mapping[str, Any]) -> None:
    console = Console()
    champion = state["champion"]
    if champion is None and not state["candidates"]:
        console.print("Nothing was trained yet: run `ayeaye retrain`.")
        return
    title = f"{state['model']} in {state['workspace']}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("version", "is", *HEADLINE, "bento"):
        table.add_column(column, no_wrap=True)
    previous = (state["previous"] or {}).get("version")
    for each in [*([champion] if champion else []), *state["candidates"]]:
        gate_said = "removed" if each["removed"] else each["gate"] or "not judged"
        waits = state["pending"] and each["version"] == state["pending"]["version"]
        is_ = "previous" if each["version"] == previous else "waits" if waits else gate_said
        is_ = "champion" if each is champion else is_
        figures = [_short(each["metrics"][name]) for name in HEADLINE]
        table.add_row(str(each["version"]), is_, *figures, each["bento"] or "")
    console.print(table)
    if pending := state["pending"]:
        number = pending["version"]
        console.print(
            f"Version {number} waits: `ayeaye approve {number}`, or `ayeaye refuse {number}`.", markup=False
        )
    _serving(console, state["serving"], champion)
    _disagree(console, state["disagreements"])
    if state["disagreements"]:
        console.print("`ayeaye repair` mends what can be mended.", markup=False)


def _serving(console: Console, serving: Mapping[str, Any] | None, champion: Mapping[str, Any] | None) -> None:
    """What is observed, and how it differs from what is wanted."""
    if serving is None:
        console.print("Serving: nothing; `ayeaye serve` does.", markup=False)
        return
    at = f"on {serving['address']} (process {serving['pid']})"
    found = serving["bento"]
    said = f"Serving: {found} {at}, since {serving['since']}" if found else f"Serving: no answer {at}"
    console.print(f"{said}.", markup=False, soft_wrap=True)
    if shadow := serving.get("shadow"):
        console.print(f"Its shadow: {shadow}; `ayeaye shadow` compares.", markup=False, soft_wrap=True)
    if failed := serving["failed"]:
        reason = f"{failed['bento']} could not be served: {failed['reason']}"
        console.print(f"[red]{escape(reason)}[/]", soft_wrap=True)
    if champion and found != champion["bento"]:
        coming = "; it is being started" if serving["coming"] == champion["bento"] else ""
        said = f"That is not the champion's Bento, {champion['bento']}{coming}."
        console.print(f"[red]{escape(said)}[/]", soft_wrap=True)


def shadows(found: Sequence[Mapping[str, Any]]) -> None:
    """How challengers answered what the champion answered, a pair of Bentos a row."""
    console = Console()
    if not found:
        console.print(
            "Nothing was compared yet: with serve.shadow above 0, `ayeaye serve` asks a version that waits for "
            "approval, too.",
            soft_wrap=True,
            markup=False,
        )
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("champion", "challenger", "answers", "failed", "same label", "same known"):
        table.add_column(column, no_wrap=True)
    table.add_column("mean confidence")
    for each in found:
        confidences = f"{_short(each['confidence'])} → {_short(each['shadow_confidence'])}"
        table.add_row(
            *(escape(str(each[name] or "–")) for name in ("bento", "shadow")),
            *(str(each[name]) for name in ("answers", "failed")),
            *(_short(each[name]) for name in ("agreement", "known_agreement")),
            confidences,
        )
    console.print(table)


def _disagree(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    for each in found:
        console.print(f"[red]{escape(each['what'])}[/]", soft_wrap=True)


def log(entries: Sequence[Mapping[str, Any]]) -> None:
    """The promotion record, an entry a row, with the figures the version had then."""
    console = Console()
    if not entries:
        console.print("Nothing was released yet: run `ayeaye retrain`.")
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("time", "action", "from", "to", "T1", "H", "by", "why"):
        table.add_column(column, no_wrap=column not in ("by", "why"), overflow="fold")
    for each in entries:
        cells = (
            each["time"][:19].replace("T", " "),
            each["action"],
            str(each["from"] or "–"),
            str(each["to"]),
            *(_short(each["figures"].get(name)) for name in ("T1", "H")),
            each["actor"],
            "; ".join(each["why"]),
        )
        table.add_row(*map(escape, cells))
    console.print(table)


def repaired(result: Mapping[str, Any]) -> None:
    console = Console()
    if not result["found"]:
        console.print("Everything agrees with the promotion record.")
    for each in result["found"]:
        done = each not in result["left"]
        state = "mended" if done else "would be mended" if result["dry_run"] else "left"
        console.print(f"{state}: {each['what']}", markup=False, soft_wrap=True)


def answers(found: Sequence[Mapping[str, Any]]) -> None:
    console = Console()
    for answer in found:
        if "error" in answer:
            console.print(f"{escape(answer['image'])}: [red]{escape(answer['error'])}[/]", soft_wrap=True)
            continue
        kind = "seen" if answer["seen"] else "never seen, only described"
        nearest = f"[bold]{escape(answer['label'])}[/] ({kind}), confidence {answer['confidence']:.2f}"
        said = nearest if answer["known"] else f"[bold]none of the classes[/]; the nearest is {nearest}"
        console.print(f"{escape(answer['image'])}: {said}", soft_wrap=True)
        for other in answer["alternatives"][1:]:
            console.print(
                f"    {other['score']:+.3f}  {other['label']}{'' if other['seen'] else ' (unseen)'}, "
                f"confidence {other['confidence']:.2f}",
                markup=False,
            )


def feedback(pending: Sequence[Mapping[str, Any]], decided: Sequence[Mapping[str, Any]]) -> None:
    """What was decided now, and what waits; of answers what tells them apart."""
    console = Console()
    for each in decided:
        if "error" in each:
            console.print(f"{each['id']}: [red]{escape(shown(each['error']))}[/]", soft_wrap=True)
        else:
            said = f"{each['id']} ({each['label']}): {each['status']}; {each['outcome']}."
            console.print(shown(said), markup=False, soft_wrap=True)
    if not pending:
        console.print("No feedback is pending.")
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("id", "time", "label", "picture", "caller", "answer"):
        folded = column in ("label", "caller")
        table.add_column(column, no_wrap=not folded, overflow="fold", min_width=12 if folded else None)
    for each in pending:
        picture = decimal(each["picture_bytes"]) if each["picture_bytes"] else "none"
        time = each["time"][:19].replace("T", " ")
        cells = (each["id"], time, each["label"], picture, each["caller"], _answer(each["answer"]))
        table.add_row(*(escape(shown(str(cell))) for cell in cells))
    console.print(table)


def _answer(id: str) -> str:
    """The version and the beginning of the picture's digest."""
    return id if len(id) <= 12 else f"{id[:11]}…"


def explanation(explained: Mapping[str, Any], top: int) -> None:
    """The strongest differences as bars to either side, what else counts, and the sum, which is the difference."""
    console = Console()
    label, against = explained["label"], explained["against"]
    kind = "seen" if explained["seen"] else "never seen, only described"
    title = f"[bold]{escape(label)}[/] ({kind}) rather than [bold]{escape(against)}[/]"
    console.print(f"{escape(explained['image'])}: {title}", soft_wrap=True)
    shown, others = explained["parts"][:top], explained["parts"][top:]
    rows = [
        (phrase(part), part["contribution"], _value(part["value"]), _value(part["against_value"]))
        for part in shown
    ]
    if others:
        rows.append((f"{len(others)} more", sum(part["contribution"] for part in others), "", ""))
    rows += [
        (name, explained[key], "", "")
        for name, key in (("correction of hubs", "hub_correction"), ("offset of seen classes", "seen_offset"))
        if explained[key]
    ]
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("against it", justify="right", style="red", no_wrap=True)
    table.add_column("for it", style="green", no_wrap=True)
    table.add_column("counts", justify="right", no_wrap=True)
    for column in ("", label, against):
        table.add_column(escape(column), max_width=32)
    longest = max((abs(contribution) for _, contribution, _, _ in rows), default=0) or 1.0
    for name, contribution, *values in rows:
        bar = _bar(abs(contribution) / longest)
        sides = (bar, "") if contribution < 0 else ("", bar)
        table.add_row(*sides, f"{contribution:+.3f}", *map(escape, (name, *values)))
    table.add_section()
    table.add_row("", "", f"[bold]{explained['difference']:+.3f}[/]", "difference of the scores")
    console.print(table)
    for said, key in (("Looks most like", "to_picture"), ("Is described most like", "to_label")):
        near = ", ".join(f"{each['label']} {each['cosine']:.2f}" for each in explained["nearest_seen"][key])
        console.print(f"{said}, of the seen classes: {near or 'none'}", markup=False, soft_wrap=True)


def difference(found: Difference) -> None:
    """What has changed between two datasets; of pictures the numbers per class."""
    console = Console()
    if found.nothing:
        console.print("Nothing has changed: the same classes, pictures, labels and splits.")
        return
    for said, names in (("Classes added", found.classes_added), ("Classes removed", found.classes_removed)):
        if names:
            console.print(f"{said}: {listed(names, 20)}", markup=False, soft_wrap=True)
    for row in found.classes_changed.itertuples():
        changed = f": {row.before!r} → {row.after!r}" if row.before or row.after else " has changed"
        console.print(f"{row.name}: {row.what}{changed}", markup=False, soft_wrap=True)
    console.print(
        f"Pictures: {len(found.added)} added, {len(found.removed)} removed, {len(found.relabelled)} under another "
        f"class, {len(found.moved)} in another split.",
        soft_wrap=True,
    )
    counts = found.recounted
    if len(counts):
        table = Table(box=None, padding=(0, 1, 0, 0))
        for column in ("class", "before", "added", "removed", "after"):
            table.add_column(column, justify="left" if column == "class" else "right")
        for row in counts.itertuples():
            cells = (row.name, row.before, row.added or "", row.removed or "", row.after)
            table.add_row(*(escape(str(cell)) for cell in cells))
        console.print(table)
    for row in found.relabelled.itertuples():
        console.print(f"{str(row.id)[:12]}: {row.before} → {row.after}", markup=False, soft_wrap=True)


def takedown(result: Mapping[str, Any]) -> None:
    """What was removed, or would be, and what is left to do."""
    console = Console()
    would = "would be " if result["dry_run"] else ""
    for id in result["removed"]:
        rows = [row for row in result["pictures"] if row["id"] == id]
        of = (
            f": {rows[0]['label']}, {rows[0]['split']}, {rows[0]['source']}"
            if rows
            else " (not in the dataset now)"
        )
        console.print(f"{id} {would}removed{of}", markup=False, soft_wrap=True)
    console.print(
        f"{len(result['shards'])} shards {would}rewritten or purged, {len(result['objects'])} objects of DVC's "
        f"{would}purged, {len(result['feedback'])} pictures of feedback {would}forgotten.",
        soft_wrap=True,
    )
    if result["datasets"]:
        console.print(
            f"No longer restorable: {listed(result['datasets'], 20)}.", markup=False, soft_wrap=True
        )
    for row in result["versions"]:
        name = f"Version {row['version']}" + (f" ({row['is']})" if row["is"] else "")
        facts = [
            f"learned from {row['learned']} of them" if row["learned"] else "",
            f"was tested on {row['tested']}" if row["tested"] else "",
        ]
        facts += [said for key, said in (("shown_by_service", "its service shows a small copy"),
                                         ("shown_in_report", "its report shows a small copy")) if row[key]]  # fmt: skip
        console.print(f"{name}: {'; '.join(filter(None, facts))}.", markup=False, soft_wrap=True)
    if result["versions"]:
        console.print("Next: `ayeaye retrain` makes a version without them.", markup=False)
    for left in result["left"]:
        console.print(f"Not removed: {len(left['things'])} in {left['where']}:", markup=False, soft_wrap=True)
        for name, what in left["things"].items():
            console.print(f"  {name}  {what}", markup=False, soft_wrap=True)
        console.print(f"{left['mend']}, then run it again.", markup=False, soft_wrap=True)
    if result["pictures"]:
        console.print("The source still has the files: delete them there, too.", markup=False)
    if result["short"]:
        console.print(
            f"Too few pictures are left of {listed(result['short'])}: add some, or give them the role unseen.",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def garbage(items: Sequence[Any], kinds: Mapping[str, str]) -> None:
    """What could be removed, by kind, with sizes."""
    console = Console()
    if not items:
        console.print("Nothing to remove: everything is needed.")
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("what")
    for item in items:
        table.add_row(decimal(item.bytes), item.kind, escape(item.name))
    table.add_section()
    table.add_row(f"[bold]{decimal(sum(item.bytes for item in items))}[/]", "", "in all")
    console.print(table)
    for kind in dict.fromkeys(item.kind for item in items):
        console.print(f"{kind}: {kinds[kind]}", markup=False)


def _bar(share: float, width: int = 12) -> str:
    """A bar of eighths of a cell, never quite empty."""
    whole, eighth = divmod(max(round(8 * width * share), 1), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighth].strip()


def _value(value: float | None) -> str:
    return f"{value:.3g}" if value else "–"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
