"""Every mapper is held to the same: it learns, transfers to unseen classes, and repeats itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ayeaye.errors import ClassSpaceError, DataError, ParamsError
from ayeaye.labelling.nearest import scores
from ayeaye.mapping import MAPPERS, Mapper, create
from ayeaye.mapping.base import unit


@dataclass
class World:
    """Images whose embeddings follow from class vectors, with noise; the last 8 of 32 classes are unseen."""

    X: np.ndarray
    y: np.ndarray
    A: np.ndarray
    queries: np.ndarray
    truth: np.ndarray

    @property
    def unseen(self) -> np.ndarray:
        return np.arange(24, 32)


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(0)
    A = unit(rng.standard_normal((32, 6)))
    looks = A @ rng.standard_normal((6, 48)) + 3
    y, truth = np.repeat(np.arange(24), 12), np.repeat(np.arange(24, 32), 12)
    X, queries = (looks[c] + 0.5 * rng.standard_normal((len(c), 48)) for c in (y, truth))
    return World(X.astype(np.float32), y, A.astype(np.float32), queries.astype(np.float32), truth)


@pytest.fixture(params=sorted(MAPPERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def fitted(world: World) -> dict[str, Mapper]:
    return {name: create(name).fit(world.X, world.y, world.A) for name in MAPPERS}


def accuracy(mapper: Mapper, world: World, A: np.ndarray) -> float:
    found = scores(mapper.map_images(world.queries), mapper.map_classes(A[world.unseen]))
    return float(np.mean(world.unseen[found.argmax(axis=1)] == world.truth))


def test_unseen_classes_are_told_apart(name: str, fitted: dict[str, Mapper], world: World) -> None:
    assert accuracy(fitted[name], world, world.A) > 0.7


def test_class_vectors_that_say_nothing_lead_to_chance(name: str, world: World) -> None:
    noise = unit(np.random.default_rng(1).standard_normal(world.A.shape)).astype(np.float32)
    mapper = create(name).fit(world.X, world.y, noise)
    assert accuracy(mapper, world, noise) < 0.4


def test_unseen_class_vectors_play_no_part_in_training(
    name: str, fitted: dict[str, Mapper], world: World
) -> None:
    changed = world.A.copy()
    changed[world.unseen] = -1
    other = create(name).fit(world.X, world.y, changed)
    for key, array in fitted[name].state().items():
        np.testing.assert_array_equal(array, other.state()[key])


def test_both_towers_land_in_one_space(name: str, fitted: dict[str, Mapper], world: World) -> None:
    images, classes = fitted[name].map_images(world.queries), fitted[name].map_classes(world.A)
    assert images.dtype == classes.dtype == np.float32
    assert images.shape == (len(world.queries), classes.shape[1])
    assert len(classes) == len(world.A)


def test_fitting_twice_gives_the_same_bits_whatever_ran_before(
    name: str, fitted: dict[str, Mapper], world: World
) -> None:
    import torch

    torch.rand(7)
    again = create(name).fit(world.X, world.y, world.A)
    for key, array in fitted[name].state().items():
        np.testing.assert_array_equal(array, again.state()[key])


def test_fitting_leaves_the_random_numbers_of_others_alone(name: str, world: World) -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    create(name).fit(world.X, world.y, world.A)
    assert torch.equal(torch.rand(3), expected)


def test_fitting_leaves_denormal_numbers_alone(name: str, world: World) -> None:
    create(name).fit(world.X, world.y, world.A)
    assert np.float64(5e-324) / np.float64(1) > 0


def test_a_saved_mapper_maps_as_before(name: str, fitted: dict[str, Mapper], world: World, tmp_path) -> None:
    mapper = fitted[name]
    save_file(mapper.state(), tmp_path / "mapper.safetensors")
    again = MAPPERS[name].from_state(mapper.settings, load_file(tmp_path / "mapper.safetensors"))
    np.testing.assert_array_equal(again.map_images(world.queries), mapper.map_images(world.queries))
    np.testing.assert_array_equal(again.map_classes(world.A), mapper.map_classes(world.A))


def test_one_image_is_mapped_as_it_is_among_many(name: str, fitted: dict[str, Mapper], world: World) -> None:
    whole = fitted[name].map_images(world.queries)
    np.testing.assert_allclose(fitted[name].map_images(world.queries[3:4])[0], whole[3], atol=1e-4)


def test_the_length_of_embeddings_does_not_matter(name: str, fitted: dict[str, Mapper], world: World) -> None:
    mapper = fitted[name]
    np.testing.assert_allclose(
        mapper.map_images(7 * world.queries), mapper.map_images(world.queries), atol=1e-4
    )


def test_every_setting_of_the_grid_fits(name: str, world: World) -> None:
    for settings in MAPPERS[name].grid():
        assert accuracy(create(name, **settings).fit(world.X, world.y, world.A), world, world.A) > 0.4


def test_more_class_dimensions_than_classes_are_fine(name: str, world: World) -> None:
    wide = np.hstack([world.A, np.zeros((32, 90), np.float32)])
    assert accuracy(create(name).fit(world.X, world.y, wide), world, wide) > 0.7


def test_a_class_of_one_image_is_fine(name: str, world: World) -> None:
    keep = (world.y > 0) | (np.arange(len(world.y)) == 0)
    assert accuracy(create(name).fit(world.X[keep], world.y[keep], world.A), world, world.A) > 0.6


def test_a_constant_dimension_is_fine(name: str, world: World) -> None:
    X = world.X.copy()
    X[:, 0] = 0
    mapper = create(name).fit(X, world.y, world.A)
    assert np.isfinite(mapper.map_images(world.queries)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(name: str, fitted: dict[str, Mapper], world: World, bad: float) -> None:
    X, A = world.X.copy(), world.A.copy()
    X[5, 0] = A[2, 1] = bad
    with pytest.raises(DataError, match="embedding 5"):
        create(name).fit(X, world.y, world.A)
    with pytest.raises(DataError, match="embedding 5"):
        fitted[name].map_images(X)
    with pytest.raises(ClassSpaceError, match="class vector 2"):
        create(name).fit(world.X, world.y, A)
    with pytest.raises(ClassSpaceError, match="class vector 2"):
        fitted[name].map_classes(A)


def test_labels_that_cannot_be_trained_on_are_refused(name: str, world: World) -> None:
    with pytest.raises(DataError, match="287 labels"):
        create(name).fit(world.X, world.y[1:], world.A)
    with pytest.raises(DataError, match="rows of the 32"):
        create(name).fit(world.X, world.y + 30, world.A)
    with pytest.raises(DataError, match="1 classes have training images"):
        create(name).fit(world.X, np.zeros_like(world.y), world.A)


def test_arrays_of_another_width_are_refused(name: str, fitted: dict[str, Mapper], world: World) -> None:
    with pytest.raises(DataError, match=r"expected \(n, 48\)"):
        fitted[name].map_images(world.X[:, :-1])
    with pytest.raises(ClassSpaceError, match=r"expected \(C, 6\)"):
        fitted[name].map_classes(world.A[:, :-1])


def test_an_unknown_setting_or_mapper_names_the_known_ones(name: str) -> None:
    with pytest.raises(ParamsError, match="known: "):
        create(name, penalti=1)
    with pytest.raises(ParamsError, match=", ".join(MAPPERS)):
        create("riidge")


class TestRidge:
    def test_primal_and_dual_agree(self, world: World) -> None:
        """6 dimensions and 24 classes are solved in the primal; 90 empty dimensions more force the dual."""
        wide = np.hstack([world.A, np.zeros((32, 90), np.float32)])
        primal, dual = (create("ridge", kernel="linear").fit(world.X, world.y, A) for A in (world.A, wide))
        assert len(primal.state()["support"]) == 6
        assert len(dual.state()["support"]) == 24
        np.testing.assert_allclose(primal.map_classes(world.A), dual.map_classes(wide), atol=1e-5)

    def test_agrees_with_scikit_learn(self, world: World) -> None:
        from sklearn.linear_model import Ridge

        means = np.stack([unit(world.X[world.y == c]).mean(axis=0) for c in range(24)])
        reference = Ridge(alpha=0.3, fit_intercept=False).fit(world.A[:24], means - means.mean(axis=0))
        mapped = (
            create("ridge", penalty=0.3, kernel="linear", shrinkage=None)
            .fit(world.X, world.y, world.A)
            .map_classes(world.A)
        )
        np.testing.assert_allclose(mapped, reference.predict(world.A), atol=1e-5)

    def test_an_unknown_kernel_is_refused(self) -> None:
        with pytest.raises(ParamsError, match="known: linear, quadratic, gaussian"):
            create("ridge", kernel="cubic")


class TestDropLast:
    def test_classifies_the_seen_classes_by_their_frozen_vectors(
        self, fitted: dict[str, Mapper], world: World
    ) -> None:
        mapper = fitted["drop_last"]
        found = scores(mapper.map_images(world.X), mapper.map_classes(world.A[:24]))
        assert np.mean(found.argmax(axis=1) == world.y) > 0.8

    def test_the_class_tower_keeps_the_cosines_of_seen_classes(
        self, fitted: dict[str, Mapper], world: World
    ) -> None:
        mapped = fitted["drop_last"].map_classes(world.A[:24])
        np.testing.assert_allclose(mapped @ mapped.T, world.A[:24] @ world.A[:24].T, atol=1e-4)

    def test_another_seed_is_another_network(self, world: World) -> None:
        one, other = (create("drop_last").fit(world.X, world.y, world.A, seed=seed) for seed in (0, 1))
        assert not np.array_equal(one.map_images(world.queries), other.map_images(world.queries))
