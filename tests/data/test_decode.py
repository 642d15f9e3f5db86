"""Decoding: what is handled, what is refused, and what the refusal says."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from ayeaye.core.errors import PictureError
from ayeaye.data.decode import ANY, Limits, decode, pixels, size


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def flat(colour: tuple[int, ...] | int, mode: str = "RGB", shape: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new(mode, shape, colour)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_allowed_format_becomes_rgb(form: str) -> None:
    picture = decode(saved(flat((200, 30, 40)), form))
    assert (picture.mode, picture.size) == ("RGB", (8, 6))
    assert np.abs(np.asarray(picture, int) - [200, 30, 40]).max() <= 6


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = decode(saved(flat((0, 255, 255, 0), "CMYK"), "JPEG", quality=95))
    assert red.mode == "RGB"
    r, g, b = np.asarray(red, int)[3, 3]
    assert r > 220 and g < 60 and b < 60


def test_palette_with_transparency_lies_on_white() -> None:
    picture = flat(0, "P", (4, 4))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 1), 1)
    rgb = decode(saved(picture, "PNG", transparency=0))
    assert rgb.getpixel((0, 0)) == (255, 255, 255)
    assert rgb.getpixel((1, 1)) == (40, 50, 60)


def test_alpha_lies_on_white() -> None:
    assert decode(saved(flat((0, 0, 0, 0), "RGBA"), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    assert decode(saved(flat((0, 128), "LA"), "PNG")).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_rather_than_clipped(form: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    grey = np.asarray(decode(saved(Image.fromarray(ramp), form)))[..., 0]
    assert np.array_equal(grey.ravel(), np.arange(256))


def test_floating_point_tiff_is_scaled_to_eight_bits() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    grey = np.asarray(decode(saved(Image.fromarray(ramp), "TIFF")))[..., 0]
    assert (int(grey.min()), int(grey.max())) == (0, 255)
    assert np.all(np.diff(grey.ravel().astype(int)) >= 0)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(form: str) -> None:
    frames = [flat((250, 0, 0)), flat((0, 0, 250))]
    content = saved(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
    r, _, b = np.asarray(decode(content), int)[0, 0]
    assert r > 200 and b < 60


def test_exif_rotation_is_applied() -> None:
    picture = flat((0, 0, 0), shape=(40, 20))
    picture.paste((255, 255, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left becomes the top
    content = saved(picture, "JPEG", exif=exif, quality=95)
    upright = decode(content)
    assert upright.size == size(content) == (20, 40)
    assert np.asarray(upright)[5].mean() > 240 and np.asarray(upright)[35].mean() < 15


def test_damaged_exif_does_not_spoil_the_pixels() -> None:
    content = saved(flat((9, 9, 9)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert decode(content).size == (8, 6)


def test_target_decodes_a_large_jpeg_smaller_but_never_below_it() -> None:
    content = saved(flat((1, 2, 3), shape=(1600, 800)), "JPEG")
    assert decode(content, target=96).size == (200, 100)
    assert decode(content).size == (1600, 800)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"just some text, named .jpg\n", "not a picture of a known format"),
        (b"%PDF-1.4\n%EOF", "not a picture of a known format (JPEG, PNG, WEBP, BMP, GIF, TIFF): it is a PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC picture: save it as JPEG"),
        (
            b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
            "an SVG drawing",
        ),
        (saved(flat((1, 2, 3), shape=(200, 200)), "JPEG")[:600], "truncated"),
        (saved(Image.effect_noise((90, 90), 50), "PNG")[:2000], "truncated"),
        (png_header(20_000, 20_000), "too many pixels; at most 100,000,000"),
        (png_header(12_000, 12_000), "too many pixels; at most 100,000,000"),
        (png_header(50, 50), "damaged or truncated"),
    ],
    ids=[
        "empty",
        "text",
        "pdf",
        "lfs",
        "heic",
        "svg",
        "cut jpeg",
        "cut png",
        "20000 px",
        "12000 px",
        "too little data",
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=re.escape(reason)):
        decode(content)


def test_limits_are_those_that_are_given() -> None:
    content = saved(flat((1, 2, 3)), "PNG")
    assert decode(content, Limits(len(content), 48)).size == (8, 6)
    with pytest.raises(PictureError, match=r"too many pixels; at most 47"):
        decode(content, Limits(max_pixels=47))
    with pytest.raises(PictureError, match=r"bytes; at most 10 "):
        size(content, Limits(max_bytes=10))


def test_a_limit_above_the_one_of_pillow_is_respected() -> None:
    content = saved(Image.new("1", (15_000, 13_000)), "PNG")
    assert size(content, Limits(max_pixels=200_000_000)) == (15_000, 13_000)
    with pytest.raises(PictureError, match=r"at most 100,000,000"):
        size(content)


def test_size_reads_the_header_alone() -> None:
    truncated = saved(Image.effect_noise((300, 200), 50), "PNG")[:500]
    assert size(truncated) == (300, 200)


def test_truncated_pictures_are_never_padded() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("shape", [(1, 50_000_000), (60_000, 2), (2, 60_000), (1001, 1)])
def test_a_line_is_refused_at_its_header(shape: tuple[int, int]) -> None:
    for door in (decode, size, pixels):
        with pytest.raises(PictureError, match=r"\d by \d.* too narrow .* at most 1,000 times the shorter"):
            door(png_header(*shape))
    assert size(png_header(*shape), ANY) == shape


def test_a_long_picture_is_none_of_them() -> None:
    assert decode(saved(flat((1, 2, 3), shape=(1, 1000)), "PNG")).size == (1, 1000)


def in_parts(form: str) -> bytes:
    """A small picture in a million parts that mean nothing."""
    content = saved(flat(0, "L"), form)
    if form == "JPEG":
        return content[:2] + b"\xff\xe1\x00\x02" * 1_000_000 + content[2:]
    if form == "GIF":
        return content[:-1].replace(b",", b"\x21\xfe\x00" * 1_000_000 + b",", 1) + content[-1:]
    text = struct.pack(">I", 2) + b"tEXta\0" + struct.pack(">I", zlib.crc32(b"tEXta\0"))
    return content[:33] + text * 1_000_000 + content[33:]


@pytest.mark.parametrize("form", ["JPEG", "GIF", "PNG"])
def test_a_file_in_endless_parts_is_refused(form: str) -> None:
    with pytest.raises(PictureError, match="more than 1,000,000 pieces: save it anew"):
        decode(in_parts(form))


def test_a_jpeg_of_endless_scans_is_refused_and_a_film_behind_one_does_not_matter() -> None:
    content = saved(Image.effect_noise((300, 200), 50), "JPEG", progressive=True)
    last = content[content.rfind(b"\xff\xda") : -2]
    assert decode(content[:-2] + last * 80 + content[-2:]).size == (300, 200)
    for more in (last * 100, (b"\xff\xfe\x00\x04\xff\xd9" + last) * 100, b"\xff\xfe\x00\x02" * 10_000):
        with pytest.raises(PictureError, match="more than 100 scans or 10,000 parts"):
            decode(content[:-2] + more + content[-2:])
    assert decode(content + last * 1000).size == (300, 200)


@pytest.mark.parametrize(("order", "big"), [("little", False), ("big", False), ("little", True)])
def test_a_tiff_of_endless_strips_is_refused(order: Literal["little", "big"], big: bool) -> None:
    def number(value: int, length: int) -> bytes:
        return value.to_bytes(length, order)

    wide = 8 if big else 4
    header = (b"II" if order == "little" else b"MM") + number(43 if big else 42, 2)
    header += number(8, 2) + number(0, 2) + number(16, 8) if big else number(8, 4)
    tag = number(273, 2) + number(4, 2) + number(1_000_000, wide) + number(100, wide)
    with pytest.raises(PictureError, match="TIFF of more than 200,000 strips or tiles"):
        decode(header + number(1, 8 if big else 2) + tag + bytes(5_000_000))


def test_texts_that_unfold_are_refused() -> None:
    unfolded = zlib.compress(bytes(100_000_000), 9)
    for kind in (b"zTXt", b"iCCP"):
        chunk = kind + b"a\0\0" + unfolded
        content = saved(flat(0, "L"), "PNG")
        chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        with pytest.raises(PictureError, match="Decompressed data too large"):
            decode(content[:33] + chunk + content[33:])


MEASURED = """
import sys
from ayeaye.data.decode import DEFAULT
from ayeaye.backbones.backbones import Transform

