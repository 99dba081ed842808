"""Pictures of one job, and of several, painted one by one and together, in turn, in one process.

``python benchmarks/together.py [--checkpoint FILE] [--markdown docs/performance.md] [--json FILE]``. The engine without
a server; ``docs/performance.md`` says what the figures hold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.report import machine, shown, spelt, versions, write_figures  # noqa: E402
from fooocus_core.library import POCKET_FOLDER, POCKET_NAME, Library  # noqa: E402
from fooocus_core.plan import Diffuse, Guidance, Models, Output, Plan, Prompts, Sampling  # noqa: E402
from fooocus_core.presets.sizes import Size, parse_size  # noqa: E402
from fooocusapi.serve import let_threads_rest  # noqa: E402

if TYPE_CHECKING:
    from fooocus_core.engine import Engine
    from fooocus_core.events import Event

SCRIPT = "benchmarks/together.py"
POCKET = POCKET_FOLDER / POCKET_NAME
PACKAGES = ("torch", "diffusers")
PICTURES: Final = 4
SEED = 7


class Way(NamedTuple):
    """How ``PICTURES`` pictures are asked for and painted."""

    at_once: int
    """As ``--pictures-at-once``."""
    jobs: int = 1
    """In how many jobs, which all wait already."""

    @property
    def name(self) -> str:
        if self.jobs > 1:
            return f"{self.jobs} jobs, " + ("one by one" if self.at_once == 1 else "together")
        return "one by one" if self.at_once == 1 else f"{self.at_once} at once"


WAYS: Final = (Way(1), Way(2), Way(4), Way(1, jobs=4), Way(4, jobs=4))

Pixels = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Case:
    """What is painted."""

    checkpoint: Path
    size: Size
    steps: int
    runs: int
    device: str


@dataclass(frozen=True)
class Figures:
    """One way's figures, of all pictures together. Seconds are medians."""

    way: Way
    wall_s: float
    processor_s: float
    """What all threads of the process took."""
    largest_deviation: int
    """From the same pixel of the same picture painted alone, 0 to 255."""
    deviating_share: float
    """How many of the pixels' values are not the same, 0 to 1."""


@dataclass(frozen=True)
class Run:
    """All pictures, once."""

    wall_s: float
    processor_s: float
    pixels: Pixels


def measure(case: Case) -> list[Figures]:
    """All ways in turn, after one run that does not count."""
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_of(case, Path(folder))
        painted(engine, case, Way(PICTURES))
        rounds = [[painted(engine, case, way) for way in WAYS] for _ in range(case.runs)]
    return [figures(way, runs, rounds[0][0].pixels) for way, runs in zip(WAYS, zip(*rounds, strict=True), strict=True)]


def engine_of(case: Case, root: Path) -> Engine:
    """An engine that knows this checkpoint only."""
    from fooocus_core.engine import Engine
    from fooocus_core.models.device import choose_placement
    from fooocus_core.models.loaded import ModelStore
    from fooocus_core.prompts.styles import StyleBook
    from fooocus_core.prompts.wildcards import Wildcards

    (root / "checkpoints").mkdir()
    if case.checkpoint != POCKET:
        (root / "checkpoints" / case.checkpoint.name).symlink_to(case.checkpoint.resolve())
    models = ModelStore(Library.below(root), choose_placement(case.device))
    return Engine(models, StyleBook([]), Wildcards([]))


def painted(engine: Engine, case: Case, way: Way) -> Run:
    """All pictures, as the server's worker has them painted. Raises ``SystemExit`` where it gets none."""
    from fooocus_core.events import Failed, PlanRun, never

    engine.pictures_at_once = way.at_once
    plans = plans_of(case, way)
    groups = [plans] if engine.takes_together(plans) else [[plan] for plan in plans]
    started_s, processor_s = time.perf_counter(), time.process_time()
    told = [list(engine.run_together([PlanRun(plan, never) for plan in group])) for group in groups]
    run_s, used_s = time.perf_counter() - started_s, time.process_time() - processor_s
    for _, event in itertools.chain(*told):
        if isinstance(event, Failed):
            raise SystemExit(f"the engine made no pictures: {event.reason}")
    return Run(run_s, used_s, [pixels for events in told for pixels in in_order(events)])


