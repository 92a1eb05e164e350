"""Image files are decoded in one place: named formats only, whole files only, one meaning for every mode."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from csametric.data.decoding import UnreadableImageError, decode_colours, decode_grey
from csametric.errors import UserError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(out) (w) file closefile\nshowpage\n"


def picture(height=40, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image, kind, **options):
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(rows: np.ndarray, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", rows.shape[1], height, 8, 0, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "ppm", "gif", "webp", "jpeg"])
def test_every_named_format_is_decoded(tmp_path, kind):
    options = {"webp": {"lossless": True}, "jpeg": {"quality": 100, "subsampling": 0}}.get(kind, {})
    (tmp_path / "a").write_bytes(encoded(picture(), kind, **options))
    lossy = kind in ("jpeg", "gif")
    np.testing.assert_allclose(decode_colours(tmp_path / "a").astype(int), picture(), atol=80 if lossy else 0)
    grey = decode_grey(tmp_path / "a")
    assert grey.pixels.shape == (40, 30)
    assert grey.file_size == (30, 40)


@pytest.mark.parametrize("decode", [decode_colours, decode_grey])
def test_postscript_is_never_run(tmp_path, monkeypatch, decode):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("the file was run as a program"))
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(UnreadableImageError, match="is not a BMP, GIF, JPEG, PNG, PPM, TIFF or WEBP image") as refused:
        decode(tmp_path / "a.png")
    assert refused.value.reason == "format"
    with pytest.raises(UnreadableImageError):
        decode(EPS)


def test_any_other_format_pillow_knows_is_refused():
    for kind in ("ico", "tga", "pcx", "sgi"):
        with pytest.raises(UnreadableImageError, match="is not a BMP"):
            decode_colours(encoded(picture(32, 32), kind))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (65, 64)])
def test_whole_pngs_of_every_kind_are_whole(mode, size, interlaced):
    out = io.BytesIO()
    image = Image.new(mode, size)
    image.save(out, "png")
    data = out.getvalue()
    if interlaced:
        data = interlace(data)
    assert decode_grey(data).file_size == size


def interlace(data: bytes) -> bytes:
    """The same black PNG as Adam7 stores it."""
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    content = b""
    for left, top, right, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        columns, rows = len(range(left, width, right)), len(range(top, height, down))
        content += rows * bytes(1 + -(-columns * bits * channels // 8)) if columns else b""
    header = chunk(b"IHDR", data[16:28] + b"\1")
    palette = chunk(b"PLTE", bytes(3)) if colour == 3 else b""
    return data[:8] + header + palette + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def test_a_png_with_too_few_rows_is_refused(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (65, 65), dtype=np.uint8)
    np.testing.assert_array_equal(decode_grey(png(rows, 65)).pixels, rows)
    (tmp_path / "short.png").write_bytes(png(rows[:40], 65))
    for decode in (decode_grey, decode_colours):
        with pytest.raises(UnreadableImageError, match=r"short.png is not a whole image .the PNG has fewer rows"):
            decode(tmp_path / "short.png")


@pytest.mark.parametrize("kind", ["png", "bmp", "jpeg", "tiff", "webp"])
def test_truncated_files_are_refused(kind):
    data = encoded(picture(100, 100), kind)
    with pytest.raises(UnreadableImageError, match="is not a whole image") as refused:
        decode_colours(data[: len(data) * 2 // 3])
    assert refused.value.reason == "damage"


def test_too_many_pixels_are_refused_before_they_are_decoded():
    with pytest.raises(UnreadableImageError, match="the image has more than 0 million pixels") as refused:
        decode_colours(encoded(picture(), "png"), max_pixels=1000)
    assert refused.value.reason == "size"
    with pytest.raises(UnreadableImageError, match="more than 178 million pixels"):
        decode_grey(png(np.zeros((1, 60_000), np.uint8), 60_000))


def test_endless_scans_are_refused():
    data = encoded(picture(), "jpeg", progressive=True)
    place = data.index(b"\xff\xda")
    with pytest.raises(UnreadableImageError, match="more than 100 scans"):
        decode_grey(data[:place] + 200 * data[place:-2] + data[-2:])


def test_missing_and_unreadable_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"there is no image .*none.png; correct"):
        decode_colours(tmp_path / "none.png")
    (tmp_path / "secret.png").touch()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UnreadableImageError, match=r"secret.png cannot be read \(Permission denied\)"):
        decode_colours(tmp_path / "secret.png")


def test_webp_is_part_of_this_pillow():
    assert features.check("webp")