def peak():
    return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

small, content = open(sys.argv[1], "rb").read(), sys.stdin.buffer.read()
look = Transform(72, 64).reader(DEFAULT)
look(small)
before = peak()
look(content)
print(peak() - before)
"""


SQUARE, LONG, HIGH = (5000, 3000), (120_000, 125), (125, 120_000)


@pytest.mark.parametrize(
    ("mode", "form", "shape", "options", "most"),
    [
        ("F", "TIFF", SQUARE, {"compression": "tiff_deflate"}, 10),
        ("F", "TIFF", SQUARE, {"compression": "tiff_deflate", "tiffinfo": {278: 3000}}, 10),  # in one strip
        ("I;16", "PNG", SQUARE, {}, 4),
        ("RGBA", "PNG", SQUARE, {}, 6),
        ("LA", "PNG", SQUARE, {}, 6),
        ("RGB", "PNG", SQUARE, {}, 6),
        ("P", "GIF", SQUARE, {}, 4),
        ("RGB", "PNG", LONG, {}, 12),
        ("RGBA", "PNG", HIGH, {}, 12),
        ("CMYK", "JPEG", SQUARE, {"progressive": True, "subsampling": 0}, 12),
        ("RGB", "WEBP", SQUARE, {}, 20),
    ],
)
def test_a_bomb_within_the_limits_takes_little_more_than_its_pixels(
    mode: str, form: str, shape: tuple[int, int], options: dict[str, Any], most: int, tmp_path: Path
) -> None:
    content = saved(Image.new(mode, shape), form, **options)
    assert len(content) < 1_000_000
    small = tmp_path / "small"
    small.write_bytes(saved(Image.new(mode, (10, 10)), form, **options))
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, str(small)], input=content, capture_output=True, check=True
    )
    assert int(run.stdout) < most * 15_000_000, f"{int(run.stdout) / 15_000_000:.1f} bytes a pixel"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "F", "I"])
@pytest.mark.parametrize("shape", [(1700, 1300), (50_000, 50), (49, 48_001)])
def test_tiles_are_not_seen_in_the_picture(mode: str, shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, shape[::-1], dtype=np.uint8)
    content = saved(Image.fromarray(grey).convert(mode), "TIFF", compression="raw")
    decoded = decode(content)
    assert decoded.size == shape
    assert np.array_equal(np.asarray(decoded), np.repeat(grey[..., None], 3, axis=2))
    smaller = decode(content, target=100)
    block = 6 if min(shape) > 50 else 1
    assert smaller.size == tuple(-(-side // block) for side in shape)
    expected = Image.fromarray(grey).reduce(block)
    assert np.abs(np.asarray(smaller, int)[..., 0] - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_that_of_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.effect_noise((50, 30), 60).convert("RGB")
    content = saved(picture, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert np.array_equal(np.asarray(decode(content)), np.asarray(expected))


def test_the_pixels_of_a_header_are_counted_within_the_limits() -> None:
    assert pixels(png_header(3000, 2000)) == 6_000_000
    with pytest.raises(PictureError, match="too many pixels"):
        pixels(png_header(3000, 2000), Limits(max_pixels=1000))
