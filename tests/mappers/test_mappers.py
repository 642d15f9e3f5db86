"""Every mapper is held to the same: it learns, transfers to unseen classes, and repeats itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ayeaye.classifier.nearest import scores
from ayeaye.core.errors import ClassSpaceError, DataError, ParamsError
from ayeaye.mappers import MAPPERS, Mapper, create, ridge
from ayeaye.mappers.base import frozen, remembered, unit
from ayeaye.mappers.moments import Tridiagonal

NEURAL = ("drop_last", "prototype", "rank")


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


def mapper_scores(mapper: Mapper, world: World, A: np.ndarray) -> np.ndarray:
    return scores(mapper.map_images(world.queries), mapper.map_classes(A[world.unseen]))


def accuracy(mapper: Mapper, world: World, A: np.ndarray) -> float:
    found = mapper_scores(mapper, world, A)
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


def test_the_order_of_classes_and_images_does_not_matter(
    name: str, fitted: dict[str, Mapper], world: World
) -> None:
    rng = np.random.default_rng(2)
    classes, images = rng.permutation(len(world.A)), rng.permutation(len(world.y))
    number = np.argsort(classes)
    other = create(name).fit(world.X[images], number[world.y[images]], world.A[classes])
    found = scores(other.map_images(world.queries), other.map_classes(world.A[world.unseen]))
    if name in NEURAL:  # other batches make another network, but one as good
        assert np.mean(world.unseen[found.argmax(axis=1)] == world.truth) > 0.7
    else:
        np.testing.assert_allclose(found, mapper_scores(fitted[name], world, world.A), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (1, 1)])
def test_one_dimension_is_fine(name: str, shape: tuple[int, int]) -> None:
    """Little can be told apart there, but it is no error."""
    width, space = shape
    rng = np.random.default_rng(0)
    X, A = rng.standard_normal((40, width)), rng.standard_normal((10, space))
    mapper = create(name).fit(X.astype(np.float32), np.repeat(np.arange(8), 5), A.astype(np.float32))
    assert np.isfinite(mapper.map_images(X)).all()
    assert np.isfinite(mapper.map_classes(A)).all()


def test_float16_embeddings_are_fine(name: str, fitted: dict[str, Mapper], world: World) -> None:
    half = create(name).fit(world.X.astype(np.float16), world.y, world.A)
    assert half.map_images(world.queries.astype(np.float16)).dtype == np.float32
    assert accuracy(half, world, world.A) > 0.7


def test_unbalanced_classes_are_fine(name: str, world: World) -> None:
    """Of every other class all images but two are missing."""
    place = np.arange(len(world.y)) % 12
    keep = (world.y % 2 == 0) | (place < 2)
    assert accuracy(create(name).fit(world.X[keep], world.y[keep], world.A), world, world.A) > 0.6


def test_fewer_images_than_dimensions_are_fine(name: str, world: World) -> None:
    keep = np.arange(len(world.y)) % 12 < 1
    mapper = create(name).fit(world.X[keep], world.y[keep], world.A)
    assert np.isfinite(mapper_scores(mapper, world, world.A)).all()
    assert accuracy(mapper, world, world.A) > 0.4


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


def test_images_that_were_changed_in_place_are_mapped_anew(
    name: str, fitted: dict[str, Mapper], world: World
) -> None:
    images = world.queries.copy()
    fitted[name].map_images(images)
    images[:] = world.queries[::-1]
    found = fitted[name].map_images(images)
    np.testing.assert_allclose(found, fitted[name].map_images(world.queries)[::-1], atol=1e-5)


def test_arrays_of_another_width_are_refused(name: str, fitted: dict[str, Mapper], world: World) -> None:
    with pytest.raises(DataError, match=r"expected \(n, 48\)"):
        fitted[name].map_images(world.X[:, :-1])
    with pytest.raises(ClassSpaceError, match=r"expected \(C, 6\)"):
        fitted[name].map_classes(world.A[:, :-1])


TOWERS = [
    *((name, {}) for name in sorted(MAPPERS)),
    *(("ridge", {"kernel": kernel, "shrinkage": None}) for kernel in ridge.KERNELS),
    ("eszsl", {"space": "images"}),
    (
        "blend",
        {"members": [{"mapper": "ridge", "columns": [0, 4]}, {"mapper": "prototype", "columns": [2, 6]}]},
    ),
]


@pytest.mark.parametrize(("tower", "settings"), TOWERS, ids=str)
@pytest.mark.parametrize("signed", [True, False])
def test_class_gradients_are_those_of_the_class_tower(
    tower: str, settings: dict, signed: bool, world: World
) -> None:
    """Against central differences, in directions and at lengths of chance."""
    rng = np.random.default_rng(4)
    mapper = create(tower, **settings).fit(world.X if signed else np.abs(world.X), world.y, world.A)
    A = 1.7 * world.A.astype(np.float64)
    G = rng.standard_normal(mapper.map_classes(A).shape)
    found = mapper.class_gradients(A, G)
    assert found.shape == A.shape
    step = 1e-3 * rng.standard_normal(A.shape)
    ahead, behind = (mapper.map_classes(A + side * step).astype(np.float64) for side in (1, -1))
    wrong = np.sum(found * step, axis=1) - np.sum(G * (ahead - behind), axis=1) / 2
    # Towers round to single precision; a prototype's ReLUs bend between both sides, which has a test of its own.
    bound = 0.1 if "prototype" in str((tower, settings)) else 2e-3
    assert np.abs(wrong / np.linalg.norm(found, axis=1)).max() < bound * 1e-3


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

    def test_a_kernel_agrees_with_scikit_learn(self, world: World) -> None:
        from sklearn.kernel_ridge import KernelRidge

        means = np.stack([unit(world.X[world.y == c]).mean(axis=0) for c in range(24)])
        reference = KernelRidge(alpha=0.3, kernel="poly", degree=2, gamma=1, coef0=1)
        reference.fit(world.A[:24], means - means.mean(axis=0))
        mapper = create("ridge", penalty=0.3, kernel="quadratic", shrinkage=None)
        mapped = mapper.fit(world.X, world.y, world.A).map_classes(world.A)
        np.testing.assert_allclose(mapped, reference.predict(world.A), atol=1e-5)

    def test_the_metric_is_that_of_the_roots_of_embeddings_without_a_negative_number(
        self, world: World
    ) -> None:
        signed = world.X - world.X.mean(axis=0)
        for X, rows in ((np.abs(world.X) ** 2, np.abs(world.X)), (signed, signed)):
            mapper = create("ridge", shrinkage=1e9).fit(X, world.y, world.A)  # a metric that leaves all alike
            plain = create("ridge", shrinkage=None).fit(rows, world.y, world.A)
            cosines = unit(mapper.map_images(X)) @ unit(plain.map_images(rows)).T
            np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-4)

    @pytest.mark.parametrize(("signed", "shrinkage"), [(True, 0.5), (False, 0.5), (False, 1e-5)])
    def test_the_metric_is_the_inverse_of_what_varies_within_classes(
        self, world: World, signed: bool, shrinkage: float
    ) -> None:
        X = (world.X if signed else np.abs(world.X)).astype(np.float64)
        mapper = create("ridge", penalty=0.3, kernel="gaussian", shrinkage=shrinkage).fit(X, world.y, world.A)
        rows = unit(X if signed else np.sqrt(X))
        means = np.stack([rows[world.y == c].mean(axis=0) for c in range(24)])
        within = rows - means[world.y]
        weights = 1 / (24 * np.bincount(world.y)[world.y])
        C = (within * weights[:, None]).T @ within
        expected = np.linalg.inv(C + shrinkage * np.trace(C) / 48 * np.eye(48)) * np.trace(C) / 48
        metric = mapper.state()["metric"].astype(np.float64)
        np.testing.assert_allclose(metric.T @ metric, expected, atol=1e-4 * np.abs(expected).max())
        K, k = (np.exp(5 * (A @ world.A[:24].T - 1)) for A in (world.A[:24], world.A))
        targets = (means - means.mean(axis=0)) @ metric.T
        solved = k @ np.linalg.solve(K + 0.3 * np.eye(24), targets)
        np.testing.assert_allclose(mapper.map_classes(world.A), solved, atol=1e-3 * np.abs(solved).max())
        again = type(mapper).from_state(mapper.settings, mapper.state())
        np.testing.assert_array_equal(again.map_images(X), mapper.map_images(X))

    def test_the_metric_is_found_once_for_all_settings(self, world: World) -> None:
        """It is by far the dearest part; mapping other images in between must not cost it."""
        found, X, y = [], frozen(np.abs(world.X)), frozen(world.y.copy())
        for penalty in (0.1, 1.0):
            mapper = create("ridge", penalty=penalty, shrinkage=1.0).fit(X, y, world.A)
            mapper.map_images(frozen(world.queries.copy()))
            found.append(mapper.state()["metric"])
        assert found[0] is found[1]

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


def standard_images(world: World) -> np.ndarray:
    """(n, d) centred unit images of mean square length 1; the world's classes are of one size."""
    rows = unit(world.X.astype(np.float64))
    rows -= rows.mean(axis=0)
    return rows / np.sqrt(np.mean(np.sum(rows**2, axis=1)))


