"""Measures the server as a client sees it, and diffusers' own pipeline on the same weights, steps and machine.

``python benchmarks/run.py [--checkpoint FILE] [--markdown docs/benchmarks.md]``. The server is a real process on
loopback; the peer a process of its own after it, so that neither takes the other's cores. ``docs/benchmarks.md`` says
what each figure holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.timing import Figures, median_seconds, peak_memory_mb  # noqa: E402
from fooocus_core.library import POCKET_FOLDER, POCKET_NAME  # noqa: E402
from fooocus_core.presets.sizes import Size, parse_size  # noqa: E402
from fooocusapi.settings import without_server_settings  # noqa: E402

POCKET = POCKET_FOLDER / POCKET_NAME
PACKAGES = ("torch", "diffusers", "transformers")
END_WITHIN_S = 60
BEGIN_MARK, END_MARK = "<!-- figures: written by benchmarks/run.py -->", "<!-- end of figures -->"
ABSENT = "–"  # noqa: RUF001 - a dash for people

ROWS = (
    ("start to `/ping`, s", "ping_s"),
    ("start to first picture, s", "first_picture_s"),
    ("picture of {size}, s", "picture_s"),
    ("picture of {sampled}, nothing enlarged, s", "sampled_picture_s"),
    ("submit to worker, ms", "submit_to_worker_ms"),
    ("peak memory, MB", "peak_memory_mb"),
)


@dataclass(frozen=True)
class Case:
    """What is measured on both sides."""

    checkpoint: Path
    steps: int
    runs: int
    device: str


@dataclass(frozen=True)
class Measured:
    """Both sides' figures. ``sampled`` is ``None`` where the model is sampled at the size asked for."""

    size: Size
    sampled: Size | None
    server: Figures
    peer: Figures


def measure(case: Case) -> Measured:
    """The server first, then the peer at the server's default size."""
    server, size = measure_server(case)
    return Measured(size, sampled_elsewhere(case.checkpoint, size), server, measure_peer(case, size))


# --- the server ---------------------------------------------------------------------------------------------------


def measure_server(case: Case) -> tuple[Figures, Size]:
    """The server's figures and its default size."""
    with tempfile.TemporaryDirectory() as folder, running_server(case, Path(folder)) as (client, started_s, process_id):
        wait_for_ping(client)
        ping_s = time.perf_counter() - started_s
        post_picture(client, case)
        first_picture_s = time.perf_counter() - started_s
        size = default_size(client)
        sampled = sampled_elsewhere(case.checkpoint, size)
        figures = Figures(
            first_picture_s=first_picture_s,
            picture_s=median_seconds(lambda: post_picture(client, case), case.runs),
            sampled_picture_s=sampled
            and median_seconds(lambda: post_picture(client, case, aspect_ratios_selection=spelt(sampled)), case.runs),
            peak_memory_mb=peak_memory_mb(process_id),
            ping_s=ping_s,
            submit_to_worker_ms=submit_to_worker_ms(client.get("/v1/generation/job-history").json()),
        )
    return figures, size


@contextmanager
def running_server(case: Case, folder: Path) -> Iterator[tuple[httpx.Client, float, int]]:
    """A server process that knows this checkpoint only: a client, when it was started, and its process id."""
    models = folder / "models"
    (models / "checkpoints").mkdir(parents=True)
    if case.checkpoint != POCKET:
        (models / "checkpoints" / case.checkpoint.name).symlink_to(case.checkpoint.resolve())
    port = free_port()
    flags = {
        "port": port,
        "output-path": folder / "outputs",
        "models-root": models,
        "config-path": folder / "config.txt",
        "log-level": "warning",
        "device": case.device,
    }
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "main.py", *(f"--{name}={value}" for name, value in flags.items())],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env={**without_server_settings(os.environ), "FOOOCUSAPI_PRESET": ""},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=None, trust_env=False) as client:
            yield client, started_s, process.pid
    finally:
        process.terminate()
        process.wait(END_WITHIN_S)


def wait_for_ping(client: httpx.Client) -> None:
    """Until the port answers."""
    while True:
        try:
            client.get("/ping").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.01)
        else:
            return


def post_picture(client: httpx.Client, case: Case, **more: Any) -> None:
    """One picture by a call that waits. No styles and no LoRAs, so that both sides read the same text."""
    body = {
        "prompt": "a red apple",
        "style_selections": [],
        "loras": [],
        "image_seed": 7,
        "advanced_params": {"overwrite_step": case.steps},
        **more,
    }
    (picture,) = client.post("/v1/generation/text-to-image", json=body).raise_for_status().json()
    if picture["finish_reason"] != "SUCCESS":
        raise SystemExit(f"the server made no picture: {picture}")


