"""The event stream to the byte, behind a real socket: what arrives in one chunk, and when."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fooocus_core.events import Failed, Finished, Progress
from fooocusapi.images.outputs import OutputStore
from fooocusapi.jobs.job import Taken
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.surfaces.unified.stream import PACE_S, event_stream
from tests.fooocusapi.fakes import CountedIds, FakeClock, a_plan, a_preview, an_image
from tests.fooocusapi.served import FIRST_ID, TODAY, HeldEngine, House, wait_until
from tests.fooocusapi.surfaces.unified.asking import FIRST_TASK, GENERATE
from tests.fooocusapi.test_socket import Listening, listening, post

BODY = b'{"prompt": "x", "stream_output": true, "save_name": "apple"}'
FINISHED = (
    b'data: {"progress": 100, "preview": null, "message": "Finished", '
    b'"images": ["http://127.0.0.1:8888/outputs/' + TODAY.encode() + b'/apple-0.png"]}\r\ndata: \r\n\r\n'
)


@pytest.fixture
def server(house: House) -> Iterator[Listening]:
    house.engine = HeldEngine()
    with listening(house) as server:
        yield server


class Stream:
    """A response as it comes from the wire, chunk by chunk."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._file = connection.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        lines = iter(lambda: self._file.readline().strip(), b"")
        self.headers = dict(line.decode().lower().split(": ", 1) for line in lines)

    def chunk(self) -> bytes:
        """The next chunk; empty at the end."""
        size = int(self._file.readline(), 16)
        data = self._file.read(size)
        assert self._file.readline() == b"\r\n"
        return data

    def event(self) -> Any:
        return json.loads(self.chunk().removeprefix(b"data: ").removesuffix(b"\r\ndata: \r\n\r\n"))


def opened(server: Listening, body: bytes = BODY, *headers: str) -> Stream:
    return Stream(server.send(post(GENERATE, body, *headers)))


def test_every_event_is_a_chunk_of_its_own_to_the_byte(server: Listening) -> None:
    engine = server.house.engine
    stream = opened(server, BODY, "Accept-Encoding: gzip")
    engine.begin()
    assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-store", "no")
    assert stream.headers["transfer-encoding"] == "chunked"
    assert "content-encoding" not in stream.headers
    assert stream.chunk() == (
        b'data: {"progress": 0, "preview": null, "message": "Initializing ...", "images": []}\r\ndata: \r\n\r\n'
    )
    engine.play(Progress(0.13, "Preparing task 1/1 ..."))
    assert stream.chunk() == (
        b'data: {"progress": 13, "preview": null, "message": "Preparing task 1/1 ...", "images": []}\r\ndata: \r\n\r\n'
    )
    engine.play(Progress(0.5, "Schritt \u00e4", a_preview(9)))
    chunk = stream.chunk()
    assert b"Schritt \\u00e4" in chunk
    prefix, _, packed = json.loads(chunk[len("data: ") : -len("\r\ndata: \r\n\r\n")])["preview"].partition(",")
    assert prefix == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(packed, validate=True))) as picture:
        assert (picture.format, np.asarray(picture).max()) == ("PNG", 9)
    engine.play(an_image())
    engine.play(Finished())
    assert stream.chunk() == FINISHED
    assert stream.chunk() == b""


def test_events_are_spaced_and_only_the_newest_counts(server: Listening) -> None:
    stream = opened(server)
    engine = server.house.engine
    engine.begin()
    stream.chunk()
    began_s = time.monotonic()
    for step in range(1, 50):
        engine.play(Progress(step / 50, f"Step {step}/50"))
    engine.play(an_image())
    engine.play(Finished())
    events = list(iter(stream.chunk, b""))
    assert 1 <= len(events) <= 4
    assert events[-1] == FINISHED
    assert time.monotonic() - began_s >= PACE_S * 0.9 * (len(events) - 1)


@pytest.mark.parametrize("is_stopped", [True, False])
def test_the_last_event_comes_however_the_task_ends(server: Listening, is_stopped: bool) -> None:
    stream = opened(server)
    server.house.engine.begin()
    if is_stopped:
        assert server.house.jobs.stop_running()
    server.house.engine.play(Failed("no room"))
    *_, last = iter(stream.chunk, b"")
    assert last == b'data: {"progress": 100, "preview": null, "message": "Finished", "images": []}\r\ndata: \r\n\r\n'


