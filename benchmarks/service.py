"""Measures what stands around a picture: the start of the server, its answers, and what it adds to the engine.

``python benchmarks/service.py [--runs 5] [--markdown docs/performance.md] [--json FILE]``. The server is a real process
with the pocket model on loopback. Beside it stands the bare engine, a process of its own that gets the plans which the
server has made of the same requests, in turns with the server, so that both are measured in the same minute.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.load import QUERY, Caller, Tally  # noqa: E402
from benchmarks.report import ABSENT, machine, shown, versions, write_figures  # noqa: E402
from benchmarks.server_process import (  # noqa: E402
    POCKET,
    Case,
    post_picture,
    running_server,
    submit_to_worker_ms,
    wait_for_ping,
)
from benchmarks.timing import median_seconds  # noqa: E402
from fooocus_core.metadata.files import encode_image  # noqa: E402
from fooocus_core.plan import PNG_LEVEL  # noqa: E402
from fooocusapi.settings import without_server_settings  # noqa: E402

SCRIPT = "benchmarks/service.py"
PACKAGES = ("torch", "fastapi", "starlette", "uvicorn", "pydantic", "sqlalchemy", "pillow")
LARGE, SMALL = "1024*1024", "96*96"
"""The server's default size, and that at which the pocket model is sampled: nothing is enlarged, the PNG is small."""
REQUESTS = ((LARGE, 1, 1), (LARGE, 4, 1), (SMALL, 1, 5))
"""Sizes, how many pictures of them, and how often each is asked for in place of once.

What is added to a small picture is less than what the engine's runs differ by: it takes more pairs to be seen.
"""
MANY_CALLERS = 8
ROUND_S = 1.0
SHORT_JOBS = 20
LEVELS = (PNG_LEVEL, 4, 6)

PING_GOAL_S = 1.0
SUBMIT_GOAL_MS = 5.0
ADDED_GOAL_SHARE, ADDED_GOAL_MS = 0.03, 15.0


@dataclass(frozen=True)
class Added:
    """A waiting request beside the engine's own run of the same plan; medians in seconds."""

    what: str
    request_s: float
    engine_s: float
    """Without packing and writing the pictures."""
    added_s: float
    """What the request takes longer, the median over pairs of the two."""
    saving_s: float
    """Packing and writing all pictures one after the other, which the server does while the next is made."""
    rest_s: float | None
    """What is added beside that, over the same pairs; ``None`` for several pictures, saved in the engine's own time."""


@dataclass(frozen=True)
class Packed:
    """A picture of the server's default size as a PNG."""

    level: int
    """``--png-level``."""
    seconds: float
    kilobytes: float


@dataclass(frozen=True)
class Service:
    """All figures, medians each."""

    ping_s: float
    """From the start of the process to its first answer."""
    ping_without_caches_s: float
    """The same with no compiled module anywhere: not the project's, not a library's, not Python's own."""
    first_picture_s: float
    """From the start of the process to the end of the first waiting request."""
    submit_to_worker_ms: float
    queries_per_s: float
    """``query-job`` by one caller that asks again as soon as it is answered, on one connection."""
    queries_of_many_per_s: float
    """The same by ``MANY_CALLERS`` together."""
    added: tuple[Added, ...]
    packed: tuple[Packed, ...]


def measure(case: Case) -> Service:
    """Starts first, then one server for all else."""
    started = [start(case) for _ in range(case.runs)]
    with tempfile.TemporaryDirectory() as folder:
        without_caches = [start_without_caches(case, Path(folder)) for _ in range(case.runs)]
    with tempfile.TemporaryDirectory() as folder, running_server(case, Path(folder)) as (client, _, _):
        wait_for_ping(client)
        packed = measure_packing(client.get(post_picture(client, case)).content, case.runs)
        added = tuple(measure_added(client, case, Path(folder), *request) for request in REQUESTS)
        submit_ms = measure_submit_to_worker(client, case)
        one, many = measure_queries(client, 1, case.runs), measure_queries(client, MANY_CALLERS, case.runs)
    return Service(
        ping_s=statistics.median(ping_s for ping_s, _ in started),
        ping_without_caches_s=statistics.median(without_caches),
        first_picture_s=statistics.median(picture_s for _, picture_s in started),
        submit_to_worker_ms=submit_ms,
        queries_per_s=one,
        queries_of_many_per_s=many,
        added=added,
        packed=packed,
    )


# --- the start ----------------------------------------------------------------------------------------------------


