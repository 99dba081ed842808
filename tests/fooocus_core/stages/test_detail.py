"""Enhancing with the pocket model: which steps run, in which order, on what, and which pictures come out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.events import Cancelled, Event, Failed, Finished, ImageFinished, Progress
from fooocus_core.images.masks import soft_mask
from fooocus_core.library import Library
from fooocus_core.masks.generate import FoundMask
from fooocus_core.masks.models import MaskModels
from fooocus_core.masks.options import MaskOptions
from fooocus_core.model_files.catalogue import Catalogue
from fooocus_core.plan import Detail, DetailPass, DetailStart, Diffuse, Output, Plan, Prompts, Sampling
from fooocus_core.stages.detail import (
    FindMask,
    Means,
    Source,
    finished_mask,
    is_skipped,
    pass_stage,
    prompts_of,
    run_detail,
    start_stage,
)
from fooocus_core.stages.start import Pictures
from tests.fooocus_core.stages.rendering import CPU, Studio

SIDE = 64
FACE = DetailPass(MaskOptions("sam", detection_prompt="face"), prompt="a face", engine="None")
EYE = DetailPass(MaskOptions("sam", detection_prompt="eye"), engine="None")
CUTOUT = DetailPass(MaskOptions("u2netp"), engine="None")
VARIED = DetailStart("Vary (Subtle)", 0.5)
LARGER = DetailStart("Upscale (1.5x)", 0.382, 1.5)


def box(left: int = 16, right: int = 40) -> NDArray[np.uint8]:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:40, left:right] = 255
    return mask


def scene() -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    root = tmp_path_factory.mktemp("models")
    studio = Studio(root, side_px=SIDE)
    studio.engine.pictures = lambda name: scene()
    studio.engine.masks = MaskModels(Library.below(root), Catalogue.of(), lambda: CPU.device)
    return studio


@pytest.fixture(scope="module")
def base(studio: Studio) -> Diffuse:
    [stage] = studio.plan("a cat").stages
    assert isinstance(stage, Diffuse)
    return replace(stage, sampling=Sampling("euler", "karras", 2))


def detail(base: Diffuse, *passes: DetailPass, **fields: Any) -> Detail:
    return Detail(base, steps=2, upscale_steps=1, passes=passes, **fields)


# --- the order of things, with painters and finders that only tell ------------------------------------------------


class Told:
    """In place of the engine: writes down what is painted; every painting is brighter by ten."""

    def __init__(self, found: dict[str, FoundMask] | None = None, skipped: int | None = None) -> None:
        """``skipped``: which painting is left out on request."""
        self.stages: list[Diffuse] = []
        self._found = found or {}
        self._skipped = skipped

    def paint(self, stage: Diffuse, pictures: Pictures) -> Iterator[Event]:
        self.stages.append(stage)
        yield Progress(0.5, "half")
        if len(self.stages) - 1 == self._skipped:
            return
        before = pictures("picture")
        large = np.repeat(np.repeat(before, 2, 0), 2, 1) if stage.start is not None and stage.start.factor else before
        yield ImageFinished(0, stage.seed, large + np.uint8(10), None)

    def find(self, picture: NDArray[np.uint8], options: MaskOptions) -> FoundMask:
        name = options.detection_prompt or options.model
        return self._found.get(name, FoundMask(np.full(picture.shape[:2], 255, np.uint8), 1, 1))

    @property
    def prompts(self) -> list[str]:
        return [stage.prompts.prompt for stage in self.stages]


def results(stage: Detail, told: Told, *sources: Source) -> list[ImageFinished]:
    black = Source(np.zeros((SIDE, SIDE, 3), np.uint8), 0)
    find: FindMask = told.find
    events = list(run_detail(stage, sources or [black], Means(told.paint, find, lambda: False)))
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction < 1 for fraction in fractions)
    return [event for event in events if isinstance(event, ImageFinished)]


def levels(images: list[ImageFinished]) -> list[int]:
    return [int(image.pixels.max()) for image in images]


NOTHING = FoundMask(np.zeros((SIDE, SIDE, 3), np.uint8), 0, 0)


def test_every_step_that_ran_is_a_result(base: Diffuse) -> None:
    told = Told({"eye": NOTHING})
    images = results(detail(base, FACE, EYE, CUTOUT, start=VARIED), told)
    assert levels(images) == [10, 20, 30]
    assert [image.index for image in images] == [0, 1, 2]
    assert told.prompts == ["a cat", "a face", "a cat"]


def test_a_step_works_on_what_the_one_before_made_and_the_last_may_come_last(base: Diffuse) -> None:
    told = Told()
    images = results(detail(base, FACE, start=replace(LARGER, comes_last=True)), told)
    assert [image.pixels.shape for image in images] == [(SIDE, SIDE, 3), (2 * SIDE, 2 * SIDE, 3)]
    assert [stage.sampling.steps for stage in told.stages] == [2, 1]
    first, last = told.stages
    assert first.repaint is not None
    assert last.start is not None


@pytest.mark.parametrize(("uses_last", "last"), [(False, "a cat"), (True, "a face")])
def test_prompts_of_the_last_step(base: Diffuse, uses_last: bool, last: str) -> None:
    told = Told()
    start = replace(VARIED, comes_last=True, uses_last_prompts=uses_last)
    results(detail(base, FACE, EYE, start=start), told)
    assert told.prompts == ["a face", "a cat", last]


def test_only_the_last_of_each_picture_is_kept_if_asked(base: Diffuse) -> None:
    sources = [Source(np.full((SIDE, SIDE, 3), level, np.uint8), index) for index, level in ((0, 0), (3, 100))]
    images = results(detail(base, FACE, EYE, only_last=True), Told(), *sources)
    assert [(image.index, level) for image, level in zip(images, levels(images), strict=True)] == [(1, 20), (4, 120)]


def test_masks_are_kept_beside_the_last(base: Diffuse) -> None:
    told = Told({"face": FoundMask(box(), 1, 1), "eye": NOTHING})
    images = results(detail(base, FACE, EYE, only_last=True, show_masks=True), told)
    assert [(image.index, level) for image, level in zip(images, levels(images), strict=True)] == [
        (0, 255),
        (2, 0),
        (1, 10),
    ]


def test_where_nothing_is_found_the_picture_itself_is_the_last(base: Diffuse) -> None:
    told = Told({"face": NOTHING})
    assert levels(results(detail(base, FACE, only_last=True), told)) == [0]
    assert results(detail(base, FACE, only_last=True, picture="sent"), told) == []
    assert results(detail(base, FACE), told) == []


def test_masks_are_shown_if_asked(base: Diffuse) -> None:
    told = Told({"eye": NOTHING, "face": FoundMask(box(), 1, 1)})
    images = results(detail(base, FACE, EYE, show_masks=True), told)
    assert [set(np.unique(image.pixels)) for image in (images[0], images[2])] == [{0, 255}, {0}]
    assert levels(images) == [255, 10, 0]


def test_a_mask_of_nothing_is_left_out(base: Diffuse) -> None:
    told = Told({"u2netp": FoundMask(np.full((SIDE, SIDE), 90, np.uint8))})
    assert results(detail(base, CUTOUT), told) == []
    assert told.stages == []


def test_a_pass_that_is_skipped_changes_nothing(base: Diffuse) -> None:
    told = Told(skipped=0)
    start = replace(VARIED, comes_last=True, uses_last_prompts=True)
    assert levels(results(detail(base, FACE, EYE, start=start), told)) == [10, 20]
    assert told.prompts == ["a face", "a cat", "a cat"]


def test_a_skipped_first_variation_leaves_the_picture_out(base: Diffuse) -> None:
    told = Told(skipped=0)
    assert results(detail(base, FACE, start=VARIED), told) == []
    assert len(told.stages) == 1


def test_finishing_a_mask() -> None:
    grown = finished_mask(box(), replace(FACE, erode_or_dilate=3))
    assert (grown == 255).sum() == 30 * 30
    inverted = finished_mask(np.repeat(box()[:, :, None], 3, 2), replace(FACE, invert=True))
    np.testing.assert_array_equal(inverted, 255 - box())


@pytest.mark.parametrize(
    ("boxes", "segments", "debug", "skipped"),
    [(0, 0, False, True), (2, 0, False, True), (2, 0, True, False), (2, 1, False, False), (0, 0, True, True)],
)
def test_what_is_left_out(boxes: int, segments: int, debug: bool, skipped: bool) -> None:
    one = replace(FACE, mask=replace(FACE.mask, dino_debug=debug))
    assert is_skipped(FoundMask(box(), boxes, segments), one) is skipped
    assert not is_skipped(FoundMask(box()), CUTOUT)


@pytest.mark.parametrize("text", ["", " , . ", "\n \n,"])
def test_blank_prompts_are_the_requests(text: str) -> None:
    asked = Prompts("a cat", "blurry", ("SAI Anime",))
    assert prompts_of(replace(FACE, prompt=text, negative_prompt=text), asked) == asked
    assert prompts_of(replace(FACE, prompt="a dog"), asked) == replace(asked, prompt="a dog")


def test_passes_have_nothing_of_the_requests_own_pictures(base: Diffuse) -> None:
    stage = detail(replace(base, image_number=3, seed_increment=True), FACE)
    made = pass_stage(stage, FACE, scene(), base.prompts)
    assert (made.image_number, made.seed_increment, made.guides, made.start) == (1, False, None, None)
    assert made.repaint is not None
    assert made.repaint.refines_itself is False
    assert start_stage(stage, VARIED, scene(), base.prompts).repaint is None


def test_sizes_of_the_first_and_last_step(base: Diffuse) -> None:
    stage = detail(base)
    picture = np.zeros((1000, 1030, 3), np.uint8)
    varied = start_stage(stage, VARIED, picture, base.prompts)
    assert (varied.width_px, varied.height_px) == (1024, 1000)
    large = start_stage(stage, LARGER, picture, base.prompts)
    assert (large.width_px, large.height_px) == (1544, 1496)
    assert large.start is not None
    assert large.start.refine
    fast = start_stage(stage, replace(LARGER, fast=True), picture, base.prompts)
    assert fast.start is not None
    assert not fast.start.refine
    assert (fast.width_px, fast.height_px) == (1545, 1500)


# --- with the pocket model ----------------------------------------------------------------------------------------


def played(studio: Studio, *stages: Diffuse | Detail) -> list[Event]:
    return list(studio.engine.run(Plan(stages, Output(preview=False)), lambda: False))


def images_of(events: list[Event]) -> list[ImageFinished]:
    assert isinstance(events[-1], Finished), events[-1]
    return [event for event in events if isinstance(event, ImageFinished)]


def test_a_picture_that_was_sent_is_enhanced_inside_the_mask(
    studio: Studio, base: Diffuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fooocus_core.engine.generate_mask", lambda *given: FoundMask(box(), 1, 1))
    [image] = images_of(played(studio, detail(base, FACE, picture="sent")))
    outside = soft_mask(box()) == 0
    np.testing.assert_array_equal(image.pixels[outside], scene()[outside])
    assert not np.array_equal(image.pixels, scene())
    assert image.record is not None
    assert image.record.prompt == "a face"
    assert image.seed == base.seed


def test_every_picture_of_a_request_is_followed_by_its_enhancements(
    studio: Studio, base: Diffuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fooocus_core.engine.generate_mask", lambda *given: FoundMask(box(), 1, 1))
    two = replace(base, image_number=2)
    events = played(studio, two, detail(two, FACE, EYE))
    images = sorted(images_of(events), key=lambda image: image.index)
    assert [image.index for image in images] == [0, 1, 2, 3, 4, 5]
    outside = soft_mask(box()) == 0
    for first, others in ((0, (1, 2)), (3, (4, 5))):
        for other in others:
            np.testing.assert_array_equal(images[first].pixels[outside], images[other].pixels[outside])
    assert not np.array_equal(images[0].pixels, images[3].pixels)
    assert [image.seed for image in images] == [7, 7, 7, 8, 7, 7]
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    last = images_of(played(studio, two, detail(two, FACE, EYE, only_last=True)))
    assert [image.index for image in last] == [2, 5]
    np.testing.assert_array_equal(last[1].pixels, images[5].pixels)


def test_a_mask_of_the_bundled_network_leads_a_pass(studio: Studio, base: Diffuse) -> None:
    mask, *_ = images_of(played(studio, detail(base, CUTOUT, picture="sent", show_masks=True)))
    assert mask.pixels.shape == scene().shape


def test_what_cannot_be_found_without_a_file_names_it(studio: Studio, base: Diffuse) -> None:
    *_, ending = played(studio, detail(base, FACE, picture="sent"))
    assert isinstance(ending, Failed)
    assert "main.py download" in ending.reason


def test_an_enhancement_can_be_stopped(studio: Studio, base: Diffuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fooocus_core.engine.generate_mask", lambda *given: FoundMask(box(), 1, 1))
    steps: list[Event] = []
    for event in studio.engine.run(Plan((detail(base, FACE, EYE, picture="sent"),)), lambda: bool(steps)):
        if isinstance(event, Progress) and event.text.startswith("Step"):
            steps.append(event)
    assert isinstance(event, Cancelled)
    assert len(steps) == 1


def test_a_pass_that_is_wished_away_leaves_its_picture_as_it_was(
    studio: Studio, base: Diffuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fooocus_core.engine.generate_mask", lambda *given: FoundMask(box(), 1, 1))
    wishes = [True]
    plan = Plan((detail(base, FACE, EYE, picture="sent"),))
    *_, ending = told = list(studio.engine.run(plan, lambda: False, lambda: bool(wishes) and wishes.pop()))
    assert isinstance(ending, Finished)
    (image,) = [event for event in told if isinstance(event, ImageFinished)]
    *_, alone, _ = played(studio, detail(base, EYE, picture="sent"))
    assert isinstance(alone, ImageFinished)
    assert np.array_equal(image.pixels, alone.pixels)


def test_without_networks_for_masks(base: Diffuse, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio.engine, "masks", None)
    *_, ending = played(studio, detail(base, CUTOUT, picture="sent"))
    assert isinstance(ending, Failed)
