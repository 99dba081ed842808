"""Stages that work on the pictures of the stage before, with the pocket model; only the last one's are results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fooocus_core.events import Event, Failed, Finished, ImageFinished, Progress
from fooocus_core.images.enlarging import enlarged_picture
from fooocus_core.images.resizing import lanczos
from fooocus_core.library import BUNDLED_UPSCALER
from fooocus_core.metadata.record import EnlargedRecord
from fooocus_core.metadata.schemes import metadata_text
from fooocus_core.plan import (
    Detail,
    Diffuse,
    Enlarging,
    Guidance,
    MaskedArea,
    Output,
    PartSearch,
    PartsPass,
    Plan,
    Prompts,
    Repaint,
    Sampling,
    Stage,
    StartPicture,
)
from fooocus_core.presets.sizes import Size
from fooocus_core.stages.following import goes_on_with_latents
from fooocus_core.stages.picture_latents import LATENT_MODES, enlarged_latents
from tests.fooocus_core.stages.rendering import Studio

SIDE = 64
TWICE = StartPicture(None, "Lanczos", 0.3, enlarging=Enlarging("lanczos", factor=2.0))
LATENT = replace(TWICE, method="Latent", enlarging=Enlarging("latent", factor=2.0))


def scene(width: int = SIDE, height: int = SIDE) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    slope = np.stack([90 * rows / height, 60 + 90 * columns / width, np.full((height, width), 120.0)], 2)
    inside = (rows / height - 0.5) ** 2 + (columns / width - 0.5) ** 2 < 0.08
    return np.where(inside[..., None], [230, 40, 30], slope).astype(np.uint8)


def whole_size(root: Path) -> Studio:
    """A studio whose pocket model paints as if it had no area of its own."""
    studio = Studio(root, side_px=SIDE)
    studio.engine.pictures = lambda name: scene(80, 48)
    model = studio.engine.models.load(of(studio).models)
    model.sidecar = replace(model.sidecar, native_area_px=None)
    return studio


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    studio = Studio(tmp_path_factory.mktemp("models"), side_px=SIDE)
    studio.engine.pictures = lambda name: scene(150, 100)
    return studio


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return whole_size(tmp_path_factory.mktemp("models"))


def of(studio: Studio, **fields: object) -> Diffuse:
    """A stage of two pictures, whose seeds wrap between them."""
    [stage] = studio.plan().stages
    assert isinstance(stage, Diffuse)
    stage = replace(
        stage,
        prompts=Prompts("a (red:1.2) apple", syntax="web_ui"),
        image_number=2,
        seed=2**32 - 1,
        seed_count=2**32,
        guidance=Guidance.plain(4.0),
        sampling=Sampling("euler", "karras", 4, "share"),
    )
    return replace(stage, **fields)  # type: ignore[arg-type]


def played(studio: Studio, *stages: Stage) -> list[Event]:
    return list(studio.engine.run(Plan(stages, Output(preview=False), only_last_stage=True), lambda: False))


def results(events: list[Event]) -> list[ImageFinished]:
    assert isinstance(events[-1], Finished), events[-1]
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction < 1 for fraction in fractions)
    return [event for event in events if isinstance(event, ImageFinished)]


def steps(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Progress) and event.text.startswith("Step")]


def test_only_what_the_last_stage_makes_is_a_result(pocket: Studio) -> None:
    first = results(played(pocket, of(pocket, width_px=200, height_px=120)))
    second = of(pocket, seed=5, width_px=8, height_px=8, start=replace(TWICE, refine=False))
    larger = results(played(pocket, of(pocket, width_px=200, height_px=120), second))
    assert [(image.index, image.seed) for image in larger] == [(0, 2**32 - 1), (1, 0)]
    for before, after in zip(first, larger, strict=True):
        np.testing.assert_array_equal(after.pixels, lanczos(before.pixels, 400, 240))
        assert after.record is not None
        assert (after.record.width_px, after.record.height_px, after.record.prompt) == (400, 240, "a (red:1.2) apple")


@pytest.mark.parametrize("start", [TWICE, LATENT], ids=["lanczos", "latent"])
def test_a_model_too_small_for_the_size_leaves_the_picture_as_it_is_enlarged(
    pocket: Studio, start: StartPicture
) -> None:
    kept = replace(start, picture="kept")
    [image] = results(played(pocket, of(pocket, image_number=1, start=kept)))
    assert image.pixels.shape == (200, 304, 3)
    difference = image.pixels.astype(int) - lanczos(scene(150, 100), 304, 200)
    assert np.abs(difference).mean() < 4


def test_image_to_image_has_the_size_asked_for_and_its_share_of_steps(pocket: Studio) -> None:
    start = StartPicture("kept", "Image to image", 0.9, stretched=True)
    events = played(pocket, of(pocket, width_px=200, height_px=120, start=start))
    one, other = results(events)
    assert one.pixels.shape == other.pixels.shape == (120, 200, 3)
    assert (one.seed, other.seed) == (2**32 - 1, 0)
    assert not np.array_equal(one.pixels, other.pixels)
    # The pocket model is told the square of the share: floor(4 * 0.81).
    assert steps(events)[:3] == [f"Step {step}/3 in the 1-th Sampling" for step in (1, 2, 3)]


def test_image_to_image_stays_near_where_little_is_made_anew(sized: Studio) -> None:
    shown = lanczos(scene(80, 48), SIDE, SIDE)
    near, far = (
        results(
            played(
                sized, of(sized, image_number=1, start=StartPicture("kept", "Image to image", denoise, stretched=True))
            )
        )[0]
        for denoise in (0.25, 1.0)
    )
    distances = [np.abs(image.pixels.astype(int) - shown).mean() for image in (near, far)]
    assert distances[0] < 0.6 * distances[1]


def test_a_second_pass_takes_all_its_steps_at_the_new_size(sized: Studio) -> None:
    second = of(sized, start=TWICE, sampling=Sampling("euler", "karras", 2))
    events = played(sized, of(sized, image_number=1), second)
    [image] = results(events)
    assert image.pixels.shape == (2 * SIDE, 2 * SIDE, 3)
    assert steps(events)[-2:] == ["Step 1/2 in the 1-th Sampling", "Step 2/2 in the 1-th Sampling"]
    assert len(steps(events)) == 4 + 2
    assert image.record is not None
    assert (image.record.upscaler, image.record.width_px, image.seed) == ("Lanczos", 2 * SIDE, 2**32 - 1)
    by_network = replace(TWICE, picture="kept", enlarging=Enlarging("network", factor=1.2))
    [image] = results(played(sized, replace(second, start=by_network, image_number=1)))
    assert image.record is not None
    assert image.record.upscaler == BUNDLED_UPSCALER.name


def test_latents_go_on_without_a_way_over_pixels(sized: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    second = of(sized, start=replace(LATENT, refine=False))
    first = of(sized, image_number=1)
    [direct] = results(played(sized, first, second))
    assert direct.pixels.shape == (2 * SIDE, 2 * SIDE, 3)
    monkeypatch.setattr("fooocus_core.engine.goes_on_with_latents", lambda plan, number: False)
    [encoded] = results(played(sized, first, second))
    assert not np.array_equal(direct.pixels, encoded.pixels)
    assert np.abs(direct.pixels.astype(int) - encoded.pixels).mean() < 16


def test_which_latents_go_on(pocket: Studio) -> None:
    base, second = of(pocket), of(pocket, start=LATENT)
    other_vae = replace(second, models=replace(second.models, vae="other.safetensors"))
    drawn = replace(base, start=StartPicture("kept", "Image to image", 0.5, stretched=True))
    plans = {
        "text to image": ((base, second), True),
        "pixels": ((base, of(pocket, start=TWICE)), False),
        "another autoencoder": ((base, other_vae), False),
        "image to image": ((drawn, second), False),
        "the last": ((base,), False),
        "parts": ((base, Detail(base, 1, 1)), False),
    }
    for name, (stages, expected) in plans.items():
        assert goes_on_with_latents(Plan(stages, only_last_stage=True), 0) is expected, name


def test_enlarged_latents() -> None:
    latents = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    size = Size(48, 32)
    for method in LATENT_MODES:
        larger = enlarged_latents(latents, Enlarging(method, width_px=96, height_px=96), size, 8)
        assert larger.shape == (1, 4, 12, 12)
    nearest = enlarged_latents(latents, Enlarging("latent nearest", factor=2.0), size, 8)
    torch.testing.assert_close(nearest, latents.repeat_interleave(2, 2).repeat_interleave(2, 3))
    cut = enlarged_latents(latents, Enlarging("latent nearest", width_px=64, height_px=64), size, 8)
    torch.testing.assert_close(cut, nearest[:, :, :, 2:10])
    # 53 x 39 pixels are encoded as 6 x 4 cells.
    odd = enlarged_latents(latents, Enlarging("latent", factor=2.0), Size(53, 39), 8)
    assert odd.shape == (1, 4, 10, 13)


def test_a_network_of_the_library_enlarges_by_its_name(pocket: Studio) -> None:
    missing = replace(TWICE, picture="kept", refine=False, enlarging=Enlarging("network", "4x-Nothing.pth", 2.0))
    ending = played(pocket, of(pocket, start=missing))[-1]
    assert isinstance(ending, Failed)
    assert "4x-Nothing.pth" in ending.reason
    bundled = replace(missing, enlarging=Enlarging("network", factor=1.2))
    [image] = results(played(pocket, of(pocket, start=bundled)))
    assert image.pixels.shape == (120, 184, 3)
    assert image.record == EnlargedRecord(184, 120, BUNDLED_UPSCALER.name)
    plain = enlarged_picture(scene(150, 100), Enlarging("lanczos", factor=1.2), lambda picture: picture)
    assert np.abs(image.pixels.astype(int) - plain).mean() < 4


@pytest.mark.parametrize("refine", [True, False])
def test_an_upscaler_that_stands_for_another_is_told(
    sized: Studio, refine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an upload, of a picture of the stage before, and where later stages paint the picture anew."""
    enlarging = Enlarging("network", factor=1.2, stands_for="4x-UltraSharp")
    start = StartPicture("kept", "4x-UltraSharp", 0.3, refine=refine, enlarging=enlarging)
    upload = of(sized, image_number=1, start=start)
    following = replace(upload, start=replace(start, picture=None))
    anew = of(sized, repaint=Repaint(None, engine="None", area=MaskedArea(only_masked=False)))
    parts = Detail(of(sized), 1, 1, passes=(PartsPass(PartSearch("mtcnn")),), only_last=True)
    monkeypatch.setattr("fooocus_core.engine.find_parts", lambda *_: [np.full((56, 96), 255, np.uint8)])
    for stages in ([upload], [of(sized, image_number=1), following], [upload, anew], [upload, parts]):
        [image] = results(played(sized, *stages))
        assert image.record is not None
        text = metadata_text(image.record, "a1111")
        assert f"Upscaler: {BUNDLED_UPSCALER.name}, Upscaler fallback for: 4x-UltraSharp" in text, stages
        assert ("Steps" in text) is (refine or len(stages) > 1)


def test_a_kept_picture_with_nothing_to_do_is_a_result_unchanged(pocket: Studio) -> None:
    [image] = results(played(pocket, Detail(of(pocket), 1, 1, picture="kept", only_last=True)))
    np.testing.assert_array_equal(image.pixels, scene(150, 100))
    assert (image.index, image.seed) == (0, 2**32 - 1)


def test_stages_that_have_nothing_to_follow(pocket: Studio) -> None:
    follower = of(pocket, start=TWICE)
    with pytest.raises(ValueError, match="first stage"):
        Plan((follower,), only_last_stage=True)
    with pytest.raises(ValueError, match="last stage"):
        Plan((of(pocket), follower))
