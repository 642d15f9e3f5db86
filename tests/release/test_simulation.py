"""The gate's own odds, in short: bench/release.py has them in full."""

from __future__ import annotations

import numpy as np
import release as simulation

DEMO = simulation.SIZES[0]
DRAWS = 40


def promoted(difference: float) -> float:
    (row,) = simulation.power(DEMO, [difference], [simulation.DEFAULTS.epsilon], DRAWS, 0, **simulation.OTHER)
    return row["promoted"][str(simulation.DEFAULTS.epsilon)]


def test_the_default_epsilon_promotes_a_better_model_and_refuses_a_worse_one() -> None:
    assert promoted(-0.05) <= 0.02
    assert promoted(0.10) >= 0.95


def test_slices_refuse_hardly_ever_by_chance_and_mostly_where_one_is_lost() -> None:
    chance = np.random.default_rng(1)
    equal = [
        simulation.refusals(simulation.draw(DEMO, 0.0, chance, correlation=0.92, spread=0.0), DEMO)["gate"]
        for _ in range(DRAWS)
    ]
    assert np.mean([bool(refused) for refused in equal]) <= 0.1
    lost = [
        simulation.draw(DEMO, 0.05, chance, group="2", loss=0.3, **simulation.OTHER) for _ in range(DRAWS)
    ]
    assert np.mean(["group 2" in simulation.refusals(pair, DEMO)["gate"] for pair in lost]) >= 0.8


def test_what_is_drawn_differs_by_as_much_as_is_asked_for() -> None:
    chance = np.random.default_rng(2)
    pairs = [simulation.draw(DEMO, 0.05, chance, group="1", loss=0.2, **simulation.OTHER) for _ in range(40)]
    more = np.mean([pair.new.among_unseen - pair.old.among_unseen for pair in pairs], axis=0)
    unseen, group = pairs[0].unseen, np.isin(pairs[0].label, [n for n, g in DEMO.groups.items() if g == "1"])
    assert abs(more[unseen].mean() - 0.05) < 0.02
    assert abs(more[unseen & group].mean() + 0.2) < 0.04
