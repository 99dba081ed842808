"""What loading, changing LoRAs and reading texts take the first time, and what is left of it the second.

``python benchmarks/reuse.py [--checkpoint FILE] [--markdown docs/performance.md] [--json FILE]``. The engine without
a server, with LoRAs of random values for the checkpoint; ``docs/performance.md`` says what the figures hold.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.report import machine, shown, versions, write_figures  # noqa: E402
from benchmarks.timing import peak_memory_mb  # noqa: E402
from fooocus_core.library import POCKET_FOLDER, POCKET_NAME, Library  # noqa: E402
from fooocus_core.plan import Diffuse, Lora, Models, Output, Plan, Prompts, Sampling  # noqa: E402
from fooocusapi.serve import let_threads_rest  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

    from fooocus_core.engine import Engine
    from fooocus_core.models.device import DeviceName
    from fooocus_core.models.loaded import LoadedModel

SCRIPT = "benchmarks/reuse.py"
POCKET = POCKET_FOLDER / POCKET_NAME
PACKAGES = ("torch", "transformers", "safetensors")
CHECKPOINTS: Final = ("a.safetensors", "b.safetensors")
"""Two names of one file: the store takes them for two checkpoints."""
LORAS: Final = tuple(f"{number}.safetensors" for number in range(5))
RANK: Final = 16
PROMPT: Final = "a red apple on a table, flat icon, " * 3
CLIP_SKIP: Final = 2

Action = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is measured. Every figure is a median of ``runs``."""

    checkpoint: Path
    runs: int
    device: DeviceName


@dataclass(frozen=True)
class Measured:
    """Medians in seconds by what was done, in the order of the table; the process's highest resident memory.

    ``threads``: how many torch calculated with.
    """

    seconds: Mapping[str, float]
    lora_weights: int
    threads: int
    peak_memory_mb: float | None


