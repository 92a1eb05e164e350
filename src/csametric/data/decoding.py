"""Decode image files: the only place where bytes from outside become pixels.

Only the formats in `FORMATS` are opened, whatever the file is called: Pillow recognises formats by content, and it would run
a PostScript (EPS) file as a program.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from csametric.errors import UserError, wrong_path
from csametric.files import is_file

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow's names
MAX_BYTES = 2**30
MAX_PIXELS = 178_956_970  # Pillow's own limit
MAX_JPEG_SCANS = 100  # each scan of a progressive JPEG costs a pass over the whole image
EIGHT_BIT_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
BACKGROUND = "white"  # behind transparent pixels, whose own colours are never seen

_JPEG_START, _JPEG_SCAN = b"\xff\xd8", b"\xff\xda"
_PNG_START, _PNG_CHANNELS = b"\x89PNG\r\n\x1a\n", {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # number of channels by colour type
_PNG_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # Adam7: left, top, step x, step y

Reason = Literal["format", "mode", "size", "damage"]


class UnreadableImageError(UserError):
    """An image file that cannot be decoded.

    Attributes:
        problem: the message without the name of the file.
        reason: "format" (not one of `FORMATS`), "mode" (not 8 or 16 bits), "size" (too large or too small) or "damage".
    """

    def __init__(self, source: Path | bytes, problem: str, reason: Reason) -> None:
        name = "the image" if isinstance(source, bytes) else str(source)
        super().__init__(f"{name} {problem}")
        self.problem = problem
        self.reason = reason


class DecodedPhoto(NamedTuple):
    """A grey photograph, possibly reduced."""

    pixels: NDArray  # uint8 (H, W)
    file_size: tuple[int, int]  # width and height in the file, before any reduction


def decode_colours(source: Path | bytes, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS) -> NDArray:
    """Decode an image file as RGB, rotated upright according to its EXIF orientation.

    Grey, paletted and 16-bit images are converted to 8-bit RGB; transparent ones are laid on white.

    Args:
        source: a path, or the content of a file.
        max_pixels: images with more pixels are refused.
        formats: the accepted formats, a subset of `FORMATS`.

    Returns:
        uint8 (H, W, 3).

    Raises:
        UserError: the file does not exist.
        UnreadableImageError: the file cannot be decoded.

    Examples:
        >>> decode_colours(b"P5 3 2 255 " + bytes(6)).shape  # a grey PPM image of 3 x 2 pixels
        (2, 3, 3)
    """
    with _open(source, max_pixels, formats) as image:
        return np.array(_eight_bit(ImageOps.exif_transpose(image), image.format, source).convert("RGB"))


def decode_grey(source: Path | bytes, max_side: int | None = None) -> DecodedPhoto:
    """Decode an image file as 8-bit grey values, ignoring its EXIF orientation; transparent images are laid on white.

    Args:
        source: a path, or the content of a file.
        max_side: larger photographs are reduced until neither side is longer, pixels.

    Raises:
        UserError: the file does not exist.
        UnreadableImageError: the file cannot be decoded.

    Examples:
        >>> photo = decode_grey(b"P5 30 20 255 " + bytes(600), max_side=15)
        >>> photo.pixels.shape, photo.file_size
        ((10, 15), (30, 20))
    """
    with _open(source, MAX_PIXELS, FORMATS) as image:
        file_size = image.size
        if max_side is not None:
            image.draft("L", (max_side, max_side))  # decodes a JPEG at a fraction of its size, which is faster
        grey = _eight_bit(image, image.format, source).convert("L")
    if max_side is not None and max(grey.size) > max_side:
        grey.thumbnail((max_side, max_side), Image.Resampling.BOX)
    return DecodedPhoto(np.asarray(grey), file_size)


def _eight_bit(image: Image.Image, file_format: str | None, source: Path | bytes) -> Image.Image:
    """The image with 8 bits per channel and without transparency.

    Raises:
        UnreadableImageError: integers or floating-point numbers whose range the file does not say.
    """
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, BACKGROUND)
        return Image.alpha_composite(background, layer).convert("RGB")
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PPM"):  # 0 to 65535
        return Image.fromarray((np.asarray(image.convert("I")) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode not in EIGHT_BIT_MODES:
        problem = f"has mode {image.mode}, numbers of an unknown range, instead of 8 or 16 bits; convert it to 8 bits"
        raise UnreadableImageError(source, problem, "mode")
    return image


@contextmanager
def _open(source: Path | bytes, max_pixels: int, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Yield the image before its pixels are decoded; an error while the block decodes them is an `UnreadableImageError`."""
    data = _read(source)
    if data.startswith(_JPEG_START) and data.count(_JPEG_SCAN) > MAX_JPEG_SCANS:
        problem = f"is a JPEG with more than {MAX_JPEG_SCANS} scans, which takes too long to decode; save it with fewer"
        raise UnreadableImageError(source, problem, "size")
    too_large = f"has more than {max_pixels // 10**6} million pixels, too many to decode; reduce its size"
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableImageError(source, too_large, "size")
            if image.format == "PNG":
                _check_png_rows(data)
            yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:
        problem = f"is not a {', '.join(formats[:-1])} or {formats[-1]} image; convert it to one of them"
        raise UnreadableImageError(source, problem, "format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(source, too_large, "size") from error
    except Exception as error:  # a damaged file can raise anything
        raise UnreadableImageError(source, f"is not a whole image ({error}); remove or replace it", "damage") from error


def _read(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    if not is_file(source):
        raise UserError(f"{wrong_path('image', source)}; correct the path")
    try:
        if source.stat().st_size > MAX_BYTES:
            raise UnreadableImageError(source, "is larger than 1 GiB; reduce its size", "size")
        return source.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); check its permissions"
        raise UnreadableImageError(source, problem, "damage") from error


def _check_png_rows(data: bytes) -> None:
    """Raise `ValueError` if a PNG has fewer rows than its header says; Pillow would fill in the missing ones in black."""
    if data[:8] != _PNG_START or data[12:16] != b"IHDR":
        raise ValueError("the PNG header is damaged")
    expected = _inflated_png_size(data)
    inflate, present = zlib.decompressobj(), 0
    for content in _png_chunks(data):
        while content and present < expected:
            present += len(inflate.decompress(content, 2**20))  # 1 MiB at a time, which bounds the memory
            content = inflate.unconsumed_tail
    if present < expected:
        raise ValueError("the PNG has fewer rows than its header says")


def _inflated_png_size(data: bytes) -> int:
    """The bytes that all rows of a PNG occupy after decompression."""
    width, height, bits, colour_type, _, _, is_interlaced = struct.unpack(">IIBBBBB", data[16:29])
    channels = _PNG_CHANNELS[colour_type]
    passes = _PNG_PASSES if is_interlaced else ((0, 0, 1, 1),)
    size = 0
    for left, top, step_x, step_y in passes:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            size += rows * (1 + -(-columns * bits * channels // 8))  # each row begins with a byte for its filter
    return size


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """Yield the contents of the IDAT chunks in order."""
    offset = 8
    while offset + 12 <= len(data):
        (length,) = struct.unpack(">I", data[offset : offset + 4])
        if data[offset + 4 : offset + 8] == b"IDAT":
            yield data[offset + 8 : offset + 8 + length]
        offset += 12 + length
