"""What a person is shown of an explanation, and of feedback."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ayeaye.cli import common
from ayeaye.release import show


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