def measure(case: Case) -> Measured:
    """All of it in turn, so many times, after one round that does not count."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        engine = engine_of(case, Path(folder))
        weights = write_loras(Path(folder), engine.models.checkpoint(Models(CHECKPOINTS[0])))
        rounds = [a_round(engine) for _ in range(case.runs + 1)][1:]
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    return Measured(medians, weights, torch.get_num_threads(), peak_memory_mb("self"))


def engine_of(case: Case, root: Path) -> Engine:
    """An engine that knows the checkpoint under two names."""
    from fooocus_core.engine import Engine
    from fooocus_core.models.device import choose_placement
    from fooocus_core.models.loaded import ModelStore
    from fooocus_core.prompts.styles import StyleBook
    from fooocus_core.prompts.wildcards import Wildcards

    (root / "checkpoints").mkdir()
    for name in CHECKPOINTS:
        (root / "checkpoints" / name).symlink_to(case.checkpoint.resolve())
    return Engine(ModelStore(Library.below(root), choose_placement(case.device)), StyleBook([]), Wildcards([]))


def write_loras(root: Path, model: LoadedModel) -> int:
    """LoRAs in float16 for every attention matrix of the network and of both text encoders; how many matrices."""
    import torch
    from safetensors.torch import save_file

    (root / "loras").mkdir()
    modules = dict(lora_modules(model))
    for number, name in enumerate(LORAS):
        generator = torch.Generator().manual_seed(number)
        tensors = {}
        for module, weight in modules.items():
            rows, columns = weight.shape
            tensors[f"{module}.lora_up.weight"] = (0.01 * torch.randn(rows, RANK, generator=generator)).half()
            tensors[f"{module}.lora_down.weight"] = (0.01 * torch.randn(RANK, columns, generator=generator)).half()
            tensors[f"{module}.alpha"] = torch.tensor(float(RANK))
        save_file(tensors, root / "loras" / name)
    return len(modules)


def lora_modules(model: LoadedModel) -> Iterator[tuple[str, Tensor]]:
    """The modules that usual LoRAs change, by the names in their files."""
    for key, name in model.network.parameter_names.items():
        weight = model.network.originals[name]
        if ".attn" in key and key.endswith(".weight") and weight.dim() == 2:
            yield "lora_unet_" + key.removesuffix(".weight").replace(".", "_"), weight
    for number, text in ((1, model.text.l), (2, model.text.g)):
        for name, weight in text.originals.items():
            if ".self_attn." in name and name.endswith(".weight"):
                yield f"lora_te{number}_text_model_{name.removesuffix('.weight').replace('.', '_')}", weight


def a_round(engine: Engine) -> dict[str, float]:
    """Seconds of each thing that is done, by its name; every round begins with nothing loaded."""
    store, models, others = engine.models, Models(CHECKPOINTS[0]), Models(CHECKPOINTS[1])
    five = [Lora(name, 0.5) for name in LORAS]
    one, other = five[:1], five[1:2]
    engine.unload()
    found = {
        "first job, one step": seconds(lambda: run(engine, models, five)),
        "second job, one step": seconds(lambda: run(engine, models, five)),
        "another checkpoint": seconds(lambda: store.load(others)),
    }
    engine.unload()
    text = store.load(models).text
    found |= {
        "text, encoded": seconds(lambda: text.encode(PROMPT, CLIP_SKIP)),
        "the same text again": seconds(lambda: text.encode(PROMPT, CLIP_SKIP)),
        "a LoRA from disk": seconds(lambda: store.load(models, one)),
        "LoRA off": seconds(lambda: store.load(models)),
        "the same LoRA on again": seconds(lambda: store.load(models, one)),
    }
    store.load(models, other)
    found["one LoRA for another"] = seconds(lambda: store.load(models, one))
    store.load(models, five)
    changed = [*five[:4], replace(five[4], weight=0.4)]
    return found | {
        "another weight of one of five": seconds(lambda: store.load(models, changed)),
        "the same five again": seconds(lambda: store.load(models, changed)),
    }


def run(engine: Engine, models: Models, loras: Sequence[Lora]) -> None:
    """A picture of one step. Raises ``SystemExit`` where it does not come to its end."""
    from fooocus_core.events import Finished, never

    stage = Diffuse(
        replace(models, loras=tuple(loras)),
        Prompts(PROMPT),
        width_px=96,
        height_px=96,
        seed=1,
        sampling=Sampling("euler", "karras", 1),
    )
    *_, ending = engine.run(Plan((stage,), Output(preview=True)), never)
    if ending != Finished():
        raise SystemExit(f"the engine made no picture: {ending}")


def seconds(action: Action) -> float:
    """Wall time of one call."""
    started_s = time.perf_counter()
    action()
    return time.perf_counter() - started_s


def conditions(case: Case, measured: Measured) -> str:
    """What the figures were taken with, in a line."""
    return (
        f"{case.checkpoint.name}, LoRAs of rank {RANK} for {measured.lora_weights} matrices, medians of {case.runs}; "
        f"{machine()}, threads: {measured.threads}, device {case.device}; {versions(PACKAGES)}"
    )


def as_markdown(case: Case, measured: Measured) -> str:
    """The table of the documentation."""
    rows = [f"| {name} | {shown(1000 * median)} |" for name, median in measured.seconds.items()]
    memory = f"| peak memory, MB | {shown(measured.peak_memory_mb)} |"
    return "\n".join([f"{conditions(case, measured)}:", "", "| | ms |", "|---|---:|", *rows, memory])


def main() -> None:
    """Measure, print, and put the table into a page or a file where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=POCKET, metavar="FILE")
    parser.add_argument("--runs", type=int, default=5, help="rounds that count")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args()
    let_threads_rest(os.environ)  # as the server does; torch is not imported yet
    case = Case(given.checkpoint, given.runs, given.device)
    measured = measure(case)
    table = as_markdown(case, measured)
    print(table)  # noqa: T201
    if given.markdown:
        write_figures(given.markdown, table, SCRIPT)
    if given.json:
        told = {"conditions": conditions(case, measured), **asdict(measured)}
        given.json.write_text(json.dumps(told, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