def parallel(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for one factor of the whole, which no cosine sees."""
    np.testing.assert_allclose(
        found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=1e-6, rtol=1e-5
    )


@pytest.fixture(params=["primal", "dual"])
def either(request: pytest.FixtureRequest, world: World) -> World:
    """The world with more images than dimensions, and with fewer."""
    if request.param == "primal":
        return world
    keep = np.arange(len(world.y)) % 12 < 1
    return World(world.X[keep], world.y[keep], world.A, world.queries, world.truth)


class TestEszsl:
    def test_agrees_with_the_formula(self, either: World) -> None:
        X, S = np.sqrt(48) * standard_images(either).T, either.A[:24].T.astype(np.float64)  # (d, n), (k, C)
        Y = np.eye(24)[either.y]
        left = np.linalg.solve(X @ X.T + 10**1.5 * np.eye(48), X @ Y @ S.T)
        V = left @ np.linalg.inv(S @ S.T + 10**-0.5 * np.eye(6))
        mapper = create("eszsl", alpha=1.5, gamma=-0.5).fit(either.X, either.y, either.A)
        parallel(mapper.map_images(either.X), X.T @ V)
        np.testing.assert_allclose(mapper.map_classes(either.A), either.A, atol=1e-6)
        visual = create("eszsl", alpha=1.5, gamma=-0.5, space="images").fit(either.X, either.y, either.A)
        parallel(visual.map_classes(either.A), either.A @ V.T)
        parallel(visual.map_images(either.X), X.T)

    def test_an_unknown_space_is_refused(self) -> None:
        with pytest.raises(ParamsError, match="known: classes, images"):
            create("eszsl", space="words")

    def test_the_order_in_which_settings_are_tried_does_not_matter(self, world: World) -> None:
        first = create("eszsl", alpha=3.0).fit(world.X, world.y, world.A).state()["map"]
        create("eszsl", alpha=1.0).fit(world.X, world.y, world.A)
        create("eszsl", alpha=3.0).fit(world.X[::2], world.y[::2], world.A)
        again = create("eszsl", alpha=3.0).fit(world.X, world.y, world.A).state()["map"]
        np.testing.assert_array_equal(first, again)


class TestSae:
    def test_agrees_with_the_sylvester_equation(self, either: World) -> None:
        from scipy.linalg import solve_sylvester

        X, S = standard_images(either).T, either.A[either.y].T.astype(np.float64)  # (d, n), (k, n)
        W = solve_sylvester(S @ S.T, 0.2 * X @ X.T, 1.2 * S @ X.T)  # (k, d)
        mapper = create("sae", penalty=0.2).fit(either.X, either.y, either.A)
        np.testing.assert_allclose(mapper.state()["map"], W, atol=1e-5)

    def test_the_solution_of_least_norm_is_taken_where_the_equation_is_singular(self, world: World) -> None:
        """A dead image dimension and class dimensions without meaning: a_i + λ b_j = 0 for some i, j."""
        wide, X = np.hstack([world.A, world.A, np.zeros((32, 20), np.float32)]), world.X.copy()
        X[:, :3] = 0
        W = create("sae", penalty=0.2).fit(X, world.y, wide).state()["map"]
        assert np.isfinite(W).all()
        assert np.abs(W[12:]).max() < 1e-6
        assert np.abs(W[:, :3]).max() < 1e-6
        np.testing.assert_allclose(W[:6], W[6:12], atol=1e-6)


class TestTridiagonal:
    @pytest.mark.parametrize("size", [1, 2, 3, 9])
    def test_solves_for_every_shift(self, size: int) -> None:
        rng = np.random.default_rng(size)
        root, targets = rng.standard_normal((size, size)), rng.standard_normal((size, 4))
        matrix, shifts = root @ root.T, np.array([0.5, 2.0, 0.5, 1e3])
        found = Tridiagonal(matrix.copy()).solve(shifts, targets)
        for column, shift in enumerate(shifts):
            expected = np.linalg.solve(matrix + shift * np.eye(size), targets[:, column])
            np.testing.assert_allclose(found[:, column], expected)

    def test_a_matrix_of_zeros_gives_finite_numbers(self) -> None:
        assert np.isfinite(Tridiagonal(np.zeros((5, 5))).solve(np.ones(2), np.ones((5, 2)))).all()


class TestRank:
    def test_ale_weighs_violations_by_the_rank(self) -> None:
        import torch

        found = torch.tensor([[0.0, 0.5, 2.0, -3.0]])  # the first is right; violations .5 + 1 and 2 + 1
        right = torch.tensor([0])
        devise, ale = (create("rank", loss=loss, margin=1.0) for loss in ("devise", "ale"))
        assert devise._losses(found, right).item() == pytest.approx(4.5)
        assert ale._losses(found, right).item() == pytest.approx(4.5 * (1 + 1 / 2) / 2)

    def test_a_right_answer_beyond_the_margin_costs_nothing(self) -> None:
        import torch

        found, right = torch.tensor([[3.0, 0.5, 1.5]]), torch.tensor([0])
        assert create("rank", loss="ale", margin=1.0)._losses(found, right).item() == 0

    def test_an_unknown_loss_is_refused(self) -> None:
        with pytest.raises(ParamsError, match="known: devise, ale"):
            create("rank", loss="hinge")


class TestPrototype:
    def test_prototypes_are_non_negative_where_embeddings_are(self, world: World) -> None:
        positive = create("prototype", steps=5, epochs=1).fit(np.maximum(world.X, 0), world.y, world.A)
        signed = create("prototype", steps=5, epochs=1).fit(world.X, world.y, world.A)
        assert positive.map_classes(world.A).min() == 0
        assert signed.map_classes(world.A).min() < 0

    def test_a_prototype_is_the_sum_of_the_unit_ones_of_its_networks(self, world: World) -> None:
        mapper = create("prototype", steps=5, epochs=1, networks=2).fit(world.X, world.y, world.A)
        whole, networks = mapper.map_classes(world.A), mapper.networks_
        single = []
        for network in networks:
            mapper.networks_ = [network]
            single.append(mapper.map_classes(world.A))
        np.testing.assert_allclose(np.linalg.norm(single, axis=2), 1, atol=1e-5)
        np.testing.assert_allclose(whole, single[0] + single[1], atol=1e-6)
        assert not np.allclose(single[0], single[1], atol=0.01)

    @pytest.mark.parametrize("clipped", [True, False])
    def test_class_gradients_agree_with_torch(self, world: World, clipped: bool) -> None:
        import torch
        from torch.nn import functional

        X = np.abs(world.X) if clipped else world.X
        mapper = create("prototype", steps=5, epochs=1, networks=2).fit(X, world.y, world.A)
        A = torch.from_numpy(world.A).double().requires_grad_()
        G = np.random.default_rng(4).standard_normal((32, 48))
        total = torch.zeros(32, 48, dtype=torch.float64)
        for network in mapper.networks_:
            figures = torch.from_numpy(network.figures).double()
            (one, two, last) = (
                tuple(torch.from_numpy(a).double() for a in layer) for layer in network.layers
            )
            hidden = functional.linear(np.sqrt(6) * functional.normalize(A), *one).relu()
            hidden = ((functional.linear(hidden, *two) - figures[0, 0]) * figures[0, 1]).relu()
            outputs = functional.linear((hidden - figures[1, 0]) * figures[1, 1], *last)
            total = total + functional.normalize(outputs.relu() if clipped else outputs)
        (total * torch.from_numpy(G)).sum().backward()
        np.testing.assert_allclose(mapper.class_gradients(world.A, G), A.grad.numpy(), atol=1e-3, rtol=1e-3)

    def test_a_class_is_mapped_alike_in_whatever_company(
        self, fitted: dict[str, Mapper], world: World
    ) -> None:
        whole = fitted["prototype"].map_classes(world.A)
        np.testing.assert_allclose(
            fitted["prototype"].map_classes(world.A[3:5]), whole[3:5], rtol=1e-4, atol=1e-6
        )


class TestBlend:
    MEMBERS: ClassVar = [
        {"mapper": "eszsl", "settings": {"alpha": 2.0}, "weight": 1.0},
        {"mapper": "ridge", "settings": {"kernel": "quadratic"}, "weight": 3.0},
    ]

    def test_the_cosine_is_the_weighted_mean_of_the_members_in_units_of_their_spread(
        self, world: World
    ) -> None:
        blend = create("blend", members=self.MEMBERS).fit(world.X, world.y, world.A)
        total, norm = np.zeros((len(world.queries), 8)), 0.0
        for each in self.MEMBERS:
            member = create(each["mapper"], **each["settings"]).fit(world.X, world.y, world.A)
            spread = scores(member.map_images(world.X), member.map_classes(world.A[:24])).std(axis=1).mean()
            total += each["weight"] / spread * mapper_scores(member, world, world.A)
            norm += each["weight"] / spread
        np.testing.assert_allclose(mapper_scores(blend, world, world.A), total / norm, atol=1e-5)

    @pytest.mark.parametrize(
        ("members", "complaint"),
        [
            ([], "at least one member"),
            ([{"mapper": "blend"}], "with one of"),
            ([{"mapper": "ridge", "wieght": 2}], "mapper, settings, weight"),
            ([{"mapper": "ridge", "weight": 0}], "weight 0"),
            ([{"mapper": "ridge", "settings": {"penalti": 1}}], "no setting penalti"),
        ],
    )
    def test_an_unusable_member_is_refused(self, members: list, complaint: str) -> None:
        with pytest.raises(ParamsError, match=complaint):
            create("blend", members=members)


class TestRemembered:
    def test_computes_once_for_the_same_arrays(self) -> None:
        calls = []

        @remembered
        def compute(X: np.ndarray, y: np.ndarray, power: int) -> float:
            calls.append(power)
            return float((X**power).sum() + y.sum())

        X, y = frozen(np.arange(3.0)), frozen(np.arange(3))
        assert [compute(X, y, power) for power in (1, 2, 1, 2)] == [6, 8, 6, 8]
        assert calls == [1, 2]
        assert compute(frozen(X + 1), y, 1) == 9
        assert compute(X, y, 1) == 6
        assert calls == [1, 2, 1, 1]
