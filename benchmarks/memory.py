"""How much of a graphics card's memory SDXL takes, by ``--vram``.

``python benchmarks/memory.py [--markdown docs/performance.md] [--json FILE]``. The weights are counted on networks of
the published layouts, which the server's own functions load onto a device without memory; on those, so is what a step
and decoding take beside them. Where there is a CUDA card, a picture is painted with random weights in a process of its
own for each setting, and its peak told; ``docs/performance.md`` says what the figures hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from PIL import Image
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.allocation import WITHOUT_MEMORY, most_allocated_bytes  # noqa: E402
from benchmarks.report import spelt, versions, write_section  # noqa: E402
from fooocus_core.conditioning.adm import PromptSide  # noqa: E402
from fooocus_core.engine import Engine  # noqa: E402
from fooocus_core.events import Failed, never  # noqa: E402
from fooocus_core.images.resizing import lanczos  # noqa: E402
from fooocus_core.library import POCKET_FOLDER, POCKET_NAME, Library  # noqa: E402
from fooocus_core.models.autoencoder import DECODE_TILES  # noqa: E402
from fooocus_core.models.checkpoint import open_checkpoint  # noqa: E402
from fooocus_core.models.clip_vision import load_clip_vision  # noqa: E402
from fooocus_core.models.device import Placement, choose_placement  # noqa: E402
from fooocus_core.models.loaded import LoadedModel, ModelStore, load_model  # noqa: E402
from fooocus_core.models.refiner import load_refiner  # noqa: E402
from fooocus_core.models.residence import RESIDENCES, Residence, Vram  # noqa: E402
from fooocus_core.models.upscaler import as_picture  # noqa: E402
from fooocus_core.plan import Diffuse, Guidance, Models, Output, Plan, Prompts, Sampling  # noqa: E402
from fooocus_core.presets.sizes import GRID_PX, Size  # noqa: E402
from fooocus_core.prompts.styles import StyleBook  # noqa: E402
from fooocus_core.prompts.wildcards import Wildcards  # noqa: E402
from fooocus_core.sampling.network import NetworkCall  # noqa: E402
from fooocus_core.stages.picture_latents import as_pixels  # noqa: E402
from tools.synthetic import BASE, CLIP_VISION, REFINER, write_hollow  # noqa: E402

SCRIPT = "benchmarks/memory.py"
VRAM: Final[tuple[Vram, ...]] = get_args(Vram)
MIB = 2**20
SIZE = Size(1024, 1024)
POCKET = POCKET_FOLDER / POCKET_NAME
PICTURE = ROOT / "docs" / "demo.png"
STEPS = 2
"""Enough for the peak: all steps take the same."""
SPREAD = 0.02
"""Of random weights, so small that all numbers stay finite."""
NOT_MEASURED = "not measured"
SECTION = """
## Memory

