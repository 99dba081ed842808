"""``main.py demo PROMPT``: the real server as a process of its own, spoken to over HTTP like by any client."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

START_WITHIN_S = 60
END_WITHIN_S = 20
POLL_EVERY_S = 0.1
_COLUMNS = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
SERVER_COMMAND = (sys.executable, "-m", "fooocusapi.cli", "serve")
ROOT = Path(__file__).resolve().parents[1]


class DemoFailed(Exception):
    """There is no picture; the text says why."""


def run_demo(
    prompt: str,
    output: Path | None,
    console: Console,
    environment: Mapping[str, str],
    server_command: Sequence[str] = SERVER_COMMAND,
) -> Path:
    """Make one picture of ``prompt`` and save it as ``output`` (default: named after the prompt, where we are).

    ``environment`` is the server's, ``server_command`` starts it and takes flags. Raises ``DemoFailed``.
    """
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fooocusapi-demo-", ignore_cleanup_errors=True) as folder:
        with running_server(Path(folder), environment, server_command) as client:
            asked_s = time.perf_counter()
            picture = _make_picture(client, prompt, console)
            made_s = time.perf_counter()
        target = _save(picture.content, output or Path(f"{_name_of(prompt)}{Path(picture.url.path).suffix}"))
    console.print(
        f"[bold green]{target}[/]: made in {made_s - asked_s:.1f} s,"
        f" {time.perf_counter() - started_s:.1f} s with the start and the end of the server"
    )
    return target


@contextmanager
def running_server(
    folder: Path, environment: Mapping[str, str], server_command: Sequence[str] = SERVER_COMMAND
) -> Iterator[httpx.Client]:
    """A server on a free port of this machine, writing to ``folder``, and a client of it; ended in an orderly way.

    Raises ``DemoFailed`` with the server's last words.
    """
    port = _free_port()
    command = [*server_command, "--port", str(port), "--output-path", str(folder)]
    search_path = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    log_path = folder / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONPATH": os.pathsep.join(search_path)},
        )
    try:
        # A proxy of the environment is not for an address on this machine.
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            _await_ping(client, process)
            yield client
    except (DemoFailed, httpx.HTTPError) as error:
        raise DemoFailed(f"{error}\nthe server's last words:\n{_tail(log_path)}") from error
    finally:
        _end(process)


def _make_picture(client: httpx.Client, prompt: str, console: Console) -> httpx.Response:
    """Post, follow, fetch."""
    job = _json(client.post("/v1/generation/text-to-image", json={"prompt": prompt, "async_process": True}))
    with Progress(*_COLUMNS, console=console) as progress:
        bar = progress.add_task("waiting", total=100)
        while job["job_stage"] in ("WAITING", "RUNNING"):
            time.sleep(POLL_EVERY_S)
            job = _json(client.get("/v1/generation/query-job", params={"job_id": job["job_id"]}))
            progress.update(bar, completed=job["job_progress"], description=job["job_status"] or "waiting")
    if job["job_stage"] != "SUCCESS" or not job["job_result"]:
        raise DemoFailed(f"the job did not succeed: {job['job_status']}")
    return client.get(job["job_result"][0]["url"]).raise_for_status()


def _await_ping(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.perf_counter() + START_WITHIN_S
    while time.perf_counter() < deadline_s:
        if process.poll() is not None:
            raise DemoFailed("the server ended at once")
        try:
            client.get("/ping").raise_for_status()
        except httpx.HTTPError:
            time.sleep(POLL_EVERY_S)
        else:
            return
    raise DemoFailed(f"the server did not answer within {START_WITHIN_S} s")


def _json(response: httpx.Response) -> dict[str, Any]:
    if response.status_code != 200:
        raise DemoFailed(f"the server answered {response.status_code}: {response.text[:500]}")
    return cast(dict[str, Any], response.json())


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _name_of(prompt: str) -> str:
    """``a red apple, flat icon`` as ``a-red-apple-flat-icon``."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].strip("-") or "demo"


def _save(data: bytes, target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    except OSError as error:
        raise DemoFailed(f"cannot write {target}: {error.strerror}") from error
    return target


def _tail(log: Path, characters: int = 3000) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-characters:] if log.exists() else ""
