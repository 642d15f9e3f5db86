"""The bestiary: imaginary field-guide animals, drawn and described from the same attributes.

A species is one value for each of thirteen attributes. What it looks like and what is written about it both
follow from these alone, so whoever has learned what a bushy tail and a long neck look like can recognise an
animal that was only described. The aye-aye is among those nobody has photographed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from ayeaye.core.errors import SourceError

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "habitat": ("land", "water", "trees", "snow", "desert"),
    "size": ("small", "medium", "large"),
    "build": ("slim", "stout"),
    "neck": ("short", "long"),
    "legs": ("stumpy", "stilted"),
    "ears": ("round", "big", "pointed", "drooping"),
    "tail": ("stubby", "tufted", "bushy", "curled"),
    "colour": ("black", "grey", "brown", "red", "golden", "white", "blue", "green"),
    "marking": ("ivory", "dark", "orange", "violet"),
    "pattern": ("plain", "striped", "spotted", "saddled"),
    "horns": ("none", "straight", "ram", "antlers"),
    "snout": ("blunt", "tapering", "trunk", "bill"),
    "back": ("smooth", "maned", "crested"),
}
AYE_AYE = {
    "habitat": "land", "size": "small", "build": "slim", "neck": "short", "legs": "stumpy", "ears": "big",
    "tail": "bushy", "colour": "black", "marking": "ivory", "pattern": "plain", "horns": "none",
    "snout": "tapering", "back": "maned",
}  # fmt: skip
LEAST_SPECIES = 32
LEAST_UNSEEN = 8
# Two species differ in at least so many attributes, as in a field guide without look-alikes.
LEAST_DIFFERENCE = 4
# A marking must show on the coat.
HIDDEN_MARKINGS = {
    ("white", "ivory"),
    ("black", "dark"),
    ("red", "orange"),
    ("blue", "violet"),
    ("golden", "orange"),
}


@dataclass(frozen=True)
class Species:
    """One animal: `role` is seen or unseen, `attributes` holds one value for every key of ATTRIBUTES."""

    name: str
    role: str
    description: str
    attributes: dict[str, str] = field(hash=False)

    def one_hot(self) -> np.ndarray:
        """(49,) float32 of 0 and 1, in the order of `columns()`."""
        return np.array(
            [self.attributes[name] == value for name, values in ATTRIBUTES.items() for value in values],
            np.float32,
        )


def columns() -> list[str]:
    """Names of the binary attributes, such as `neck=long`."""
    return [f"{name}={value}" for name, values in ATTRIBUTES.items() for value in values]


def species(count: int, seed: int) -> list[Species]:
    """`count` species, a sixth of them (at least eight) unseen, the aye-aye among these.

    The values of each attribute are spread evenly; every value occurs in at least two seen species and no
    combination twice. The same count and seed give the same species on every machine.
    Raises SourceError below 32 species.
    """
    if count < LEAST_SPECIES:
        raise SourceError(
            f"{count} species are too few to recombine attributes: set prepare.species to "
            f"{LEAST_SPECIES} or more"
        )
    rng = _rng("species", count, seed)
    rows = _combinations(count, rng)
    unseen = _choose_unseen(rows, rng)
    names = _names(count, rng)
    told: set[str] = set()
    animals = []
    for position, row in enumerate(rows):
        attributes = dict(zip(ATTRIBUTES, row, strict=True))
        while (text := _describe(attributes, rng)) in told:
            continue
        told.add(text)
        animals.append(Species(names[position], "unseen" if position in unseen else "seen", text, attributes))
    return sorted(animals, key=lambda animal: animal.name)


def table(animals: Sequence[Species]) -> pd.DataFrame:
    """One row per species: name, role, description, and float32 0/1 columns `attributes/<name>=<value>`."""
    frame = pd.DataFrame(
        {
            "name": [animal.name for animal in animals],
            "role": [animal.role for animal in animals],
            "description": [animal.description for animal in animals],
        }
    )
    hot = pd.DataFrame(
        np.stack([animal.one_hot() for animal in animals]),
        columns=[f"attributes/{name}" for name in columns()],
    )
    return pd.concat([frame, hot], axis=1)


def _rng(*key: object) -> np.random.Generator:
    """A generator for any key: negative and huge seeds, and strings, are as good as small numbers."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


# ---- which species there are ----


def _combinations(count: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Evenly spread values, the aye-aye's in row 0; then faulty rows swap values until none is left."""
    decks = []
    for name, values in ATTRIBUTES.items():
        deck = np.array([values[i % len(values)] for i in range(count)])
        rng.shuffle(deck)
        own = int(np.flatnonzero(deck == AYE_AYE[name])[0])
        deck[[0, own]] = deck[[own, 0]]
        decks.append(deck)
    grid = np.stack(decks, axis=1)  # (count, attributes)
    while len(faulty := _faulty(grid)):
        for row in faulty:
            column, other = int(rng.integers(grid.shape[1])), int(rng.integers(1, count))
            grid[[row, other], column] = grid[[other, row], column]
    return [tuple(str(value) for value in row) for row in grid]


def _faulty(grid: np.ndarray) -> np.ndarray:
    """Rows, never row 0, whose marking is hidden or that look too much like an earlier one."""
    names = list(ATTRIBUTES)
    colour, marking = grid[:, names.index("colour")], grid[:, names.index("marking")]
    hidden = np.array([(str(c), str(m)) in HIDDEN_MARKINGS for c, m in zip(colour, marking, strict=True)])
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in grid.T], axis=1).astype(np.int8)
    alike = np.zeros(len(grid), bool)
    for row in range(1, len(grid)):
        alike[row] = bool(((codes[:row] != codes[row]).sum(axis=1) < LEAST_DIFFERENCE).any())
    faulty = hidden | alike
    faulty[0] = False
    return np.flatnonzero(faulty)