def default_size(client: httpx.Client) -> Size:
    """The size that the server publishes as its default."""
    schemas = client.get("/openapi.json").raise_for_status().json()["components"]["schemas"]
    return parse_size(schemas["CommonRequest"]["properties"]["aspect_ratios_selection"]["default"])


def submit_to_worker_ms(history: Mapping[str, Any]) -> float:
    """The median over all jobs but the first, which waits for the engine to be made."""
    waits = [entry["start_mills"] - entry["in_queue_mills"] for entry in history["history"][1:]]
    return float(statistics.median(waits))


def sampled_elsewhere(checkpoint: Path, size: Size) -> Size | None:
    """The size at which a model with a native area is sampled for ``size``, if that is another one."""
    from fooocus_core.models.checkpoint import open_checkpoint
    from fooocus_core.models.sidecar import read_sidecar
    from fooocus_core.stages.native_size import sampled_size

    sampled = sampled_size(size, read_sidecar(open_checkpoint(checkpoint)).native_area_px)
    return None if sampled == size else sampled


def spelt(size: Size) -> str:
    """``1024x1024``, which both the server and the peer read."""
    return f"{size.width_px}x{size.height_px}"


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- the peer -----------------------------------------------------------------------------------------------------


def measure_peer(case: Case, size: Size) -> Figures:
    """diffusers' figures, from a process of its own."""
    command = [
        *(sys.executable, "-m", "benchmarks.diffusers_peer"),
        *("--checkpoint", str(case.checkpoint.resolve()), "--size", spelt(size), "--device", case.device),
        *("--steps", str(case.steps), "--runs", str(case.runs), "--started-s", repr(time.time())),
    ]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    return Figures(**json.loads(answer.splitlines()[-1]))


# --- the report ---------------------------------------------------------------------------------------------------


def rows(measured: Measured) -> list[tuple[str, str, str]]:
    """Each figure by its name, the server's and the peer's; figures that neither has are left out."""
    sizes = {"size": spelt(measured.size), "sampled": measured.sampled and spelt(measured.sampled)}
    found = [
        (name.format(**sizes), getattr(measured.server, field), getattr(measured.peer, field)) for name, field in ROWS
    ]
    return [(name, shown(ours), shown(theirs)) for name, ours, theirs in found if (ours, theirs) != (None, None)]


def shown(value: float | None) -> str:
    """Three digits that matter, or a dash."""
    if value is None:
        return ABSENT
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def conditions(case: Case) -> str:
    """What the figures were taken with, in a line."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{case.checkpoint.name}, {case.steps} steps, medians of {case.runs} pictures; "
        f"{machine()}, device {case.device}; Python {platform.python_version()}, {packages}"
    )


def machine() -> str:
    """The processor's name and how many cores there are to be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {cores} cores"


def as_markdown(case: Case, measured: Measured) -> str:
    """The table of the documentation."""
    lines = [f"| {name} | {ours} | {theirs} |" for name, ours, theirs in rows(measured)]
    return "\n".join([f"{conditions(case)}:", "", "| | fooocusapi | diffusers |", "|---|---:|---:|", *lines])


def with_figures(page: str, table: str) -> str:
    """``page`` with what stands between its two marks replaced. Raises ``ValueError`` if it lacks them."""
    before, begin, rest = page.partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not begin or not end:
        raise ValueError("the page has no place for figures")
    return f"{before}{BEGIN_MARK}\n\n{table}\n\n{END_MARK}{after}"


def print_report(case: Case, measured: Measured) -> None:
    """The table for people at a terminal."""
    table = Table("", "fooocusapi", "diffusers", title=conditions(case))
    for name, ours, theirs in rows(measured):
        table.add_row(name.replace("`", ""), ours, theirs)
    Console(width=120).print(table)


def main() -> None:
    """Measure, print, and put the table into a page or a file where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=POCKET, metavar="FILE")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5, help="pictures of each kind that count")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args()
    case = Case(given.checkpoint, given.steps, given.runs, given.device)
    measured = measure(case)
    print_report(case, measured)
    if given.markdown:
        page = given.markdown.read_text(encoding="utf-8")
        given.markdown.write_text(with_figures(page, as_markdown(case, measured)), encoding="utf-8")
    if given.json:
        sides = {"fooocusapi": measured.server.to_json(), "diffusers": measured.peer.to_json()}
        given.json.write_text(json.dumps({"conditions": conditions(case), **sides}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
