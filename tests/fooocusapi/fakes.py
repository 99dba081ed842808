"""Stand-ins for what the server is joined from: plans, pictures, a clock, a store, a journal and two engines.

No test needs a model or a pause: ``ScriptedEngine`` plays a story of its own accord, ``HandEngine`` plays what the
test hands it, one event at a time.
"""

from __future__ import annotations

import itertools
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fooocus_core.events import (
    Cancelled,
    CancelToken,
    Ending,
    Event,
    Finished,
    ImageFinished,
    PlanRun,
    Progress,
    SkipToken,
    Started,
)
from fooocus_core.metadata.record import ImageRecord
from fooocus_core.plan import Diffuse, Models, Output, Plan, Prompts
from fooocusapi.jobs.job import Job

PATIENCE_S = 10.0
"""How long a test waits for another thread before it fails: a bound, never a pause."""

BIRTH_MS = 1_700_000_000_000


def a_plan(
    prompt: str = "a red apple", *, seed: int = 7, images: int = 1, preview: bool = True, save_name: str = ""
) -> Plan:
    stage = Diffuse(
        models=Models("some.safetensors"),
        prompts=Prompts(prompt),
        width_px=64,
        height_px=64,
        seed=seed,
        image_number=images,
    )
    return Plan((stage,), Output(preview=preview, save_name=save_name))


def an_image(index: int = 0, seed: int = 7, *, size_px: int = 8) -> ImageFinished:
    """A small picture; its colour depends on the seed."""
    pixels = np.full((size_px, size_px, 3), seed % 256, dtype=np.uint8)
    return ImageFinished(index, seed, pixels, ImageRecord(seed, size_px, size_px, "some.safetensors"))


def a_preview(value: int = 0) -> np.ndarray:
    return np.full((4, 4, 3), value, dtype=np.uint8)


@dataclass
class FakeClock:
    """A clock that stands still until told otherwise."""

    now_ms: int = BIRTH_MS

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, by_ms: int) -> None:
        self.now_ms += by_ms


class CountedIds:
    """Identifiers of the right form that a test can foretell: 00000000-0000-4000-8000-00000000000N, N from 1."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._numbers):012d}"


@dataclass
class FakeStore:
    """An image store in memory; ``broken`` makes every save raise."""

    files: dict[str, ImageFinished] = field(default_factory=dict)
    broken: BaseException | None = None

    def save(self, job: Job, event: ImageFinished, note: Callable[[str], object]) -> str:
        if self.broken:
            raise self.broken
        stem = (job.plan.output.save_name if job.plan else "") or job.id
        path = f"2026-01-01/{stem}-{event.index}.png"
        note(path)
        self.files[path] = event
        return path

    def delete(self, relatives: Iterable[str]) -> None:
        for path in relatives:
            self.files.pop(path, None)


Story = Callable[[Plan], Iterable[Event | Exception]]


def good_story(plan: Plan, steps: int = 3) -> Iterator[Event]:
    """Every picture of the plan with its previews, then the end."""
    stage = plan.main
    yield Started(stage.image_number)
    for index in range(stage.image_number):
        for step in range(1, steps + 1):
            share = (index + step / steps) / stage.image_number
            preview = a_preview(step) if plan.output.preview else None
            yield Progress(share * 0.9, f"Step {step}/{steps} in the {index + 1}-th Sampling", preview)
        yield an_image(index, stage.seed + index)
    yield Finished()


class OneByOne:
    """What all engines here have in common: they take one plan at a time."""

    thread_ids: Sequence[int] = ()

    def run(self, plan: Plan, cancel: CancelToken, skip: SkipToken) -> Iterator[Event]:
        raise NotImplementedError

    def takes_together(self, plans: Sequence[Plan]) -> bool:
        return len(plans) == 1

    def run_together(self, runs: Sequence[PlanRun]) -> Iterator[tuple[int, Event]]:
        (one,) = runs
        for event in self.run(one.plan, one.cancel, one.skip):
            yield 0, event

    def unload(self) -> None: ...


class ScriptedEngine(OneByOne):
    """Plays ``story(plan)`` at once; exceptions in it are raised. ``plans`` are the plans it was given."""

    def __init__(self, story: Story = good_story) -> None:
        self.plans: list[Plan] = []
        self._story = story

    def run(self, plan: Plan, cancel: CancelToken, skip: SkipToken) -> Iterator[Event]:
        self.plans.append(plan)
        for event in self._story(plan):
            if cancel():
                yield Cancelled()
                return
            if isinstance(event, Exception):
                raise event
            yield event


class HandEngine(OneByOne):
    """Plays what ``play`` is handed. ``play`` returns when the worker has dealt with the event and wants the next.

    The tokens are asked before each event, as a real engine does between steps: once a stop was asked for, the next
    ``play`` is answered with ``Cancelled`` instead of its own event; where a picture is wished away, with nothing.
    """

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self._events: queue.Queue[Event | Exception] = queue.Queue()
        self._wants: queue.Queue[Plan | None] = queue.Queue()

    def run(self, plan: Plan, cancel: CancelToken, skip: SkipToken) -> Iterator[Event]:
        self.plans.append(plan)
        self._wants.put(plan)
        while True:
            event = self._events.get(timeout=PATIENCE_S)
            if isinstance(event, Exception):
                raise event
            if cancel():
                self._wants.put(None)
                yield Cancelled()
                return
            if isinstance(event, Ending):
                yield event
                return
            if not skip():
                yield event
            self._wants.put(None)

    def begin(self) -> Plan:
        """The plan of the next job, once the worker has begun with it."""
        plan = self._wants.get(timeout=PATIENCE_S)
        assert plan is not None, "the job before has not ended"
        return plan

    def hand_over(self, event: Event | Exception) -> None:
        """One event more to be played, whether or not somebody still wants it."""
        self._events.put(event)

    def play(self, event: Event | Exception) -> None:
        """Hand over one event. After an ending or an exception, wait for the job instead: nothing is waited for."""
        self.hand_over(event)
        if not isinstance(event, Exception) and not isinstance(event, Ending):
            self._wants.get(timeout=PATIENCE_S)
