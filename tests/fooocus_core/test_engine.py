"""The engine's promise: ``Started``, what happened, exactly one ending; nothing inside a plan makes it raise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from fooocus_core.engine import Engine
from fooocus_core.errors import Interrupted, UnreadableModel
from fooocus_core.events import Cancelled, Ending, Event, Failed, Finished, Progress, Started
from fooocus_core.models.loaded import ModelStore
from fooocus_core.plan import Diffuse, Models, Plan, Prompts
from fooocus_core.prompts.styles import StyleBook
from fooocus_core.prompts.wildcards import Wildcards

STAGE = Diffuse(Models("some.safetensors"), Prompts("a red apple"), 64, 64, seed=1, image_number=3)
SECRET = "/home/somebody/models/some.safetensors"


class Store:
    """Stands in for the models; knows whether they were let go."""

    is_unloaded = False

    def unload(self) -> None:
        self.is_unloaded = True


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
    assert told == [Started(6), Progress(0.5, "halfway"), Progress(0.5, "halfway"), Finished()]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (Interrupted("stopped on request"), Cancelled()),
        (UnreadableModel("some.safetensors", "cut"), Failed("some.safetensors: cut")),
        (torch.cuda.OutOfMemoryError(), Failed("the device has no room for this picture")),
        (RuntimeError(SECRET), Failed("internal error, see the server's log")),
        (MemoryError(SECRET), Failed("internal error, see the server's log")),
    ],
)
def test_whatever_goes_wrong_is_the_one_ending(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception, ending: Ending
) -> None:
    assert events(engine, monkeypatch, error, stages=2) == [Started(6), Progress(0.5, "halfway"), ending]


def test_no_room_on_the_device_lets_the_models_go(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(engine, monkeypatch, RuntimeError())
    assert not store.is_unloaded
    events(engine, monkeypatch, torch.cuda.OutOfMemoryError())
    assert store.is_unloaded


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
