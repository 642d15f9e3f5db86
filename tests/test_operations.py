"""docs/operations.md: its five commands, as they are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from workspaces import Place

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_change_compare_promote_regret_roll_back(copied: Place) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / "operations.md").read_text(), re.DOTALL)
    lines = blocks[0].strip().splitlines()
    assert len(lines) == 5
    champions = []
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "ayeaye"
        done = copied(*arguments)
        assert done.code == 0, f"{line}: {done.err}"
        champions.append(copied.status["champion"]["version"])
    assert champions == [1, 1, 1, 2, 1]
    entries = copied("log", "--json").json
    assert [(each["action"], each["to"]) for each in reversed(entries)] == [
        ("promote", 1), ("pending", 2), ("promote", 2), ("rollback", 1),
    ]  # fmt: skip
    assert entries[0]["why"] == ["complaints about royal gala"]
