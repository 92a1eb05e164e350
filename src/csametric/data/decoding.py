"""Decode image files: the only place where bytes from outside become pixels.

Only the formats in `FORMATS` are ever opened, whatever a file is called. Pillow recognises formats by content, and for
PostScript (EPS) it would run the file as a program.
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

from csametric.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # by Pillow's names
MAX_BYTES = 2**30
MAX_PIXELS = 178_956_970  # from here on Pillow refuses too
MAX_JPEG_SCANS = 100  # each scan of a progressive JPEG costs a pass over the whole picture
COLOUR_MODES = {"RGB", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "1"}

_JPEG_START, _JPEG_SCAN = b"\xff\xd8", b"\xff\xda"
_PNG_START, _PNG_CHANNELS = b"\x89PNG\r\n\x1a\n", {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # channels by colour type
_PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7

Reason = Literal["format", "mode", "size", "damage"]


class UnreadableImageError(UserError):
    """A file that cannot be decoded.

    problem: the message without the name of the file.
    reason: "format" (not one of `FORMATS`), "mode" (not 8-bit colours), "size" (too large or too small) or "damage".
    """

    def __init__(self, source: Path | bytes, problem: str, reason: Reason) -> None:
        name = "the image" if isinstance(source, bytes) else str(source)
        super().__init__(f"{name} {problem}")
        self.problem, self.reason = problem, reason


class DecodedPhoto(NamedTuple):
    """A grey photograph, possibly reduced.

    pixels: uint8 (H, W). file_size: width and height in the file.
    """

    pixels: NDArray
    file_size: tuple[int, int]


def decode_colours(source: Path | bytes, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS) -> NDArray:
    """Decode an image file as RGB, uint8 (H, W, 3), turned as its camera says.

    Grey, paletted and transparent images become RGB.

    Args:
        source: a path, or the content of a file.
        max_pixels: images with more are refused.
        formats: files in other formats are refused; some of `FORMATS`.

    Raises:
        UserError: no such file. `UnreadableImageError`: it cannot be decoded.
    """
    with _open(source, max_pixels, formats) as image:
        if image.mode not in COLOUR_MODES:
            raise UnreadableImageError(source, f"has mode {image.mode} instead of 8-bit colours; convert it to RGB", "mode")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def decode_grey(source: Path | bytes, max_side: int | None = None) -> DecodedPhoto:
    """Decode an image file as grey values, uint8, as it lies in the file: the camera's orientation is ignored.

    Args:
        source: a path, or the content of a file.
        max_side: larger photographs are reduced so that no side is longer, pixels.

    Raises:
        UserError: no such file. `UnreadableImageError`: it cannot be decoded.
    """
    with _open(source, MAX_PIXELS, FORMATS) as image:
        file_size = image.size
        if max_side is not None:
            image.draft("L", (max_side, max_side))  # a JPEG is decoded at a fraction of its size
        sixteen_bits = image.mode.startswith("I;16")
        grey = (image.convert("I").point(lambda value: value / 256) if sixteen_bits else image).convert("L")
    if max_side is not None and max(grey.size) > max_side:
        grey.thumbnail((max_side, max_side), Image.Resampling.BOX)
    return DecodedPhoto(np.asarray(grey), file_size)


@contextmanager
def _open(source: Path | bytes, max_pixels: int, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Yield the image, not yet decoded; whatever goes wrong in the block while decoding becomes an `UnreadableImageError`."""
    data = _read(source)
    if data.startswith(_JPEG_START) and data.count(_JPEG_SCAN) > MAX_JPEG_SCANS:
        problem = f"is a JPEG with more than {MAX_JPEG_SCANS} scans, which takes too long to decode; save it again"
        raise UnreadableImageError(source, problem, "size")
    too_large = f"has more than {max_pixels // 10**6} million pixels, too many to decode; make it smaller"
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
        raise UnreadableImageError(source, f"is not a whole image ({error}); remove it or get it again", "damage") from error


def _read(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    if not source.is_file():
        raise UserError(f"there is no image {source}; correct the path")
    try:
        if source.stat().st_size > MAX_BYTES:
            raise UnreadableImageError(source, "is larger than 1 GiB; make it smaller", "size")
        return source.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); check its permissions"
        raise UnreadableImageError(source, problem, "damage") from error


def _check_png_rows(data: bytes) -> None:
    """Raise `ValueError` if a PNG holds fewer rows than it promises; Pillow would show the missing ones in black."""
    if data[:8] != _PNG_START or data[12:16] != b"IHDR":
        raise ValueError("the PNG header is damaged")
    width, height, bits, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    channels = _PNG_CHANNELS[colour_type]
    passes = _PNG_PASSES if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, step_x, step_y in passes:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            expected += rows * (1 + -(-columns * bits * channels // 8))  # each row begins with the number of its filter
    inflate, present = zlib.decompressobj(), 0
    for content in _png_data(data):
        while content and present < expected:
            present += len(inflate.decompress(content, 2**20))
            content = inflate.unconsumed_tail
    if present < expected:
        raise ValueError("the PNG has fewer rows than its header says")


def _png_data(data: bytes) -> Iterator[bytes]:
    """The contents of the IDAT chunks, in order."""
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            yield data[place + 8 : place + 8 + length]
        place += 12 + length
