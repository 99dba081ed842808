"""Repainting and outpainting in whole pictures: with the pocket model, and with a thin copy of SDXL and its engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from fooocus_core.errors import MissingPicture
from fooocus_core.events import Cancelled, Failed, Finished, ImageFinished, Progress
from fooocus_core.images.masks import soft_mask
from fooocus_core.models.checkpoint import UNET_PREFIX
from fooocus_core.models.loaded import INPAINT_HEAD_FILE, INPAINT_PATCH_FILES
from fooocus_core.models.unet import DiffusionNetwork
from fooocus_core.plan import InpaintEngine, Lora, Output, Plan, Repaint, Sampling
from fooocus_core.stages import repainting
from tests.fooocus_core.stages.rendering import Studio, assert_alike_together, assert_same_together
from tests.fooocus_core.stages.test_refiners import is_shallow
from tools.synthetic import BASE, thin_checkpoint

WIDTH, HEIGHT = 160, 120
STEPS = 4


def scene() -> NDArray[np.uint8]:
    """A slope of colours with a bright disc."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    slope = np.stack([rows, 40 + columns, np.full((HEIGHT, WIDTH), 120)], 2)
    inside = (rows - 60) ** 2 + (columns - 80) ** 2 < 900
    return np.where(inside[..., None], [230, 40, 30], slope).astype(np.uint8)


def box_mask() -> NDArray[np.uint8]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[40:80, 60:100] = 255
    return mask


KEPT = {"scene": scene(), "mask": box_mask(), "white": np.full((HEIGHT, WIDTH), 255, np.uint8)}
INSIDE = Repaint("scene", "mask", respective_field=1.0)


def kept(name: str) -> NDArray[np.uint8]:
    if name not in KEPT:
        raise MissingPicture
    return KEPT[name]


def plan(studio: Studio, repaint: Repaint | None, **fields: Any) -> Plan:
    [stage] = studio.plan("a green pear").stages
    sampling = Sampling("euler", "karras", STEPS)
    changed = {"repaint": repaint, "sampling": sampling, "width_px": WIDTH, "height_px": HEIGHT, **fields}
    return Plan((replace(stage, **changed),), Output(preview=False))


def pixels(studio: Studio, repaint: Repaint, **fields: Any) -> NDArray[np.uint8]:
    return studio.finished(plan(studio, repaint, **fields)).pixels


# --- with the pocket model ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    studio = Studio(tmp_path_factory.mktemp("models"))
    studio.engine.pictures = kept
    return studio


def test_what_is_not_masked_stays_to_the_last_bit(pocket: Studio) -> None:
    for field in (0.0, 1.0):
        result = pixels(pocket, replace(INSIDE, respective_field=field))
        soft = soft_mask(box_mask())
        assert result.shape == scene().shape
        np.testing.assert_array_equal(result[soft == 0], scene()[soft == 0])
        changed = np.abs(result[soft == 255].astype(int) - scene()[soft == 255])
        assert changed.mean() > 10


@pytest.mark.parametrize("sampler", ["euler", "uni_pc"])
def test_several_painted_together_are_those_painted_alone(pocket: Studio, sampler: str) -> None:
    assert_alike_together(pocket, plan(pocket, INSIDE, sampling=Sampling(sampler, "karras", STEPS)))


def test_an_outpainting_keeps_the_picture_inside_its_frame(pocket: Studio) -> None:
    sides = (("left", 48), ("bottom", 40))
    result = pixels(pocket, Repaint("scene", outpaint=sides))
    assert result.shape == (HEIGHT + 40, WIDTH + 48, 3)
    np.testing.assert_array_equal(result[: HEIGHT - 32, 48 + 32 :], scene()[:-32, 32:])
    edges = np.pad(scene(), ((0, 40), (48, 0), (0, 0)), mode="edge")
    assert np.abs(result[:, :40].astype(int) - edges[:, :40]).mean() > 5


def test_pictures_of_one_request_differ_by_their_seeds_alone(pocket: Studio) -> None:
    *_, first, _, second, _ = [
        event
        for event in pocket.engine.run(plan(pocket, INSIDE, image_number=2), lambda: False)
        if isinstance(event, (ImageFinished, Finished)) or "Saving" in getattr(event, "text", "")
    ]
    assert (first.seed, second.seed) == (7, 8)
    assert not np.array_equal(first.pixels, second.pixels)


