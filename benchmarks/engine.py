"""One picture by the engine and one by diffusers' pipeline, in turns, on the same weights.

``python benchmarks/engine.py [--checkpoint FILE] [--markdown docs/performance.md] [--json FILE]``. Every round makes
one picture of each kind from a text of its own, so that nothing is remembered of an earlier one; what is told are
medians over the rounds, and medians of the rounds' own ratios. Each side is a process of its own, which rests while the
other works: threads of one would stand in the other's way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.report import machine, shown, spelt, versions, write_figures  # noqa: E402
from benchmarks.server_process import POCKET  # noqa: E402
from fooocus_core.events import Finished, never  # noqa: E402
from fooocus_core.library import Library  # noqa: E402
from fooocus_core.models.device import DeviceName  # noqa: E402
from fooocus_core.plan import Plan  # noqa: E402
from fooocus_core.presets.preset import choose_default_preset  # noqa: E402
from fooocus_core.presets.sizes import GRID_PX, Size, parse_size  # noqa: E402
from fooocus_core.request import GenerationRequest  # noqa: E402
from fooocus_core.resolve import resolve_request  # noqa: E402

if TYPE_CHECKING:
    from fooocus_core.engine import Engine

SCRIPT = "benchmarks/engine.py"
PACKAGES = ("torch", "diffusers", "transformers")
TEXTS = ("a red apple", "a green car", "a blue house", "a yellow flower", "a white cat", "a brown dog", "a pink star")
PEER, PLAIN, PREVIEWED, SHARPENED = "diffusers", "engine", "engine, previews", "engine, previews and sharpness 2"
GUIDANCE_SCALE = 4.0
CALLS = 100
GOAL_RATIO, GOAL_SHARPNESS = 0.75, 0.05

Paint = Callable[[str], object]


@dataclass(frozen=True)
class Case:
    """What is painted."""

    checkpoint: Path
    size: Size
    steps: int
    rounds: int
    device: DeviceName


@dataclass(frozen=True)
class Figures:
    """``seconds``: the median of each kind. ``ratio``: the plain engine's time as a share of diffusers', and
    ``sharpness_share``: what sharpness adds as a share of the same picture without; both medians over the rounds."""

    seconds: Mapping[str, float]
    ratio: float
    fastest_ratio: float
    """The same of the fastest picture of each, on which other users of the machine count least."""
    sharpness_share: float
    calls_ms: Mapping[str, float]
    """One call of the network with two rows, by diffusers' modules and as the engine makes it."""


def measure(case: Case) -> Figures:
    """Both sides in turns; the first round does not count."""
    with side_process(case, "peer") as theirs, side_process(case, "engine") as ours:
        texts = ["a warm hand", *(f"{TEXTS[number % len(TEXTS)]}, {number}" for number in range(case.rounds))]
        _, *rounds = [{**theirs(text), **ours(text)} for text in texts]
    return figures(rounds, network_calls(case))