def _choose_unseen(rows: list[tuple[str, ...]], rng: np.random.Generator) -> set[int]:
    """Row 0 and others, such that every value of every attribute stays in two seen species or more."""
    wanted = max(LEAST_UNSEEN, round(len(rows) / 6))
    while True:
        unseen = {0, *(int(row) for row in 1 + rng.permutation(len(rows) - 1)[: wanted - 1])}
        seen = [row for position, row in enumerate(rows) if position not in unseen]
        if all(
            sum(row[column] == value for row in seen) >= 2
            for column, values in enumerate(ATTRIBUTES.values())
            for value in values
        ):
            return unseen


_ONSETS = (
    "bram", "quin", "mar", "tor", "vel", "lum", "pod", "gris", "fen", "zor", "kel", "hob", "dral", "nim",
    "sor", "wex", "yar", "ulm", "ost", "plun", "tamb", "riv", "skar", "mog", "thal", "cor", "pim", "dun",
    "zan", "lir", "gam", "fros",
)  # fmt: skip
_MIDDLES = ("", "a", "o", "i", "u", "en", "ari", "ol", "el", "um")
_ENDINGS = (
    "lope", "bex", "dle", "wick", "gar", "phin", "mur", "tapi", "zel", "bo", "dril", "quat", "pard", "lix",
    "fant", "nook", "roo", "sk", "dile", "tern",
)  # fmt: skip


def _names(count: int, rng: np.random.Generator) -> list[str]:
    """The aye-aye, then invented words; numbered once the plain ones (6,400) are used up."""
    words = [onset + middle + ending for onset in _ONSETS for middle in _MIDDLES for ending in _ENDINGS]
    words = sorted(set(words))
    order = rng.permutation(len(words))
    invented = [
        words[order[i % len(words)]] + ("" if i < len(words) else f"-{i // len(words)}") for i in range(count)
    ]
    return ["aye-aye", *invented[: count - 1]]


# ---- what is written about them ----

# Two words of one meaning for every value, said side by side in either order: word vectors learn from what
# stands together, and in so small a corpus nothing else sets the values of one attribute apart.
_WORDS: dict[str, dict[str, tuple[str, str]]] = {
    "habitat": {
        "land": ("land", "meadows"), "water": ("water", "lakes"), "trees": ("trees", "branches"),
        "snow": ("snow", "ice"), "desert": ("desert", "dunes"),
    },
    "size": {"small": ("small", "light"), "medium": ("medium", "middling"), "large": ("large", "heavy")},
    "build": {"slim": ("slim", "lithe"), "stout": ("stout", "burly")},
    "neck": {"short": ("short", "sturdy"), "long": ("long", "swanlike")},
    "legs": {"stumpy": ("stumpy", "squat"), "stilted": ("stilted", "lanky")},
    "ears": {
        "round": ("round", "buttonlike"), "big": ("big", "saillike"), "pointed": ("pointed", "upright"),
        "drooping": ("drooping", "floppy"),
    },
    "tail": {
        "stubby": ("stubby", "docked"), "tufted": ("tufted", "ropelike"), "bushy": ("bushy", "fluffy"),
        "curled": ("curled", "spiral"),
    },
    "colour": {
        "black": ("black", "sooty"), "grey": ("grey", "ashen"), "brown": ("brown", "chestnut"),
        "red": ("red", "rusty"), "golden": ("golden", "honeyed"), "white": ("white", "chalky"),
        "blue": ("blue", "azure"), "green": ("green", "mossy"),
    },
    "marking": {
        "ivory": ("ivory", "creamy"), "dark": ("dark", "inky"), "orange": ("orange", "amber"),
        "violet": ("violet", "purple"),
    },
    "pattern": {
        "plain": ("plain", "even"), "striped": ("striped", "banded"), "spotted": ("spotted", "dappled"),
        "saddled": ("saddled", "blanketed"),
    },
    "horns": {
        "none": ("hornless", "bare"), "straight": ("straight", "spearlike"), "ram": ("ramlike", "coiled"),
        "antlers": ("staglike", "forked"),
    },
    "snout": {
        "blunt": ("blunt", "broad"), "tapering": ("tapering", "shrewlike"), "trunk": ("trunklike", "hanging"),
        "bill": ("billed", "ducklike"),
    },
    "back": {"smooth": ("smooth", "sleek"), "maned": ("maned", "shaggy"), "crested": ("crested", "jagged")},
}  # fmt: skip
_NOUNS = {
    "neck": "a {} neck", "legs": "{} legs", "ears": "{} ears", "tail": "a {} tail", "colour": "a {} coat",
    "marking": "{} markings", "pattern": "{} flanks", "horns": "{} horns", "snout": "a {} snout",
    "back": "a {} back",
}  # fmt: skip
_OPENINGS = (
    "It lives {habitat}, is {size}, and of {build} build",
    "{Size}, {build} of build, it lives {habitat}",
    "This animal lives {habitat} and is {size}, of {build} build",
    "This animal, {size}, {build} of build, lives {habitat}",
)
_HAVING = (
    "It has {list}",
    "This animal has {list}",
    "Look for {list}",
    "It is known by {list}",
    "Note {list}",
)


