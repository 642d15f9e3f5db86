"""What a person is shown of an explanation."""

from __future__ import annotations

import re
from typing import Any

import pytest

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
