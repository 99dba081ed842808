"""Missing files: each is named with its folder and address, or fetched at once where the server is told to.

A stage says by ``UnknownModel`` what it cannot go on without. What its plan names outright is known before it starts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from fooocus_core.errors import Interrupted, UnknownModel
from fooocus_core.events import CancelToken, Event, ImageFinished, Progress
from fooocus_core.library import ModelKind
from fooocus_core.metadata.record import EXPANSION_STYLE
from fooocus_core.model_files.catalogue import EXPANSION_FOLDER, Catalogue, ModelFile, Shelves
from fooocus_core.plan import Diffuse, PartsPass, Stage
from fooocus_core.prompts.expansion import WEIGHT_FILES

log = logging.getLogger(__name__)

MEGABYTE: Final = 10**6


class Fetched(NamedTuple):
    """How far a download is. ``total_bytes`` is ``None`` where nobody says how long the file is."""

    done_bytes: int
    total_bytes: int | None


class Fetch(Protocol):
    """What the core asks of ``fooocusapi.download.Downloader``."""

    def __call__(self, file: ModelFile, folder: Path) -> Generator[Fetched, None, None]:
        """Puts ``file`` into ``folder``, whole or not at all, telling how far it is after every piece.

        Raises ``DownloadFailed``. What was fetched before the generator is closed is kept for the next time.
        """
        ...


@dataclass(frozen=True)
class Fetching:
    """How missing files are got."""

    shelves: Shelves
    fetch: Fetch


@dataclass(frozen=True)
class Supply:
    """Stands between the engine and its stages. Without ``fetching`` missing files are only told of."""

    catalogue: Catalogue = field(default_factory=Catalogue.of)
    fetching: Fetching | None = None

    def supplied(
        self, stage: Stage, run: Callable[[], Iterator[Event]], cancel: CancelToken
    ) -> Generator[Event, None, None]:
        """The events of ``run()``, which plays ``stage``, behind those of the downloads that it needs.

        A stage that finds a file missing is played anew once the file is there. Raises what the stage raises,
        ``UnknownModel`` with the file's address, ``DownloadFailed``, and ``Interrupted`` when cancelled.
        """
        for file in self.named_by(stage):
            yield from self._get(file, cancel)
        got: set[ModelFile] = set()
        while True:
            missing = yield from _played(run())
            if missing is None:
                return
            found = self.catalogue.find(missing.error.kind, missing.error.name)
            if found is None:
                raise missing.error
            if self.fetching is None or missing.is_late or found in got:
                raise missing.error.published_at(found.name, found.url) from missing.error
            got.add(found)
            yield from self._get(found, cancel)

    def named_by(self, stage: Stage) -> list[ModelFile]:
        """The files that a plan names, are not on disk and can be fetched; nothing without ``fetching``.

        What is only enlarged needs none of them.
        A mode's own LoRA is not among them: whether it is needed shows when the checkpoint is open.
        """
        if self.fetching is None:
            return []
        named = [file for painted in _painted(stage) for file in self._needed_by(painted, self.fetching.shelves)]
        return [file for file in dict.fromkeys(named) if not self.fetching.shelves.holds(file)]

    def _needed_by(self, stage: Diffuse, shelves: Shelves) -> Iterator[ModelFile]:
        """The published ones of all that it names, on disk or not."""
        if stage.start is not None and not stage.start.refine:
            return
        for kind, name in _names(stage):
            file = self.catalogue.find(kind, name)
            if file is not None:
                yield file
        is_expanded = EXPANSION_STYLE in stage.prompts.styles
        if is_expanded and not any((shelves.expansion / name).is_file() for name in WEIGHT_FILES):
            yield from self.catalogue.in_folder(EXPANSION_FOLDER)

    def _get(self, file: ModelFile, cancel: CancelToken) -> Iterator[Event]:
        """Fetches one file; a text is told once for each hundredth of it."""
        if self.fetching is None:
            return
        log.info("fetching %s/%s from %s", file.folder, file.name, file.url)
        told = ""
        with closing(self.fetching.fetch(file, self.fetching.shelves.folders(file.folder)[0])) as steps:
            for fetched in steps:
                if cancel():
                    raise Interrupted("stopped on request")
                text = f"Downloading {file.name}: {_share(fetched)} ..."
                if text != told:
                    yield Progress(0.0, text)
                    told = text


class _Missing(NamedTuple):
    """Why a stage could not go on. ``is_late``: it had finished pictures, which playing it anew would repeat."""

    error: UnknownModel
    is_late: bool


def _played(events: Iterator[Event]) -> Generator[Event, None, _Missing | None]:
    """Passes the events on; returns what was missing, if that ended them."""
    is_late = False
    try:
        for event in events:
            is_late = is_late or isinstance(event, ImageFinished)
            yield event
    except UnknownModel as error:
        return _Missing(error, is_late)
    finally:
        if isinstance(events, Generator):
            events.close()
    return None


def _painted(stage: Stage) -> Iterator[Diffuse]:
    """All that a stage paints with: of one that paints parts anew, what its passes have in common, and their own."""
    if isinstance(stage, Diffuse):
        yield stage
        return
    yield stage.base
    yield from (one.base for one in stage.passes if isinstance(one, PartsPass) and one.base is not None)


def _names(stage: Diffuse) -> Iterator[tuple[ModelKind, str]]:
    """Every weight file that the plan of a stage names, less the mode's own LoRA."""
    models = stage.models
    yield "checkpoints", models.checkpoint
    if models.refiner is not None:
        yield "checkpoints", models.refiner
    if models.vae is not None:
        yield "vae", models.vae
    for lora in models.loras:
        yield "loras", lora.name


def _share(fetched: Fetched) -> str:
    if not fetched.total_bytes:
        return f"{fetched.done_bytes // MEGABYTE} MB"
    return f"{100 * fetched.done_bytes // fetched.total_bytes} % of {max(1, fetched.total_bytes // MEGABYTE)} MB"
