"""Backbones: heads removed, weights from files, transforms, digests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ayeaye.backbones import backbones
from ayeaye.backbones.engines import relative_error
from ayeaye.backbones.vision import torchvision
from ayeaye.core.errors import BackboneError, BundleError
from ayeaye.core.files import digest_folder


@pytest.fixture
def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of eleven classes, as torch saves it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "eleven.pth"
    torch.save(backbones.build("shufflenet_v2_x0_5", 11).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("resnet18", 512),
        ("mobilenet_v2", 1280),
        ("mobilenet_v3_small", 1024),
        ("squeezenet1_1", 512),
        ("densenet121", 1024),
        ("efficientnet_b0", 1280),
        ("shufflenet_v2_x0_5", 1024),
        ("googlenet", 1024),
    ],
)
def test_any_classification_network_loses_its_head(name: str, width: int) -> None:
    network = backbones.build(name, 3)
    made = backbones.assemble(name, "untrained", network, backbones.Transform(resize=64, crop=64))
    assert made.width == width
    assert made.forward(np.zeros((2, 3, 64, 64), np.float32)).shape == (2, width)


def test_a_checkpoint_of_any_number_of_classes_fits(checkpoint: Path, picture: Image.Image) -> None:
    made = backbones.pretrained("shufflenet_v2_x0_5", str(checkpoint), mean=0.5, std=[0.5, 0.4, 0.3])
    assert made.transform.mean == (0.5, 0.5, 0.5)
    assert made.transform.std == (0.5, 0.4, 0.3)
    whole = torchvision().models.get_model("shufflenet_v2_x0_5", num_classes=11)
    whole.load_state_dict(torch.load(checkpoint, weights_only=True))
    whole.eval().fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = whole(torch.from_numpy(made.transform.preset()(picture)[None])).numpy()
    np.testing.assert_allclose(made.embed([picture]), expected, rtol=1e-4, atol=1e-5)


def test_the_transform_is_the_weights_own_and_a_new_size_keeps_its_ratio() -> None:
    default = backbones.default_transform("vit_b_16")
    assert (default.resize, default.crop, default.interpolation) == (256, 224, "bilinear")
    assert backbones.adjust(default, None, None, 112) == backbones.Transform(128, 112)


@pytest.mark.parametrize(
    "size",
    [(120, 90), (91, 257), (72, 72), (40, 61), (1600, 1200), (901, 1300), (1000, 70), (3, 5), (31, 490)],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_transform_gives_what_torchvision_gives(size: tuple[int, int], interpolation: str) -> None:
    torchvision()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    own = backbones.Transform(72, 64, mean, std, interpolation).preset()(picture)
    theirs = ImageClassification(
        crop_size=64, resize_size=72, mean=mean, std=std, interpolation=InterpolationMode(interpolation)
    )
    assert own.flags.c_contiguous
    np.testing.assert_allclose(own, theirs(picture).numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(2001, 40), (41, 2002), (3, 3000)])
def test_of_a_long_picture_the_middle_is_looked_at(size: tuple[int, int]) -> None:
    width, height = size
    smooth = np.add.outer(np.sin(np.arange(height) / 9), np.cos(np.arange(width) / 7))
    picture = Image.fromarray((60 * smooth + 125).astype(np.uint8)).convert("RGB")
    short = min(size)
    whole = picture.resize((int(72 * width / short), int(72 * height / short)), Image.Resampling.BILINEAR)
    left, top = (round((side - 64) / 2) for side in whole.size)
    expected = np.asarray(whole.crop((left, top, left + 64, top + 64))).transpose(2, 0, 1) / 255
    own = backbones.Transform(72, 64, (0, 0, 0), (1, 1, 1)).preset()(picture)
    np.testing.assert_allclose(own, expected, atol=2.5 / 255)


def test_it_is_saved_and_loaded_with_the_same_digest(
    tmp_path: Path, checkpoint: Path, picture: Image.Image
) -> None:
    made = backbones.pretrained("shufflenet_v2_x0_5", str(checkpoint), size=64)
    made.save(tmp_path)
    again = backbones.load(tmp_path)
    assert again.digest == made.digest
    np.testing.assert_array_equal(again.embed([picture]), made.embed([picture]))


def test_the_name_of_the_weights_file_is_no_part_of_what_is_saved(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "renamed.pth").write_bytes(checkpoint.read_bytes())
    for path in (checkpoint, tmp_path / "renamed.pth"):
        backbones.pretrained("shufflenet_v2_x0_5", str(path), size=64).save(tmp_path / path.stem)
    assert digest_folder(tmp_path / "renamed") == digest_folder(tmp_path / checkpoint.stem)


def test_half_precision_weights_stay_small_and_exact(tmp_path: Path, checkpoint: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    half = tmp_path / "half.pth"
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, half)
    made = backbones.pretrained("shufflenet_v2_x0_5", str(half))
    made.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "backbone.safetensors").stat().st_size < 0.6 * checkpoint.stat().st_size
    assert backbones.load(tmp_path / "saved").digest == made.digest


def test_the_digest_tells_weights_and_transforms_apart(checkpoint: Path) -> None:
    one = backbones.pretrained("shufflenet_v2_x0_5", str(checkpoint))
    two = backbones.pretrained("shufflenet_v2_x0_5", str(checkpoint), mean=0.5)
    assert one.digest != two.digest


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("resnet5", "DEFAULT", "did you mean resnet50"),
        ("resnet18", "IMAGENET", "neither a checkpoint file nor weights of resnet18"),
    ],
)
def test_what_does_not_exist_is_named(name: str, weights: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        backbones.pretrained(name, weights)


def test_a_checkpoint_of_another_network_does_not_fit(checkpoint: Path) -> None:
    with pytest.raises(BackboneError, match="does not fit"):
        backbones.pretrained("resnet18", str(checkpoint))
    with pytest.raises(BackboneError, match="does not fit"):
        backbones.pretrained("shufflenet_v2_x1_0", str(checkpoint))


def test_a_network_whose_weights_have_versions_is_kept_too(tmp_path: Path, picture: Image.Image) -> None:
    path = tmp_path / "mnasnet.pth"
    torch.save(backbones.build("mnasnet0_5", 5).state_dict(), path)
    made = backbones.pretrained("mnasnet0_5", str(path), size=64)
    made.save(tmp_path)
    np.testing.assert_array_equal(backbones.load(tmp_path).embed([picture]), made.embed([picture]))
    with pytest.raises(BackboneError, match="does not fit mnasnet1_0"):
        backbones.pretrained("mnasnet1_0", str(path))


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pickled.pth"
    torch.save({"fc.weight": Path("/")}, path)
    with pytest.raises(BackboneError, match="not a readable checkpoint"):
        backbones.pretrained("resnet18", str(path))


def test_a_damaged_backbone_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    backbones.pretrained("shufflenet_v2_x0_5", str(checkpoint)).save(tmp_path)
    described = json.loads((tmp_path / "backbone.json").read_text())
    (tmp_path / "backbone.json").write_text(json.dumps({**described, "digest": "0" * 64}))
    with pytest.raises(BundleError, match="does not match its digest"):
        backbones.load(tmp_path)
    (tmp_path / "backbone.safetensors").write_bytes(b"nothing")
    with pytest.raises(BundleError, match="damaged"):
        backbones.load(tmp_path)


def test_asking_for_cuda_where_there_is_none_is_an_error() -> None:
    assert backbones.device_of("cpu") == "cpu"
    if torch.cuda.is_available():
        assert backbones.device_of("auto") == "cuda"
    else:
        assert backbones.device_of("auto") == "cpu"
        with pytest.raises(BackboneError, match=r"train.device is cuda, but torch sees no CUDA device"):
            backbones.device_of("cuda", "train.device")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_cuda_computes_as_exactly_as_the_cpu(tmp_path: Path) -> None:
    """By default cuDNN rounds to TF32, and a service without a GPU would get other embeddings."""
    torch.manual_seed(0)
    torch.save(backbones.build("mobilenet_v2", 10).state_dict(), tmp_path / "random.pth")
    inputs = np.random.default_rng(0).normal(size=(8, 3, 224, 224)).astype(np.float32)
    cpu, cuda = (
        backbones.pretrained("mobilenet_v2", str(tmp_path / "random.pth"), device=device).forward(inputs)
        for device in ("cpu", "cuda")
    )
    assert relative_error(cuda, cpu) < 1e-4
