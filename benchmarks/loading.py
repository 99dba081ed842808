"""How much memory loading a checkpoint takes, on files of the published layouts at full size with random values.

    python -m benchmarks.loading                    # SDXL base, SDXL refiner, SD 1.5, each of float16
    python -m benchmarks.loading --only sd15_checkpoint --dtype F32

Each file is written to a temporary folder, loaded in a process of its own without network access, and every weight is
read once, so that mapped memory counts. The peak, less what the program with its libraries takes before it opens the
file, must stay within 1.15 times the file.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import peak_memory_mb
from tools.synthetic import BASE, REFINER, SD15, write_full_size

LIMIT = 1.15
MB = 2**20


def main() -> None:
    asked = _arguments()
    if asked.load is not None:
        _load(asked.load, asked.kind, asked.dtype)
        return
    print("| file | type | MB | seconds | peak MB | before MB | loading / file |\n|---|---|---|---|---|---|---|")  # noqa: T201
    worst = max(_measure(kind, asked.dtype, asked.folder) for kind in asked.only or (SD15, REFINER, BASE))
    sys.exit(0 if worst <= LIMIT else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what loading a checkpoint takes.")
    parser.add_argument("--only", action="append", choices=(SD15, REFINER, BASE))
    parser.add_argument("--dtype", choices=("F16", "F32"), default="F16")
    parser.add_argument("--folder", type=Path, help="where the files are written; they are removed again")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(kind: str, dtype: str, folder: Path | None) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / f"{kind}.safetensors"
        size = write_full_size(kind, path, dtype) / MB
        command = [sys.executable, "-m", "benchmarks.loading", "--load", str(path), "--kind", kind, "--dtype", dtype]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, before, peak = map(float, told.split())
    share = (peak - before) / size
    print(f"| {kind} | {dtype} | {size:.0f} | {seconds:.1f} | {peak:.0f} | {before:.0f} | {share:.2f} |", flush=True)  # noqa: T201
    return share


def _load(path: Path, kind: str, dtype: str) -> None:
    """In the process that is measured: prints seconds, and the memory before and the peak after in MB."""
    _cut_off()
    import torch

    from fooocus_core.models.device import Placement
    from fooocus_core.models.loaded import load_model
    from fooocus_core.models.refiner import load_refiner

    stored = torch.float16 if dtype == "F16" else torch.float32
    placement = Placement(torch.device("cpu"), stored, stored, stored)
    before = _resident_mb()
    started = time.perf_counter()
    loaded: Any = load_model(path, placement) if kind == BASE else load_refiner(path, placement)
    seconds = time.perf_counter() - started
    for module in _networks(loaded):
        for parameter in module.parameters():
            parameter.view(-1)[:: 4096 // parameter.element_size()].float().sum()  # one value a page
    print(seconds, before, peak_memory_mb("self"))  # noqa: T201


def _resident_mb() -> float:
    """What is in memory now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB


def _networks(loaded: Any) -> list[Any]:
    modules = [loaded.network.unet]
    if loaded.autoencoder is not None:
        modules.append(loaded.autoencoder.network)
    text = getattr(loaded, "text", None)
    return modules if text is None else [*modules, text.l.model, text.g.model]


def _cut_off() -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("loading must not ask the network")

    socket.socket.connect = refuse  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
