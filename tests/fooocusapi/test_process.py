"""The server as a process of its own: killed, stopped in the middle, started again. The engine alone is fake."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from fooocusapi.demo import DemoFailed, run_demo

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of the system")


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.fooocusapi.fake_server", str(folder)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One process and a client of it."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        port = free_port()
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command(folder), "--port", str(port), "--output-path", str(folder / "outputs"), *flags],
                cwd=folder,
                env=environment(),
                stdout=log,
                stderr=log,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False)

    def submit(self, prompt: str, **fields: object) -> str:
        answer = self.client.post(
            "/v1/generation/text-to-image", json={"prompt": prompt, "async_process": True, **fields}
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get("/v1/generation/query-job", params={"job_id": job_id}).json()
        return answer

    def await_stage(self, job_id: str, *stages: str) -> dict[str, Any]:
        return until(lambda: job if (job := self.job(job_id))["job_stage"] in stages else None)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def until(look: Any) -> Any:
    """What ``look`` finds, once it finds something; the other process tells us only when it is asked."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            if found := look():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError("nothing was found in time")


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    server = Server(folder, *flags)
    try:
        until(lambda: server.client.get("/ping").json() == "pong")
        yield server
    finally:
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(PATIENCE_S)


def test_no_job_is_lost_by_a_kill_and_a_stop(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        held = first.submit("hold", image_number=32)
        others = [first.submit(prompt) for prompt in ("fail", "good")]
        first.await_stage(held, "RUNNING")
        first.end(signal.SIGKILL)

    with serving(tmp_path) as second:
        second.await_stage(held, "RUNNING")
        assert [second.job(job_id)["job_stage"] for job_id in others] == ["WAITING", "WAITING"]
        assert second.end(signal.SIGTERM) == 0, "which waits for no picture of the 32"

    (tmp_path / "go").touch()
    with serving(tmp_path) as third:
        assert third.await_stage(others[1], "SUCCESS")["job_result"][0]["url"]
        assert len(third.job(held)["job_result"]) == 32
        assert third.job(others[0]) | {"job_progress": 0} == {
            "job_id": others[0],
            "job_type": "Text to Image",
            "job_stage": "ERROR",
            "job_progress": 0,
            "job_status": "no room for this picture",
            "job_step_preview": None,
            "job_result": None,
        }
        assert third.end(signal.SIGINT) == 0
    assert (tmp_path / "runs").read_text().split() == ["hold", "hold", "hold", "fail", "good"]
    pictures = {path.name for path in (tmp_path / "outputs" / "files").rglob("*") if path.is_file()}
    assert pictures == {f"{others[1]}-0.png", *(f"{held}-{index}.png" for index in range(32))}


def test_waiting_callers_are_let_go_and_the_running_job_may_finish(tmp_path: Path) -> None:
    with serving(tmp_path, "--shutdown-grace-s", "30") as server:
        answers: list[int] = []

        def call(prompt: str) -> None:
            answers.append(server.client.post("/v1/generation/text-to-image", json={"prompt": prompt}).status_code)

        callers = [threading.Thread(target=call, args=[prompt]) for prompt in ("hold", "good")]
        for number, caller in enumerate(callers, 1):
            caller.start()
            until(lambda n=number: server.client.get("/v1/generation/job-queue").json()["running_size"] == n)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "shutting down" in (tmp_path / "log").read_text())
        (tmp_path / "go").touch()
        for caller in callers:
            caller.join(PATIENCE_S)
        assert sorted(answers) == [200, 503], "the running one got its picture, the waiting one runs after the restart"
        assert server.process.wait(PATIENCE_S) == 0


def test_a_webhook_is_told_of_every_ended_job(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    with serving(tmp_path, "--webhook_url", url) as server:
        good, bad = server.submit("good", image_seed=5), server.submit("fail")
        until(lambda: len(bodies) == 2)
        assert server.end(signal.SIGTERM) == 0
    receiver.shutdown()
    receiver.server_close()
    told = [httpx.Response(200, content=body).json() for body in bodies]
    assert {entry["job_id"] for entry in told} == {good, bad}
    by_id = {entry["job_id"]: entry["job_result"] for entry in told}
    assert by_id[bad] == []
    ((picture,),) = [by_id[good]]
    assert picture["seed"] == "5"
    assert picture["url"].endswith(f"/{good}-0.png")


def test_a_webhook_that_a_kill_interrupted_is_delivered_by_the_next_process(tmp_path: Path) -> None:
    arrived: list[tuple[str, bytes]] = []
    accepts = threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append((self.headers["webhook-id"], self.rfile.read(int(self.headers["content-length"]))))
            accepts.wait(PATIENCE_S)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    with serving(tmp_path, "--webhook-private") as first:
        job_id = first.submit("good", webhook_url=url)
        until(lambda: arrived)
        first.end(signal.SIGKILL)
    accepts.set()
    with serving(tmp_path, "--webhook-private") as second:
        until(lambda: len(arrived) == 2)
        assert second.end(signal.SIGTERM) == 0
    with serving(tmp_path, "--webhook-private") as third:
        third.await_stage(third.submit("good"), "SUCCESS")
        assert third.end(signal.SIGTERM) == 0
    receiver.shutdown()
    receiver.server_close()
    assert len(arrived) == 2, "what has been accepted is not told again"
    assert arrived[0] == arrived[1]
    assert arrived[0][0] == f"msg_{job_id}"


def test_a_second_server_on_the_same_outputs_ends_and_says_why(tmp_path: Path) -> None:
    with serving(tmp_path):
        other = Server(tmp_path)
        assert other.process.wait(PATIENCE_S) == 1
        other.client.close()
    assert "another server is working on this journal" in (tmp_path / "log").read_text()


def test_the_demo(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    target = run_demo("A Red Apple!", tmp_path / "sub" / "apple.png", console, environment(), command(tmp_path))
    assert target.read_bytes().startswith(b"\x89PNG")
    text = console.export_text()
    assert "apple.png" in text
    assert "made in" in text


def test_a_demo_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(DemoFailed, match="no room for this picture"):
        run_demo("fail", tmp_path / "x.png", Console(quiet=True), environment(), command(tmp_path))
    with pytest.raises(DemoFailed, match="ended at once"):
        run_demo("x", tmp_path / "x.png", Console(quiet=True), environment(), [sys.executable, "-c", "exit(3)"])
    assert not (tmp_path / "x.png").exists()
