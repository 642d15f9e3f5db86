"""Two datasets compared without being checked out."""

from __future__ import annotations

from pathlib import Path

import pytest
import workspaces
from retrained import ADDED, MOVED, data, digest_of
from workspaces import Place

pytestmark = pytest.mark.slow


def test_two_datasets_are_compared_without_being_checked_out(
    retrained: Place, trained: Place, tmp_path: Path
) -> None:
    page = tmp_path / "diff.html"
    done = data(retrained, "diff", "1", "champion", "--out", page, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert {(row["label"]) for row in found["added"]} == {ADDED}
    assert {row["id"] for row in found["added"]} == {
        digest_of(workspaces.paint(ADDED, n)) for n in range(20, 23)
    }
    assert found["removed"] == []
    assert found["relabelled"] == [
        {"id": digest_of(workspaces.paint(ADDED, 0)), "before": ADDED, "after": MOVED}
    ]
    counts = {row["name"]: row for row in found["counts"]}
    assert counts[ADDED] == {"name": ADDED, "before": 8, "after": 10, "added": 3, "removed": 0}
    html = page.read_text()
    assert html.count("<img") >= 4
    assert "Under another class: 1" in html and "http" not in html

    assert data(retrained, "diff", found["before"]["digest"][:8], "1").out.startswith("Nothing has changed")
    said = data(retrained, "diff", "2", "1").out
    assert "0 added, 3 removed" in said
    unknown = data(retrained, "diff", "abcdef0", "now")
    assert unknown.code == 1
    assert "no dataset of this workspace has it" in unknown.err
