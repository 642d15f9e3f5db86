"""Training of a backbone: that it learns, repeats itself, and refuses what it cannot use."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ayeaye.backbones.training import MEAN, STD, train_backbone
from ayeaye.backbones.vision import torchvision
from ayeaye.core.errors import DataError


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures():
    """Squares (0), bars (1) and noise (2) in any colour: 48 pictures of 32 px."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 90, (48, 3, 32, 32), dtype=np.uint8)
    y = np.arange(48) % 3
    for image, label in zip(images, y, strict=True):
        colour = rng.integers(150, 255, (3, 1, 1))
        top, left = rng.integers(4, 14, 2)
        if label == 0:
            image[:, top : top + 14, left : left + 14] = colour
        if label == 1:
            image[:, top : top + 3, :] = colour
            image[:, top + 10 : top + 13, :] = colour
    return images, y


def network(classes=3, name="shufflenet_v2_x0_5", seed=0):
    torch.manual_seed(seed)
    return torchvision().models.get_model(name, weights=None, num_classes=classes)


def predict(model, images):
    mean, spread = (torch.tensor(value).view(1, 3, 1, 1) * 255 for value in (MEAN, STD))
    with torch.inference_mode():
        return model((torch.as_tensor(images).float() - mean) / spread)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_training_learns_to_tell_shapes_apart(pictures):
    images, y = pictures
    model = train_backbone(network(name="resnet18"), images, y, epochs=4, batch=8)
    assert not model.training
    assert (predict(model, images).argmax(1).numpy() == y).mean() > 0.8


def test_a_seed_repeats_the_training_exactly_and_another_seed_does_not(pictures):
    images, y = pictures
    once, again, other = (
        state(train_backbone(network(), images, y, epochs=1, batch=16, seed=seed)) for seed in (3, 3, 4)
    )
    assert all(torch.equal(once[key], again[key]) for key in once)
    assert not all(torch.equal(once[key], other[key]) for key in once)


def test_training_leaves_the_global_generator_alone(pictures):
    images, y = pictures
    torch.manual_seed(1)
    expected = torch.rand(3)
    model = network()
    torch.manual_seed(1)
    train_backbone(model, images, y, epochs=1, batch=16, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_progress_is_told_once_an_epoch(pictures):
    images, y = pictures
    told = []
    train_backbone(network(), images, y, 3, 24, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_fewer_pictures_than_a_batch_still_train(pictures):
    images, y = pictures
    model = network()
    before = state(model)
    train_backbone(model, torch.as_tensor(images[:6]), torch.as_tensor(y[:6]), epochs=1, batch=32)
    assert not torch.equal(before["fc.weight"], model.state_dict()["fc.weight"])


def test_a_network_with_auxiliary_outputs_trains(pictures):
    images, y = pictures
    larger = np.repeat(np.repeat(images[:4], 2, axis=2), 2, axis=3)
    torch.manual_seed(0)
    model = torchvision().models.googlenet(weights=None, num_classes=3, aux_logits=False, init_weights=False)
    train_backbone(model, larger, y[:4], epochs=1, batch=4)
    assert predict(model, larger).shape == (4, 3)


def test_a_single_class_is_refused(pictures):
    images, _ = pictures
    with pytest.raises(DataError, match="show 1 class: training a backbone takes two or more"):
        train_backbone(network(), images, np.zeros(len(images), int), epochs=1)


@pytest.mark.parametrize(
    ("images", "y", "said"),
    [
        (np.zeros((4, 3, 32, 32), np.float32), np.arange(4), r"expected \(n, 3, s, s\) uint8"),
        (np.zeros((4, 32, 32, 3), np.uint8), np.arange(4), r"expected \(n, 3, s, s\) uint8"),
        (np.zeros((4, 3, 32, 32), np.uint8), np.arange(3), "expected one each"),
        (np.zeros((0, 3, 32, 32), np.uint8), np.arange(0), "show 0 class"),
    ],
)
def test_images_or_labels_of_the_wrong_shape_are_refused(images, y, said):
    with pytest.raises(DataError, match=said):
        train_backbone(network(), images, y, epochs=1)


def test_a_loss_that_is_not_finite_stops_the_training(pictures):
    images, y = pictures
    model = network()
    with torch.no_grad():
        model.fc.weight.fill_(float("inf"))
    with pytest.raises(DataError, match=r"the loss is (nan|inf) after epoch 1"):
        train_backbone(model, images, y, epochs=2, batch=16)