What SDXL takes of a graphics card by [`--vram`](deployment.md#memory-of-the-graphics-card):

```sh
.venv/bin/python benchmarks/memory.py --markdown docs/performance.md
```

<!-- figures: written by benchmarks/memory.py -->
<!-- end of figures -->

The first rows are weights that stay on the device, counted on networks of the published layouts in float16, the
autoencoder's in bfloat16. What has none there with `low` is calculated on the CPU, but for autoencoder and refiner,
which come for their work; the base's network leaves while the refiner's is there. What a step with guidance and
decoding take beside the weights is the most that their tensors hold at a time, counted on tensors without data, with
attention as fused kernels calculate it. The peak, counted, is the larger of the two with the weights that are there
then; workspaces of the device's libraries come on top, and with `--compile` what is compiled. The peak, measured, is
the most that torch had allocated while a picture was painted on a CUDA card with random weights.
"""


@dataclass(frozen=True)
class Files:
    """Files of the published layouts with zeros for values."""

    base: Path
    refiner: Path
    image_encoder: Path


@dataclass(frozen=True)
class Row:
    """One figure in MiB for each setting; ``None``: not measured."""

    name: str
    mib: Mapping[Vram, float | None]


def write_files(folder: Path, write: Callable[[str, Path], object] = write_hollow) -> Files:
    """All files, by what writes a manifest's."""
    files = Files(*(folder / f"{manifest}.safetensors" for manifest in (BASE, REFINER, CLIP_VISION)))
    for path in (files.base, files.refiner, files.image_encoder):
        write(path.stem, path)
    return files


# --- weights ------------------------------------------------------------------------------------------------------


def weight_rows(files: Files, head_width: int = 64) -> list[Row]:
    """What each part's weights take of the device. ``head_width``: of an attention head."""
    placements = {
        vram: Placement(WITHOUT_MEMORY, torch.float16, torch.bfloat16, residence=RESIDENCES[vram]) for vram in VRAM
    }
    models = {vram: load_model(files.base, place, head_width=head_width) for vram, place in placements.items()}
    refiners = {vram: load_refiner(files.refiner, place, head_width=head_width) for vram, place in placements.items()}
    encoders = {
        vram: load_clip_vision(open_checkpoint(files.image_encoder), device=place.home, dtype=torch.float16)
        for vram, place in placements.items()
    }
    own = [
        _row("denoising network", {vram: [model.network.unet] for vram, model in models.items()}),
        _row("text encoders", {vram: [model.text.l.model, model.text.g.model] for vram, model in models.items()}),
        _row("autoencoder", {vram: [model.autoencoder.network] for vram, model in models.items()}),
    ]
    together = {vram: sum(row.mib[vram] or 0.0 for row in own) for vram in VRAM}
    return [
        *own,
        Row("together, for text to image", together),
        _row("refiner's denoising network", {vram: [refiner.network.unet] for vram, refiner in refiners.items()}),
        _row("image encoder of image prompts", {vram: [encoder.model] for vram, encoder in encoders.items()}),
    ]


def _row(name: str, networks: Mapping[Vram, list[nn.Module]]) -> Row:
    return Row(name, {vram: sum(map(_on_device, modules)) / MIB for vram, modules in networks.items()})


def _on_device(network: nn.Module) -> int:
    return sum(weight.nbytes for weight in network.parameters() if weight.device.type == WITHOUT_MEMORY.type)


# --- the peak of a picture, counted -------------------------------------------------------------------------------


def work_rows(checkpoint: Path, size: Size = SIZE, head_width: int = 64) -> list[Row]:
    """What a step and decoding take beside the weights, and the most that both come to with them."""
    placement = Placement(WITHOUT_MEMORY, torch.float16, torch.bfloat16)
    model = load_model(checkpoint, placement, head_width=head_width)
    autoencoder = sum(map(_on_device, [model.autoencoder.network])) / MIB
    texts = sum(map(_on_device, [model.text.l.model, model.text.g.model])) / MIB
    network = sum(map(_on_device, [model.network.unet])) / MIB
    steps = {vram: _step_mib(model, size, RESIDENCES[vram]) for vram in VRAM}
    decodings = {vram: _decoding_mib(model, size, RESIDENCES[vram]) for vram in VRAM}
    peaks: dict[Vram, float | None] = {}
    for vram in VRAM:
        helpers = autoencoder + texts if RESIDENCES[vram].helpers_stay else 0.0
        decoder = autoencoder if not RESIDENCES[vram].helpers_stay else 0.0
        peaks[vram] = network + helpers + max(steps[vram], decoder + decodings[vram])
    return [
        Row(f"a step at {spelt(size)}, beside the weights", steps),
        Row("decoding, beside the weights", decodings),
        Row("peak, counted", peaks),
    ]


def _step_mib(model: LoadedModel, size: Size, residence: Residence) -> float:
    """One call for both sides of the guidance, as the setting has it made."""
    rows = 1 if residence.row_by_row else 2
    sides: tuple[PromptSide, ...] = ("positive", "negative")
    call = NetworkCall(sides[:rows], progress=0.0)

    def step() -> None:
        latents = torch.empty(rows, 4, size.height_px // GRID_PX, size.width_px // GRID_PX)
        context = torch.empty(rows, 77, model.network.unet.config["cross_attention_dim"])
        model.network(latents, torch.empty(rows), context, torch.empty(rows, model.network.adm_width), call)

    with torch.no_grad(), WITHOUT_MEMORY:
        step()  # Makes what it keeps from call to call.
    return most_allocated_bytes(step, [model.network.unet]) / MIB


def _decoding_mib(model: LoadedModel, size: Size, residence: Residence) -> float:
    """Of the whole picture, or of the largest of its tiles."""
    whole = (size.height_px // GRID_PX, size.width_px // GRID_PX)
    parts = DECODE_TILES if residence.in_tiles else (whole,)

    def decode(height: int, width: int) -> None:
        model.autoencoder.decode_raw(torch.empty(1, 4, height, width))

    network = [model.autoencoder.network]
    return max(most_allocated_bytes(partial(decode, *part), network) for part in parts) / MIB


# --- the peak of a picture, measured ------------------------------------------------------------------------------


def peak_row(checkpoint: Path, size: Size = SIZE) -> Row:
    """The most that is allocated while a picture is painted, where there is a CUDA card."""
    name = f"peak of a picture of {spelt(size)}, measured"
    if not torch.cuda.is_available():
        return Row(name, dict.fromkeys(VRAM))
    return Row(name, {vram: _in_own_process(checkpoint, vram) for vram in VRAM})


def _in_own_process(checkpoint: Path, vram: Vram) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", vram, "--checkpoint", str(checkpoint)]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    return float(answer.splitlines()[-1])


def measured_peak_mib(checkpoint: Path, vram: Vram) -> float:
    """In this process, which has painted nothing before, on its CUDA card."""
    placement = choose_placement("cuda", vram=vram)
    paint = painter(checkpoint, placement, SIZE)
    torch.cuda.reset_peak_memory_stats(placement.device)
    paint()
    return torch.cuda.max_memory_allocated(placement.device) / MIB


def painter(checkpoint: Path, placement: Placement, size: Size) -> Callable[[], None]:
    """What paints a picture with a checkpoint's layout and random weights, which are on their places already.

    It raises ``SystemExit`` where none comes of it.
    """
    library = Library.below(checkpoint.parent, {"checkpoints": [checkpoint.parent]})
    engine = Engine(ModelStore(library, placement), StyleBook([]), Wildcards([]))
    stage = Diffuse(
        models=Models(checkpoint.name),
        prompts=Prompts("a red apple"),
        width_px=size.width_px,
        height_px=size.height_px,
        seed=7,
        guidance=Guidance(scale=4.0),
        sampling=Sampling("dpmpp_2m_sde_gpu", "karras", STEPS),
    )
    fill_with_noise(engine.models.checkpoint(stage.models))

    def paint() -> None:
        *_, ending = engine.run(Plan((stage,), Output(preview=False)), never)
        if isinstance(ending, Failed):
            raise SystemExit(ending.reason)

    return paint


@torch.no_grad()
def fill_with_noise(model: LoadedModel) -> None:
    """Random values in place of a checkpoint's own."""
    for network in (model.network.unet, model.autoencoder.network, model.text.l.model, model.text.g.model):
        for weight in network.parameters():
            weight.normal_(0.0, SPREAD)


# --- what tiles change --------------------------------------------------------------------------------------------


def tile_differences(size: Size = SIZE) -> tuple[float, int]:
    """How far a picture that is decoded in tiles is from the same one decoded whole: mean and largest, of 255.

    By the autoencoder that ships with the project; the picture is the one on the first page, enlarged.
    """
    autoencoder = load_model(POCKET, choose_placement("cpu")).autoencoder
    picture = lanczos(np.asarray(Image.open(PICTURE).convert("RGB")), *size)
    latents = autoencoder.encode(as_pixels(picture), torch.zeros(1))
    whole, tiled = (as_picture(pixels) for pixels in (autoencoder.decode(latents), autoencoder.decode_tiled(latents)))
    differences = np.abs(whole.astype(int) - tiled)
    return float(differences.mean()), int(differences.max())


# --- the report ---------------------------------------------------------------------------------------------------


def as_markdown(rows: list[Row], differences: tuple[float, int], conditions: str) -> str:
    """The table of the documentation."""
    lines = [f"| {row.name} | {' | '.join(_shown(row.mib[vram]) for vram in VRAM)} |" for row in rows]
    head = [f"{conditions}:", "", f"| MiB | {' | '.join(VRAM)} |", f"|---|{'---:|' * len(VRAM)}"]
    told = (
        f"Tiles change the values of a picture of {spelt(SIZE)} by {differences[0]:.1f} of 255 in the mean and by "
        f"{differences[1]} at most, with the autoencoder of the pocket model, whose own pictures are smaller than a "
        "tile. SDXL's own has not been measured."
    )
    return "\n".join([*head, *lines, "", told])


def _shown(mib: float | None) -> str:
    return NOT_MEASURED if mib is None else f"{mib:.0f}"


def conditions() -> str:
    """What the figures were taken with."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA card"
    return f"{card}; {versions(('torch', 'diffusers', 'transformers'))}"


def main() -> None:
    """Count, measure, print, and put the table into a page or a file where asked."""
    given = _arguments()
    if given.measure is not None:
        print(measured_peak_mib(given.checkpoint, given.measure))  # noqa: T201
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        files = write_files(Path(folder))
        rows = [*weight_rows(files), *work_rows(files.base), peak_row(files.base)]
    differences = tile_differences()
    table = as_markdown(rows, differences, conditions())
    print(table)  # noqa: T201
    if given.markdown:
        write_section(given.markdown, SECTION, table, SCRIPT)
    if given.json:
        figures = {row.name: dict(row.mib) for row in rows}
        content = {"conditions": conditions(), "mib": figures, "tiles": differences}
        given.json.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--folder", type=Path, help="where the files are made; they are removed again")
    parser.add_argument("--measure", choices=VRAM, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
