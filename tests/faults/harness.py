"""A client that remembers what it was told, and the judge who compares that with what is there after the faults."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import socket
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from PIL import Image

from fooocusapi.jobs.queue import LOST_AGAIN
from tests.faults.server import SEALED, Trouble, start

T = TypeVar("T")

PATIENCE_S = float(os.environ.get("FAULTS_PATIENCE_S", "60"))
ENDED = ("SUCCESS", "ERROR")
NO_TROUBLE = Trouble()


def until(look: Callable[[], T | None]) -> T:
    """What ``look`` finds, once it finds something; a server that is not there has nothing to tell."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            if (found := look()) is not None:
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.005)
    raise AssertionError("nothing was found in time")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One process and a client of it."""

    process: Any
    client: httpx.Client

    def submit(self, prompt: str, **fields: object) -> str:
        """A text to image job's identifier."""
        return self._submit("text-to-image", {"prompt": prompt, "async_process": True, **fields})

    def vary(self, prompt: str, picture: str) -> str:
        """The same from a picture."""
        body = {"prompt": prompt, "async_process": True, "uov_method": "Vary (Subtle)", "input_image": picture}
        return self._submit("image-upscale-vary", body, version="v2")

    def _submit(self, endpoint: str, body: dict[str, object], version: str = "v1") -> str:
        answer = self.client.post(f"/{version}/generation/{endpoint}", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get("/v1/generation/query-job", params={"job_id": job_id})
        assert answer.status_code == 200, f"a job that was taken is not known: {answer.text}"
        told: dict[str, Any] = answer.json()
        return told

    def ended(self, job_id: str) -> dict[str, Any]:
        return until(lambda: job if (job := self.job(job_id))["job_stage"] in ENDED else None)

    def end(self, number: int) -> int | None:
        """The exit code after a signal."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)
        self.process.join(PATIENCE_S)
        code: int | None = self.process.exitcode
        return code


@contextmanager
def serving(folder: Path, trouble: Trouble = NO_TROUBLE, *, is_awaited: bool = True, **flags: Any) -> Iterator[Server]:
    """A server over what is in ``folder``; killed at the end if it still runs."""
    port = free_port()
    process = start(folder, port, trouble, **flags)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False)
    try:
        if is_awaited:
            until(lambda: client.get("/readyz").status_code == 200 or None)
        yield Server(process, client)
    finally:
        client.close()
        if process.is_alive():
            process.kill()
            process.join(PATIENCE_S)


def a_picture(value: int) -> str:
    """A small picture as clients send it."""
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), value % 256, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def receiving() -> Iterator[tuple[str, set[str]]]:
    """An address for webhooks, and the identifiers of the jobs that were told there."""
    told: set[str] = set()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.add(json.loads(self.rfile.read(int(self.headers["content-length"])))["job_id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{receiver.server_port}/", told
    receiver.shutdown()
    receiver.server_close()


@dataclass
class Client:
    """Sends jobs and asks for them until its server is gone; keeps everything that it was told."""

    choice: random.Random
    sent: int = 0
    taken: dict[str, str] = field(default_factory=dict)
    """Identifiers of the jobs that were taken, with their prompts."""
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was told of the jobs that ended."""
    wrong: list[str] = field(default_factory=list)

    def visit(self, server: Server, jobs: int) -> None:
        """Sends some jobs and asks for all that were taken, for as long as the server answers."""
        try:
            until(lambda: server.client.get("/ping") if server.process.is_alive() else True)
            for _ in range(jobs):
                self._send(server)
                self._ask(server, *self.choice.sample(list(self.taken), min(3, len(self.taken))))
            while True:
                self._ask(server, *self.taken)
        except httpx.TransportError:
            return
        except AssertionError as error:
            self.wrong.append(str(error))

    def ask_all(self, server: Server) -> None:
        """The ends of all jobs, those of the last first: what ends before they do needs no waiting for."""
        for job_id in reversed(self.taken):
            self._hear(job_id, server.ended(job_id))

    def _send(self, server: Server) -> None:
        self.sent += 1
        prompt = f"job {self.sent}"
        draw = self.choice.random()
        if draw < 0.2:
            job_id = server.vary(prompt, a_picture(self.sent))
        elif draw < 0.3:
            job_id = server.submit(prompt := f"{prompt} fail")
        else:
            job_id = server.submit(prompt, image_number=self.choice.randint(1, 3))
        self.taken[job_id] = prompt

    def _ask(self, server: Server, *job_ids: str) -> None:
        for job_id in job_ids:
            if job_id not in self.ends or self.choice.random() < 0.1:
                self._hear(job_id, server.job(job_id))

    def _hear(self, job_id: str, told: dict[str, Any]) -> None:
        if job_id in self.ends:
            assert told == self.ends[job_id], "what was told of an ended job has changed"
        elif told["job_stage"] in ENDED:
            self.ends[job_id] = told


def visited(client: Client, server: Server, jobs: int) -> threading.Thread:
    """The client at work on a thread of its own."""
    thread = threading.Thread(target=client.visit, args=[server, jobs], daemon=True)
    thread.start()
    return thread


def await_jobs(client: Client, enough: int, visiting: threading.Thread) -> None:
    """Until so many jobs were taken, or the client has gone."""
    until(lambda: len(client.taken) >= enough or not visiting.is_alive() or None)


def tell(capsys: pytest.CaptureFixture[str], measured: str) -> None:
    """What a long form has measured, for the pages."""
    with capsys.disabled():
        sys.stdout.write(f"\n{measured}\n")


# ------------------------------------------------------------------------------------------------------------ judging


def runs_of(folder: Path) -> list[str]:
    """The prompts that the engine began with, in that order."""
    path = folder / "runs"
    return path.read_text().splitlines() if path.exists() else []


def journal_of(folder: Path) -> dict[str, tuple[str, set[str]]]:
    """Every job's state and the paths of its results."""
    with sqlite3.connect(f"file:{folder / 'outputs' / 'journal.db'}?mode=ro", uri=True) as database:
        jobs = database.execute("SELECT sequence, id, state FROM fooocusapi_job").fetchall()
        results = database.execute("SELECT job, path FROM fooocusapi_result").fetchall()
    return {
        job_id: (state, {path for number, path in results if number == sequence}) for sequence, job_id, state in jobs
    }


def files_of(folder: Path) -> set[str]:
    """Everything below ``outputs`` but the journal's own files."""
    outputs = folder / "outputs"
    names = {path.relative_to(outputs).as_posix() for path in outputs.rglob("*") if path.is_file()}
    return {name for name in names if not re.fullmatch(r"journal\.db(\.lock|-wal|-shm)?(-journal)?", name)}


def assert_files_are_those_of_the_journal(folder: Path) -> None:
    """Every picture is whole and of a job, every result is there, and nothing else lies about."""
    known = {f"files/{path}" for _, paths in journal_of(folder).values() for path in paths}
    assert files_of(folder) == known
    for name in known:
        with Image.open(folder / "outputs" / name) as picture:
            picture.load()


def assert_nothing_was_lost(folder: Path, client: Client, attempts: int = 2) -> None:
    """Every job that was taken ended once, with what a client was told of it, after so many attempts at most."""
    assert client.wrong == []
    journal, begun = journal_of(folder), Counter(runs_of(folder))
    assert set(client.taken) <= set(journal)
    for job_id, prompt in client.taken.items():
        state, paths = journal[job_id]
        told = client.ends[job_id]
        if "fail" in prompt:
            assert (state, told["job_status"]) in (("failed", SEALED), ("failed", LOST_AGAIN))
        elif state == "failed":
            assert told["job_status"] == LOST_AGAIN
        else:
            assert (state, told["job_stage"]) == ("succeeded", "SUCCESS")
            assert {result["url"].partition("/files/")[2] for result in told["job_result"]} == paths
        assert begun[prompt] <= attempts
    first_begun = [int(prompt.split()[1]) for prompt in dict.fromkeys(runs_of(folder))]
    assert first_begun == sorted(first_begun), "jobs begin in the order in which they were taken"
    assert_files_are_those_of_the_journal(folder)