def _describe(attributes: dict[str, str], rng: np.random.Generator) -> str:
    """Two to four sentences in which every attribute has its words.

    Names are left out: a word that occurs once tells a class space nothing and weighs most in it.
    """
    said = {}
    for key, value in attributes.items():
        pair = rng.permutation(_WORDS[key][value])
        said[key] = (" and " if key in ("habitat", "size", "build") else ", ").join(
            str(word) for word in pair
        )
    opening = str(rng.choice(_OPENINGS))
    where = {"land": "on", "desert": "in the"}.get(attributes["habitat"], "in")
    said["habitat"] = f"{where} {said['habitat']}"
    opening = opening.format(Size=said["size"].capitalize(), **said)
    nouns = _NOUNS | ({"horns": "a {} brow"} if attributes["horns"] == "none" else {})
    rest = [str(key) for key in rng.permutation(list(nouns))]
    parts = int(rng.integers(1, 4))
    verbs = rng.permutation(_HAVING)
    sentences = [opening]
    for part in range(parts):
        listed = [_articled(nouns[key].format(said[key])) for key in rest[part::parts]]
        sentences.append(str(verbs[part]).format(list=", ".join(listed[:-1]) + " and " + listed[-1]))
    return ". ".join(sentences) + "."


def _articled(phrase: str) -> str:
    return f"an {phrase[2:]}" if phrase.startswith("a ") and phrase[2] in "aeiou" else phrase


# ---- what they look like ----

_COATS = {
    "black": (44, 41, 46), "grey": (138, 142, 148), "brown": (116, 76, 46), "red": (178, 62, 40),
    "golden": (222, 172, 62), "white": (238, 236, 230), "blue": (70, 112, 176), "green": (84, 146, 76),
}  # fmt: skip
_MARKINGS = {
    "ivory": (247, 236, 205),
    "dark": (38, 32, 36),
    "orange": (240, 132, 34),
    "violet": (142, 74, 168),
}
_BONE = (226, 208, 168)
_BILL = (236, 182, 48)
_UNIT = {"small": 0.30, "medium": 0.38, "large": 0.48}  # of the picture's side, per unit of anatomy
_HEAD = {"small": 0.27, "medium": 0.235, "large": 0.21}  # small animals have relatively large heads
_OVERSAMPLING = 2

Point = tuple[float, float]
Colour = tuple[int, int, int]


@dataclass
class _Shape:
    """A polygon (n, 2) in units of the body's length, y downwards, the animal facing right."""

    points: np.ndarray
    colour: Colour
    group: str  # shapes of one group share an outline
    coat: bool = False  # carries the pattern


class _Sketch:
    """Collects the shapes of an animal from back to front."""

    def __init__(self) -> None:
        self.shapes: list[_Shape] = []
        self.pattern: list[np.ndarray] = []

    def ellipse(
        self,
        centre: Point,
        rx: float,
        ry: float,
        colour: Colour,
        group: str,
        *,
        turn: float = 0.0,
        coat: bool = False,
    ) -> None:
        self.shapes.append(_Shape(_ellipse(centre, rx, ry, turn), colour, group, coat))

    def limb(
        self,
        line: Sequence[Point],
        widths: Sequence[float],
        colour: Colour,
        group: str,
        *,
        coat: bool = False,
    ) -> None:
        """A tapering limb along a line with the given widths at its points, round at both ends."""
        dense, wide = _smooth(np.array(line, float), np.array(widths, float))
        along = np.gradient(dense, axis=0)
        along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) * wide[:, None] / 2
        self.shapes.append(
            _Shape(np.concatenate([dense + across, (dense - across)[::-1]]), colour, group, coat)
        )
        for end in (0, -1):
            self.ellipse(
                (dense[end, 0], dense[end, 1]), wide[end] / 2, wide[end] / 2, colour, group, coat=coat
            )

    def polygon(self, points: Sequence[Point], colour: Colour, group: str, *, coat: bool = False) -> None:
        self.shapes.append(_Shape(np.array(points, float), colour, group, coat))


_ROUND = np.arange(28) * (2 * math.pi / 28)
_CIRCLE = np.stack([np.cos(_ROUND), np.sin(_ROUND)], axis=1)
_STEPS = (np.arange(8) / 8)[:, None]


