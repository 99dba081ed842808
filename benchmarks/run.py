"""Measures the server as a client sees it: start, pictures, hand-over to the worker, memory.

``python benchmarks/run.py [--runs 5] [--json FILE]``. The figures come from a real process on loopback.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
STEPS = 30


def median_seconds(action: Callable[[], object], runs: int) -> float:
    """Median wall time of ``runs`` calls after one that does not count."""
    action()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(folder: Path) -> Iterator[tuple[httpx.Client, float, int]]:
    """A real server process; yields a client, the moment it was started (``perf_counter``) and its process id."""
    port, started = free_port(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "main.py", "--port", str(port), "--output-path", str(folder), "--log-level", "warning"],
        cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            yield client, started, process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_for_ping(client: httpx.Client) -> None:
    while True:
        try:
            if client.get("/ping").json() == "pong":
                return
        except httpx.TransportError:
            time.sleep(0.01)


def peak_rss_mb(process_id: int) -> float:
    """The process's highest resident memory so far, from ``/proc``."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def measure_server(runs: int) -> dict[str, float]:
    """Start, first picture, picture of the default size, hand-over to the worker, memory."""
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as (client, started, process_id):
        wait_for_ping(client)
        to_ping = time.perf_counter() - started
        picture = lambda: client.post("/v1/generation/text-to-image", json={"prompt": "a red apple"}).raise_for_status()  # noqa: E731
        picture()
        to_picture = time.perf_counter() - started
        seconds = median_seconds(picture, runs)
        history = client.get("/v1/generation/job-history").json()["history"]
        waits = [entry["start_mills"] - entry["in_queue_mills"] for entry in history[1:]]
        return {
            "start to /ping, s": to_ping,
            "start to first picture, s": to_picture,
            f"picture 1152x896 over HTTP, {STEPS} steps, s": seconds,
            "submit to worker, ms": statistics.median(waits),
            "peak memory of the server, MB": peak_rss_mb(process_id),
        }


def report(figures: dict[str, float], settings: dict[str, Any]) -> None:
    table = Table("figure", "median", title=", ".join(f"{key} {value}" for key, value in settings.items()))
    for name, value in figures.items():
        table.add_row(name, f"{value:.3f}" if value < 100 else f"{value:.0f}")
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = {"python": platform.python_version(), "runs": arguments.runs}
    settings |= {package: version(package) for package in ("torch", "diffusers", "transformers")}
    figures = measure_server(arguments.runs)
    report(figures, settings)
    if arguments.json:
        arguments.json.write_text(json.dumps({"settings": settings, "figures": figures}, indent=2))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