def test_a_weak_repainting_changes_less(pocket: Studio) -> None:
    """Without a fill, from the picture itself; at strength 0 only the autoencoder has touched it."""
    inside = box_mask() == 255
    nothing, weak, strong = (
        np.abs(pixels(pocket, replace(INSIDE, denoise=share))[inside].astype(int) - scene()[inside]).mean()
        for share in (0.0, 0.3, 0.9)
    )
    assert nothing <= weak < strong


def test_the_initial_latent_can_be_left_out(pocket: Studio) -> None:
    repaint = replace(INSIDE, denoise=0.6)
    without = pixels(pocket, replace(repaint, use_initial_latent=False))
    assert not np.array_equal(pixels(pocket, repaint), without)
    np.testing.assert_array_equal(without[:8], scene()[:8])


def test_all_of_a_picture_can_be_repainted(pocket: Studio) -> None:
    result = pixels(pocket, Repaint("scene", "white"))
    assert result.shape == scene().shape
    assert np.abs(result.astype(int) - scene()).mean() > 10


def test_preparing_alone_shows_fill_mask_and_cut_out(pocket: Studio) -> None:
    asked = plan(pocket, replace(INSIDE, only_prepare=True), image_number=2)
    events = list(pocket.engine.run(asked, lambda: False))
    fill, mask, picture = (event.pixels for event in events if isinstance(event, ImageFinished))
    assert isinstance(events[-1], Finished)
    assert fill.shape == mask.shape == picture.shape
    masked = mask[:, :, 0] == 255
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(fill[~masked], picture[~masked])
    assert (fill[masked] != picture[masked]).any()


def test_a_picture_or_a_mask_that_is_gone_fails_the_job(pocket: Studio) -> None:
    for repaint in (replace(INSIDE, picture="gone"), replace(INSIDE, mask="gone")):
        assert "not there any more" in pocket.failure(plan(pocket, repaint))


# --- engines ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes as if the area class of diffusion were an eighth."""
    monkeypatch.setattr(repainting, "DIFFUSION_CLASS", 128)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A thin copy of SDXL's base with random files of two engines, and one whose patch changes nothing."""
    root = tmp_path_factory.mktemp("models")
    for folder in ("checkpoints", "inpaint", "loras"):
        (root / folder).mkdir()
    base = thin_checkpoint(BASE, keep=is_shallow)
    save_file(base, root / "checkpoints" / "base.safetensors")
    channels = base[f"{UNET_PREFIX}input_blocks.0.0.weight"].shape[0]
    generator = torch.Generator().manual_seed(3)
    torch.save(
        {"head": 0.05 * torch.randn(channels, 5, 3, 3, generator=generator)}, root / "inpaint" / INPAINT_HEAD_FILE
    )
    torch.save(dict(patch(base, generator, 0.02)), root / "inpaint" / INPAINT_PATCH_FILES["v2.6"])
    torch.save(dict(patch(base, generator, 0.0)), root / "inpaint" / INPAINT_PATCH_FILES["v1"])
    save_file({"lora_unet_out_2.diff": 0.5 * base[f"{UNET_PREFIX}out.2.weight"]}, root / "loras" / "half.safetensors")
    studio = Studio(root, "base.safetensors", side_px=64)
    studio.engine.pictures = kept
    return studio


def patch(
    base: dict[str, Tensor], generator: torch.Generator, most: float
) -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
    for key, weight in base.items():
        if key.startswith(UNET_PREFIX) and key.endswith(".weight") and weight.ndim > 1:
            values = torch.randint(0, 256, weight.shape, dtype=torch.uint8, generator=generator)
            name = "diffusion_model." + key.removeprefix(UNET_PREFIX)
            yield name, (values, torch.tensor(-most), torch.tensor(most))


def engine(name: InpaintEngine) -> Repaint:
    return replace(INSIDE, engine=name)


@pytest.mark.usefixtures("small_class")
def test_an_engine_changes_the_picture_and_leaves_no_trace(sdxl: Studio) -> None:
    text = sdxl.finished(plan(sdxl, None, width_px=64, height_px=64)).pixels
    plain, patched = (pixels(sdxl, engine(name)) for name in ("None", "v2.6"))
    assert not np.array_equal(plain, patched)
    np.testing.assert_array_equal(patched[:8], scene()[:8])
    np.testing.assert_array_equal(pixels(sdxl, engine("None")), plain)
    np.testing.assert_array_equal(pixels(sdxl, engine("v2.6")), patched)
    np.testing.assert_array_equal(sdxl.finished(plan(sdxl, None, width_px=64, height_px=64)).pixels, text)