def start(case: Case) -> tuple[float, float]:
    """The seconds to the first answer and to the first picture."""
    with tempfile.TemporaryDirectory() as folder, running_server(case, Path(folder)) as (client, started_s, _):
        wait_for_ping(client)
        ping_s = time.perf_counter() - started_s
        post_picture(client, case)
        return ping_s, time.perf_counter() - started_s


def start_without_caches(case: Case, caches: Path) -> float:
    """The seconds to the first answer where Python finds no compiled module, not even of its own library."""
    environment = {"PYTHONPYCACHEPREFIX": str(caches), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        server = running_server(case, Path(folder), environment=environment, is_killed=True)
        with server as (client, started_s, _):
            wait_for_ping(client)
            return time.perf_counter() - started_s


# --- answers ------------------------------------------------------------------------------------------------------


def measure_submit_to_worker(client: httpx.Client, case: Case) -> float:
    """The median in milliseconds over jobs each of which finds the worker idle."""
    for _ in range(SHORT_JOBS):
        post_picture(client, case, aspect_ratios_selection=SMALL, advanced_params={"overwrite_step": 1})
    return submit_to_worker_ms(client.get("/v1/generation/job-history").json())


def measure_queries(client: httpx.Client, callers: int, runs: int) -> float:
    """Answers a second to so many callers, the median over rounds after one that does not count."""
    port, job_id = client.base_url.port or 0, last_job_id(client)
    _, *counted = (asyncio.run(queries(port, job_id, callers)) for _ in range(runs + 1))
    return statistics.median(counted)


async def queries(port: int, job_id: str, callers: int) -> float:
    """Answers a second in one round. Raises ``SystemExit`` for an answer that is none."""
    tally = Tally()
    ends_s = time.perf_counter() + ROUND_S

    async def ask() -> None:
        caller = Caller(port, tally)
        while time.perf_counter() < ends_s:
            await caller.call(QUERY, f"?job_id={job_id}")

    started_s = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(callers)))
    seconds = time.perf_counter() - started_s
    if tally.failures:
        raise SystemExit("the server did not answer a query")
    return len(tally.seconds[QUERY]) / seconds


def last_job_id(client: httpx.Client) -> str:
    """Of a job that has ended."""
    return str(client.get("/v1/generation/job-history").json()["history"][-1]["job_id"])


# --- what the server adds to the engine ---------------------------------------------------------------------------


def measure_added(client: httpx.Client, case: Case, folder: Path, size: str, images: int, times: int) -> Added:
    """One after the other the server's request and the engine's run, in pairs; the first pair does not count."""

    def request() -> float:
        started_s = time.perf_counter()
        post_picture(client, case, aspect_ratios_selection=size, image_number=images)
        return time.perf_counter() - started_s

    request()
    plan = last_plan(folder)
    with bare_engine(case, folder) as engine:
        _, *pairs = ((request(), ask(engine, plan)) for _ in range(times * case.runs + 1))
    return added(size, images, pairs)


def added(size: str, images: int, pairs: list[tuple[float, Mapping[str, float]]]) -> Added:
    """The medians of what was measured in pairs."""
    rests = [request_s - bare["engine_s"] - bare["saving_s"] for request_s, bare in pairs]
    return Added(
        f"{images} of {shown_size(size)}",
        request_s=statistics.median(request_s for request_s, _ in pairs),
        engine_s=statistics.median(bare["engine_s"] for _, bare in pairs),
        added_s=statistics.median(request_s - bare["engine_s"] for request_s, bare in pairs),
        saving_s=statistics.median(bare["saving_s"] for _, bare in pairs),
        rest_s=statistics.median(rests) if images == 1 else None,
    )


def shown_size(size: str) -> str:
    """As people write it."""
    return size.replace("*", "x")


def last_plan(folder: Path) -> str:
    """What the server has made of the last request, as its journal holds it: JSON in one line."""
    journal = f"{(folder / 'outputs' / 'journal.db').as_uri()}?mode=ro"
    with closing(sqlite3.connect(journal, uri=True)) as connection:
        (plan,) = connection.execute("select plan from fooocusapi_job order by sequence desc limit 1").fetchone()
    return str(plan)


