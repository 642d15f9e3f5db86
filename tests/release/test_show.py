"""What a person is shown of an explanation, and of feedback."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ayeaye.cli import common
from ayeaye.release import gate, show


def part(name: str, contribution: float, value: float, against: float) -> dict[str, Any]:
    return {
        "name": name,
        "source": "attributes",
        "value": value,
        "against_value": against,
        "contribution": contribution,
    }


EXPLAINED = {
    "image": "hand.jpg",
    "label": "aye-aye",
    "seen": False,
    "against": "[ring] lemur",
    "difference": 0.17,
    "parts": [
        part("long fingers", 0.12, 1, 0),
        part("tail=ringed", -0.06, 0, 80.5),
        part("size", 0.03, 2, 1),
        part("dark", 0.01, 1, 0),
    ],
    "hub_correction": 0.0,
    "seen_offset": 0.07,
    "nearest_seen": {"to_picture": [{"label": "[ring] lemur", "cosine": 0.5}], "to_label": []},
}
FEEDBACK = {
    "id": 3,
    "time": "2026-01-31T12:00:00+00:00",
    "answer": f"3-{'0a' * 32}-0123456789ab",
    "label": "royal gala",
    "caller": "192.0.2.17",
    "picture_bytes": 123_456,
    "status": "pending",
}


def test_an_explanation_shows_the_strongest_and_sums_up_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show.explanation(EXPLAINED, top=2)
    said = capsys.readouterr().out
    assert said.startswith("hand.jpg: aye-aye (never seen, only described) rather than [ring] lemur")
    rows = [re.sub(r"\s+", " ", line).strip() for line in said.splitlines()]
    assert "████████████ +0.120 long fingers 1 –" in rows
    assert "██████ -0.060 no ringed tail – 80.5" in rows
    assert "████ +0.040 2 more" in rows
    assert "███████ +0.070 offset of seen classes" in rows
    assert "+0.170 difference of the scores" in rows
    assert "correction of hubs" not in said
    assert "Looks most like, of the seen classes: [ring] lemur 0.50" in rows
    assert "Is described most like, of the seen classes: none" in rows


def test_bars_against_end_where_those_for_begin(capsys: pytest.CaptureFixture[str]) -> None:
    show.explanation(EXPLAINED, top=4)
    lines = capsys.readouterr().out.splitlines()
    forward = next(line for line in lines if "long fingers" in line).index("█")
    backward = next(line for line in lines if "ringed tail" in line).rindex("█")
    assert forward - backward == 2


def test_feedback_is_readable_in_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show.feedback(
        [FEEDBACK, {**FEEDBACK, "id": 1024, "label": "a label " * 25, "caller": "2001:db8::" + "ab:" * 9}], []
    )
    out = capsys.readouterr().out
    row = r"3 +2026-01-31 12:00:00 royal gala +123\.5 kB 192\.0\.2\.17 +3-0a0a0a0a0…"
    assert re.search(row, out)
    assert out.split().count("label") == 1 + 25
    assert all(len(line) <= 80 for line in out.splitlines())


def test_feedback_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    label = "\x1b]0;owned\x07 \N{RIGHT-TO-LEFT OVERRIDE}alag\x9b2J\ud800"
    refused, accepted = (
        {"id": 4, "error": f"no {label}"},
        {**FEEDBACK, "label": label, "outcome": "forgotten"},
    )
    show.feedback([{**FEEDBACK, "label": label, "caller": label}], [refused, accepted])
    out = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in out)
    assert "\\u001b]0;owned\\u0007 \\u202ealag" in out
    common.print_result({"label": label}, as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out) == {"label": label}
    assert all(character.isprintable() or character == "\n" for character in out)


# What is printed to people


def test_a_result_shows_no_value_as_python_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_result(
        {
            "pending": None,
            "dry_run": True,
            "gamma": 0.123456789,
            "lost": float("nan"),
            "stages": ["embed", "train"],
            "missing": [],
            "rows": [{"a": None}],
            "splits": {"train": 3},
            "bad\x1b": "a\x1b[31mb",
        }
        | {"bento": ""},
        as_json=False,
    )
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    assert ["pending", "–"] in lines and ["gamma", "0.1235"] in lines and ["lost", "–"] in lines
    assert ["dry", "run  yes"] in lines and ["stages", "embed, train"] in lines and ["missing", "–"] in lines
    assert not any(word in str(lines) for word in ("None", "nan", "True", "rows", "splits", "{"))


def decided(*names: str) -> dict[str, Any]:
    checks = tuple(gate.Check(name, "relative", 0.0123, (-0.5, None), 0.05, True, "why") for name in names)
    return {**gate.Decision(checks, "unseen classes", 1).as_dict(), "version": 2}


def test_the_gate_table_is_whole_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "loss of H in group of the small long-tailed birds of the northern forests"
    show.outcome(
        {"outcome": "promoted", "message": "Version 2 is champion.", "decision": decided("loss of T1", name)}
    )
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    assert "…" not in said and said.count("0.012") == said.count("≤ 0.05") == said.count("yes") == 2
    assert name.replace(" ", "") in re.sub(r"≥ -0.5|≤ 0.05|0.012|yes|\s", "", said)


def test_a_retrain_without_anything_new_shows_no_old_gate_table(capsys: pytest.CaptureFixture[str]) -> None:
    message = "Nothing new: version 2 is champion."
    show.outcome({"outcome": "unchanged", "message": message, "decision": decided("loss of T1")})
    assert capsys.readouterr().out == f"{message}\n"
