"""What the shortcuts that change pictures save, and by how much the pictures change.

``python benchmarks/shortcuts.py [--checkpoint FILE] [--markdown docs/performance.md] [--json FILE]``. Every text is
painted in every way, in turns; seconds are medians over the texts, deviations are from the picture without shortcuts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.engine import PACKAGES, TEXTS, Case, engine_of, library_of, plan_of  # noqa: E402
from benchmarks.report import machine, shown, spelt, versions, write_figures  # noqa: E402
from benchmarks.server_process import POCKET  # noqa: E402
from fooocus_core.engine import Engine  # noqa: E402
from fooocus_core.events import ImageFinished, never  # noqa: E402
from fooocus_core.images.pixels import Picture  # noqa: E402
from fooocus_core.plan import Plan  # noqa: E402
from fooocus_core.presets.sizes import parse_size  # noqa: E402
from fooocus_core.sampling.shortcuts import NO_SHORTCUTS, Shortcuts  # noqa: E402
from fooocusapi.serve import let_threads_rest  # noqa: E402

SCRIPT = "benchmarks/shortcuts.py"
WAYS: Mapping[str, Shortcuts] = {
    "none": NO_SHORTCUTS,
    "`--guidance-until 0.8`": Shortcuts(guidance_until=0.8),
    "`--guidance-until 0.5`": Shortcuts(guidance_until=0.5),
    "`--whole-pass-every 2`": Shortcuts(whole_pass_every=2),
    "`--whole-pass-every 3`": Shortcuts(whole_pass_every=3),
    "both, 0.8 and 2": Shortcuts(0.8, 2),
}
HEADINGS = ("shortcuts", "seconds a picture", "of the whole", "mean deviation", "largest deviation")


@dataclass(frozen=True)
class Figures:
    """``mean``, ``largest``: distance of pixel values, 0 ... 255; the largest is the median of the texts' largest."""

    seconds: float
    mean: float
    largest: float


def measure(case: Case) -> dict[str, Figures]:
    """All ways in turns, text by text; the first text is painted once before that does not count."""
    library = library_of(case)
    engine = engine_of(case, library)
    plans = [plan_of(case, library, f"{text}, {number}", 2.0, False) for number, text in enumerate(TEXTS)]
    for shortcuts in WAYS.values():
        painted(engine, plans[0], shortcuts)
    rounds = [{way: painted(engine, plan, shortcuts) for way, shortcuts in WAYS.items()} for plan in plans]
    return {way: figures([one[way] for one in rounds], [one["none"][1] for one in rounds]) for way in WAYS}


def painted(engine: Engine, plan: Plan, shortcuts: Shortcuts) -> tuple[float, Picture]:
    """Seconds and the picture. Raises ``SystemExit`` where none is made."""
    engine.shortcuts = shortcuts
    started_s = time.perf_counter()
    pictures = [event.pixels for event in engine.run(plan, never, never) if isinstance(event, ImageFinished)]
    taken_s = time.perf_counter() - started_s
    if not pictures:
        raise SystemExit("the engine made no picture")
    return taken_s, pictures[0]


def figures(made: Sequence[tuple[float, Picture]], whole: Sequence[Picture]) -> Figures:
    """Of one way, beside the pictures without shortcuts."""
    distances = [
        np.abs(picture.astype(np.int16) - plain.astype(np.int16))
        for (_, picture), plain in zip(made, whole, strict=True)
    ]
    return Figures(
        statistics.median(seconds for seconds, _ in made),
        statistics.mean(float(distance.mean()) for distance in distances),
        statistics.median(float(distance.max()) for distance in distances),
    )


def rows(found: Mapping[str, Figures]) -> list[tuple[str, ...]]:
    """One for each way."""
    whole = found["none"].seconds
    return [
        (way, shown(one.seconds), shown(one.seconds / whole), f"{one.mean:.1f}", f"{one.largest:.0f}")
        for way, one in found.items()
    ]


def conditions(case: Case) -> str:
    """What the figures were taken with, in a line."""
    return (
        f"{case.checkpoint.name}, {spelt(case.size)}, {case.steps} steps, {len(TEXTS)} texts; {machine()}, device "
        f"{case.device}; {versions(PACKAGES)}"
    )


def as_markdown(case: Case, found: Mapping[str, Figures]) -> str:
    """The table of the documentation."""
    lines = ["| " + " | ".join(row) + " |" for row in (HEADINGS, ("---", *["---:"] * 4), *rows(found))]
    return "\n".join([f"{conditions(case)}:", "", *lines])


def main() -> None:
    """Measure, print, and put the table into a page or a file where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=POCKET, metavar="FILE")
    parser.add_argument("--size", type=parse_size, default=parse_size("96*96"), metavar="WIDTH*HEIGHT")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args()
    let_threads_rest(os.environ)
    case = Case(given.checkpoint, given.size, given.steps, len(TEXTS), given.device)
    found = measure(case)
    table = Table(*HEADINGS, title=conditions(case))
    for row in rows(found):
        table.add_row(*(cell.replace("`", "") for cell in row))
    Console(width=140).print(table)
    if given.markdown:
        write_figures(given.markdown, as_markdown(case, found), SCRIPT)
    if given.json:
        told = {"conditions": conditions(case), "ways": {way: asdict(one) for way, one in found.items()}}
        given.json.write_text(json.dumps(told, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
