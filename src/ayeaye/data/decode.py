"""Pictures from bytes: any common format to upright 8-bit RGB, within limits."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ayeaye.core.contents import HEAD, foreign
from ayeaye.core.errors import PictureError

if TYPE_CHECKING:
    from ayeaye.core.params import Prepare, Serve

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Conversions go tile by tile, since some take 25 bytes a pixel on their way.
_TILE = 1_000_000
# Files of few pixels that keep a reader busy: each scan of a JPEG goes through all its pixels, each part of a file
# is an object. Real pictures have a dozen of either.
_MOST_SCANS, _MOST_PARTS, _MOST_READS = 100, 10_000, 1_000_000
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")  # of a JPEG, of those that come with a length
_SOS, _EOI = b"\xda", b"\xd9"
_MOST_STRIPS, _STRIPS = 200_000, (273, 324)  # the tags of a TIFF that say where its strips or tiles lie

ImageFile.LOAD_TRUNCATED_IMAGES = False
# Beyond the limits PictureError says the same.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Limits:
    """What a picture may be at most; pixels are width times height as its header says, and the ratio is that of the
    longer side to the shorter: of a line the network would see a single point."""

    max_bytes: int = 50_000_000
    max_pixels: int = 100_000_000
    max_ratio: int = 1000

    @classmethod
    def of(cls, section: Prepare | Serve) -> Self:
        """Those of a section of params.yaml."""
        return cls(section.max_bytes, section.max_pixels)


DEFAULT = Limits()
ANY = Limits(2**63, 2**63, 2**63)  # for pictures of a dataset: what was too large never came into it


def decode(content: bytes, limits: Limits = DEFAULT, target: int | None = None) -> Image.Image:
    """The picture as RGB, upright, transparency on white, the first frame of an animation.

    With `target`, a JPEG is decoded at the smallest of its scales whose shorter side still is at least that
    many pixels, and any picture is made smaller by the mean of square blocks, to at least twice the target.
    Memory: what the file's own mode takes, 1 to 4 bytes a pixel (a progressive JPEG up to 8, a WEBP up to 16), and the
    result. This is the one door for pictures: raises PictureError when one cannot be read within the limits.
    """
    with _opened(content, limits) as picture:
        if target and picture.format == "JPEG":
            picture.draft(None, (target, target))
        picture.load()
        # Read first: conversions drop the EXIF block.
        turn = _TURNS.get(_orientation(picture))
        block = max(1, min(picture.size) // (2 * target)) if target else 1
        rgb = _rgb(picture, block)
    return rgb.transpose(turn) if turn is not None else rgb


def pixels(content: bytes, limits: Limits = DEFAULT) -> int:
    """How many the picture has by its header; raises PictureError beyond the limits."""
    with _opened(content, limits) as picture:
        return picture.width * picture.height


def size(content: bytes, limits: Limits = DEFAULT) -> tuple[int, int]:
    """Width and height of the upright picture from its header; raises PictureError beyond the limits."""
    with _opened(content, limits) as picture:
        width, height = picture.size
        # A PNG whose EXIF block is not in its header would be decoded whole for it.
        readable = picture.format != "PNG" or "exif" in picture.info
        turned = readable and _orientation(picture) in _TURNED
        return (height, width) if turned else (width, height)


@contextmanager
def _opened(content: bytes, limits: Limits) -> Iterator[Image.Image]:
    if not content:
        raise PictureError("empty file (0 bytes)")
    if len(content) > limits.max_bytes:
        raise PictureError(f"{len(content):,} bytes; at most {limits.max_bytes:,} are allowed")
    # Pillow's own limit may not be the smaller one. It only ever grows, so threads do not race.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, limits.max_pixels)
    try:
        _check_strips(content)
        with Image.open(_File(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > limits.max_pixels:
                raise Image.DecompressionBombError
            if max(width, height) > limits.max_ratio * min(width, height):
                raise PictureError(
                    f"{width} by {height} pixels: too narrow to be looked at; the longer side may be at most "
                    f"{limits.max_ratio:,} times the shorter"
                )
            if content.startswith(b"\xff\xd8"):
                _check_scans(content)
            yield picture
    except PictureError:
        raise
    except UnidentifiedImageError:
        found = foreign(content[:HEAD])
        reason = f": it {found}" if found else ""
        raise PictureError(f"not a picture of a known format ({', '.join(FORMATS)}){reason}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"too many pixels; at most {limits.max_pixels:,} are allowed") from None
    # Pillow's decoders raise a dozen unrelated types on damaged input.
    except Exception as error:
        raise PictureError(f"damaged or truncated picture ({error or type(error).__name__})") from None


class _File(io.BytesIO):
    """Raises PictureError for one that is read in too many pieces."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise PictureError(f"it is in more than {_MOST_READS:,} pieces: save it anew")
        return super().read(size)


