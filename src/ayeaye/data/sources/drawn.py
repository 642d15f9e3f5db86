"""The drawn bestiary as a source."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from ayeaye.core import params
from ayeaye.data.sources.base import Entry, Source, class_table


def bestiary(params: params.Prepare) -> Source:
    """Drawn animals; a picture is drawn when it is read."""
    from ayeaye.data import bestiary as drawn

    animals = drawn.species(params.species, params.seed)
    by_name = {animal.name: animal for animal in animals}
    # A change of the drawing code must draw again.
    code = hashlib.sha256(Path(drawn.__file__).read_bytes()).hexdigest()[:16]
    stamp = f"{code} {params.seed} {params.species}"
    entries = [
        Entry(f"{animal.name}/{index:04d}.png", animal.name, stamp)
        for animal in animals
        for index in range(params.pictures)
    ]

    def read(entry: Entry) -> bytes:
        index = int(Path(entry.source).stem)
        content = io.BytesIO()
        drawn.draw(by_name[entry.label], index, params.seed).save(content, "PNG")
        return content.getvalue()

    return Source("images", "the bestiary", class_table(drawn.table(animals)), entries, read)
