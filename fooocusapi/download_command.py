"""``main.py download``: which files are meant, a bar for each, and what became of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fooocus_core.errors import DownloadFailed
from fooocus_core.model_files.catalogue import Catalogue, ModelFile, Shelves
from fooocus_core.model_files.supply import Fetch
from fooocus_core.presets.modes import MODES
from fooocus_core.presets.preset import Preset


class UnknownFile(Exception):
    """Nothing is published under a name; the text names what comes near."""


@dataclass(frozen=True)
class Outcome:
    """What became of the files that were asked for."""

    fetched: tuple[ModelFile, ...]
    present: tuple[ModelFile, ...]
    failures: tuple[DownloadFailed, ...]


def chosen_files(catalogue: Catalogue, names: Sequence[str], preset: Preset | None = None) -> list[ModelFile]:
    """The files that ``names`` stand for and those that a preset uses, each once. Raises ``UnknownFile``."""
    chosen = [] if preset is None else files_of_preset(catalogue, preset)
    for name in names:
        found = catalogue.asked_for(name)
        if not found:
            raise UnknownFile(f"no published file is called {name!r}{_near(catalogue, name)}; --list shows them all")
        chosen += found
    return list(dict.fromkeys(chosen))


def files_of_preset(catalogue: Catalogue, preset: Preset) -> list[ModelFile]:
    """The files that a preset gives addresses for, and the LoRA of its performance mode."""
    wanted = [(download.kind, download.name) for download in preset.downloads]
    lora = MODES[preset.performance].lora
    if lora is not None:
        wanted.append(("loras", lora.name))
    return [file for kind, name in wanted if (file := catalogue.find(kind, name))]


def fetch_files(files: Iterable[ModelFile], shelves: Shelves, fetch: Fetch, console: Console) -> Outcome:
    """One file after the other, each with a bar; one that fails stops none of the others."""
    fetched, present, failures = [], [], []
    with _bars(console) as bars:
        for file in files:
            if shelves.holds(file):
                present.append(file)
                continue
            bar = bars.add_task(file.name, total=file.size_bytes)
            try:
                for step in fetch(file, shelves.folders(file.folder)[0]):
                    bars.update(bar, completed=step.done_bytes, total=step.total_bytes)
                fetched.append(file)
            except DownloadFailed as error:
                bars.remove_task(bar)
                failures.append(error)
    return Outcome(tuple(fetched), tuple(present), tuple(failures))


def file_lines(catalogue: Catalogue, shelves: Shelves) -> Iterator[str]:
    """A line for every known file: place, size, whether it is there, address."""
    for file in catalogue:
        size = "" if file.size_bytes is None else f"{file.size_bytes / 1e6:.1f} MB"
        state = "on disk" if shelves.holds(file) else ""
        yield f"{f'{file.folder}/{file.name}':<64} {size:>10}  {state:<7}  {file.url}"


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    return Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console)


def _near(catalogue: Catalogue, name: str) -> str:
    near = difflib.get_close_matches(name, [file.name for file in catalogue], n=3, cutoff=0.4)
    return f"; near it: {', '.join(near)}" if near else ""