@contextmanager
def bare_engine(case: Case, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with the engine of the server in ``folder``, which writes its pictures elsewhere."""
    with tempfile.TemporaryDirectory() as outputs:
        command = [
            *(sys.executable, "-m", "benchmarks.bare_engine", "--folder", str(folder), "--outputs", outputs),
            *("--checkpoint", str(case.checkpoint), "--device", case.device),
        ]
        environment = {**without_server_settings(os.environ), "FOOOCUSAPI_PRESET": ""}
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
            yield process


def ask(engine: subprocess.Popen[str], plan: str) -> Mapping[str, float]:
    """The seconds of one run of the bare engine."""
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write(f"{plan}\n")
    engine.stdin.flush()
    answer: Mapping[str, float] = json.loads(engine.stdout.readline())
    return answer


def measure_packing(file: bytes, runs: int) -> tuple[Packed, ...]:
    """A finished picture packed anew, as hard as it may be."""
    with Image.open(io.BytesIO(file)) as picture:
        pixels = np.array(picture)

    def pack(level: int) -> Packed:
        seconds = median_seconds(lambda: encode_image(pixels, "png", png_level=level), runs)
        return Packed(level, seconds, len(encode_image(pixels, "png", png_level=level)) / 1000)

    return tuple(pack(level) for level in LEVELS)


# --- the report ---------------------------------------------------------------------------------------------------


def rows(found: Service) -> list[tuple[str, str, str]]:
    """Each figure by its name, its goal and what was measured."""
    return [
        ("start to `/ping`, s", f"{PING_GOAL_S:g}", shown(found.ping_s)),
        ("start to `/ping` without any bytecode cache, s", f"{PING_GOAL_S:g}", shown(found.ping_without_caches_s)),
        ("start to first picture, s", ABSENT, shown(found.first_picture_s)),
        ("submit to worker, ms", f"{SUBMIT_GOAL_MS:g}", shown(found.submit_to_worker_ms)),
        ("`query-job` by one caller, answers/s", ABSENT, shown(found.queries_per_s)),
        (f"`query-job` by {MANY_CALLERS} callers, answers/s", ABSENT, shown(found.queries_of_many_per_s)),
        *(row for added in found.added for row in added_rows(added)),
        *(
            (
                f"a PNG of {shown_size(LARGE)} with `--png-level` {packed.level}, ms and kB",
                ABSENT,
                packed_cell(packed),
            )
            for packed in found.packed
        ),
    ]


def added_rows(added: Added) -> list[tuple[str, str, str]]:
    """A request beside the engine's run."""
    goal_ms = max(ADDED_GOAL_MS, ADDED_GOAL_SHARE * added.engine_s * 1000)
    measured = [
        (f"waiting request of {added.what}, s", ABSENT, shown(added.request_s)),
        ("– the engine's own run of it, s", ABSENT, shown(added.engine_s)),  # noqa: RUF001
        ("– what the server adds, ms", shown(goal_ms), shown(added.added_s * 1000)),  # noqa: RUF001
        ("– packing and writing alone, ms", ABSENT, shown(added.saving_s * 1000)),  # noqa: RUF001
    ]
    if added.rest_s is not None:
        measured.append(("– what else it adds, ms", ABSENT, shown(added.rest_s * 1000)))  # noqa: RUF001
    return measured


def packed_cell(packed: Packed) -> str:
    """Milliseconds and size."""
    return f"{shown(packed.seconds * 1000)}, {shown(packed.kilobytes)}"


def conditions(case: Case) -> str:
    """What the figures were taken with, in a line."""
    return (
        f"{case.checkpoint.name}, {case.steps} steps, medians of {case.runs}; "
        f"{machine()}, device {case.device}; {versions(PACKAGES)}"
    )


def as_markdown(case: Case, found: Service) -> str:
    """The table of the documentation."""
    lines = [f"| {name} | {goal} | {measured} |" for name, goal, measured in rows(found)]
    return "\n".join([f"{conditions(case)}:", "", "| | goal, at most | measured |", "|---|---:|---:|", *lines])


def print_report(case: Case, found: Service) -> None:
    """The table for people at a terminal."""
    table = Table("", "goal, at most", "measured", title=conditions(case))
    for name, goal, measured in rows(found):
        table.add_row(name.replace("`", ""), goal, measured)
    Console(width=120).print(table)


def main() -> None:
    """Measure, print, and put the table into a page or a file where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5, help="how often each figure is taken")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args()
    case = Case(POCKET, given.steps, given.runs, given.device)
    found = measure(case)
    print_report(case, found)
    if given.markdown:
        write_figures(given.markdown, as_markdown(case, found), SCRIPT)
    if given.json:
        given.json.write_text(as_json(case, found), encoding="utf-8")


def as_json(case: Case, found: Service) -> str:
    """The raw figures."""
    return json.dumps({"conditions": conditions(case), **asdict(found)}, indent=2) + "\n"


if __name__ == "__main__":
    main()
