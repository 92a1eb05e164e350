"""Decoding of image files: accepted formats only, complete files only, and one result for every colour mode."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from csametric.data.decoding import UnreadableImageError, decode_colours, decode_grey
from csametric.errors import UserError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(out) (w) file closefile\nshowpage\n"


def random_image(height=40, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image, image_format, **options):
    out = io.BytesIO()
    Image.fromarray(image).save(out, image_format, **options)
    return out.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(rows: np.ndarray, height: int) -> bytes:
    """Encode a grey PNG whose header says `height`, whatever the number of rows."""
    header = struct.pack(">IIBBBBB", rows.shape[1], height, 8, 0, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["png", "bmp", "tiff", "ppm", "gif", "webp", "jpeg"])
def test_every_accepted_format_is_decoded(tmp_path, image_format):
    options = {"webp": {"lossless": True}, "jpeg": {"quality": 100, "subsampling": 0}}.get(image_format, {})
    (tmp_path / "a").write_bytes(encode(random_image(), image_format, **options))
    tolerance = 80 if image_format in ("jpeg", "gif") else 0  # these two are lossy
    np.testing.assert_allclose(decode_colours(tmp_path / "a").astype(int), random_image(), atol=tolerance)
    grey = decode_grey(tmp_path / "a")
    assert grey.pixels.shape == (40, 30)
    assert grey.file_size == (30, 40)


@pytest.mark.parametrize("decode", [decode_colours, decode_grey])
def test_postscript_is_never_run(tmp_path, monkeypatch, decode):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("the file was run as a program"))
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(UnreadableImageError, match="is not a BMP, GIF, JPEG, PNG, PPM, TIFF or WEBP image") as refusal:
        decode(tmp_path / "a.png")
    assert refusal.value.reason == "format"
    with pytest.raises(UnreadableImageError):
        decode(EPS)


def test_other_formats_that_pillow_knows_are_refused():
    for image_format in ("ico", "tga", "pcx", "sgi"):
        with pytest.raises(UnreadableImageError, match="is not a BMP"):
            decode_colours(encode(random_image(32, 32), image_format))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (65, 64)])
def test_complete_pngs_of_every_mode_are_decoded(mode, size, interlaced):
    out = io.BytesIO()
    image = Image.new(mode, size)
    image.save(out, "png")
    data = out.getvalue()
    if interlaced:
        data = interlace(data)
    assert decode_grey(data).file_size == size


def interlace(data: bytes) -> bytes:
    """Encode a black PNG again, in the seven passes of Adam7."""
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    content = b""
    for left, top, step_x, step_y in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        columns, rows = len(range(left, width, step_x)), len(range(top, height, step_y))
        content += rows * bytes(1 + -(-columns * bits * channels // 8)) if columns else b""
    header = chunk(b"IHDR", data[16:28] + b"\1")
    palette = chunk(b"PLTE", bytes(3)) if colour == 3 else b""  # colour type 3 needs one
    return data[:8] + header + palette + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def test_a_png_with_too_few_rows_is_refused(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (65, 65), dtype=np.uint8)
    np.testing.assert_array_equal(decode_grey(png(rows, 65)).pixels, rows)
    (tmp_path / "short.png").write_bytes(png(rows[:40], 65))
    for decode in (decode_grey, decode_colours):
        with pytest.raises(UnreadableImageError, match=r"short.png is not a whole image .the PNG has fewer rows"):
            decode(tmp_path / "short.png")


@pytest.mark.parametrize("image_format", ["png", "bmp", "jpeg", "tiff", "webp"])
def test_truncated_files_are_refused(image_format):
    data = encode(random_image(100, 100), image_format)
    with pytest.raises(UnreadableImageError, match="is not a whole image") as refusal:
        decode_colours(data[: len(data) * 2 // 3])
    assert refusal.value.reason == "damage"


def test_images_with_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(UnreadableImageError, match="the image has more than 0 million pixels") as refusal:
        decode_colours(encode(random_image(), "png"), max_pixels=1000)
    assert refusal.value.reason == "size"
    with pytest.raises(UnreadableImageError, match="more than 178 million pixels"):
        decode_grey(png(np.zeros((1, 60_000), np.uint8), 60_000))


def test_jpegs_with_too_many_scans_are_refused():
    data = encode(random_image(), "jpeg", progressive=True)
    first_scan = data.index(b"\xff\xda")
    with pytest.raises(UnreadableImageError, match="more than 100 scans"):
        decode_grey(data[:first_scan] + 200 * data[first_scan:-2] + data[-2:])


def test_missing_and_unreadable_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"image .*none.png does not exist; correct"):
        decode_colours(tmp_path / "none.png")
    (tmp_path / "secret.png").touch()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UnreadableImageError, match=r"secret.png cannot be read \(Permission denied\)"):
        decode_colours(tmp_path / "secret.png")


def test_the_installed_pillow_decodes_webp():
    assert features.check("webp")


def content_of(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


GREY = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    wide = content_of(Image.fromarray(GREY.astype(np.uint16) * 257), kind)
    np.testing.assert_array_equal(decode_grey(wide).pixels, GREY)
    np.testing.assert_array_equal(decode_colours(wide), np.repeat(GREY[..., None], 3, 2))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("decode", [decode_grey, decode_colours])
def test_numbers_of_unknown_range_are_refused(dtype, decode):
    with pytest.raises(UnreadableImageError, match=r"has mode [IF], numbers of an unknown range") as error:
        decode(content_of(Image.fromarray(GREY.astype(dtype)), "TIFF"))
    assert error.value.reason == "mode"


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
@pytest.mark.parametrize("hidden", [0, 200])
def test_the_colour_behind_transparency_is_never_seen(mode, hidden):
    grey = Image.fromarray(np.where(np.arange(50) < 25, GREY, hidden).astype(np.uint8))
    alpha = Image.fromarray(np.where(np.arange(50) < 25, 255, 0)[None].repeat(40, 0).astype(np.uint8))
    if mode == "P":
        values = np.where(np.arange(50) < 25, GREY // 2, 255).astype(np.uint8)
        image, options = Image.fromarray(values).convert("P"), {"transparency": 255}
        expected = np.where(np.arange(50) < 25, GREY // 2, 255)
    else:
        image, options = Image.merge("LA", [grey, alpha]).convert(mode), {}
        expected = np.where(np.arange(50) < 25, GREY, 255)
    data = content_of(image, **options)
    np.testing.assert_array_equal(decode_grey(data).pixels, expected)
    np.testing.assert_array_equal(decode_colours(data)[..., 0], expected)