def test_a_reader_who_goes_away_stops_nothing(server: Listening) -> None:
    stream = opened(server)
    server.house.engine.begin()
    stream.chunk()
    stream.connection.shutdown(socket.SHUT_RDWR)
    server.house.engine.play(Progress(0.5, "going on"))
    server.house.engine.play(an_image())
    server.house.engine.play(Finished())
    wait_until(lambda: server.client.get(f"/tasks/{FIRST_TASK}").json()["task_status"] == "finished")
    assert len(server.client.get(f"/tasks/{FIRST_TASK}").json()["result"]) == 1
    assert server.client.get("/tasks").json()["current"] == []
    assert not server.house.jobs._watchers._by_job


def test_what_cannot_be_run_is_refused_before_the_stream(server: Listening) -> None:
    stream = opened(server, b'{"stream_output": true, "sampler_name": "best"}')
    assert (stream.status, stream.headers["content-type"]) == (422, "application/json")


# ------------------------------------------------------------------------------------------- without a server around it


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobQueue]:
    """A queue with one job, which the test takes."""
    journal = SqlJournal(f"sqlite:///{tmp_path / 'journal.db'}")
    jobs = JobQueue(journal, clock=FakeClock(), new_id=CountedIds(), delete_files=lambda paths: None)
    jobs.submit(a_plan(), "unified", "", {})
    yield jobs
    journal.close()


def told(jobs: JobQueue, follow: Callable[[AsyncGenerator[bytes, None]], Awaitable[list[bytes]]]) -> list[bytes]:
    """What ``follow`` reads of the job's stream, on an event loop of its own."""

    async def run() -> list[bytes]:
        async with aclosing(
            event_stream(jobs, OutputStore(Path("nowhere"), ""), FIRST_ID, pace_s=0, ping_s=0.01)
        ) as stream:
            return await follow(stream)

    return asyncio.run(run())


def begin(jobs: JobQueue) -> None:
    assert len(jobs.take()) == 1
    jobs.apply(FIRST_ID, Taken())


def test_nothing_but_pings_while_the_task_waits(jobs: JobQueue) -> None:
    async def follow(stream: AsyncGenerator[bytes, None]) -> list[bytes]:
        waiting = [await anext(stream) for _ in range(2)]
        begin(jobs)
        return [*waiting, await anext(stream)]

    *pings, event = told(jobs, follow)
    assert all(re.fullmatch(rb": ping - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.0-9]*\+00:00\r\n\r\n", ping) for ping in pings)
    assert b"Initializing ..." in event


def test_what_has_not_changed_is_not_told_again(jobs: JobQueue) -> None:
    async def follow(stream: AsyncGenerator[bytes, None]) -> list[bytes]:
        begin(jobs)
        chunks = [await anext(stream)]
        for fraction in (0.501, 0.502, 0.52):
            jobs.apply(FIRST_ID, Progress(fraction, "x"))
            await asyncio.sleep(0.005)
            jobs.apply_image(FIRST_ID, 0, 7, lambda note: "x.png")
            chunks.append(await anext(stream))
        return chunks

    chunks = [chunk for chunk in told(jobs, follow) if not chunk.startswith(b":")]
    assert [json.loads(chunk.splitlines()[0][6:])["progress"] for chunk in chunks] == [0, 50, 52]


def test_a_server_that_ends_says_nothing_of_the_end(jobs: JobQueue) -> None:
    async def follow(stream: AsyncGenerator[bytes, None]) -> list[bytes]:
        begin(jobs)
        chunks = [await anext(stream)]
        jobs.release_waiters()
        return [*chunks, *[chunk async for chunk in stream]]

    assert [chunk[:6] for chunk in told(jobs, follow)] == [b"data: "]


def test_a_task_that_has_ended_has_a_last_event(jobs: JobQueue) -> None:
    begin(jobs)
    jobs.apply(FIRST_ID, Finished())

    async def follow(stream: AsyncGenerator[bytes, None]) -> list[bytes]:
        return [chunk async for chunk in stream]

    assert [b'"message": "Finished"' in chunk for chunk in told(jobs, follow)] == [True]
