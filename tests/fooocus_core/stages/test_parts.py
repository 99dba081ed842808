"""Parts found one by one and painted anew: which stages run on which masks, and what comes out of the pocket model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.events import Event, Failed, Finished, ImageFinished, Progress
from fooocus_core.images.masked_area import soft_area_mask
from fooocus_core.images.pixels import Mask
from fooocus_core.library import Library
from fooocus_core.masks.models import MaskModels
from fooocus_core.masks.options import MaskOptions
from fooocus_core.model_files.catalogue import Catalogue
from fooocus_core.model_files.supply import Supply
from fooocus_core.plan import (
    Detail,
    Diffuse,
    Guidance,
    MaskedArea,
    Output,
    PartSearch,
    PartsPass,
    Plan,
    Prompts,
    Sampling,
    Stage,
)
from fooocus_core.stages.detail import Means, run_detail
from fooocus_core.stages.following import Source
from fooocus_core.stages.start import Pictures
from tests.fooocus_core.masks.photographs import astronaut, coffee
from tests.fooocus_core.stages.rendering import CPU, Studio

FACES = PartsPass(PartSearch("mtcnn", confidence=0.5), dilate_px=0)
BLACK = np.zeros((32, 48, 3), np.uint8)


def half(columns: slice) -> Mask:
    mask = np.zeros((32, 48), np.uint8)
    mask[:, columns] = 255
    return mask


LEFT, RIGHT = half(slice(0, 24)), half(slice(24, 48))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    root = tmp_path_factory.mktemp("models")
    studio = Studio(root)
    photographs = {"face": astronaut()[0][:256, 100:356], "cup": coffee()[0][::2, ::2]}
    studio.engine.pictures = lambda name: np.ascontiguousarray(photographs[name])
    studio.engine.masks = MaskModels(Library.below(root), Catalogue.of(), lambda: CPU.device)
    return studio


@pytest.fixture(scope="module")
def base(studio: Studio) -> Diffuse:
    [stage] = studio.plan().stages
    assert isinstance(stage, Diffuse)
    return replace(
        stage,
        prompts=Prompts("a cat", "bad", syntax="web_ui"),
        guidance=Guidance.plain(4.0),
        sampling=Sampling("euler", "karras", 2, "share"),
        seed_count=2**32,
        width_px=64,
        height_px=64,
    )


# --- which stages run, with a painter that only tells -------------------------------------------------------------


class Told:
    """In place of the engine: every painting is brighter by ten inside its mask."""

    def __init__(self, *masks: Mask) -> None:
        self.masks = masks
        self.stages: list[Diffuse] = []

    def paint(self, stage: Diffuse, pictures: Pictures) -> Iterator[Event]:
        self.stages.append(stage)
        yield Progress(0.5, "half")
        painted = pictures("picture") + np.where(pictures("mask")[:, :, None] > 0, 10, 0).astype(np.uint8)
        yield ImageFinished(0, stage.seed, painted, None)

    def find(self, picture: NDArray[np.uint8], search: PartSearch) -> tuple[Mask, ...]:
        return self.masks


def results(stage: Detail, told: Told, *sources: Source) -> list[ImageFinished]:
    def no_mask(picture: NDArray[np.uint8], options: MaskOptions) -> None:
        raise AssertionError

    means = Means(told.paint, no_mask, lambda: False, told.find)  # type: ignore[arg-type]
    events = list(run_detail(stage, sources, means))
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction < 1 for fraction in fractions)
    return [event for event in events if isinstance(event, ImageFinished)]


def detail(base: Diffuse, *passes: PartsPass) -> Detail:
    return Detail(base, 20, 20, passes=passes, only_last=True)


def test_every_part_is_painted_with_a_seed_of_its_own(base: Diffuse) -> None:
    told = Told(LEFT, RIGHT)
    [image] = results(detail(base, replace(FACES, prompts=("one", "")), FACES), told, Source(BLACK, 0, 2**32 - 1))
    assert [stage.seed for stage in told.stages] == [2**32 - 1, 0, 2**32 - 1, 0]
    assert [stage.prompts.prompt for stage in told.stages] == ["one", "a cat", "a cat", "a cat"]
    assert {stage.prompts.negative_prompt for stage in told.stages} == {"bad"}
    assert (image.pixels == 20).all()
    assert image.seed == 2**32 - 1


def test_the_last_prompt_stands_for_all_the_rest(base: Diffuse) -> None:
    told = Told(LEFT, RIGHT, LEFT)
    one = replace(FACES, prompts=("one", "two"), negative_prompts=("ugly",))
    results(detail(base, one), told, Source(BLACK, 0, 1))
    assert [stage.prompts.prompt for stage in told.stages] == ["one", "two", "two"]
    assert {stage.prompts.negative_prompt for stage in told.stages} == {"ugly"}


def test_a_pass_may_have_all_of_its_own(base: Diffuse) -> None:
    own = replace(
        base, sampling=Sampling("dpmpp_2m", "karras", 9), width_px=128, prompts=Prompts("own"), image_number=4
    )
    told = Told(LEFT)
    area = MaskedArea(padding_px=3)
    results(detail(base, replace(FACES, base=own, denoise=0.25, area=area)), told, Source(BLACK, 0, 1))
    [stage] = told.stages
    assert (stage.sampling, stage.width_px, stage.prompts, stage.image_number) == (own.sampling, 128, own.prompts, 1)
    assert stage.repaint is not None
    assert (stage.repaint.denoise, stage.repaint.area, stage.repaint.engine) == (
        0.25,
        replace(area, keeps_size=True),
        "None",
    )


@pytest.mark.parametrize(("merge", "painted"), [("merge", 1.0), ("merge and invert", 0.0)])
def test_merged_parts_are_painted_at_once(base: Diffuse, merge: str, painted: float) -> None:
    told = Told(LEFT, RIGHT)
    [image] = results(detail(base, replace(FACES, merge=merge)), told, Source(BLACK, 0, 1))  # type: ignore[arg-type]
    assert len(told.stages) == 1
    assert (image.pixels > 0).mean() == painted


def test_without_a_part_a_picture_stays_as_it_is(base: Diffuse) -> None:
    told = Told()
    images = results(detail(base, FACES), told, Source(BLACK, 0, 5), Source(BLACK + np.uint8(1), 1, 6))
    assert [(image.seed, int(image.pixels.max())) for image in images] == [(5, 0), (6, 1)]
    assert told.stages == []


# --- with the pocket model ----------------------------------------------------------------------------------------


def played(studio: Studio, *stages: Stage) -> list[Event]:
    return list(studio.engine.run(Plan(stages, Output(preview=False), only_last_stage=True), lambda: False))


def test_a_face_is_painted_anew(studio: Studio, base: Diffuse) -> None:
    *_, image, ending = played(studio, replace(detail(base, FACES), picture="face"))
    assert isinstance(ending, Finished), ending
    assert isinstance(image, ImageFinished)
    before = studio.engine.pictures("face")
    assert image.pixels.shape == before.shape
    changed = (image.pixels != before).any(axis=2)
    assert changed[120, 125]
    face = np.zeros(before.shape[:2], np.uint8)
    face[55:180, 75:175] = 255
    assert not changed[soft_area_mask(face, MaskedArea()) == 0].any()
    assert image.record is not None
    assert (image.record.width_px, image.record.seed) == (256, base.seed)


def test_a_whole_picture_keeps_its_size(studio: Studio, base: Diffuse) -> None:
    whole = replace(FACES, area=MaskedArea(only_masked=False))
    *_, image, _ = played(studio, replace(detail(base, whole), picture="face"))
    assert isinstance(image, ImageFinished)
    before = studio.engine.pictures("face")
    assert image.pixels.shape == before.shape
    np.testing.assert_array_equal(image.pixels[:20], before[:20])
    assert (image.pixels != before).any()


def test_a_picture_without_a_face_is_a_result_unchanged(studio: Studio, base: Diffuse) -> None:
    *_, image, ending = played(studio, replace(detail(base, FACES), picture="cup"))
    assert isinstance(ending, Finished)
    assert isinstance(image, ImageFinished)
    np.testing.assert_array_equal(image.pixels, coffee()[0][::2, ::2])


def test_files_of_all_passes_are_got_before_the_first(
    studio: Studio, base: Diffuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Stage] = []
    supplied = Supply.supplied

    def noting(self: Supply, stage: Stage, *others: Any) -> Any:
        asked.append(stage)
        return supplied(self, stage, *others)

    monkeypatch.setattr(Supply, "supplied", noting)
    stage = Detail(base, 2, 2, "cup", passes=(replace(FACES, base=base),), only_last=True)
    played(studio, stage)
    assert asked == [replace(stage, picture=None)]


def test_both_pictures_of_the_stage_before_go_on(studio: Studio, base: Diffuse) -> None:
    first = replace(base, image_number=2, seed=2**32 - 1)
    images = [event for event in played(studio, first, detail(base, FACES)) if isinstance(event, ImageFinished)]
    assert [(image.index, image.seed) for image in images] == [(0, 2**32 - 1), (1, 0)]
    assert all(image.record is not None and image.record.prompt == "a cat" for image in images)


def test_what_finds_hands_is_named_where_it_is_missing(studio: Studio, base: Diffuse) -> None:
    hands = replace(FACES, find=PartSearch("grounding_dino", "hand"))
    *_, ending = played(studio, replace(detail(base, hands), picture="cup"))
    assert isinstance(ending, Failed)
    assert "groundingdino" in ending.reason
