"""Why one class and not another: what each difference between the two adds to the difference of their scores.

Integrated gradients (Sundararajan, Taly & Yan 2017) along the straight way from the runner-up to the winner: what
an attribute, a word or a term counts is the integral of how fast it moves the cosine with the picture. These add
up to the difference of the two cosines, whatever the mapper; what both classes share counts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ayeaye.class_vectors.contrast import Contrast
from ayeaye.core.unit_vectors import unit, unit_gradients
from ayeaye.mappers import Mapper

STEPS = 48  # errors of 1e-5 to 1e-4 in a contribution, of up to 1e-3 with a network
SAID_FOR, SAID_AGAINST = 3, 2  # differences in a sentence
SMALLEST = 0.005  # a contribution that rounds to 0.00 is not put into words


def contributions(image: np.ndarray, mapper: Mapper, contrast: Contrast, steps: int = STEPS) -> np.ndarray:
    """What each of the p differences (p,) adds to the cosine with a mapped image (m,).

    They sum to the cosine at the end of the way less that at its beginning. The rates at both ends of a step, by
    the trapezoidal rule, do not quite add up to what the step gains, less so where it goes round a bend of a
    mapper's ReLU; what is left over is shared out by the size of the rates (a discrete gradient, Gonzalez 1996,
    with these for a metric). More nodes alone would not do: with a network 1e-4 takes thousands.
    """
    picture = unit(image[None].astype(np.float64))
    times = np.linspace(0, 1, steps + 1)
    vectors = contrast.vectors(times)
    mapped = mapper.map_classes(vectors)
    gains = np.diff(unit(mapped.astype(np.float64)) @ picture[0])
    gradients = unit_gradients(mapped, np.repeat(picture, len(times), axis=0))
    rates = contrast.rates(times, mapper.class_gradients(vectors, gradients))
    rates = (rates[1:] + rates[:-1]) / (2 * steps)
    # Evenly where no rate tells: between two opposite classes the way turns round on the spot.
    sizes = np.abs(rates) + 1e-12
    left = gains - rates.sum(axis=1)
    return rates.sum(axis=0) + (left / sizes.sum(axis=1)) @ sizes


def sentence(explained: Mapping[str, Any]) -> str:
    """The strongest differences of an explanation in words: `a rather than b: small (+0.12), no neck (+0.05); …`."""
    parts = [part for part in explained["parts"] if abs(part["contribution"]) >= SMALLEST]
    speaking = [_counted(phrase(part), part["contribution"]) for part in parts if part["contribution"] > 0]
    against = [_counted(phrase(part), part["contribution"]) for part in parts if part["contribution"] < 0]
    others = [
        _counted(name, explained[key])
        for name, key in (("correction of hubs", "hub_correction"), ("offset of seen classes", "seen_offset"))
        if abs(explained[key]) >= SMALLEST
    ]
    said = [
        ", ".join(speaking[:SAID_FOR]) or "nothing that was said of them speaks for it",
        *(["against it: " + ", ".join(against[:SAID_AGAINST])] if against else []),
        *(["besides: " + ", ".join(others)] if others else []),
    ]
    return f"{explained['label']} rather than {explained['against']}: {'; '.join(said)}"


def phrase(part: Mapping[str, Any]) -> str:
    """A difference as the winner has it: `bushy tail`, `more bushy tail`, `less bushy tail`, `no bushy tail`.

    An attribute called `tail=bushy` is a bushy tail, `horns=none` no horns.
    """
    what, equals, how = part["name"].partition("=")
    name, absent = (f"{how} {what}", f"no {how} {what}") if equals else (what, f"no {what}")
    if how == "none":
        name, absent = f"no {what}", what
    value, against = part["value"], part["against_value"]
    if value is None:
        return f"{name} as a whole"
    if value > against:
        return f"more {name}" if against else name
    return f"less {name}" if value else absent


def _counted(said: str, contribution: float) -> str:
    return f"{said} ({'−' if contribution < 0 else '+'}{abs(contribution):.2f})"
