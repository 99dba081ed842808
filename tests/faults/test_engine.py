"""Whatever goes wrong at whatever step of a real plan: it has one ending, and the next plan is as ever."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fooocus_core.engine import TRYING_AGAIN
from fooocus_core.errors import OUT_OF_MEMORY
from fooocus_core.events import Cancelled, Failed, Finished, Progress
from fooocus_core.models import loaded
from fooocus_core.models.autoencoder import Autoencoder
from fooocus_core.models.loaded import LoadedModel, ModelStore
from fooocus_core.models.preview import Preview
from fooocus_core.models.text_encoders import ClipTextEncoder
from fooocus_core.models.unet import DiffusionNetwork
from fooocus_core.plan import Plan
from fooocus_core.stages import diffuse
from tests.faults.studio import IMAGES, STEPS, events_of, pictures_in, tiny_plan, tiny_studio
from tests.fooocus_core.stages.rendering import Studio

SECRET = "/home/somebody/models/some.safetensors"

PLACES: list[tuple[Any, str, int]] = [
    (ModelStore, "checkpoint", 1),
    (diffuse, "prepare_stage", 1),
    (ModelStore, "load", 1),
    (loaded, "read_lora", 1),
    (ClipTextEncoder, "encode", 1),
    (ClipTextEncoder, "encode", 4),
    (diffuse, "sample_latents", 2),
    (DiffusionNetwork, "__call__", 1),
    (DiffusionNetwork, "__call__", 3),
    (Preview, "begin", 2),
    (Autoencoder, "decode_raw", 1),
    (LoadedModel, "enlarged", 2),
    (diffuse, "describe_image", 1),
]
"""What the list of steps calls, and the how manyth call goes wrong."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return tiny_studio(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def plan(studio: Studio) -> Plan:
    return tiny_plan(studio)


@pytest.fixture(scope="module")
def expected(studio: Studio, plan: Plan) -> list[np.ndarray]:
    return pictures_in(events_of(studio, plan))


@pytest.fixture(autouse=True)
def _the_next_plan_is_as_ever(studio: Studio, plan: Plan, expected: list[np.ndarray]) -> Any:
    yield
    events = events_of(studio, plan)
    assert events[-1] == Finished()
    assert all(map(np.array_equal, pictures_in(events), expected))


@pytest.fixture(scope="module")
def errors() -> Iterator[Exception]:
    """One kind after the other."""
    return itertools.cycle([RuntimeError(SECRET), KeyError(SECRET), OSError(errno.ENOSPC, "no space", SECRET)])


def loaded_anew(studio: Studio, name: str) -> None:
    """What is called only while something is loaded, or once for a text, shall be called."""
    if name in ("checkpoint", "read_lora", "encode"):
        studio.engine.unload()


def going_wrong(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception, wrong: Callable[[int], bool]
) -> None:
    """``owner.name`` raises ``error`` at the calls whose number is ``wrong``, counted from 1."""
    whole, calls = getattr(owner, name), itertools.count(1)

    def call(*arguments: Any, **named: Any) -> Any:
        if wrong(next(calls)):
            raise error
        return whole(*arguments, **named)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(("owner", "name", "number"), PLACES)
def test_an_error_anywhere_is_one_ending(
    studio: Studio, plan: Plan, errors: Iterator[Exception], owner: Any, name: str, number: int
) -> None:
    loaded_anew(studio, name)
    error = next(errors)
    with pytest.MonkeyPatch.context() as patch:
        going_wrong(patch, owner, name, error, lambda call: call == number)
        ending = events_of(studio, plan)[-1]
    assert ending == Failed("internal error, see the server's log")


@pytest.mark.parametrize(("owner", "name", "number"), PLACES)
def test_no_room_once_costs_nothing_but_time(
    studio: Studio, plan: Plan, expected: list[np.ndarray], owner: Any, name: str, number: int
) -> None:
    loaded_anew(studio, name)
    with pytest.MonkeyPatch.context() as patch:
        going_wrong(patch, owner, name, torch.cuda.OutOfMemoryError(), lambda call: call == number)
        events = events_of(studio, plan)
    assert events[-1] == Finished()
    pictures = pictures_in(events)
    assert len(pictures) == IMAGES
    if name != "decode_raw":  # That one is met by tiles, whose pixels are slightly others.
        assert all(map(np.array_equal, pictures, expected))
        assert [event.text for event in events if isinstance(event, Progress)].count(TRYING_AGAIN) == 1


@pytest.mark.parametrize(("owner", "name", "number"), [PLACES[0], PLACES[8]])
def test_no_room_at_all_is_told_in_words_that_help(
    studio: Studio, plan: Plan, owner: Any, name: str, number: int
) -> None:
    loaded_anew(studio, name)
    with pytest.MonkeyPatch.context() as patch:
        going_wrong(patch, owner, name, torch.cuda.OutOfMemoryError(), lambda call: call >= number)
        assert events_of(studio, plan)[-1] == Failed(OUT_OF_MEMORY)


def test_a_stop_is_heard_wherever_it_is_asked_for(studio: Studio, plan: Plan, expected: list[np.ndarray]) -> None:
    asked = itertools.count()
    events_of(studio, plan, lambda: next(asked) < 0)
    questions = next(asked)
    assert questions > IMAGES * STEPS, "before every step of every picture"
    for last in range(questions):
        answers = iter([False] * last + [True])
        events = events_of(studio, plan, lambda answers=answers: next(answers))
        assert events[-1] == Cancelled(), "nothing is asked again once the answer was yes"
        assert all(map(np.array_equal, pictures_in(events), expected))
