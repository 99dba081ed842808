"""Text to image, step by step, with the model that ships with the project."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fooocus_core.events import Cancelled, Event, Finished, ImageFinished, Progress, Started
from fooocus_core.plan import Output, Plan, Sampling
from fooocus_core.presets.sizes import ASPECT_RATIOS, GRID_PX, Size, parse_size
from fooocus_core.stages.native_size import sampled_size
from tests.fooocus_core.stages.rendering import Studio

STEPS = 3


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("diffuse"))


def plan(studio: Studio, preview: bool = True, **fields: Any) -> Plan:
    (stage,) = studio.plan().stages
    stage = replace(stage, sampling=Sampling("euler", "karras", STEPS), **fields)
    return Plan((stage,), Output(preview=preview))


def steps_of(told: list[Event]) -> list[Progress]:
    return [event for event in told if isinstance(event, Progress) and event.text.startswith("Step ")]


def pictures_of(told: list[Event]) -> list[ImageFinished]:
    return [event for event in told if isinstance(event, ImageFinished)]


@pytest.fixture(scope="module")
def told(studio: Studio) -> list[Event]:
    """All events of two pictures."""
    return list(studio.engine.run(plan(studio, image_number=2, width_px=104, height_px=72), lambda: False))


def test_every_step_is_told_with_a_preview(told: list[Event]) -> None:
    steps = steps_of(told)
    assert [step.text for step in steps] == [
        f"Step {step}/{STEPS} in the {picture}-th Sampling" for picture in (1, 2) for step in range(1, STEPS + 1)
    ]
    previews = [step.preview for step in steps]
    assert len({None if preview is None else preview.tobytes() for preview in previews}) == len(previews)
    for preview in previews:
        assert preview is not None
        assert preview.dtype == "uint8"
        assert preview.shape[2] == 3
        assert preview.shape[1] / preview.shape[0] == pytest.approx(104 / 72, rel=0.2)


def test_progress_never_falls_and_stays_below_the_end(told: list[Event]) -> None:
    fractions = [event.fraction for event in told if isinstance(event, Progress)]
    assert all(before <= after for before, after in itertools.pairwise(fractions))
    assert fractions[-1] < 1


def test_pictures_have_their_seed_and_exactly_the_size_asked_for(told: list[Event]) -> None:
    assert (told[0], told[-1]) == (Started(2), Finished())
    pictures = pictures_of(told)
    assert [(picture.index, picture.seed) for picture in pictures] == [(0, 7), (1, 8)]
    assert [picture.pixels.shape for picture in pictures] == [(72, 104, 3)] * 2
    assert pictures[0].pixels.tobytes() != pictures[1].pixels.tobytes()


def test_previews_can_be_left_out(studio: Studio) -> None:
    quiet = list(studio.engine.run(plan(studio, preview=False), lambda: False))
    assert [step.preview for step in steps_of(quiet)] == [None] * STEPS


@pytest.mark.parametrize("last_step", [1, 2, STEPS])
def test_a_stop_comes_within_a_step_and_keeps_what_is_finished(studio: Studio, last_step: int) -> None:
    told: list[Event] = []
    wanted = STEPS + last_step  # in the second picture

    for event in studio.engine.run(plan(studio, image_number=3), lambda: len(steps_of(told)) >= wanted):
        told.append(event)
    assert isinstance(told[-1], Cancelled)
    assert len(steps_of(told)) == wanted
    assert [picture.index for picture in pictures_of(told)] == [0]


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_picture_that_is_wished_away_is_left_out_within_a_step(studio: Studio, left_out: int) -> None:
    told: list[Event] = []
    wishes = [left_out * STEPS + 2]

    def skip() -> bool:
        return bool(wishes) and len(steps_of(told)) == wishes[0] and wishes.pop() > 0

    for event in studio.engine.run(plan(studio, image_number=3), lambda: False, skip):
        told.append(event)
    assert told[-1] == Finished()
    assert [picture.index for picture in pictures_of(told)] == [index for index in range(3) if index != left_out]
    assert len(steps_of(told)) == 2 * STEPS + 2
    whole = pictures_of(list(studio.engine.run(plan(studio, image_number=3), lambda: False)))
    for picture in pictures_of(told):
        assert np.array_equal(picture.pixels, whole[picture.index].pixels)


def test_a_stop_stands_above_a_wish(studio: Studio) -> None:
    told = list(studio.engine.run(plan(studio), lambda: True, lambda: True))
    assert isinstance(told[-1], Cancelled)


def test_a_stop_before_the_first_step(studio: Studio) -> None:
    told = list(studio.engine.run(plan(studio), lambda: True))
    assert isinstance(told[-1], Cancelled)
    assert not steps_of(told)


@pytest.mark.parametrize("text", [*ASPECT_RATIOS, "64*2048", "2048*64"])
@pytest.mark.parametrize("side_px", [64, 96, 512])
def test_a_small_model_is_asked_for_its_own_area_in_the_shape_of_the_request(text: str, side_px: int) -> None:
    asked = parse_size(text)
    width_px, height_px = sampled_size(asked, side_px**2)
    assert width_px % GRID_PX == height_px % GRID_PX == 0
    assert min(width_px, height_px) >= 7 * GRID_PX, "the sharpness filter needs as much"
    if min(width_px, height_px) > 7 * GRID_PX:
        assert width_px * height_px == pytest.approx(side_px**2, rel=0.15)
        assert width_px / height_px == pytest.approx(asked.width_px / asked.height_px, rel=0.15)


def test_a_model_without_an_area_of_its_own_is_asked_for_the_size_itself() -> None:
    assert sampled_size(Size(1152, 896), None) == Size(1152, 896)
