"""What the HTTP side works with: the queue, the pictures, the models and the names, as they were joined at the start.

Opening them takes longer than a client should wait for the port (a database, model folders, style files), so the
application starts with ``Opening``: the promise of the services, kept by a thread behind the open port.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from fooocusapi.errors import NotOpened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocus_core.describe.describer import Content
    from fooocus_core.masks.options import MaskOptions
    from fooocus_core.plan import Plan
    from fooocus_core.presets.preset import Preset
    from fooocus_core.request import GenerationRequest
    from fooocusapi.images.inputs import InputImages
    from fooocusapi.images.kept import KeptPictures
    from fooocusapi.images.outputs import OutputStore
    from fooocusapi.images.shown import ShownPictures
    from fooocusapi.jobs.queue import JobQueue
    from fooocusapi.surfaces.tams.parts import StagedParts

logger = logging.getLogger(__name__)

EngineState = Literal["starting", "ready", "unhealthy"]


@dataclass(frozen=True)
class EngineStatus:
    """How the engine and its worker are. ``reason`` is fit for clients and set when they are unhealthy."""

    state: EngineState
    reason: str = ""


class EngineControl(Protocol):
    """What HTTP may ask of the engine; everything else goes through the queue."""

    def status(self) -> EngineStatus:
        """Answered at once, from memory."""
        ...

    def unload(self) -> None:
        """Gives the device's memory back; blocks until a running job has ended."""
        ...


class PictureDescriber(Protocol):
    """``fooocus_core.describe.describer.Describer``; for any thread."""

    def describe(self, picture: NDArray[np.uint8], contents: Collection[Content]) -> str:
        """The picture in words. Blocks; raises ``UnknownModel`` naming a file that is missing, and ``ModelError``."""
        ...

    def unload(self) -> None:
        """Gives the memory of its networks back; blocks while it describes."""
        ...


class MaskMaking(Protocol):
    """``fooocus_core.masks.maker.MaskMaker``; for any thread."""

    def make(self, picture: NDArray[np.uint8], options: MaskOptions) -> NDArray[np.uint8]:
        """The mask, ``[h, w]`` or ``[h, w, 3]``. Blocks; raises ``UnknownModel`` naming a file that is missing."""
        ...

    def unload(self) -> None:
        """Gives the memory of its networks back; blocks while a mask is made."""
        ...


class ModelNames(Protocol):
    """The library of model files, by names relative to their folders. Both look at the disk on every call."""

    def checkpoint_names(self) -> Sequence[str]: ...

    def lora_names(self) -> Sequence[str]: ...


class Resolver(Protocol):
    """``fooocus_core.resolve.resolve_request`` with library and randomness filled in; may look at the disk."""

    def __call__(self, request: GenerationRequest, preset: Preset | None = None) -> Plan:
        """The plan with the defaults of ``preset``, or with the server's own."""
        ...


class PresetNames(Protocol):
    """``fooocusapi.presets.NamedPresets``; looks at the disk on every call."""

    def chosen(self, name: str | None) -> Preset:
        """The preset of this name; the server's own for none and for an unknown one."""
        ...


def _nothing() -> None:
    """The default for services that need no opening or closing."""


@dataclass(frozen=True)
class Services:
    """Everything that endpoints use. One record for one application; nothing in it is global."""

    jobs: JobQueue
    outputs: OutputStore
    inputs: InputImages
    kept: KeptPictures
    shown: ShownPictures
    engine: EngineControl
    masks: MaskMaking
    describer: PictureDescriber
    library: ModelNames
    resolve: Resolver
    preset: Preset
    """The server's own: what is used where a request says nothing."""
    presets: PresetNames
    staged: StagedParts
    """What the dialect of staged jobs has of its own."""
    style_names: Sequence[str]
    """``Fooocus V2`` and ``Random Style`` first, then the styles in the order of their files."""
    close: Callable[[], None] = field(default=_nothing)
    """Called once at shutdown, from a thread: stops the worker, closes the journal."""


class Opening:
    """The services once they are open. Belongs to one application and its event loop."""

    def __init__(self, open_services: Callable[[], Services]) -> None:
        """``open_services`` is called on a thread when the application starts."""
        self._open_services = open_services
        self._started = asyncio.Event()
        self._task: asyncio.Task[Services] | None = None

    def start(self) -> None:
        """Begins to open; on the event loop."""
        self._task = asyncio.create_task(asyncio.to_thread(self._open_services))
        self._task.add_done_callback(_log_failure)
        self._started.set()

    @property
    def opened(self) -> Services | None:
        """The services, or ``None`` while they open and after they failed to."""
        task = self._task
        return task.result() if task is not None and task.done() and not self.has_failed else None

    @property
    def has_failed(self) -> bool:
        """Whether there will be no services."""
        task = self._task
        return task is not None and task.done() and (task.cancelled() or task.exception() is not None)

    async def wait(self) -> Services:
        """The services; raises ``NotOpened`` when they cannot be had. A caller who goes away stops nothing."""
        await self._started.wait()
        assert self._task is not None
        await asyncio.wait([self._task])
        services = self.opened
        if services is None:
            raise NotOpened
        return services

    async def close(self) -> None:
        """Closes what was opened."""
        try:
            services = await self.wait()
        except NotOpened:
            return
        await asyncio.to_thread(services.close)


def _log_failure(task: asyncio.Task[Services]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("services could not be opened", exc_info=task.exception())
