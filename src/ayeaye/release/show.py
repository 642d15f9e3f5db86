"""What the command line shows a person: tables of decisions, versions and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ayeaye.release import gate

_COLOURS = {"yes": "green", "no": "red", "open": "yellow"}


def outcome(result: Mapping[str, Any]) -> None:
    console = Console()
    if result.get("decision"):
        decision(result["decision"], console)
    console.print(result["message"])


def decision(raw: Mapping[str, Any], console: Console) -> None:
    """The gate table: every threshold with its figure."""
    made = gate.from_dict(raw)
    table = Table(
        title=f"Gate: version {raw['version']}, estimated on {made.estimated_on}", title_justify="left"
    )
    for column in gate.COLUMNS:
        table.add_column(column)
    for row in gate.table(made):
        colour = _COLOURS[row["passed"]]
        cells = [f"[{colour}]{row[c]}[/]" if c == "passed" else row[c] for c in gate.COLUMNS]
        table.add_row(*cells)
    console.print(table)


def status(state: Mapping[str, Any]) -> None:
    console = Console()
    champion = state["champion"]
    if champion is None and not state["candidates"]:
        console.print("Nothing was trained yet: run `ayeaye retrain`.")
        return
    table = Table(title=f"{state['model']} in {state['workspace']}", title_justify="left")
    columns = ("version", "is", "gate", "T1", "U", "S", "H", "AUSUC", "seen_bias", "data", "bento")
    for column in columns:
        table.add_column(column)
    previous = (state["previous"] or {}).get("version")
    for each in [*([champion] if champion else []), *state["candidates"]]:
        is_ = "champion" if each is champion else "previous" if each["version"] == previous else ""
        figures = [_short(each["metrics"][name]) for name in ("T1", "U", "S", "H", "AUSUC", "seen_bias")]
        data = (each["data_digest"] or "")[:8]
        table.add_row(str(each["version"]), is_, each["gate"] or "", *figures, data, each["bento"] or "")
    console.print(table)
    if not state["agrees"]:
        console.print(
            "[red]The registry's aliases differ from the promotion record; `ayeaye retrain` mends them.[/]"
        )


def answers(found: Sequence[Mapping[str, Any]]) -> None:
    console = Console()
    for answer in found:
        if "error" in answer:
            console.print(f"{answer['image']}: [red]{answer['error']}[/]")
            continue
        kind = "seen" if answer["seen"] else "never seen, only described"
        console.print(
            f"{answer['image']}: [bold]{answer['label']}[/] ({kind}), confidence {answer['confidence']:.2f}"
        )
        for other in answer["alternatives"][1:]:
            console.print(
                f"    {other['score']:+.3f}  {other['label']}{'' if other['seen'] else ' (unseen)'}"
            )


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
