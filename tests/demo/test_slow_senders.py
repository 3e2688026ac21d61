"""Clients that send slowly, or nothing, end; all others are served meanwhile."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'demo'")

from served import visitors

from captum_sgcampp.demo import local_only, slow_senders

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
HEAD = b"POST /gradio_api/upload HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n"
SLOW_BODY = HEAD + b"content-type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
WAIT_SECONDS = 60


@contextmanager
def connected(page: Any, sent: bytes = b"", count: int = 1) -> Iterator[list[socket.socket]]:
    """So many clients that began to send this, in turn."""
    at = urlsplit(page.local_url)
    clients = []
    try:
        for _ in range(count):
            clients.append(socket.create_connection((at.hostname, at.port), timeout=WAIT_SECONDS))
            clients[-1].sendall(sent)
        yield clients
    finally:
        for one in clients:
            one.close()


def is_ended(client: socket.socket) -> bool:
    """Whether the server closed the connection without an answer."""
    client.settimeout(0.01)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def is_served(page: Any) -> bool:
    """Whether a visitor gets the maps."""
    session = visitors().Session(page.local_url)
    shown = session.opens()
    session.leaves()
    return "<figure>" in shown["maps"]


@pytest.fixture
def hurries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests must be whole after a second."""
    monkeypatch.setattr(slow_senders, "WHOLE_SECONDS", 1.0)
    monkeypatch.setattr(slow_senders, "LOOK_SECONDS", 0.1)


@pytest.mark.usefixtures("hurries")
@pytest.mark.parametrize("start", [b"", HEAD, SLOW_BODY], ids=["nothing", "head", "body"])
def test_a_request_that_comes_byte_by_byte_is_ended(page: Any, start: bytes) -> None:
    with connected(page, start) as (client,):
        end = time.monotonic() + WAIT_SECONDS
        while not is_ended(client):
            assert time.monotonic() < end, "it was not ended"
            with suppress(ConnectionError):
                client.sendall(b"a")
            time.sleep(0.1)
    assert is_served(page)


@pytest.mark.usefixtures("hurries")
def test_a_visitor_who_waits_for_answers_is_not_ended(page: Any) -> None:
    session = visitors().Session(page.local_url)
    session.opens()
    time.sleep(2)
    assert "<figure>" in session.answer("run", "click", visitors().data_of(visitors().FIRST))["maps"]
    with connected(page, b"GET /gradio_api/heartbeat/x HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n") as (client,):
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        client.recv(10_000)
        time.sleep(2)
        assert not is_ended(client)
    session.leaves()


@pytest.mark.usefixtures("hurries")
def test_a_connection_that_is_used_again_and_again_is_not_ended(page: Any) -> None:
    connection = http.client.HTTPConnection(urlsplit(page.local_url).netloc, timeout=WAIT_SECONDS)
    connection.connect()
    first = connection.sock
    for _ in range(12):
        connection.request("GET", "/robots.txt")
        connection.getresponse().read()
        time.sleep(0.2)
    assert connection.sock is first
    connection.close()


@pytest.mark.parametrize("start", [b"", SLOW_BODY], ids=["nothing", "body"])
def test_of_too_many_that_wait_the_longest_waiting_ends(
    page: Any, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(slow_senders, "MOST_UNFINISHED", 20)
    monkeypatch.setattr(slow_senders, "YOUNG_SECONDS", 0.2)
    monkeypatch.setattr(local_only, "MOST_REQUESTS", 30)
    with connected(page, start, count=50) as clients:
        time.sleep(0.5)
        assert is_served(page)
        assert all(map(is_ended, clients[:25]))
        assert not is_ended(clients[-1])