@pytest.mark.usefixtures("small_class")
def test_the_last_steps_are_the_plain_networks(sdxl: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's weights up to the step of the hand-over, its own after it (specification 04, section 7)."""
    used: list[int] = []
    answer = DiffusionNetwork.__call__

    def noted(network: DiffusionNetwork, *given: Any) -> Tensor:
        used.append(network.unet.get_parameter("conv_out.weight").data_ptr())
        return answer(network, *given)

    monkeypatch.setattr(DiffusionNetwork, "__call__", noted)
    pixels(sdxl, engine("v2.6"), switch_step=1)
    patched, plain = used[0], used[-1]
    assert patched != plain
    assert used == [patched, patched, plain, plain]


@pytest.mark.usefixtures("small_class")
@pytest.mark.parametrize("switch_step", [1, STEPS])
def test_pictures_painted_together_are_those_painted_alone(sdxl: Studio, switch_step: int) -> None:
    """With an engine's patch and head, and through the hand-over to the same network without them."""
    assert_same_together(sdxl, plan(sdxl, engine("v2.6"), switch_step=switch_step))


@pytest.mark.usefixtures("small_class")
def test_the_head_alone_changes_the_picture(sdxl: Studio) -> None:
    """The patch of this engine is nothing but zeros."""
    assert not np.array_equal(pixels(sdxl, engine("v1")), pixels(sdxl, engine("None")))


@pytest.mark.usefixtures("small_class")
def test_the_resolution_told_is_that_of_the_cut_out(sdxl: Studio) -> None:
    record = sdxl.finished(plan(sdxl, engine("None"))).record
    assert record is not None
    assert (record.width_px, record.height_px) == (128, 64)


@pytest.mark.usefixtures("small_class")
def test_a_stopped_repainting_leaves_the_weights_as_they_were(sdxl: Studio) -> None:
    before = pixels(sdxl, engine("None"))
    steps: list[str] = []
    for event in sdxl.engine.run(plan(sdxl, engine("v2.6")), lambda: bool(steps)):
        if isinstance(event, Progress) and event.text.startswith("Step"):
            steps.append(event.text)
    assert isinstance(event, Cancelled)
    assert len(steps) == 1
    np.testing.assert_array_equal(pixels(sdxl, engine("None")), before)


def test_the_patch_lies_over_the_loras_and_the_weights_below_stay(sdxl: Studio) -> None:
    store = sdxl.engine.models
    [stage] = plan(sdxl, None).stages
    loras = [Lora("half.safetensors", 1.0)]
    name = "conv_out.weight"
    weight = store.load(stage.models).network.unet.get_parameter(name).clone()
    halved = store.load(stage.models, loras).network.unet.get_parameter(name).clone()
    network = store.inpaint_network(stage.models, loras, "v2.6")
    parameter = store.load(stage.models, loras).network.unet.get_parameter(name)
    torch.testing.assert_close(halved, weight * 1.5)
    torch.testing.assert_close(parameter, halved, rtol=0, atol=0)
    network.patch.put_on()
    added = parameter - halved
    assert 0.015 < added.abs().max().item() <= 0.0201
    network.patch.take_off()
    torch.testing.assert_close(parameter, halved, rtol=0, atol=0)
    assert store.inpaint_network(stage.models, loras, "v2.6") is network
    assert store.inpaint_network(stage.models, [], "v2.6") is not network


def test_an_engine_whose_files_are_missing_is_named(sdxl: Studio, tmp_path: Path) -> None:
    reason = sdxl.failure(plan(sdxl, engine("v2.5")))
    assert "inpaint_v25.fooocus.patch" in reason
    assert "inpaint engine v2.5" in reason
    assert "main.py download" in reason
    (tmp_path / "inpaint").mkdir()
    (tmp_path / "checkpoints").symlink_to(sdxl.root / "checkpoints")
    studio = Studio(tmp_path, "base.safetensors", side_px=64)
    studio.engine.pictures = kept
    head, content = tmp_path / "inpaint" / INPAINT_HEAD_FILE, tmp_path / "inpaint" / INPAINT_PATCH_FILES["v1"]
    torch.save({"head": torch.zeros(32, 5, 3, 3)}, head)
    torch.save({"a": torch.zeros(1)}, content)
    assert content.name in studio.failure(plan(studio, engine("v1")))
    for weight in (torch.zeros(3), torch.zeros(16, 5, 3, 3)):
        torch.save({"head": weight}, head)
        assert head.name in studio.failure(plan(studio, engine("v1")))


def test_a_foreign_model_needs_no_engine(pocket: Studio) -> None:
    ending = list(pocket.engine.run(plan(pocket, engine("v2.5")), lambda: False))[-1]
    assert not isinstance(ending, Failed)
