"""Many callers at once: pollers and submitters against a server process with the pocket model on loopback.

``python benchmarks/load.py [--seconds 60] [--pollers 200] [--submitters 50] [--json FILE]``. Each poller asks once in
``--every`` seconds how a job stands, each submitter sends a job, follows it to its end and sends the next. When the
time is over, the jobs that are left are waited for: every one that was accepted must have ended. Exits with 1 if one is
lost or an answer was a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.server_process import POCKET, Case, post_picture, running_server, wait_for_ping  # noqa: E402

PACKAGES = ("fastapi", "starlette", "uvicorn", "torch")
SUBMIT = "POST /v1/generation/text-to-image"
QUERY = "GET /v1/generation/query-job"
OTHERS = ("GET /ping", "GET /v1/generation/job-queue")
ENDED = ("SUCCESS", "ERROR")
JOB = {
    "prompt": "a red apple",
    "style_selections": [],
    "loras": [],
    "aspect_ratios_selection": "96*96",
    "advanced_params": {"overwrite_step": 2},
    "async_process": True,
}
DRAINED_WITHIN_S = 300


@dataclass
class Tally:
    """What was asked, how long it took and what became of it."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    submitted: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    @property
    def lost(self) -> int:
        """Jobs that were accepted and of whose end nobody could learn."""
        return len(set(self.submitted) - self.ended)


@dataclass(frozen=True)
class Load:
    """How many callers, how often, for how long."""

    port: int
    seconds: float
    pollers: int
    submitters: int
    every_s: float


class Caller:
    """One client on one connection, as plain as can be: a heavier one would measure itself."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._port = port
        self._tally = tally
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, endpoint: str, query: str = "", body: Any = None) -> Any:
        """The JSON of the answer, ``None`` for a failure; both are counted."""
        started_s = time.perf_counter()
        try:
            status, answer = await self._exchange(f"{endpoint}{query}", body)
        except (OSError, asyncio.IncompleteReadError):
            self._streams, status, answer = None, 0, b""
        if status != 200:
            self._tally.failures[endpoint] += 1
            return None
        self._tally.seconds[endpoint].append(time.perf_counter() - started_s)
        return json.loads(answer)

    async def _exchange(self, line: str, body: Any) -> tuple[int, bytes]:
        if self._streams is None or self._streams[1].is_closing() or self._streams[0].at_eof():
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{line} HTTP/1.1\r\nHost: load\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        told = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(told.partition("content-length: ")[2].partition("\r\n")[0] or 0)
        return int(told.split()[1]), await reader.readexactly(length)


async def run(load: Load) -> Tally:
    """The callers for their time, then the end of all jobs."""
    tally = Tally()
    ends_s = time.monotonic() + load.seconds
    pollers = [poll(Caller(load.port, tally), load, tally, ends_s) for _ in range(load.pollers)]
    submitters = [submit(Caller(load.port, tally), load, tally, ends_s) for _ in range(load.submitters)]
    await asyncio.gather(*pollers, *submitters)
    return tally


async def poll(caller: Caller, load: Load, tally: Tally, ends_s: float) -> None:
    """Asks for jobs that are known, now and then for something else."""
    while True:
        await asyncio.sleep(load.every_s * random.uniform(0.5, 1.5))
        if time.monotonic() >= ends_s:
            return
        if tally.submitted and random.random() < 0.8:
            await caller.call(QUERY, f"?job_id={random.choice(tally.submitted[-1000:])}")
        else:
            await caller.call(random.choice(OTHERS))


async def submit(caller: Caller, load: Load, tally: Tally, ends_s: float) -> None:
    """One job after another, each to its end; the last one also beyond the time."""
    await asyncio.sleep(load.every_s * random.random())
    while time.monotonic() < ends_s:
        answer = await caller.call(SUBMIT, body=JOB)
        if answer is None or not answer.get("job_id"):
            await asyncio.sleep(load.every_s)
            continue
        tally.submitted.append(answer["job_id"])
        while time.monotonic() < ends_s + DRAINED_WITHIN_S:
            await asyncio.sleep(load.every_s)
            job = await caller.call(QUERY, f"?job_id={answer['job_id']}")
            if job is not None and job["job_stage"] in ENDED:
                tally.ended.add(answer["job_id"])
                break


def percentile(seconds: list[float], share: float) -> float:
    """The smallest of ``seconds`` that is at least as long as ``share`` of them, in milliseconds."""
    ordered = sorted(seconds)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))] * 1000


def report(load: Load, tally: Tally, rss_mib: tuple[float, float], busy: tuple[float, float]) -> dict[str, Any]:
    """All figures as JSON."""
    endpoints = {
        name: {
            "calls": len(seconds),
            "p50_ms": round(percentile(seconds, 0.5), 1),
            "p99_ms": round(percentile(seconds, 0.99), 1),
            "failures": tally.failures.get(name, 0),
        }
        for name, seconds in sorted(tally.seconds.items())
    }
    return {
        "load": {name: value for name, value in asdict(load).items() if name != "port"},
        "endpoints": endpoints,
        "submitted": len(tally.submitted),
        "ended": len(tally.ended),
        "lost": tally.lost,
        "failures": sum(tally.failures.values()),
        "rss_mib": {"start": round(rss_mib[0]), "end": round(rss_mib[1])},
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load_average": {"start": busy[0], "end": busy[1]},
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def resident_mib(process_id: int) -> float:
    """What a process has in memory; Linux only."""
    lines = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Starts the server, lets it paint once, and puts the load on it."""
    case = Case(POCKET, steps=2, runs=1, device=arguments.device)
    with tempfile.TemporaryDirectory() as folder, running_server(case, Path(folder)) as (client, _, process_id):
        wait_for_ping(client)
        post_picture(client, case)
        load = Load(
            client.base_url.port or 0, arguments.seconds, arguments.pollers, arguments.submitters, arguments.every
        )
        before = resident_mib(process_id), os.getloadavg()[0]
        tally = asyncio.run(run(load))
        after = resident_mib(process_id), os.getloadavg()[0]
    return report(load, tally, (before[0], after[0]), (before[1], after[1]))


def show(figures: dict[str, Any]) -> None:
    """The figures as a table for people."""
    console = Console()
    table = Table("endpoint", "calls", "p50, ms", "p99, ms", "failures")
    for name, found in figures["endpoints"].items():
        table.add_row(name, *(str(found[key]) for key in ("calls", "p50_ms", "p99_ms", "failures")))
    console.print(table)
    console.print(f"jobs: {figures['submitted']} accepted, {figures['ended']} ended, lost = {figures['lost']}")
    console.print(f"memory: {figures['rss_mib']['start']} MiB at the start, {figures['rss_mib']['end']} MiB at the end")
    console.print(f"machine: {figures['machine']}; versions: {figures['versions']}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Many callers at once against a server process.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pollers", type=int, default=200)
    parser.add_argument("--submitters", type=int, default=50)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two calls of one caller")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    figures = measure(arguments)
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if figures["lost"] or figures["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
