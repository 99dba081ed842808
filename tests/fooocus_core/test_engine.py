"""The engine's promise: ``Started``, what happened, exactly one ending; nothing inside a plan makes it raise."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from fooocus_core.engine import TRYING_AGAIN, Engine
from fooocus_core.errors import OUT_OF_MEMORY, Interrupted, OutOfMemory, UnreadableModel
from fooocus_core.events import (
    Cancelled,
    Ending,
    Event,
    Failed,
    Finished,
    ImageFinished,
    PlanRun,
    Progress,
    Started,
    never,
)
from fooocus_core.filter.content_filter import ContentFilter
from fooocus_core.images.pixels import Picture
from fooocus_core.model_files.catalogue import ModelFile
from fooocus_core.model_files.supply import Supply
from fooocus_core.models.loaded import ModelStore
from fooocus_core.models.residence import RESIDENCES, Residence
from fooocus_core.plan import Diffuse, Models, Output, Plan, Prompts
from fooocus_core.prompts.styles import StyleBook
from fooocus_core.prompts.wildcards import Wildcards
from fooocus_core.sampling.shortcuts import Shortcuts

STAGE = Diffuse(Models("some.safetensors"), Prompts("a red apple"), 64, 64, seed=1, image_number=3)
SECRET = "/home/somebody/models/some.safetensors"


class Store:
    """Stands in for the models; knows what became of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def unload(self) -> None:
        self.calls.append("unload")

    def save_room(self) -> None:
        self.calls.append("save room")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def engine(store: Store) -> Engine:
    return Engine(cast(ModelStore, store), StyleBook([]), Wildcards([]))


def events(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, stages: int = 1
) -> list[Event]:
    """What the engine tells when each stage makes one step and then ends, with ``error`` if there is one."""

    def play(self: Engine, stage: Diffuse, *_: Any) -> Iterator[Event]:
        yield Progress(0.5, "halfway")
        if error is not None:
            raise error

    monkeypatch.setattr(Engine, "_play", play)
    return list(engine.run(Plan((STAGE,) * stages), lambda: False))


def test_stages_follow_one_another(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    told = events(engine, monkeypatch, None, stages=2)
    assert told == [Started(6), Progress(0.25, "halfway"), Progress(0.75, "halfway"), Finished()]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (Interrupted("stopped on request"), Cancelled()),
        (UnreadableModel("some.safetensors", "cut"), Failed("some.safetensors: cut")),
        (RuntimeError(SECRET), Failed("internal error, see the server's log")),
    ],
)
def test_whatever_goes_wrong_is_the_one_ending(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception, ending: Ending
) -> None:
    assert events(engine, monkeypatch, error, stages=2) == [Started(6), Progress(0.25, "halfway"), ending]


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError(),
        MemoryError(SECRET),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 12 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        OutOfMemory("no room to look for objects"),
    ],
)
def test_no_room_on_the_device_is_met_by_a_second_try_in_less(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    halfway = Progress(0.5, "halfway")
    told = events(engine, monkeypatch, error)
    assert told == [Started(3), halfway, Progress(0.0, TRYING_AGAIN), halfway, Failed(OUT_OF_MEMORY)]
    assert store.calls == ["unload", "save room"] * 2


def test_no_other_error_is_tried_again(engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    events(engine, monkeypatch, RuntimeError())
    assert store.calls == []


def test_a_second_try_goes_to_the_end_and_tells_no_picture_twice(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Big]] = []

    def play(*_: Any) -> Iterator[Event]:
        big = Big()
        held.append(weakref.ref(big))
        assert [ref() for ref in held] == [None] * (len(held) - 1) + [big], "the first try holds on to nothing"
        for index in range(3):
            yield ImageFinished(index, index, BRIGHT, None)
            if index == 1 and len(held) == 1:
                raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Engine, "_play", play)
    told = list(engine.run(Plan((STAGE,)), lambda: False))
    assert [event.index for event in told if isinstance(event, ImageFinished)] == [0, 1, 2]
    assert told[-1] == Finished()


