"""Small sources made on the spot, and the workspace their dataset is prepared in."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ayeaye.core import params
from ayeaye.data.prepare_dataset import Summary, prepare

CLASSES = [
    {"name": "okapi", "role": "seen", "description": "Stripes on the legs, lives in the forest."},
    {"name": "zebra", "role": "seen", "description": "Stripes all over, lives on the plain."},
    {"name": "aye-aye", "role": "unseen", "description": "Big ears, lives on land, no long neck."},
]


def picture(number: int, side: int = 24, form: str = "PNG", **options: Any) -> bytes:
    """A picture of noise; each number is another one."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form, **options)
    return content.getvalue()


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_source(path: Path, rows: list[dict[str, Any]], pictures: dict[str, int]) -> Path:
    """A folder with classes.csv and so many different pictures of each class."""
    (path / "images").mkdir(parents=True)
    write_csv(path / "classes.csv", rows)
    number = 0
    for name, count in pictures.items():
        (path / "images" / name).mkdir()
        for index in range(count):
            (path / "images" / name / f"{index:03d}.png").write_bytes(picture(number))
            number += 1
    return path


class Place:
    """A source folder and the workspace its dataset is prepared in."""

    def __init__(self, root: Path, source: Path) -> None:
        self.root, self.source = root, source
        self.dataset, self.checks, self.cache = root / "dataset", root / "checks", root / "pictures.json"
        self.feedback = root / "feedback"

    def prepare(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        dry_run: bool = False,
        docs: bool = False,
        removed: frozenset[str] = frozenset(),
        **knobs: Any,
    ) -> Summary:
        settings = params.Prepare(**{"source": "folder", "path": str(self.source)} | knobs)
        checks = self.checks if docs else None
        return prepare(
            settings,
            self.dataset,
            Path,
            progress,
            dry_run=dry_run,
            cache=self.cache,
            docs=checks,
            feedback=self.feedback,
            removed=removed,
        )

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Modification time and content of every file of the dataset."""
        found = sorted(path for path in self.dataset.rglob("*") if path.is_file())
        return {str(p.relative_to(self.dataset)): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}
