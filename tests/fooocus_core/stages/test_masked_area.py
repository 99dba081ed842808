"""Repainting behind a soft mask with the pocket model, at its own area and at the size asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fooocus_core.events import Event, Failed, Finished, ImageFinished
from fooocus_core.images.masked_area import soft_area_mask
from fooocus_core.images.resizing import lanczos
from fooocus_core.plan import Diffuse, Guidance, MaskedArea, Output, Plan, Prompts, Repaint, Sampling
from fooocus_core.stages.picture_latents import RepaintLatents, with_content
from tests.fooocus_core.stages.rendering import Studio

AREA = MaskedArea(blur_px=2.0, padding_px=8)
WHOLE = replace(AREA, only_masked=False)


def scene() -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:80, 0:120]
    return np.stack([2 * rows, 2 * columns, np.full((80, 120), 90)], 2).astype(np.uint8)


def box(side: int = 24) -> NDArray[np.uint8]:
    mask = np.zeros((80, 120), np.uint8)
    mask[30 : 30 + side, 50 : 50 + side] = 255
    return mask


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    kept = {"scene": scene(), "mask": box(), "black": box(0), "half": np.repeat(box()[::2, ::2, None], 3, 2)}
    studio = Studio(tmp_path_factory.mktemp("models"))
    studio.engine.pictures = lambda name: kept[name]
    return studio


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory, studio: Studio) -> Studio:
    """The pocket model as if it had no area of its own."""
    other = Studio(tmp_path_factory.mktemp("models"))
    other.engine.pictures = studio.engine.pictures
    model = other.engine.models.load(stage_of(other, AREA).models)
    model.sidecar = replace(model.sidecar, native_area_px=None)
    return other


def stage_of(studio: Studio, area: MaskedArea, mask: str = "mask", denoise: float = 0.9, **fields: Any) -> Diffuse:
    [stage] = studio.plan().stages
    assert isinstance(stage, Diffuse)
    stage = replace(
        stage,
        prompts=Prompts("an apple", syntax="web_ui"),
        guidance=Guidance.plain(4.0),
        sampling=Sampling("euler", "karras", 3, "share"),
        width_px=64,
        height_px=64,
        repaint=Repaint("scene", mask, denoise=denoise, engine="None", area=area),
    )
    return replace(stage, **fields)


def played(studio: Studio, *stages: Diffuse) -> list[Event]:
    return list(studio.engine.run(Plan(stages, Output(preview=False), only_last_stage=True), lambda: False))


def painted(studio: Studio, *stages: Diffuse) -> ImageFinished:
    *_, image, ending = played(studio, *stages)
    assert isinstance(ending, Finished), ending
    assert isinstance(image, ImageFinished)
    return image


@pytest.mark.parametrize("name", ["studio", "sized"])
def test_only_what_is_masked_is_painted(name: str, request: pytest.FixtureRequest) -> None:
    studio: Studio = request.getfixturevalue(name)
    image = painted(studio, stage_of(studio, AREA))
    soft = soft_area_mask(box(), AREA)
    assert image.pixels.shape == scene().shape
    np.testing.assert_array_equal(image.pixels[soft == 0], scene()[soft == 0])
    assert np.abs(image.pixels[soft == 255].astype(int) - scene()[soft == 255]).mean() > 4
    assert image.record is not None
    assert (image.record.width_px, image.record.height_px) == (120, 80)


@pytest.mark.parametrize("mode", ["stretch", "cover", "contain", "latent"])
def test_the_whole_picture_gets_the_size_asked_for(sized: Studio, mode: Any) -> None:
    image = painted(sized, stage_of(sized, replace(WHOLE, resize=mode), denoise=0.5))
    assert image.pixels.shape == (64, 64, 3)
    if mode == "stretch":
        soft = lanczos(soft_area_mask(box(), AREA), 64, 64)
        np.testing.assert_array_equal(image.pixels[soft == 0], lanczos(scene(), 64, 64)[soft == 0])


def test_a_small_model_paints_a_large_size(studio: Studio) -> None:
    image = painted(studio, stage_of(studio, WHOLE, width_px=304, height_px=200))
    assert image.pixels.shape == (200, 304, 3)
    soft = lanczos(soft_area_mask(box(), AREA), 304, 200)
    np.testing.assert_array_equal(image.pixels[soft == 0], lanczos(scene(), 304, 200)[soft == 0])


def test_a_black_mask_leaves_the_picture_or_paints_all_of_it(studio: Studio) -> None:
    image = painted(studio, stage_of(studio, AREA, "black", seed=9))
    np.testing.assert_array_equal(image.pixels, scene())
    assert (image.seed, image.record) == (9, None)
    whole = painted(studio, stage_of(studio, WHOLE, "black")).pixels
    assert (whole != lanczos(scene(), 64, 64)).any(axis=2).mean() > 0.9
    inverted = painted(studio, stage_of(studio, replace(AREA, invert=True), "black"))
    assert inverted.pixels.shape == scene().shape


def test_a_mask_of_another_size_and_with_colours(studio: Studio) -> None:
    image = painted(studio, stage_of(studio, AREA, "half"))
    np.testing.assert_array_equal(image.pixels[:20], scene()[:20])
    assert not np.array_equal(image.pixels, scene())


def test_what_is_painted_behind_a_stage(studio: Studio) -> None:
    first = stage_of(studio, AREA, repaint=None, seed=5, width_px=96, height_px=64)
    own = painted(studio, first)
    second = stage_of(studio, AREA)
    assert second.repaint is not None
    image = painted(studio, first, replace(second, repaint=replace(second.repaint, picture=None)))
    assert image.seed == 5
    np.testing.assert_array_equal(image.pixels[:12], own.pixels[:12])
    assert not np.array_equal(image.pixels, own.pixels)


def test_the_four_contents() -> None:
    fill = torch.full((1, 4, 2, 2), 3.0)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    latents, noise = RepaintLatents(None, mask, fill), torch.full((1, 4, 2, 2), 7.0)
    corners = {"original": 3.0, "fill": 3.0, "noise": 7.0, "nothing": 0.0}
    for content, corner in corners.items():
        start = with_content(latents, content, noise)  # type: ignore[arg-type]
        assert start[0, 0].tolist() == [[corner, 3.0], [3.0, 3.0]], content


def test_noise_is_that_of_the_seed(sized: Studio) -> None:
    area = replace(WHOLE, content="noise")
    one, same, other = (
        painted(sized, stage_of(sized, area, denoise=0.4, seed=seed, sampling=Sampling("euler", "karras", 2)))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.pixels, same.pixels)
    assert not np.array_equal(one.pixels, other.pixels)


def test_a_mask_that_is_gone_fails_the_job(studio: Studio) -> None:
    def gone(name: str) -> NDArray[np.uint8]:
        if name == "gone":
            from fooocus_core.errors import MissingPicture

            raise MissingPicture
        return scene()

    kept, studio.engine.pictures = studio.engine.pictures, gone
    try:
        ending = played(studio, stage_of(studio, AREA, "gone"))[-1]
    finally:
        studio.engine.pictures = kept
    assert isinstance(ending, Failed)
    assert "not there any more" in ending.reason
