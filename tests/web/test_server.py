"""The server returns the model's maps for a picture, explains what it refuses, and trusts no other site."""

import base64
import hashlib
import re
import struct
import threading
import time
import zlib

import anyio
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from csametric.errors import UserError
from csametric.web import server
from csametric.web.server import make_app, read_picture
from tests.visualization.test_explorer import decoded
from tests.web.tiny import HEIGHT, WIDTH, embedder, file_of, picture

SITE = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def model():
    return embedder()


@pytest.fixture(scope="module")
def client(model):
    with TestClient(make_app(model.attend, "<tiny>"), base_url=SITE) as client:
        yield client


def expect_refusal(client, content, status, message, **headers):
    response = client.post("/attention", content=content, headers=headers)
    assert response.status_code == status
    assert message in response.json()["error"]
    assert ";" in response.json()["error"], "the message does not say what to do"


def test_the_policy_allows_only_the_pages_own_script_and_style(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "&lt;tiny&gt;" in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.S)
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy
    assert not re.search(r"https?://|@import|url\(|(src|href)=(?!\"data:)", page.text)


@pytest.mark.parametrize(("method", "path"), [("get", "/"), ("post", "/attention"), ("get", "/nothing")])
def test_every_response_has_security_headers(client, method, path):
    headers = getattr(client, method)(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in headers
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp"])
def test_the_view_of_a_picture_holds_the_maps_of_the_model(client, model, kind):
    image = picture()
    view = client.post("/attention", content=file_of(image, kind, **({"lossless": True} if kind == "webp" else {}))).json()
    expected = model.attend(image)
    assert (view["height"], view["width"]) == (HEIGHT, WIDTH)
    assert [layer["name"] for layer in view["layers"]] == ["stage 1", "stage 2", "stage 3"]
    for layer, (maps, alpha) in zip(view["layers"], expected.layers.values(), strict=True):
        base, weights = decoded(layer["base"], layer), decoded(layer["weights"], layer)
        positions = layer["height"] * layer["width"]
        assert layer["alpha"] == alpha == 0.5
        np.testing.assert_allclose(base.sum((2, 3)), positions, rtol=2e-3)
        np.testing.assert_allclose(base, maps.base[0] * positions, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(weights, maps.weights[0], rtol=1e-3, atol=1e-6)


def test_a_jpeg_of_another_size_is_resized(client):
    view = client.post("/attention", content=file_of(picture(1, 200, 300), "jpeg")).json()
    assert (view["height"], view["width"]) == (HEIGHT, WIDTH)


def test_the_first_picture_is_on_the_page(model):
    with TestClient(make_app(model.attend, "tiny", picture()), base_url=SITE) as client:
        assert "data:image/png;base64" in client.get("/").text


def test_a_picture_is_rotated_by_its_exif_orientation():
    upright = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise
    rotated = file_of(Image.fromarray(np.rot90(upright).copy()), exif=exif)
    np.testing.assert_array_equal(read_picture(rotated), upright)


def test_a_jpeg_with_too_many_scans_is_refused_before_decoding(client, monkeypatch):
    """In a progressive JPEG, each repetition of the last scan takes few bytes but a pass over the picture."""
    data = file_of(picture(0, 64, 64), "jpeg", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * 200 + data[-2:]
    assert read_picture(data).shape == (64, 64, 3)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    expect_refusal(client, bomb, 413, "takes too long to decode")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_modes_are_converted_to_rgb(mode):
    assert read_picture(file_of(Image.fromarray(picture()).convert(mode))).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        b"../../etc/passwd",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"%PDF-1.7",
        file_of(picture(), "gif"),
        file_of(picture(), "ppm"),
    ],
    ids=["empty", "text", "path", "svg", "pdf", "gif", "ppm"],
)
def test_files_that_are_not_pictures_are_refused(client, content):
    expect_refusal(client, content, 415, "is not a BMP, JPEG, PNG, TIFF or WEBP image")


def test_sixteen_bit_pictures_are_scaled_to_eight(client):
    grey = np.random.default_rng(0).integers(0, 256, (9, 9), np.uint8)
    deep, plain = (
        client.post("/attention", content=file_of(Image.fromarray(pixels))).json()
        for pixels in (grey.astype(np.uint16) * 257, grey)
    )
    assert deep == plain


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp"])
def test_a_truncated_picture_is_refused(client, kind):
    content = file_of(picture(0, 200, 200), kind)
    expect_refusal(client, content[: len(content) * 2 // 3], 400, "remove or replace it")


def png_of_size(width, height):
    """A PNG whose header declares a size, with almost no pixel data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7_100, 10_000, 14_000, 100_000])
def test_a_decompression_bomb_is_refused_before_decoding(client, monkeypatch, side):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    expect_refusal(client, png_of_size(side, side), 413, "million pixels")


def test_a_file_that_is_too_large_is_refused_by_its_content_length(client):
    expect_refusal(client, b"short", 413, "20 MiB", **{"content-length": str(20 * 2**20 + 1)})


def test_a_file_that_is_too_large_is_refused_during_the_upload(client, monkeypatch):
    monkeypatch.setattr(server, "MAX_BYTES", 3 * 2**20)
    expect_refusal(client, (bytes(2**20) for _ in range(5)), 413, "3 MiB")


def test_another_host_is_refused(client):
    for host in ("evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example"):
        for response in (client.get("/", headers={"host": host}), client.post("/attention", headers={"host": host})):
            assert response.status_code == 400
            assert "tiny" not in response.text


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://127.0.0.1:8765]", "//[x"])
def test_a_malformed_origin_is_a_bad_request(client, origin):
    expect_refusal(client, file_of(picture()), 400, "the Origin header is malformed", origin=origin)


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:9", "[::1]:8765"])
def test_loopback_hosts_are_accepted(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "requested", "status"),
    [
        ("box.example", "box.example:1", 200),
        ("192.168.0.5", "192.168.0.5", 200),
        ("fe80::1", "[fe80::1]:8765", 200),
        ("0.0.0.0", "192.168.0.5", 200),
        ("192.168.0.5", "192.168.0.6", 400),
        ("box.example", "evil.example", 400),
    ],
)
def test_only_the_configured_host_is_accepted(model, host, requested, status):
    with TestClient(make_app(model.attend, "tiny", host=host), base_url=SITE) as client:
        assert client.get("/", headers={"host": requested}).status_code == status


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pictures_from_another_site_are_refused(client, site):
    expect_refusal(client, file_of(picture()), 403, "another site", **{"sec-fetch-site": site})
    assert client.post("/attention", content=file_of(picture()), headers={"sec-fetch-site": "same-origin"}).is_success


def test_pictures_from_another_origin_are_refused_without_sec_fetch_site(client):
    expect_refusal(client, file_of(picture()), 403, "another site", origin="http://evil.example")
    expect_refusal(client, file_of(picture()), 403, "another site", origin="null")
    assert client.post("/attention", content=file_of(picture()), headers={"origin": SITE}).is_success


def test_an_upload_that_takes_too_long_is_refused(client, monkeypatch):
    async def never(request):
        await anyio.sleep_forever()

    monkeypatch.setattr(server, "SECONDS_TO_SEND", 0.05)
    monkeypatch.setattr(server, "_body", never)
    expect_refusal(client, b"", 408, "the upload took longer than 0.05 seconds")


def test_a_run_without_csa_is_explained():
    plain = embedder(attention=None)
    with pytest.raises(UserError, match="no compressed self-attention"):
        make_app(plain.attend, "plain", picture())
    with TestClient(make_app(plain.attend, "plain"), base_url=SITE) as client:
        expect_refusal(client, file_of(picture()), 400, "train a recipe with csa")


def test_an_internal_error_is_reported_without_details():
    def fail(image):
        raise ZeroDivisionError("secret")

    with TestClient(make_app(fail, "tiny"), base_url=SITE, raise_server_exceptions=False) as client:
        response = client.post("/attention", content=file_of(picture()))
    assert response.status_code == 500
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "ZeroDivisionError" in response.json()["error"]
    assert "secret" not in response.text


def test_pictures_are_processed_one_at_a_time_while_the_page_stays_responsive(model):
    running, peak, lock = 0, 0, threading.Lock()

    def attend(image):
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.1)
        with lock:
            running -= 1
        return model.attend(image)

    with TestClient(make_app(attend, "tiny"), base_url=SITE) as client:
        send = lambda: client.post("/attention", content=file_of(picture()))  # noqa: E731
        threads = [threading.Thread(target=send) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        started = time.perf_counter()
        assert client.get("/").status_code == 200
        waited = time.perf_counter() - started
        for thread in threads:
            thread.join()
    assert peak == 1
    assert waited < 0.2


def test_a_decoded_picture_is_writable():
    assert read_picture(file_of(picture())).flags.writeable