def _check_strips(content: bytes) -> None:
    """Of a TIFF, whose strips become objects before its size is known."""
    order: Literal["little", "big"] = "little" if content.startswith(b"II") else "big"
    kind = content[2:4] if order == "little" else content[3:1:-1]
    if not content.startswith((b"II", b"MM")) or kind not in (b"*\0", b"+\0"):
        return
    # Bytes of an offset, of the number of tags, of a tag: those of BigTIFF are larger.
    wide, counted, each = (4, 2, 12) if kind == b"*\0" else (8, 8, 20)

    def number(place: int, length: int) -> int:
        return int.from_bytes(content[place : place + length], order)

    first = number(wide, wide)
    for row in range(min(number(first, counted), _MOST_PARTS)):
        tag = first + counted + row * each
        if number(tag, 2) in _STRIPS and number(tag + 4, wide) > _MOST_STRIPS:
            raise PictureError(f"a TIFF of more than {_MOST_STRIPS:,} strips or tiles: save it anew")


def _check_scans(content: bytes) -> None:
    scans, place = 0, 2
    for _ in range(_MOST_PARTS):
        found = _MARKER.search(content, place)
        if found is None or found[1] == _EOI:
            return
        scans += found[1] == _SOS
        if scans > _MOST_SCANS:
            break
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2])
    raise PictureError(f"a JPEG of more than {_MOST_SCANS} scans or {_MOST_PARTS:,} parts: save it anew")


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    # A damaged EXIF block does not spoil the pixels.
    except Exception:
        return 1


def _rgb(picture: Image.Image, block: int) -> Image.Image:
    """The picture as RGB, each square of block times block pixels as its mean."""
    converted = _conversion(picture)
    width, height = (-(-side // block) for side in picture.size)
    rgb = Image.new("RGB", (width, height))
    for box in _tiles(picture.size, block):
        tile = converted(picture.crop(box))
        rgb.paste(tile.reduce(block) if block > 1 else tile, (box[0] // block, box[1] // block))
    return rgb


def _tiles(size: tuple[int, int], block: int = 1) -> Iterator[tuple[int, int, int, int]]:
    """Boxes that cover a picture, each of about _TILE pixels, cut between the blocks."""
    width, height = size
    across = min(width, max(1, _TILE // block) * block)
    down = max(1, _TILE // across // block) * block
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield left, top, min(left + across, width), min(top + down, height)


def _conversion(picture: Image.Image) -> Callable[[Image.Image], Image.Image]:
    if picture.mode.startswith(("I", "F")):
        scaled = _eight_bit(picture)
        return lambda tile: Image.fromarray(scaled(np.asarray(tile))).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return _on_white
    return lambda tile: tile.convert("RGB")


def _on_white(tile: Image.Image) -> Image.Image:
    layered = tile.convert("RGBA")
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB")


def _eight_bit(picture: Image.Image) -> Callable[[np.ndarray], np.ndarray]:
    """From (h, w) of its 16- or 32-bit integers or floats to uint8; Pillow's own conversion clips at 255."""
    if picture.mode.startswith("I;16"):
        return lambda values: ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)

    def finite(values: np.ndarray) -> np.ndarray:
        return np.nan_to_num(values.astype(np.float64))

    tiles = (finite(np.asarray(picture.crop(box))) for box in _tiles(picture.size))
    lows, highs = zip(*((tile.min(), tile.max()) for tile in tiles), strict=True)
    low, high = min(*lows, 0.0), max(highs)
    if low == 0 and high > 1:
        # The smallest of the usual ranges that holds them: 8 bits, 16 bits, else their own.
        high = next((top for top in (255.0, 65535.0) if high <= top), high)
    elif low == 0:
        high = 1.0
    return lambda values: np.round((finite(values) - low) / (high - low) * 255).astype(np.uint8)
