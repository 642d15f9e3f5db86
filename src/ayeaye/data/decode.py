"""Pictures from bytes: any common format to upright 8-bit RGB, within limits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ayeaye.errors import PictureError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)

ImageFile.LOAD_TRUNCATED_IMAGES = False
# Beyond the limits PictureError says the same.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Limits:
    """What a picture may be at most; pixels are width times height as its header says."""

    max_bytes: int = 50_000_000
    max_pixels: int = 100_000_000


DEFAULT = Limits()


def decode(content: bytes, limits: Limits = DEFAULT, target: int | None = None) -> Image.Image:
    """The picture as RGB, upright, transparency on white, the first frame of an animation.

    With `target`, a JPEG is decoded at the smallest of its scales whose shorter side still is at least that
    many pixels. Raises PictureError when it cannot be read within the limits.
    """
    with _opened(content, limits) as picture:
        if target and picture.format == "JPEG":
            picture.draft(None, (target, target))
        picture.load()
        # Orientation comes first: conversions drop the EXIF block it is read from.
        return _rgb(_upright(picture))


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
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > limits.max_pixels:
                raise Image.DecompressionBombError
            yield picture
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"not a picture of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise PictureError(f"too many pixels; at most {limits.max_pixels:,} are allowed") from None
    # Pillow's decoders raise a dozen unrelated types on damaged input.
    except Exception as error:
        raise PictureError(f"damaged or truncated picture ({error or type(error).__name__})") from None


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    # A damaged EXIF block does not spoil the pixels.
    except Exception:
        return 1


def _upright(picture: Image.Image) -> Image.Image:
    if _orientation(picture) in range(2, 9):
        try:
            return ImageOps.exif_transpose(picture)
        except (ValueError, TypeError, KeyError, SyntaxError, OverflowError):
            return picture
    return picture


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        grey = Image.fromarray(_eight_bit(np.asarray(picture)))
        return grey.convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    # Pillow would keep a file's own object for RGB, and with it the open file.
    return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """(h, w) of 16- or 32-bit integers or floats to uint8; Pillow's own conversion clips at 255."""
    if values.dtype in (np.dtype("<u2"), np.dtype(">u2")):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    values = np.nan_to_num(values.astype(np.float64))
    low, high = min(values.min(), 0.0), values.max()
    if low == 0 and high > 1:
        # The smallest of the usual ranges that holds them: 8 bits, 16 bits, else their own.
        high = next((top for top in (255.0, 65535.0) if high <= top), high)
    elif low == 0:
        high = 1.0
    return np.round((values - low) / (high - low) * 255).astype(np.uint8)
