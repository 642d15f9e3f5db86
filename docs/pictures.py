"""Makes the pictures of the README from a workspace of the bestiary, after its first retrain.

ayeaye demo && python docs/pictures.py demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from ayeaye.workspace import Workspace
from PIL import Image, ImageDraw, ImageFont

from ayeaye.data import bestiary

HERE = Path(__file__).parent
SIDE, CAPTION, HEADING, COLUMNS, SEEN_ROWS = 72, 16, 24, 12, 4


def contact_sheet(workspace: Workspace) -> Image.Image:
    """The unseen species in the first rows, as many seen ones as there is room for below."""
    prepare = workspace.params.prepare
    animals = bestiary.species(prepare.species, prepare.seed)
    unseen = [animal for animal in animals if animal.role == "unseen"]
    unseen.sort(key=lambda animal: (animal.name != "aye-aye", animal.name))
    seen = [animal for animal in animals if animal.role == "seen"]
    parts = [
        (f"Only described, never seen in training ({len(unseen)})", unseen),
        (f"Seen in training ({len(seen)})", seen[: SEEN_ROWS * COLUMNS]),
    ]
    rows = sum(-(-len(shown) // COLUMNS) for _, shown in parts)
    size = (COLUMNS * SIDE, len(parts) * HEADING + rows * (SIDE + CAPTION))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    top = 0
    for heading, shown in parts:
        pen.text((4, top + 5), heading, "black", ImageFont.load_default(14))
        top += HEADING
        for number, animal in enumerate(shown):
            x, y = number % COLUMNS * SIDE, top + number // COLUMNS * (SIDE + CAPTION)
            sheet.paste(bestiary.draw(animal, prepare.pictures, prepare.seed, SIDE), (x, y))
            pen.text((x + SIDE / 2, y + SIDE + 1), animal.name, "black", font, anchor="ma")
        top += -(-len(shown) // COLUMNS) * (SIDE + CAPTION)
    return sheet


def main(folder: Path) -> None:
    workspace = Workspace.find(folder)
    contact_sheet(workspace).save(HERE / "bestiary.jpg", quality=82, optimize=True)
    curve = Image.open(workspace.reports / "plots" / "seen_unseen_curve.png").convert("RGB")
    curve.thumbnail((900, 900))
    curve.quantize(64).save(HERE / "seen-unseen-curve.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
