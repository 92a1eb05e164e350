"""`csametric serve`: what stops it is explained before it listens; it serves until it is told to stop."""

import http.client
import os
import signal
import socket
import threading
import time

import numpy as np
import pytest

from csametric.cli import serve as command
from csametric.errors import UserError
from csametric.web import serving
from tests.web.tiny import embedder, file_of, picture


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("csametric.load", lambda folder: embedder())
    return tmp_path / "tiny"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_port_in_use_is_explained(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is in use; use another, e.g. --port {port + 1}"):
            command.serve(run, port=port)


@pytest.mark.parametrize(("host", "words"), [("no.such.invalid", "correct --host"), ("192.0.2.1", "cannot listen on")])
def test_a_wrong_host_is_explained(run, host, words):
    with pytest.raises(UserError, match=words):
        command.serve(run, host=host, port=0)


def test_a_run_without_the_attention_is_refused_before_listening(run, monkeypatch):
    monkeypatch.setattr("csametric.load", lambda folder: embedder(attention=None))
    monkeypatch.setattr(serving, "listen", lambda *where: pytest.fail("listened"))
    with pytest.raises(UserError, match="no compressed self-attention"):
        command.serve(run)


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist"), (b"text", "is not a BMP, JPEG")])
def test_a_wrong_first_picture_is_explained(run, tmp_path, content, words):
    if content:
        (tmp_path / "first.png").write_bytes(content)
    with pytest.raises(UserError, match=words):
        command.serve(run, image=tmp_path / "first.png")


def test_a_missing_extra_is_explained(run, monkeypatch):
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"serve needs starlette and uvicorn; pip install 'csametric\[web\]'"):
        command.serve(run)


@pytest.mark.parametrize(("host", "loopback"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False)])
def test_the_loopback_is_known(host, loopback):
    assert serving.is_loopback(host) == loopback


def test_it_serves_until_it_is_interrupted(run, tmp_path, capsys):
    port, seen = free_port(), []

    def ask():
        for _ in range(1000):  # a busy machine takes long to start; a signal before that would end the tests
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", "/")
                seen.append(connection.getresponse().read().decode())
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
            finally:
                connection.close()
        os.kill(os.getpid(), signal.SIGINT)

    (tmp_path / "first.png").write_bytes(file_of(np.ascontiguousarray(picture())))
    thread = threading.Thread(target=ask)
    thread.start()
    command.serve(run, image=tmp_path / "first.png", host="127.0.0.1", port=port)
    thread.join()
    assert "What tiny attends to" in seen[0]
    assert f"http://127.0.0.1:{port}/" in capsys.readouterr().out


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_headers_that_never_end_are_given_up(run, monkeypatch, sent):
    """Silent clients would otherwise hold every connection; a client with whole headers is answered meanwhile."""
    monkeypatch.setattr("csametric.web.protocol.SECONDS_FOR_HEADERS", 0.3)
    port, closed = free_port(), []

    def ask():
        for _ in range(100):
            try:
                silent = socket.create_connection(("127.0.0.1", port), timeout=10)
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        silent.sendall(sent)
        patient = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        patient.request("GET", "/")
        closed.append(patient.getresponse().status)
        started = time.monotonic()
        closed.append(silent.recv(1))
        closed.append(time.monotonic() - started < 5)
        patient.close()
        silent.close()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=ask)
    thread.start()
    command.serve(run, host="127.0.0.1", port=port)
    thread.join()
    assert closed == [200, b"", True]
