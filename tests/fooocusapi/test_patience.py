"""Callers who are slow or many, against a real socket: they lose their connection, the others notice nothing."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from fooocus_core.events import Finished
from fooocusapi import patience
from fooocusapi.app import create_app
from fooocusapi.patience import PatientProtocol, allow_many_connections
from fooocusapi.settings import Settings
from tests.fooocusapi.fakes import PATIENCE_S, an_image
from tests.fooocusapi.served import TEXT_TO_IMAGE, HeldEngine, House, in_background, wait_until

SHORT_S = 0.3


class Hasty(PatientProtocol):
    """As the server's, but quick for a test."""

    head_within_s = SHORT_S


@contextmanager
def listening(
    house: House, connections: int = 2000, protocol: type[PatientProtocol] = Hasty
) -> Iterator[tuple[int, httpx.Client]]:
    """The port of a server with all its limits, and a client."""
    config = uvicorn.Config(
        create_app(house.settings, house.open),
        log_config=None,
        http=protocol,
        ws="none",
        limit_concurrency=connections,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client:
            yield port, client
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def rest_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    try:
        return b"".join(iter(lambda: connection.recv(65536), b""))
    except ConnectionResetError:
        return b""


@pytest.fixture
def port_and_client(house: House) -> Iterator[tuple[int, httpx.Client]]:
    house.settings = Settings(body_timeout_s=SHORT_S)
    with listening(house) as both:
        yield both


@pytest.mark.parametrize("head", [b"", b"G", b"GET /ping HTTP/1.1\r\n", b"GET /ping HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_head_that_does_not_come_ends_its_connection(port_and_client: tuple[int, httpx.Client], head: bytes) -> None:
    port, client = port_and_client
    with connected(port) as slow:
        slow.sendall(head)
        assert client.get("/ping").status_code == 200
        assert rest_of(slow) == b""


def test_a_byte_now_and_then_does_not_help(port_and_client: tuple[int, httpx.Client]) -> None:
    port, _ = port_and_client
    with connected(port) as slow:
        slow.sendall(b"GET /ping HTTP/1.1\r\nX: ")
        slow.settimeout(SHORT_S / 10)
        wait_until(lambda: is_closed_after_a_byte(slow))


def is_closed_after_a_byte(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_the_next_request_on_a_connection_has_as_much_time_and_no_more(
    port_and_client: tuple[int, httpx.Client],
) -> None:
    port, _ = port_and_client
    with connected(port) as slow:
        for _ in range(3):
            time.sleep(SHORT_S / 2)
            slow.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"pong"'):  # Head and body may come one after the other.
                piece = slow.recv(65536)
                assert piece, answer
                answer += piece
            assert b"200 OK" in answer
        slow.sendall(b"GET /pi")
        assert rest_of(slow) == b""


@pytest.mark.parametrize(
    ("path", "says"), [(TEXT_TO_IMAGE, b'{"detail":"the body took longer'), ("/v1/jobs", b'"message":"the body took')]
)
def test_a_body_that_does_not_come_is_given_up(
    port_and_client: tuple[int, httpx.Client], path: str, says: bytes
) -> None:
    port, _ = port_and_client
    with connected(port) as slow:
        slow.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        answer = rest_of(slow)
    assert answer.startswith(b"HTTP/1.1 408")
    assert says in answer


def test_a_form_that_does_not_come_is_given_up(port_and_client: tuple[int, httpx.Client]) -> None:
    port, _ = port_and_client
    head = "POST /v1/generation/image-upscale-vary HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n"
    with connected(port) as slow:
        slow.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
        assert rest_of(slow).startswith(b"HTTP/1.1 408")


def test_callers_who_wait_for_a_picture_may_wait(tmp_path: Path) -> None:
    """Far longer than a head or a body may take."""
    house = House(tmp_path, engine=HeldEngine(), settings=Settings(body_timeout_s=SHORT_S))
    with listening(house) as (_, client):
        answer = in_background(lambda: client.post(TEXT_TO_IMAGE, json={"prompt": "x"}))
        house.engine.begin()
        time.sleep(3 * SHORT_S)
        house.engine.play(an_image())
        house.engine.play(Finished())
        assert answer().json()[0]["finish_reason"] == "SUCCESS"


def test_more_connections_than_there_may_be(tmp_path: Path) -> None:
    with listening(House(tmp_path), connections=20) as (port, client):
        with ExitStack() as open_ones:
            for _ in range(20):
                open_ones.enter_context(connected(port))
            wait_until(lambda: client.get("/ping").status_code == 503)
        wait_until(lambda: client.get("/ping").status_code == 200)


def test_the_limit_of_open_files_is_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    lifted: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: lifted.append(limits))
    for soft, hard in ((1024, 4096), (1024, resource.RLIM_INFINITY), (4096, 4096), (resource.RLIM_INFINITY, -1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=(soft, hard): limits)
        allow_many_connections()
    assert lifted == [(4096, 4096), (patience.MAX_OPEN_FILES, resource.RLIM_INFINITY)]