def test_stages_that_make_the_same_picture_twice_may(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = iter([None, torch.cuda.OutOfMemoryError(), None, None])

    def play(*_: Any) -> Iterator[Event]:
        yield ImageFinished(0, 0, BRIGHT, None)
        if error := next(tries):
            raise error

    monkeypatch.setattr(Engine, "_play", play)
    told = list(engine.run(Plan((STAGE, STAGE)), lambda: False))
    assert [type(event) for event in told] == [Started, ImageFinished, ImageFinished, Progress, Finished]


class Big:
    """What a lost call was at."""


def test_the_cause_of_a_bug_is_in_the_log(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events(engine, monkeypatch, RuntimeError(SECRET))
    assert SECRET in caplog.text


def test_the_next_plan_runs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    events(engine, monkeypatch, RuntimeError())
    one = replace(STAGE, image_number=1)
    monkeypatch.setattr(Engine, "_play", lambda *_: iter(()))
    assert list(engine.run(Plan((one,)), lambda: False)) == [Started(1), Finished()]


# ------------------------------------------------------------------------------------------------------ several plans


def test_plans_that_do_not_fit_are_run_one_after_the_other(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(self: Engine, stage: Diffuse, *_: Any) -> Iterator[Event]:
        yield Progress(0.5, "halfway")
        if stage.width_px == 72:
            raise UnreadableModel("some.safetensors", "cut")

    monkeypatch.setattr(Engine, "_play", play)
    place(engine, RESIDENCES["normal"])
    runs = [PlanRun(Plan((replace(STAGE, width_px=width),)), never) for width in (64, 72, 80)]
    begun = [Started(3), Progress(0.5, "halfway")]
    assert list(engine.run_together(runs)) == [
        *[(0, event) for event in [*begun, Finished()]],
        *[(1, event) for event in [*begun, Failed("some.safetensors: cut")]],
        *[(2, event) for event in [*begun, Finished()]],
    ]


def test_no_plans_tell_nothing(engine: Engine) -> None:
    place(engine, RESIDENCES["normal"])
    assert list(engine.run_together([])) == []


@pytest.mark.parametrize(
    ("images", "at_once", "residence", "shortcuts", "taken"),
    [
        ([1, 1], 2, "normal", Shortcuts(), True),
        ([1], 2, "high", Shortcuts(guidance_until=0.5), True),
        ([1, 3], 4, "normal", Shortcuts(), True),
        ([1, 3], 3, "normal", Shortcuts(), False),
        ([1], 1, "normal", Shortcuts(), False),
        ([1, 1], 2, "low", Shortcuts(), False),
        ([1, 1], 2, "normal", Shortcuts(whole_pass_every=2), False),
    ],
)
def test_so_many_pictures_are_taken_together(
    engine: Engine, images: list[int], at_once: int, residence: Any, shortcuts: Shortcuts, taken: bool
) -> None:
    engine.pictures_at_once, engine.shortcuts = at_once, shortcuts
    place(engine, RESIDENCES[residence])
    assert engine.takes_together([Plan((replace(STAGE, image_number=number),)) for number in images]) is taken


def test_plans_that_do_not_fit_are_not_taken_together(engine: Engine) -> None:
    engine.pictures_at_once = 8
    place(engine, RESIDENCES["normal"])
    assert engine.takes_together([Plan((STAGE,)), Plan((STAGE,))])
    assert not engine.takes_together([Plan((STAGE,)), Plan((replace(STAGE, width_px=72),))])


def test_what_has_to_be_fetched_first_is_taken_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.pictures_at_once = 8
    place(engine, RESIDENCES["normal"])
    fetched = ModelFile("a.safetensors", "checkpoints", "https://files.example/a.safetensors")
    monkeypatch.setattr(Supply, "named_by", lambda self, stage: [fetched] if stage.seed == 2 else [])
    assert not engine.takes_together([Plan((STAGE,)), Plan((replace(STAGE, seed=2),))])


def place(engine: Engine, residence: Residence) -> None:
    cast(Any, engine.models).placement = SimpleNamespace(residence=residence)


# ------------------------------------------------------------------------------------------------------ content filter

BRIGHT, DARK = np.full((4, 6, 3), 200, np.uint8), np.full((4, 6, 3), 50, np.uint8)


class Prude(ContentFilter):
    """Blackens what is bright."""

    def __init__(self) -> None:
        self.is_unloaded = False

    def blacked_out(self, picture: Picture) -> Picture:
        return picture if picture.max() < 128 else np.zeros_like(picture)

    def unload(self) -> None:
        self.is_unloaded = True


class Broken(Prude):
    """Cannot be read."""

    def blacked_out(self, picture: Picture) -> Picture:
        raise UnreadableModel("checker.bin", "cut")


@pytest.fixture
def two_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(self: Engine, stage: Diffuse, *_: Any) -> Iterator[Event]:
        yield Progress(0.5, "halfway", BRIGHT)
        yield ImageFinished(0, 1, BRIGHT, None)
        yield ImageFinished(1, 2, DARK, None)

    monkeypatch.setattr(Engine, "_play", play)


def told(engine: Engine, *, black_out_nsfw: bool) -> list[Event]:
    return list(engine.run(Plan((STAGE,), Output(black_out_nsfw=black_out_nsfw)), lambda: False))


@pytest.mark.usefixtures("two_pictures")
def test_unsafe_pictures_become_black_and_previews_are_left_out(engine: Engine) -> None:
    engine.content_filter = Prude()
    _, progress, first, second, ending = told(engine, black_out_nsfw=True)
    assert progress == Progress(0.5, "halfway")
    assert isinstance(first, ImageFinished)
    assert isinstance(second, ImageFinished)
    assert (first.index, first.seed, first.pixels.shape, first.pixels.any()) == (0, 1, BRIGHT.shape, False)
    assert (second.pixels == DARK).all()
    assert ending == Finished()


@pytest.mark.usefixtures("two_pictures")
def test_a_plan_that_does_not_ask_for_it_is_not_judged(engine: Engine) -> None:
    engine.content_filter = Prude()
    _, progress, first, _, _ = told(engine, black_out_nsfw=False)
    assert isinstance(progress, Progress)
    assert progress.preview is BRIGHT
    assert isinstance(first, ImageFinished)
    assert first.pixels is BRIGHT


@pytest.mark.usefixtures("two_pictures")
@pytest.mark.parametrize("content_filter", [None, Broken()])
def test_what_cannot_be_judged_is_not_shown(engine: Engine, content_filter: ContentFilter | None) -> None:
    engine.content_filter = content_filter
    events = told(engine, black_out_nsfw=True)
    assert isinstance(events[-1], Failed)
    assert not any(isinstance(event, ImageFinished) for event in events)


def test_unloading_forgets_the_judge_as_well(engine: Engine) -> None:
    engine.content_filter = prude = Prude()
    engine.unload()
    assert prude.is_unloaded
