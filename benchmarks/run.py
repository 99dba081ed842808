"""Measures the server as a client sees it, and diffusers' own pipeline on the same weights, steps and machine.

``python benchmarks/run.py [--checkpoint FILE] [--markdown docs/benchmarks.md]``. The server is a real process on
loopback; the peer a process of its own after it, so that neither takes the other's cores. ``docs/benchmarks.md`` says
what each figure holds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.report import machine, shown, spelt, versions, write_figures  # noqa: E402
from benchmarks.server_process import (  # noqa: E402
    POCKET,
    Case,
    post_picture,
    running_server,
    submit_to_worker_ms,
    wait_for_ping,
)
from benchmarks.timing import Figures, median_seconds, peak_memory_mb  # noqa: E402
from fooocus_core.presets.sizes import Size, parse_size  # noqa: E402

PACKAGES = ("torch", "diffusers", "transformers")
SCRIPT = "benchmarks/run.py"

ROWS = (
    ("start to `/ping`, s", "ping_s"),
    ("start to first picture, s", "first_picture_s"),
    ("picture of {size}, s", "picture_s"),
    ("picture of {sampled}, nothing enlarged, s", "sampled_picture_s"),
    ("submit to worker, ms", "submit_to_worker_ms"),
    ("peak memory, MB", "peak_memory_mb"),
)


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


def default_size(client: httpx.Client) -> Size:
    """The size that the server publishes as its default."""
    schemas = client.get("/openapi.json").raise_for_status().json()["components"]["schemas"]
    return parse_size(schemas["CommonRequest"]["properties"]["aspect_ratios_selection"]["default"])


def sampled_elsewhere(checkpoint: Path, size: Size) -> Size | None:
    """The size at which a model with a native area is sampled for ``size``, if that is another one."""
    from fooocus_core.models.checkpoint import open_checkpoint
    from fooocus_core.models.sidecar import read_sidecar
    from fooocus_core.stages.native_size import sampled_size

    sampled = sampled_size(size, read_sidecar(open_checkpoint(checkpoint)).native_area_px)
    return None if sampled == size else sampled


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


def conditions(case: Case) -> str:
    """What the figures were taken with, in a line."""
    return (
        f"{case.checkpoint.name}, {case.steps} steps, medians of {case.runs} pictures; "
        f"{machine()}, device {case.device}; {versions(PACKAGES)}"
    )


def as_markdown(case: Case, measured: Measured) -> str:
    """The table of the documentation."""
    lines = [f"| {name} | {ours} | {theirs} |" for name, ours, theirs in rows(measured)]
    return "\n".join([f"{conditions(case)}:", "", "| | fooocusapi | diffusers |", "|---|---:|---:|", *lines])


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
        write_figures(given.markdown, as_markdown(case, measured), SCRIPT)
    if given.json:
        sides = {"fooocusapi": measured.server.to_json(), "diffusers": measured.peer.to_json()}
        given.json.write_text(json.dumps({"conditions": conditions(case), **sides}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
