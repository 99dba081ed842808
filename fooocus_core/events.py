"""What the engine tells about a running plan. A job is the sum of its events.

``Engine.run(plan, cancel)`` yields these in order: ``Started``, any number of ``Progress`` and ``ImageFinished``, and
exactly one ending (``Finished``, ``Failed`` or ``Cancelled``). The engine never raises for a reason inside the plan:
it ends with ``Failed``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocus_core.metadata.record import AnyRecord
    from fooocus_core.plan import Plan


class CancelToken(Protocol):
    """Asked between network calls; true ends the job within one step. ``threading.Event.is_set`` fits."""

    def __call__(self) -> bool: ...


class SkipToken(Protocol):
    """Asked where ``CancelToken`` is, while a picture is made; true leaves it out. Each wish is told once."""

    def __call__(self) -> bool: ...


def never() -> bool:
    """For plans in which nobody wishes anything."""
    return False


@dataclass(frozen=True)
class PlanRun:
    """A plan that is to be run, and whom to ask while it is."""

    plan: Plan
    cancel: CancelToken
    skip: SkipToken = never


@dataclass(frozen=True)
class Started:
    """The worker has taken the plan; nothing is loaded yet."""

    images: int


@dataclass(frozen=True)
class Progress:
    """Something moved. ``text`` is neutral English fit for clients that print it.

    ``fraction`` is the share of the whole job that is done, in [0, 1), never falling.
    ``preview`` is the picture as it stands: uint8 ``[height, width, 3]`` of twice the latents' size, which is a quarter
    of the size that is sampled at. Made only for plans that want previews; ``None`` before the first step. Nobody waits
    for a graphics card to make it: there it is of the step before, or ``None`` where none has come since the last.
    """

    fraction: float
    text: str
    preview: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class ImageFinished:
    """One picture is done: uint8 ``[height, width, 3]``, its place in the job (from 0), and what made it.

    ``record`` is ``None`` for a picture that Fooocus's own upscale only enlarged (05, section 2), or that nothing was
    done to: nothing of a request made it.
    """

    index: int
    seed: int
    pixels: NDArray[np.uint8]
    record: AnyRecord | None


@dataclass(frozen=True)
class Finished:
    """The plan ran to its end."""


@dataclass(frozen=True)
class Failed:
    """The plan cannot go on. ``reason`` is fit for clients: no paths, no traces."""

    reason: str


@dataclass(frozen=True)
class Cancelled:
    """The plan was stopped on request; the pictures finished before stay valid."""


Event = Started | Progress | ImageFinished | Finished | Failed | Cancelled
Ending = Finished | Failed | Cancelled
"""What nothing can follow."""