@contextmanager
def side_process(case: Case, side: str) -> Iterator[Callable[[str], dict[str, float]]]:
    """A process that paints a text in every way of its side, and tells the seconds of each."""
    command = [
        *(sys.executable, "-m", "benchmarks.engine", "--side", side, "--checkpoint", str(case.checkpoint.resolve())),
        *("--size", spelt(case.size), "--steps", str(case.steps), "--device", case.device),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        asks, answers = process.stdin, process.stdout
        if asks is None or answers is None:
            raise RuntimeError("the process was started without its pipes")

        def painted(text: str) -> dict[str, float]:
            asks.write(text + "\n")
            asks.flush()
            line = answers.readline()
            if not line:
                raise SystemExit(f"the {side}'s process has ended")
            told: dict[str, float] = json.loads(line)
            return told

        yield painted
        asks.close()


def serve_side(case: Case, side: str) -> None:
    """Answer every line of the input until it ends."""
    kinds = {PEER: peer(case)} if side == "peer" else engine_kinds(case)
    for line in sys.stdin:
        print(json.dumps(one_round(kinds, line.strip())), flush=True)  # noqa: T201 - the process's answer


def one_round(kinds: Mapping[str, Paint], text: str) -> dict[str, float]:
    """Seconds of one picture of every kind."""
    taken = {}
    for kind, paint in kinds.items():
        started_s = time.perf_counter()
        paint(text)
        taken[kind] = time.perf_counter() - started_s
    return taken


def figures(rounds: list[dict[str, float]], calls_ms: Mapping[str, float]) -> Figures:
    """Medians: of each kind, and of what each round says of two of them."""
    return Figures(
        {kind: statistics.median(one[kind] for one in rounds) for kind in rounds[0]},
        statistics.median(one[PLAIN] / one[PEER] for one in rounds),
        min(one[PLAIN] for one in rounds) / min(one[PEER] for one in rounds),
        statistics.median(one[SHARPENED] / one[PREVIEWED] - 1 for one in rounds),
        calls_ms,
    )


def network_calls(case: Case) -> dict[str, float]:
    """Milliseconds of one call of the denoising network with two rows, medians of calls in turns."""
    import torch

    from fooocus_core.models.device import choose_placement
    from fooocus_core.models.loaded import load_model

    network: Any = load_model(case.checkpoint, choose_placement(case.device)).network
    generator = torch.Generator().manual_seed(1)
    cells = (case.size.height_px // GRID_PX, case.size.width_px // GRID_PX)
    shapes = (2, 4, *cells), (2, 77, network.shape.context_width), (2, network.adm_width)
    place = {"device": network.device, "dtype": network.dtype}
    latents, context, adm = (torch.randn(shape, generator=generator).to(**place) for shape in shapes)
    timesteps = torch.full((2,), 500.0).to(network.device)

    @torch.no_grad()
    def by_modules(_text: str) -> object:
        return network.unet(latents, timesteps, encoder_hidden_states=context, class_labels=adm)[0].cpu()

    kinds = {PEER: by_modules, PLAIN: lambda _text: network(latents, timesteps, context, adm).cpu()}
    for _ in range(3):
        one_round(kinds, "")
    rounds = [one_round(kinds, "") for _ in range(CALLS)]
    return {kind: 1000 * statistics.median(one[kind] for one in rounds) for kind in kinds}


def peer(case: Case) -> Paint:
    """diffusers' pipeline."""
    from benchmarks.diffusers_peer import load_pipeline, picture
    from fooocus_core.models.device import choose_placement

    pipeline = load_pipeline(case.checkpoint, choose_placement(case.device))
    return lambda text: picture(pipeline, case.size, case.steps, text)


def engine_kinds(case: Case) -> dict[str, Paint]:
    """The engine as it stands behind the server, in three ways."""
    library = library_of(case)
    engine = engine_of(case, library)

    def paint(text: str, sharpness: float, preview: bool) -> None:
        ending = list(engine.run(plan_of(case, library, text, sharpness, preview), never, never))[-1]
        if not isinstance(ending, Finished):
            raise SystemExit(f"the engine made no picture: {ending}")

    return {
        PLAIN: lambda text: paint(text, 0.0, False),
        PREVIEWED: lambda text: paint(text, 0.0, True),
        SHARPENED: lambda text: paint(text, 2.0, True),
    }


def library_of(case: Case) -> Library:
    """The one checkpoint and what lies beside it."""
    return Library({"checkpoints": [case.checkpoint.parent]}, case.checkpoint)


def engine_of(case: Case, library: Library) -> Engine:
    """An engine without a server."""
    from fooocus_core.engine import Engine
    from fooocus_core.models.device import choose_placement
    from fooocus_core.models.loaded import ModelStore
    from fooocus_core.prompts.styles import load_styles
    from fooocus_core.prompts.wildcards import Wildcards

    return Engine(ModelStore(library, choose_placement(case.device)), load_styles(), Wildcards([]))


def plan_of(case: Case, library: Library, text: str, sharpness: float, preview: bool) -> Plan:
    """The plan of a request for one picture of nothing but ``text``, by the default sampler."""
    request = GenerationRequest(
        prompt=text,
        styles=(),
        loras=(),
        width_px=case.size.width_px,
        height_px=case.size.height_px,
        image_number=1,
        seed=7,
        checkpoint=case.checkpoint.name,
        guidance_scale=GUIDANCE_SCALE,
        sharpness=sharpness,
        overwrite_steps=case.steps,
        preview=preview,
    )
    return resolve_request(request, choose_default_preset(library.checkpoint_names(), []), library, lambda: 7)


def rows(found: Figures) -> list[tuple[str, str, str]]:
    """Each kind: its name, seconds, and what it is of the peer's."""
    return [
        *((kind, shown(taken), shown(taken / found.seconds[PEER])) for kind, taken in found.seconds.items()),
        *(
            (f"one call of the network, {kind}", f"{taken / 1000:.4f}", shown(taken / found.calls_ms[PEER]))
            for kind, taken in found.calls_ms.items()
        ),
        (f"engine / diffusers, round by round (goal {GOAL_RATIO} at most)", "", shown(found.ratio)),
        ("the same of the fastest picture of each", "", shown(found.fastest_ratio)),
        (f"what sharpness adds, round by round (goal {GOAL_SHARPNESS} at most)", "", f"{found.sharpness_share:.3f}"),
    ]


def conditions(case: Case) -> str:
    """What the figures were taken with, in a line."""
    return (
        f"{case.checkpoint.name}, {spelt(case.size)}, {case.steps} steps, guidance {GUIDANCE_SCALE}, medians of "
        f"{case.rounds} rounds; {machine()}, device {case.device}; {versions(PACKAGES)}"
    )


def as_markdown(case: Case, found: Figures) -> str:
    """The table of the documentation."""
    lines = [f"| {name} | {taken} | {share} |" for name, taken, share in rows(found)]
    return "\n".join([f"{conditions(case)}:", "", "| | seconds | of diffusers' |", "|---|---:|---:|", *lines])


def main() -> None:
    """Measure, print, and put the table into a page or a file where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=POCKET, metavar="FILE")
    parser.add_argument("--size", type=parse_size, default=parse_size("96*96"), metavar="WIDTH*HEIGHT")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--side", choices=("peer", "engine"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    case = Case(given.checkpoint, given.size, given.steps, given.rounds, given.device)
    if given.side:
        serve_side(case, given.side)
        return
    found = measure(case)
    table = Table("", "seconds", "of diffusers'", title=conditions(case))
    for row in rows(found):
        table.add_row(*row)
    Console(width=140).print(table)
    if given.markdown:
        write_figures(given.markdown, as_markdown(case, found), SCRIPT)
    if given.json:
        figures_now = {"conditions": conditions(case), **asdict(found)}
        given.json.write_text(json.dumps(figures_now, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
