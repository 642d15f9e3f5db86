"""Agreement of class vectors with what classes look like."""

from __future__ import annotations

import numpy as np
import pytest

from ayeaye.class_vectors.quality import judge, leave_one_out_rank, neighbour_overlap, spearman
from ayeaye.core.errors import ClassSpaceError


@pytest.fixture
def spaces() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class vectors, what looks follow from them, and looks that have nothing to do with them."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((24, 6))
    visual = vectors @ rng.standard_normal((6, 40)) + 0.3 * rng.standard_normal((24, 40))
    return vectors, visual, rng.standard_normal((24, 40))


def test_looks_that_follow_from_the_vectors_agree(spaces) -> None:
    vectors, visual, _ = spaces
    found = spearman(vectors, visual, permutations=199)
    assert found["rho"] > 0.5
    assert found["p"] == 1 / 200
    assert neighbour_overlap(vectors, visual) > 0.5
    assert leave_one_out_rank(vectors, visual)["mean"] < 4


def test_unrelated_looks_do_not(spaces) -> None:
    vectors, _, noise = spaces
    found = spearman(vectors, noise, permutations=199)
    assert abs(found["rho"]) < 0.25
    assert found["p"] > 0.05
    assert neighbour_overlap(vectors, noise) < 0.45
    assert leave_one_out_rank(vectors, noise)["mean"] > 8


def test_a_space_agrees_with_itself(spaces) -> None:
    vectors, _, _ = spaces
    assert spearman(vectors, vectors, permutations=9)["rho"] == pytest.approx(1)
    assert neighbour_overlap(vectors, vectors) == 1


def test_rho_is_that_of_scipy(spaces) -> None:
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    vectors, visual, _ = spaces
    a, b = (pdist(space - space.mean(axis=0), "cosine") for space in (vectors, visual))
    assert spearman(vectors, visual, permutations=1)["rho"] == pytest.approx(spearmanr(a, b).statistic)


def test_p_values_are_uniform_where_nothing_agrees() -> None:
    rng = np.random.default_rng(1)
    values = [
        spearman(rng.standard_normal((10, 4)), rng.standard_normal((10, 4)), permutations=39, seed=seed)["p"]
        for seed in range(200)
    ]
    assert np.mean(np.array(values) <= 0.1) == pytest.approx(0.1, abs=0.06)


def test_left_out_predictions_are_those_of_fitting_again(spaces) -> None:
    vectors, visual, _ = spaces
    from ayeaye.mappers.base import unit

    targets = unit(visual) - unit(visual).mean(axis=0)
    ranks = []
    for row in range(len(vectors)):
        rest = np.arange(len(vectors)) != row
        S = unit(vectors)[rest]
        alpha = np.linalg.solve(S @ S.T + 0.3 * np.eye(len(S)), targets[rest])
        cosines = unit(targets) @ (unit(vectors)[row] @ S.T @ alpha)
        ranks.append(1 + np.sum(cosines > cosines[row]))
    assert leave_one_out_rank(vectors, visual)["mean"] == pytest.approx(np.mean(ranks))


@pytest.mark.parametrize("rows", [(24, 23), (3, 3)])
def test_spaces_that_cannot_be_compared_are_refused(spaces, rows: tuple[int, int]) -> None:
    vectors, visual, _ = spaces
    with pytest.raises(ClassSpaceError):
        spearman(vectors[: rows[0]], visual[: rows[1]])


@pytest.mark.parametrize(("classes", "k"), [(4, 2), (6, 4), (30, 5)])
def test_every_figure_is_judged_beside_what_chance_would_give(classes, k):
    vectors = np.random.default_rng(0).normal(size=(classes, 6))
    found = judge(vectors, vectors)
    assert (found["neighbours"], found["neighbour_overlap_chance"]) == (k, k / (classes - 1))
    assert found["neighbour_overlap"] == 1 and found["rho"] == pytest.approx(1)
    rank = found["leave_one_out_rank"]
    assert rank["relative"] == rank["mean"] / rank["chance"] == rank["mean"] / ((classes + 1) / 2)


def test_noise_is_ranked_and_overlaps_as_chance_says():
    chance = np.random.default_rng(0)
    found = [judge(chance.normal(size=(20, 5)), chance.normal(size=(20, 9)), seed=i) for i in range(40)]
    assert np.mean([each["neighbour_overlap"] for each in found]) == pytest.approx(5 / 19, abs=0.02)
    assert np.mean([each["leave_one_out_rank"]["relative"] for each in found]) == pytest.approx(1, abs=0.1)


def test_so_few_classes_have_no_figures():
    assert judge(np.eye(3), np.eye(3)) == {"classes": 3, "rho": None, "p": None, "descriptions_p": None}


def test_descriptions_of_other_classes_are_found_out_beside_names_that_tell() -> None:
    chance = np.random.default_rng(0)
    looks, elsewhere = chance.normal(size=(40, 6)), chance.normal(size=(40, 6))
    both = np.hstack([looks, elsewhere])
    assert judge(both, looks)["p"] == 0.001
    assert judge(both, looks)["descriptions_p"] is None
    assert judge(both, looks, elsewhere)["descriptions_p"] > 0.05
    assert judge(both, looks, looks)["descriptions_p"] == 0.001