def in_order(events: Iterable[tuple[int, Event]]) -> list[NDArray[np.uint8]]:
    """The pictures of several plans: each plan's behind those of the plans before it."""
    from fooocus_core.events import ImageFinished

    finished = [(number, event) for number, event in events if isinstance(event, ImageFinished)]
    return [event.pixels for _, event in sorted(finished, key=lambda one: (one[0], one[1].index))]


def plans_of(case: Case, way: Way) -> list[Plan]:
    """The same pictures whichever way: each has the seed that it has in a job of all."""
    images = PICTURES // way.jobs
    return [plan_of(case, SEED + job * images, images) for job in range(way.jobs)]


def plan_of(case: Case, seed: int, images: int) -> Plan:
    """The pictures with the server's own sampler, guidance, sharpness and previews."""
    stage = Diffuse(
        Models(case.checkpoint.name),
        Prompts("a red apple"),
        case.size.width_px,
        case.size.height_px,
        seed=seed,
        image_number=images,
        guidance=Guidance(),
        sampling=Sampling("dpmpp_2m_sde_gpu", "karras", case.steps),
    )
    return Plan((stage,), Output(preview=True))


def figures(way: Way, runs: Sequence[Run], alone: Pixels) -> Figures:
    """Of all runs of one way; ``alone``: the same pictures painted one by one."""
    deviations = [np.abs(one.astype(int) - other) for run in runs for one, other in zip(run.pixels, alone, strict=True)]
    return Figures(
        way,
        statistics.median(run.wall_s for run in runs),
        statistics.median(run.processor_s for run in runs),
        max(int(deviation.max()) for deviation in deviations),
        float(np.mean([np.count_nonzero(deviation) / deviation.size for deviation in deviations])),
    )


def conditions(case: Case) -> str:
    """What the figures were taken with, in a line."""
    return (
        f"{case.checkpoint.name}, {PICTURES} pictures of {spelt(case.size)}, {case.steps} steps of dpmpp_2m_sde_gpu, "
        f"medians of {case.runs} runs each way; {machine()}, device {case.device}; {versions(PACKAGES)}"
    )


def as_markdown(case: Case, measured: Sequence[Figures]) -> str:
    """The table of the documentation."""
    rows = {
        f"{PICTURES} pictures, s": [shown(one.wall_s) for one in measured],
        "processor time, s": [shown(one.processor_s) for one in measured],
        "largest deviation, of 255": [str(one.largest_deviation) for one in measured],
        "values that deviate, %": [shown(100 * one.deviating_share) for one in measured],
    }
    names = [one.way.name for one in measured]
    head = [f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    return "\n".join(
        [f"{conditions(case)}:", "", *head, *(f"| {name} | {' | '.join(row)} |" for name, row in rows.items())]
    )


def main() -> None:
    """Measure, print, and put the table into a page or a file where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=POCKET, metavar="FILE")
    parser.add_argument("--size", type=parse_size, default=Size(96, 96), metavar="WIDTHxHEIGHT")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5, help="runs of each kind that count")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args()
    let_threads_rest(os.environ)  # as the server does; torch is not imported yet
    case = Case(given.checkpoint, given.size, given.steps, given.runs, given.device)
    measured = measure(case)
    table = as_markdown(case, measured)
    print(table)  # noqa: T201
    if given.markdown:
        write_figures(given.markdown, table, SCRIPT)
    if given.json:
        ways = [asdict(one) for one in measured]
        given.json.write_text(json.dumps({"conditions": conditions(case), "ways": ways}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
