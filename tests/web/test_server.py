"""The server answers pictures with the model's own maps, refuses all else in one sentence, and trusts no other site."""

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


def refused(client, content, status, words, **headers):
    answer = client.post("/attention", content=content, headers=headers)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert ";" in answer.json()["error"], "the mend is missing"


def test_the_page_runs_its_own_script_and_style_only(client):
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
def test_every_answer_is_hardened(client, method, path):
    headers = getattr(client, method)(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in headers
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp"])
def test_a_picture_is_answered_with_the_maps_of_the_model(client, model, kind):
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


def test_a_jpeg_of_another_size_is_answered(client):
    view = client.post("/attention", content=file_of(picture(1, 200, 300), "jpeg")).json()
    assert (view["height"], view["width"]) == (HEIGHT, WIDTH)


def test_the_first_picture_is_on_the_page(model):
    with TestClient(make_app(model.attend, "tiny", picture()), base_url=SITE) as client:
        assert "data:image/png;base64" in client.get("/").text


def test_a_picture_is_turned_as_the_camera_says():
    upright = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned = file_of(Image.fromarray(np.rot90(upright).copy()), exif=exif)
    np.testing.assert_array_equal(read_picture(turned), upright)


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded(client, monkeypatch):
    """A progressive JPEG whose last scan is repeated: a few bytes each, a pass over the whole picture each."""
    data = file_of(picture(0, 64, 64), "jpeg", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * 200 + data[-2:]
    assert read_picture(data).shape == (64, 64, 3)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    refused(client, bomb, 413, "takes too long to decode")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_modes_become_colours(mode):
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
def test_what_is_no_picture_is_refused(client, content):
    refused(client, content, 415, "is not a BMP, JPEG, PNG, TIFF or WEBP image")


def test_sixteen_bits_are_refused(client):
    refused(client, file_of(Image.fromarray(np.zeros((9, 9), np.uint16))), 415, "convert it to RGB")


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp"])
def test_a_truncated_picture_is_refused(client, kind):
    content = file_of(picture(0, 200, 200), kind)
    refused(client, content[: len(content) * 2 // 3], 400, "remove or replace it")


def png_of_size(width, height):
    """The header of a PNG that claims a size, and almost nothing else."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7_100, 10_000, 14_000, 100_000])
def test_a_bomb_is_refused_before_it_is_decoded(client, monkeypatch, side):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    refused(client, png_of_size(side, side), 413, "million pixels")


def test_a_file_too_large_is_refused_by_its_length(client):
    refused(client, b"short", 413, "20 MiB", **{"content-length": str(20 * 2**20 + 1)})


def test_a_file_too_large_is_refused_while_it_comes(client, monkeypatch):
    monkeypatch.setattr(server, "MOST_BYTES", 3 * 2**20)
    refused(client, (bytes(2**20) for _ in range(5)), 413, "3 MiB")


def test_another_host_is_refused(client):
    for host in ("evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example"):
        for answer in (client.get("/", headers={"host": host}), client.post("/attention", headers={"host": host})):
            assert answer.status_code == 400
            assert "tiny" not in answer.text


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://127.0.0.1:8765]", "//[x"])
def test_a_malformed_origin_is_another_site(client, origin):
    refused(client, file_of(picture()), 403, "another site", origin=origin)


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:9", "[::1]:8765"])
def test_the_loopback_is_answered(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "asked", "status"),
    [
        ("box.example", "box.example:1", 200),
        ("192.168.0.5", "192.168.0.5", 200),
        ("fe80::1", "[fe80::1]:8765", 200),
        ("0.0.0.0", "192.168.0.5", 200),
        ("192.168.0.5", "192.168.0.6", 400),
        ("box.example", "evil.example", 400),
    ],
)
def test_the_host_asked_for_is_answered(model, host, asked, status):
    with TestClient(make_app(model.attend, "tiny", host=host), base_url=SITE) as client:
        assert client.get("/", headers={"host": asked}).status_code == status


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_may_not_send_pictures(client, site):
    refused(client, file_of(picture()), 403, "another site", **{"sec-fetch-site": site})
    assert client.post("/attention", content=file_of(picture()), headers={"sec-fetch-site": "same-origin"}).is_success


def test_another_origin_may_not_either_where_browsers_say_no_more(client):
    refused(client, file_of(picture()), 403, "another site", origin="http://evil.example")
    refused(client, file_of(picture()), 403, "another site", origin="null")
    assert client.post("/attention", content=file_of(picture()), headers={"origin": SITE}).is_success


def test_a_file_that_does_not_arrive_is_not_waited_for(client, monkeypatch):
    async def never(request):
        await anyio.sleep_forever()

    monkeypatch.setattr(server, "SECONDS_TO_SEND", 0.05)
    monkeypatch.setattr(server, "_body", never)
    refused(client, b"", 408, "did not arrive")


def test_a_run_without_the_attention_is_explained():
    plain = embedder(attention=None)
    with pytest.raises(UserError, match="no compressed self-attention"):
        make_app(plain.attend, "plain", picture())
    with TestClient(make_app(plain.attend, "plain"), base_url=SITE) as client:
        refused(client, file_of(picture()), 400, "train a recipe with csa")


def test_our_own_mistake_is_an_answer_too():
    def fail(image):
        raise ZeroDivisionError("secret")

    with TestClient(make_app(fail, "tiny"), base_url=SITE, raise_server_exceptions=False) as client:
        answer = client.post("/attention", content=file_of(picture()))
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "ZeroDivisionError" in answer.json()["error"]
    assert "secret" not in answer.text


def test_one_picture_at_a_time_and_the_page_meanwhile(model):
    running, most, lock = 0, 0, threading.Lock()

    def attend(image):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
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
    assert most == 1
    assert waited < 0.2


def test_reading_leaves_a_writable_array():
    assert read_picture(file_of(picture())).flags.writeable
