"""The application behind a real socket: raw requests that client libraries would tidy up, and callers who go away."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from fooocus_core.events import Finished
from fooocusapi.app import create_app
from tests.fooocusapi.fakes import PATIENCE_S, an_image
from tests.fooocusapi.served import FIRST_ID, TEXT_TO_IMAGE, TODAY, HeldEngine, House, in_background, wait_until


@dataclass(frozen=True)
class Listening:
    """A server on a free port of the loopback."""

    house: House
    port: int
    client: httpx.Client
    """One for all calls, also at once: a new one for each would load the certificates of the system each time."""

    def send(self, request: bytes) -> socket.socket:
        """The connection after ``request`` was written as it is."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        connection.sendall(request)
        return connection

    def answer(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of a raw request that ends its connection."""
        with self.send(request) as connection:
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), body


@contextlib.contextmanager
def on_a_port(app: FastAPI) -> Iterator[tuple[int, httpx.Client]]:
    """An application behind a free port of the loopback, and a client of it."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    port = listener.getsockname()[1]
    limits = httpx.Limits(max_connections=None)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30, limits=limits, trust_env=False) as client:
            yield port, client
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


@contextlib.contextmanager
def listening(house: House) -> Iterator[Listening]:
    with on_a_port(create_app(house.settings, house.open)) as (port, client):
        yield Listening(house, port, client)


@pytest.fixture(scope="module")
def server(shared: House) -> Iterator[Listening]:
    with listening(shared) as server:
        yield server


@pytest.fixture
def held_server(house: House) -> Iterator[Listening]:
    house.engine = HeldEngine()
    with listening(house) as server:
        yield server


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers]).encode() + b"\r\n\r\n"


@pytest.mark.parametrize(
    "headers", [(), ("Content-Type: application/x-www-form-urlencoded",), ("Content-Type: text/plain",)]
)
def test_a_client_without_accept_and_without_a_type(server: Listening, headers: tuple[str, ...]) -> None:
    status, body = server.answer(post(TEXT_TO_IMAGE, b'{"prompt":"a red apple"}', *headers))
    assert status == 200
    assert json.loads(body)[0]["finish_reason"] == "SUCCESS"


def test_a_body_in_many_small_pieces(server: Listening) -> None:
    head = (
        f"POST {TEXT_TO_IMAGE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    )
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"prompt":"x"}')
    status, body = server.answer(head + pieces + b"0\r\n\r\n")
    assert (status, json.loads(body)[0]["finish_reason"]) == (200, "SUCCESS")


RAW_PATHS = [
    "/files/../journal.db",
    "/files/../secret.png",
    "/files/../../secret.png",
    f"/files/{TODAY}/../../secret.png",
    f"/files/{TODAY}/..%2f..%2fsecret.png",
    "/files/..\\secret.png",
    "/files//secret.png",
    "/outputs/../secret.png",
    "/files/%00.png",
    "/../files/secret.png",
    "/./secret.png",
    "http://elsewhere/files/../secret.png",
]


@pytest.mark.parametrize("path", RAW_PATHS)
def test_raw_paths_do_not_lead_out(server: Listening, path: str) -> None:
    (server.house.root / "secret.png").write_bytes(b"secret")
    server.answer(post(TEXT_TO_IMAGE, b"{}"))
    status, body = server.answer(get(path))
    assert status in (400, 404)
    assert b"secret" not in body


def test_the_picture_at_its_address(server: Listening) -> None:
    (picture,) = json.loads(server.answer(post(TEXT_TO_IMAGE, b'{"save_name":"sub/x y"}'))[1])
    path = picture["url"].partition("8888")[2]
    status, body = server.answer(get(path, "Range: bytes=1-3"))
    assert (status, body) == (206, b"PNG")


def test_the_connection_of_a_waiting_caller_stays_silent_until_the_end(held_server: Listening) -> None:
    engine = held_server.house.engine
    with held_server.send(post(TEXT_TO_IMAGE, b"{}")) as connection:
        engine.begin()
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        engine.play(an_image())
        engine.play(Finished())
        connection.settimeout(PATIENCE_S)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_a_caller_who_goes_away_stops_nothing(held_server: Listening) -> None:
    engine = held_server.house.engine
    held_server.send(post(TEXT_TO_IMAGE, b"{}")).close()
    engine.begin()
    engine.play(an_image())
    engine.play(Finished())
    query = f"/v1/generation/query-job?job_id={FIRST_ID}"
    wait_until(lambda: held_server.client.get(query).json()["job_stage"] == "SUCCESS")
    history = held_server.client.get("/v1/generation/job-history").json()["history"]
    assert [job["job_id"] for job in history] == [FIRST_ID]


def test_many_pollers_while_many_wait(held_server: Listening) -> None:
    engine, client = held_server.house.engine, held_server.client
    callers = [in_background(lambda: client.post(TEXT_TO_IMAGE, json={})) for _ in range(60)]
    wait_until(lambda: client.get("/v1/generation/job-queue").json()["running_size"] == 60)
    for _ in range(50):
        assert client.get("/v1/generation/query-job", params={"job_id": FIRST_ID}).status_code == 200
    for seed in range(60):
        engine.begin()
        engine.play(an_image(0, seed))
        engine.play(Finished())
    answers = [caller().json() for caller in callers]
    assert sorted(int(answer[0]["seed"]) for answer in answers) == list(range(60))