def _ellipse(centre: Point, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    cos, sin = math.cos(turn), math.sin(turn)
    return _CIRCLE @ np.array([[rx * cos, rx * sin], [-ry * sin, ry * cos]]) + centre


def _smooth(line: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A Catmull-Rom curve through the points, eight steps a piece."""
    padded = np.concatenate([2 * line[:1] - line[1:2], line, 2 * line[-1:] - line[-2:-1]])
    t = _STEPS
    pieces = []
    for i in range(len(line) - 1):
        a, b, c, d = padded[i : i + 4]
        pieces.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        )
    dense = np.concatenate([*pieces, line[-1:]])
    return dense, np.interp(np.linspace(0, len(line) - 1, len(dense)), np.arange(len(line)), widths)


def _mix(colour: Colour, other: Colour, share: float) -> Colour:
    r, g, b = (round(a + (z - a) * share) for a, z in zip(colour, other, strict=True))
    return r, g, b


def _anatomy(animal: dict[str, str], rng: np.random.Generator) -> _Sketch:
    """The animal in a pose of its own."""
    sketch = _Sketch()
    coat, marking = _shift(_COATS[animal["colour"]], rng, 9), _MARKINGS[animal["marking"]]
    shade = _mix(coat, (0, 0, 0), 0.28) if animal["colour"] != "black" else (30, 28, 33)
    rx, ry = (0.50, 0.18) if animal["build"] == "slim" else (0.46, 0.29)
    drop = ry + (0.17 if animal["legs"] == "stumpy" else 0.52)  # from the body's centre to the ground
    thick = (0.13 if animal["legs"] == "stumpy" else 0.08) * (1.0 if animal["build"] == "slim" else 1.25)
    swing = rng.uniform(-0.13, 0.13, 4)

    def leg(x: float, step: float, colour: Colour, group: str) -> None:
        knee = (x + step * 0.2 + 0.02, ry * 0.6 + (drop - ry * 0.6) * 0.5)
        sketch.limb([(x, ry * 0.2), knee, (x + step, drop)], [thick * 1.7, thick, thick * 0.8], colour, group,
                    coat=group == "body")  # fmt: skip
        sketch.ellipse(
            (x + step + 0.03, drop), thick * 0.75, thick * 0.42, _mix(shade, (20, 16, 16), 0.5), group
        )

    for x, step in ((-rx * 0.62 + 0.1, swing[0]), (rx * 0.62 - 0.1, swing[1])):
        leg(x, step, shade, "far legs")
    _tail(sketch, animal["tail"], (-rx * 0.88, -ry * 0.25), coat, marking, rng)

    # Where the head goes, before anything in front of it is drawn.
    r = _HEAD[animal["size"]] * rng.uniform(0.95, 1.05)
    long = animal["neck"] == "long"
    angle = math.radians(rng.uniform(48, 82) if long else rng.uniform(18, 48))
    reach = 0.66 if long else 0.16
    root = (rx * 0.72, -ry * 0.35)
    tip = (root[0] + reach * math.cos(angle), root[1] - reach * math.sin(angle))
    bend = (root[0] + reach * 0.55 * math.cos(angle - 0.25), root[1] - reach * 0.55 * math.sin(angle - 0.25))
    head = (tip[0] + r * 0.45, tip[1] - r * 0.25)
    pitch = rng.uniform(-0.25, 0.3)

    def at(x: float, y: float) -> Point:
        """A point of the head, in head radii."""
        return (
            head[0] + r * (x * math.cos(pitch) - y * math.sin(pitch)),
            head[1] + r * (x * math.sin(pitch) + y * math.cos(pitch)),
        )

    if animal["back"] == "crested":
        _crest(sketch, rx, ry, marking)
    _horns(sketch, animal["horns"], at, r, far=True)
    _ear(sketch, animal["ears"], at, r, pitch, shade, marking, far=True)
    for x, step in ((-rx * 0.62, swing[2]), (rx * 0.62, swing[3])):
        leg(x, step, coat, "body")
    neck_widths = [ry * 1.35, r * (1.05 if long else 1.4), r * (0.95 if long else 1.4)]
    sketch.limb([root, bend, tip], neck_widths, coat, "body", coat=True)
    sketch.ellipse((0, 0), rx, ry, coat, "body", turn=rng.uniform(-0.06, 0.06), coat=True)
    if animal["back"] == "maned":
        _mane(sketch, root, bend, tip, ry, r, marking, rng)
    sketch.ellipse(head, r, r * 0.88, coat, "head", turn=pitch)
    _snout(sketch, animal["snout"], at, r, coat, rng)
    _ear(sketch, animal["ears"], at, r, pitch, coat, marking, far=False)
    _horns(sketch, animal["horns"], at, r, far=False)
    sketch.ellipse(at(0.38, -0.2), r * 0.25, r * 0.27, (250, 248, 240), "eye")
    sketch.ellipse(at(0.45, -0.19), r * 0.14, r * 0.17, (20, 16, 18), "pupil")
    sketch.pattern.append(_ellipse((0.02, ry * 1.0), rx * 0.8, ry * 0.58))
    _pattern(sketch, animal["pattern"], rx, ry, rng)
    return sketch


def _tail(
    sketch: _Sketch, kind: str, root: Point, coat: Colour, marking: Colour, rng: np.random.Generator
) -> None:
    x, y = root
    lift = rng.uniform(-0.12, 0.12)
    if kind == "stubby":
        sketch.ellipse((x - 0.07, y - 0.05 + lift / 3), 0.1, 0.075, coat, "tail", turn=0.4)
    elif kind == "tufted":
        sketch.limb(
            [(x, y), (x - 0.2, y - 0.02 + lift), (x - 0.32, y + 0.26 + lift)],
            [0.07, 0.045, 0.04],
            coat,
            "tail",
        )
        sketch.ellipse((x - 0.345, y + 0.33 + lift), 0.075, 0.12, marking, "tuft", turn=0.35)
    elif kind == "bushy":
        sketch.limb(
            [
                (x + 0.04, y),
                (x - 0.2, y - 0.12 + lift),
                (x - 0.34, y - 0.42 + lift),
                (x - 0.3, y - 0.66 + lift),
            ],
            [0.09, 0.25, 0.32, 0.06],
            coat,
            "tail",
        )
        sketch.limb([(x - 0.335, y - 0.5 + lift), (x - 0.30, y - 0.67 + lift)], [0.2, 0.05], marking, "tuft")
    else:
        turn = np.linspace(0, 1.45 * 2 * math.pi, 12)
        radius = np.linspace(0.2, 0.05, 12)
        centre = (x - 0.21, y - 0.2 + lift)
        curl = [
            (centre[0] + q * math.sin(t), centre[1] + q * math.cos(t))
            for t, q in zip(-turn, radius, strict=True)
        ]
        sketch.limb([(x + 0.03, y), *curl], [0.09, *np.linspace(0.085, 0.05, 12)], coat, "tail")


def _crest(sketch: _Sketch, rx: float, ry: float, marking: Colour) -> None:
    for position in np.linspace(-0.82, 0.62, 7):
        x, y = rx * position, -ry * math.sqrt(1 - position**2)
        sketch.polygon([(x - 0.075, y + 0.05), (x - 0.05, y - 0.17), (x + 0.075, y + 0.05)], marking, "crest")


def _mane(
    sketch: _Sketch,
    root: Point,
    bend: Point,
    tip: Point,
    ry: float,
    r: float,
    marking: Colour,
    rng: np.random.Generator,
) -> None:
    """Locks along the nape and the shoulders."""
    nape = [(root[0] - 0.24, root[1] - ry * 0.5), (root[0] - 0.08, root[1] - ry * 0.35), bend, tip]
    dense, _ = _smooth(np.array(nape), np.ones(4))
    for x, y in dense[::3]:
        lean = rng.uniform(-0.04, 0.04)
        lock = [(-0.35, -0.35), (-0.7, 0.25), (-0.6, 1.25)]
        line = [(x + r * a + lean * (b > 0), y + r * b) for a, b in lock]
        sketch.limb(line, [r * 0.5, r * 0.5, 0.02], marking, "mane")


def _snout(
    sketch: _Sketch,
    kind: str,
    at: Callable[[float, float], Point],
    r: float,
    coat: Colour,
    rng: np.random.Generator,
) -> None:
    nose = (34, 26, 30)
    if kind == "blunt":
        sketch.ellipse(at(0.75, 0.28), r * 0.55, r * 0.5, _mix(coat, (255, 250, 240), 0.35), "snout")
        sketch.ellipse(at(1.12, 0.1), r * 0.2, r * 0.16, nose, "nose")
    elif kind == "tapering":
        sketch.limb([at(0.4, 0.15), at(1.4, 0.42), at(2.2, 0.6)], [r * 1.25, r * 0.7, r * 0.24], coat, "head")
        sketch.ellipse(at(2.25, 0.58), r * 0.2, r * 0.18, nose, "nose")
    elif kind == "trunk":
        sway = rng.uniform(-0.3, 0.3)
        line = [
            at(0.55, 0.1),
            at(1.35, 0.5),
            at(1.5 + sway / 2, 1.6),
            at(1.75 + sway, 2.5),
            at(2.15 + sway, 2.7),
        ]
        sketch.limb(line, [r * 1.0, r * 0.75, r * 0.55, r * 0.45, r * 0.4], coat, "head")
    else:
        upper = [(0.6, -0.3), (1.5, 0.05), (2.3, 0.05), (2.4, 0.3), (1.4, 0.45), (0.6, 0.4)]
        lower = [(0.6, 0.3), (1.4, 0.42), (2.1, 0.42), (1.4, 0.75), (0.6, 0.65)]
        sketch.polygon([at(x, y) for x, y in upper], _BILL, "snout")
        sketch.polygon([at(x, y) for x, y in lower], _mix(_BILL, (120, 60, 10), 0.4), "snout")


def _ear(
    sketch: _Sketch,
    kind: str,
    at: Callable[[float, float], Point],
    r: float,
    pitch: float,
    coat: Colour,
    marking: Colour,
    *,
    far: bool,
) -> None:
    shift, group = (0.42, "far ear") if far else (0.0, "ear")
    inner = _mix((222, 150, 140), coat, 0.25)
    if kind == "round":
        sketch.ellipse(at(-0.42 + shift, -0.82), r * 0.34, r * 0.36, coat, group, turn=pitch)
    elif kind == "big":
        sketch.ellipse(at(-0.85 + shift, -1.15), r * 0.78, r * 1.0, coat, group, turn=pitch - 0.45)
        sketch.ellipse(at(-0.83 + shift, -1.1), r * 0.5, r * 0.7, inner, group + " inside", turn=pitch - 0.45)
    elif kind == "pointed":
        sketch.polygon(
            [at(-0.75 + shift, -0.45), at(-0.72 + shift, -1.9), at(0.0 + shift, -0.72)], coat, group
        )
        sketch.polygon(
            [at(-0.58 + shift, -0.72), at(-0.62 + shift, -1.5), at(-0.2 + shift, -0.8)],
            inner,
            group + " inside",
        )
    else:
        line = [at(-0.3 + shift, -0.75), at(-0.85 + shift / 2, -0.15), at(-0.75 + shift / 2, 1.0)]
        sketch.limb(line, [r * 0.4, r * 0.65, r * 0.75], _mix(coat, (0, 0, 0), 0.15), group)


def _horns(sketch: _Sketch, kind: str, at: Callable[[float, float], Point], r: float, *, far: bool) -> None:
    shift, group = (0.34, "far horn") if far else (0.0, "horn")
    colour = _mix(_BONE, (90, 60, 30), 0.35) if far else _BONE
    if kind == "straight":
        sketch.limb([at(0.1 + shift, -0.75), at(0.5 + shift, -2.3)], [r * 0.36, r * 0.07], colour, group)
    elif kind == "ram" and not far:
        turn = np.linspace(-0.4, 1.6 * math.pi, 10)
        radius = np.linspace(0.85, 0.5, 10)
        line = [
            at(-0.35 - q * math.sin(t), -0.25 - q * math.cos(t)) for t, q in zip(turn, radius, strict=True)
        ]
        sketch.limb(line, [r * w for w in np.linspace(0.5, 0.16, 10)], colour, group)
    elif kind == "antlers":
        beam = [at(0.05 + shift, -0.75), at(-0.35 + shift, -1.7), at(-0.05 + shift, -2.8)]
        sketch.limb(beam, [r * 0.26, r * 0.22, r * 0.14], colour, group)
        for start, end in (
            ((-0.25, -1.45), (0.55, -2.0)),
            ((-0.32, -1.9), (-1.05, -2.5)),
            ((-0.2, -2.3), (0.55, -2.75)),
        ):
            sketch.limb(
                [at(start[0] + shift, start[1]), at(end[0] + shift, end[1])],
                [r * 0.2, r * 0.12],
                colour,
                group,
            )


def _pattern(sketch: _Sketch, kind: str, rx: float, ry: float, rng: np.random.Generator) -> None:
    """Polygons of the marking's colour; they show where they lie on the coat."""
    if kind == "striped":
        first = rng.uniform(-0.03, 0.03)
        for x in np.arange(-rx * 0.95, rx + 0.7, 0.16) + first:
            slant = rng.uniform(-0.05, 0.05)
            top = [(x - 0.04, -1.6), (x + 0.035, -1.6)]
            point = [(x + 0.04 + slant, 0.0), (x + slant, ry * 0.55), (x - 0.035 + slant, 0.0)]
            sketch.pattern.append(np.array(top + point))
    elif kind == "spotted":
        for x in np.arange(-rx, rx + 0.7, 0.17):
            for y in np.arange(-1.1, ry * 0.7, 0.155):
                at = (x + rng.uniform(-0.045, 0.045), y + rng.uniform(-0.04, 0.04))
                sketch.pattern.append(_ellipse(at, rng.uniform(0.04, 0.058), rng.uniform(0.037, 0.052)))
    elif kind == "saddled":
        x = rng.uniform(-0.1, 0.04)
        half = [(0.27, -1.3), (0.23, 0.1), (0.1, 0.42)]
        blanket = [(x + a, ry * b) for a, b in half] + [(x - a, ry * b) for a, b in half[::-1]]
        sketch.pattern.append(np.array(blanket))


def draw(animal: Species, index: int, seed: int, side: int = 96) -> Image.Image:
    """Picture `index` of a species: an RGB image of `side` x `side` pixels.

    Pose, scale, place, direction, light, background, noise and what stands in front differ from picture to
    picture; the same species, index and seed give the same picture.
    """
    rng = _rng("draw", animal.name, index, seed)
    big = side * _OVERSAMPLING
    sketch = _anatomy(animal.attributes, rng)
    every = np.concatenate([shape.points for shape in sketch.shapes])
    low, high = every.min(axis=0), every.max(axis=0)
    unit = _UNIT[animal.attributes["size"]] * big * rng.uniform(0.85, 1.15)
    unit = min(unit, 0.97 * big / float((high - low).max()))
    foot = big * rng.uniform(0.72, 0.93)
    room = big - unit * float(high[0] - low[0])
    left = room * rng.uniform(0.05, 0.95)
    top = max(foot - unit * float(high[1]), 0.02 * big - unit * float(low[1]))
    foot = top + unit * float(high[1])
    tilt = rng.uniform(-0.07, 0.07)
    middle = (low + high) / 2

    turn = unit * np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    offset = (middle - [low[0], 0]) * unit + [left, top] - middle @ turn

    def place(points: np.ndarray) -> list[float]:
        flat: list[float] = (points @ turn + offset).ravel().tolist()
        return flat

    canvas = _background(animal.attributes["habitat"], big, foot, rng)
    mask = _paint(canvas, sketch, place, animal.attributes, unit)
    _foreground(canvas, animal.attributes["habitat"], big, foot, rng)
    picture = canvas.resize((side, side), Image.Resampling.BOX)
    shadow = mask.resize((side, side), Image.Resampling.BOX)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        shadow = shadow.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _light(picture, shadow, rng)


def _paint(
    canvas: Image.Image,
    sketch: _Sketch,
    place: Callable[[np.ndarray], list[float]],
    animal: dict[str, str],
    unit: float,
) -> Image.Image:
    """Paint the animal in ink and colour; returns the mask (L) it covers."""
    pen = ImageDraw.Draw(canvas)
    mask = Image.new("L", canvas.size)
    cover = ImageDraw.Draw(mask)
    ink = max(2, round(unit * 0.018))
    groups = list(dict.fromkeys(shape.group for shape in sketch.shapes))
    for group in groups:
        placed = [(place(shape.points), shape) for shape in sketch.shapes if shape.group == group]
        for points, shape in placed:
            outline = _mix(shape.colour, (22, 18, 24), 0.72)
            pen.line([*points, *points[:4]], fill=outline, width=2 * ink, joint="curve")
        for points, shape in placed:
            pen.polygon(points, fill=shape.colour)
            cover.polygon(points, fill=255)
        if group == "body" and sketch.pattern:
            skin, drawn = Image.new("L", canvas.size), Image.new("L", canvas.size)
            for points, shape in placed:
                if shape.coat:
                    ImageDraw.Draw(skin).polygon(points, fill=255)
            for patch in sketch.pattern:
                ImageDraw.Draw(drawn).polygon(place(patch), fill=255)
            both = Image.fromarray(np.minimum(np.asarray(skin), np.asarray(drawn)))
            canvas.paste(_MARKINGS[animal["marking"]], mask=both)
    return mask


def _shift(colour: Colour, rng: np.random.Generator, amount: float) -> Colour:
    r, g, b = (int(np.clip(value + rng.normal(0, amount), 0, 255)) for value in colour)
    return r, g, b


def _pastel(rng: np.random.Generator) -> Colour:
    r, g, b = (int(value) for value in rng.uniform(rng.uniform(90, 200), 245, 3))
    return r, g, b


_SCENES: dict[str, tuple[Colour, Colour, Colour]] = {  # sky above, sky at the horizon, ground
    "land": ((196, 220, 232), (236, 236, 214), (150, 168, 96)),
    "water": ((190, 214, 230), (224, 236, 236), (92, 152, 178)),
    "trees": ((150, 186, 138), (204, 220, 176), (104, 136, 84)),
    "snow": ((182, 196, 216), (218, 224, 234), (240, 244, 250)),
    "desert": ((244, 216, 166), (250, 232, 198), (226, 186, 126)),
}


def _background(habitat: str, big: int, foot: float, rng: np.random.Generator) -> Image.Image:
    """Sky, ground and a few props, on the paper of a field guide."""
    above, below, ground = (_shift(colour, rng, 9) for colour in _SCENES[habitat])
    # Dawn, dusk, fog: the palette alone must not give the habitat away.
    sky, hour = (_pastel(rng) for _ in range(2))
    above, below = (_mix(colour, sky, rng.uniform(0.75, 1.0)) for colour in (above, below))
    ground = _mix(ground, hour, rng.uniform(0.5, 0.95))
    horizon = foot - big * rng.uniform(0.06, 0.34)
    fade = np.clip(np.arange(big) / max(horizon, 1), 0, 1)[:, None]
    rows = np.array(above) * (1 - fade) + np.array(below) * fade
    canvas = Image.fromarray(np.repeat(rows[:, None, :], big, axis=1).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    waves = np.linspace(0, big, 25)
    height = big * (0.03 if habitat != "water" else 0.004)
    bumps = horizon + height * np.sin(waves / big * rng.uniform(4, 9) + rng.uniform(0, 6))
    if habitat != "water":
        hills = (
            horizon - big * 0.05 + 2 * height * np.sin(waves / big * rng.uniform(3, 8) + rng.uniform(0, 6))
        )
        pen.polygon([*zip(waves, hills, strict=True), (big, big), (0, big)], fill=_mix(ground, below, 0.6))
    pen.polygon([*zip(waves, bumps, strict=True), (big, big), (0, big)], fill=ground)
    for _ in range(int(rng.integers(6, 12))):
        _prop(pen, habitat, big, horizon, ground, rng)
    if habitat == "trees":
        thick = big * rng.uniform(0.06, 0.09)
        slope = rng.uniform(-0.05, 0.05) * big
        bough = [(-9, foot - slope), (big * 0.5, foot - thick * 0.1), (big + 9, foot + slope)]
        edge = [(x, y + thick) for x, y in bough[::-1]]
        pen.polygon([*bough, *edge], fill=(112, 84, 60), outline=(62, 44, 34))
    return canvas


def _prop(
    pen: ImageDraw.ImageDraw, habitat: str, big: int, horizon: float, ground: Colour, rng: np.random.Generator
) -> None:
    x, y = rng.uniform(0, big), rng.uniform(horizon, big)
    s = big * rng.uniform(0.03, 0.07)
    if habitat == "land":
        _tuft(pen, x, y, s, _mix(ground, (60, 96, 40), 0.6), rng)
    elif habitat == "water":
        pen.line([(x - s, y), (x + s, y)], fill=_mix(ground, (255, 255, 255), 0.45), width=3)
    elif habitat == "trees":
        y = rng.uniform(0, big)
        leaf = _ellipse((x, y), s * 1.5, s * 0.7, rng.uniform(0, 3))
        pen.polygon(
            [(float(a), float(b)) for a, b in leaf], fill=_mix(ground, (40, 90, 40), rng.uniform(0.2, 0.8))
        )
    elif habitat == "snow":
        y = rng.uniform(0, big)
        pen.ellipse([x - s * 0.25, y - s * 0.25, x + s * 0.25, y + s * 0.25], fill=(252, 253, 255))
        fir = horizon + big * 0.01
        x = rng.uniform(0, big)
        pen.polygon([(x - s, fir), (x, fir - 2.6 * s), (x + s, fir)], fill=(96, 124, 122))
    else:
        pen.arc(
            [x - 2 * s, y - s, x + 2 * s, y + s], 200, 340, fill=_mix(ground, (150, 100, 50), 0.5), width=3
        )
        if rng.random() < 0.3:
            base = horizon + big * 0.02
            pen.line([(x, base), (x, base - 3.2 * s)], fill=(112, 140, 92), width=max(3, int(s * 0.7)))
            pen.line(
                [(x, base - 1.4 * s), (x + s, base - 1.5 * s), (x + s, base - 2.4 * s)],
                fill=(112, 140, 92),
                width=4,
            )


def _tuft(
    pen: ImageDraw.ImageDraw, x: float, y: float, s: float, colour: Colour, rng: np.random.Generator
) -> None:
    for lean in np.linspace(-0.6, 0.6, 5) + rng.uniform(-0.1, 0.1, 5):
        pen.line([(x + lean * s * 0.4, y), (x + lean * s, y - s)], fill=colour, width=3)


def _foreground(canvas: Image.Image, habitat: str, big: int, foot: float, rng: np.random.Generator) -> None:
    """The surface of the water over the feet, and now and then something that hides a part of the animal."""
    pen = ImageDraw.Draw(canvas)
    if habitat == "water":
        level = round(foot - big * rng.uniform(0.02, 0.05))
        pool = canvas.crop((0, level, big, big))
        blue = Image.new("RGB", pool.size, _shift((86, 146, 174), rng, 6))
        canvas.paste(Image.blend(pool, blue, 0.7), (0, level))
        pen.line([(0, level), (big, level)], fill=(196, 224, 232), width=2)
    if rng.random() < 0.6:
        return
    x, s = rng.uniform(0.05, 0.95) * big, big * rng.uniform(0.1, 0.2)
    if habitat in ("land", "water"):
        _tuft(pen, x, big + 2, s * 1.6, _shift((88, 118, 58), rng, 10), rng)
    elif habitat == "trees":
        y = rng.uniform(0.1, 0.9) * big
        leaf = _ellipse((x, y), s * 0.8, s * 0.36, rng.uniform(0, 3))
        pen.polygon(
            [(float(a), float(b)) for a, b in leaf], fill=_shift((78, 120, 62), rng, 10), outline=(46, 78, 40)
        )
    else:
        colour = (248, 250, 253) if habitat == "snow" else (176, 136, 92)
        pen.ellipse(
            [x - s * 1.2, big - s * 0.7, x + s * 1.2, big + s],
            fill=_shift(colour, rng, 4),
            outline=(150, 140, 130),
        )


def _light(picture: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Form shading, the hour's light, faded paper edges, a little blur and grain."""
    side = picture.width
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    pixels = np.asarray(picture, np.float32)
    cover = np.asarray(mask, np.float32)[..., None] / 255
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    rows = np.flatnonzero(cover.max(axis=(1, 2)) > 0.5)
    span = (rows[0] / side - 0.5, rows[-1] / side - 0.5) if len(rows) else (-0.5, 0.5)
    fall = (y - span[0]) / max(span[1] - span[0], 1e-3)
    pixels *= 1 + cover * (0.10 - 0.26 * np.clip(fall, 0, 1))[..., None]
    slope = rng.uniform(-0.4, 0.4, 2)
    tint = rng.uniform(0.75, 1.25, 3)
    pixels *= rng.uniform(0.55, 1.25) * (1 + slope[0] * x + slope[1] * y)[..., None] * tint
    edge = np.clip((np.maximum(abs(x), abs(y)) - rng.uniform(0.40, 0.46)) * 9, 0, 1)[..., None] * rng.uniform(
        0, 0.9
    )
    pixels = pixels * (1 - edge * (1 - cover)) + np.array([243, 234, 214]) * edge * (1 - cover)
    pixels += rng.normal(0, rng.uniform(2, 9), pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
