"""Latents of pictures, with the pocket model's autoencoder."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fooocus_core.images.repaint import CutOut, at_diffusion_size, cut_out
from fooocus_core.library import POCKET_FOLDER
from fooocus_core.models.autoencoder import Autoencoder, load_autoencoder
from fooocus_core.models.checkpoint import VAE_PREFIX, open_checkpoint
from fooocus_core.models.device import Placement
from fooocus_core.models.loaded import load_bundled_upscaler
from fooocus_core.stages.picture_latents import (
    as_pixels,
    encoded,
    encoded_in_tiles,
    encoding_noise,
    enlarging,
    latent_mask,
    repaint_latents,
)

CPU = torch.device("cpu")
Bytes = NDArray[np.uint8]


@cache
def autoencoder() -> Autoencoder:
    file = open_checkpoint(POCKET_FOLDER / "pocket.safetensors")
    return load_autoencoder(file.under(VAE_PREFIX), file.name, device=CPU, dtype=torch.float32)


def disc(height: int, width: int) -> Bytes:
    """A smooth blue disc on white."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2, columns - width / 2)
    share = np.clip((distance - min(height, width) / 4) / 4 + 0.5, 0, 1)[..., None]
    picture: Bytes = (share * 255 + (1 - share) * np.array([40, 90, 220])).astype(np.uint8)
    return picture


def test_a_picture_comes_back_from_its_latents() -> None:
    picture = disc(96, 64)
    latents = encoded(picture, autoencoder(), encoding_noise(1))
    assert latents.shape == (1, 4, 12, 8)
    assert (autoencoder().decode(latents) - as_pixels(picture)).abs().mean() < 0.03


def test_sides_off_the_grid_lose_their_remainder_in_the_middle() -> None:
    picture = disc(101, 77)
    latents = encoded(picture, autoencoder(), encoding_noise(1))
    assert torch.equal(latents, encoded(picture[2:98, 2:74], autoencoder(), encoding_noise(1)))


def test_the_noise_is_that_of_the_global_generator() -> None:
    picture = disc(64, 64)
    torch.manual_seed(5)
    expected = autoencoder().encode(as_pixels(picture))
    assert torch.equal(encoded(picture, autoencoder(), encoding_noise(5)), expected)
    assert torch.equal(encoded(picture, autoencoder(), encoding_noise(5 + 2**32)), expected)
    assert not torch.equal(encoded(picture, autoencoder(), encoding_noise(6)), expected)


def test_encoding_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    encoded(disc(64, 64), autoencoder(), encoding_noise(3))
    encoded_in_tiles(disc(64, 64), autoencoder(), encoding_noise(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_tiles_give_nearly_the_latents_of_the_whole() -> None:
    picture = disc(64, 96)
    whole, tiles = (make(picture, autoencoder(), encoding_noise(1)) for make in (encoded, encoded_in_tiles))
    assert tiles.shape == whole.shape
    assert (tiles - whole).abs().mean() < 0.1 * whole.std()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 8), (20, 31), (63, 95)])
def test_one_masked_pixel_marks_its_cell_alone(row: int, column: int) -> None:
    mask = torch.zeros(1, 1, 64, 96)
    mask[..., row, column] = 1.0
    cells = latent_mask(mask, torch.zeros(1, 4, 8, 12), 8)
    assert cells.shape == (1, 1, 8, 12)
    assert cells.nonzero()[:, 2:].tolist() == [[row // 8, column // 8]]


def repainting() -> CutOut:
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 24:72] = 255
    return cut_out(disc(64, 96), mask, 1.0, at_diffusion_size(lambda picture: picture, 128), fill=True)


def test_latents_of_a_repainting() -> None:
    repaint = repainting()
    made = repaint_latents(repaint, autoencoder(), encoding_noise(2))
    height, width = (side // 8 for side in repaint.mask.shape)
    assert made.masked.shape == made.fill.shape == (1, 4, height, width)
    assert made.mask.shape == (1, 1, height, width)
    assert made.swapped_fill is None
    gray = autoencoder().decode(made.masked)[:, :, repaint.mask == 255]
    assert (gray.median() - 0.5).abs() < 0.1


def test_encodings_of_a_repainting_draw_in_their_order() -> None:
    repaint, draw = repainting(), encoding_noise(2)
    made = repaint_latents(repaint, autoencoder(), encoding_noise(2), autoencoder())
    draw(made.masked.shape)
    assert made.swapped_fill is not None
    assert torch.equal(made.swapped_fill, encoded(repaint.fill, autoencoder(), draw))
    assert torch.equal(made.fill, encoded(repaint.fill, autoencoder(), draw))


def test_the_bundled_network_enlarges_pictures() -> None:
    enlarge = enlarging(load_bundled_upscaler(Placement(CPU, torch.float32, torch.float32)))
    picture = disc(24, 32)
    larger = enlarge(picture)
    assert larger.shape == (96, 128, 3)
    assert np.abs(larger.reshape(24, 4, 32, 4, 3).mean(axis=(1, 3)) - picture).mean() < 4
