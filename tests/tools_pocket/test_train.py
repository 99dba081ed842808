"""Both training loops run, on almost nothing, to weights that the next step can read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tools.pocket.networks import PocketShape, Vae
from tools.pocket.render_pictures import Picture, PictureSet
from tools.pocket.tokenizer import Vocabulary
from tools.pocket.train_autoencoder import train_autoencoder
from tools.pocket.train_denoiser import DenoiserPlan, random_timesteps, train_denoiser


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_loops_end_in_time_with_finite_weights(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    pixels = np.full((60, 16, 16, 4), 200, np.uint8)
    pictures = tuple(Picture(style, (f"thing {i}",), ()) for i in range(30) for style in ("3d", "flat"))
    picture_set = PictureSet(pixels, pictures)
    picture_set.save(tmp_path / "pictures")
    vocabulary = Vocabulary.learn([name for picture in pictures for name in picture.names], 560)
    vocabulary.save(tmp_path / "vocabulary.json")
    shape = PocketShape(
        vocabulary.size, text_g_width=64, text_g_layers=2, unet_channels=(32, 64, 64), vae_channels=(32, 32, 32, 32)
    )
    vae = Vae(shape)
    train_autoencoder(vae, picture_set, 48, 0.5, tmp_path / "vae.pt")
    torch.save(vae.state_dict(), tmp_path / "vae-finished.pt")
    average = train_denoiser(
        shape, tmp_path, tmp_path / "pictures", DenoiserPlan(48, 1.0, scenes=2), workers=1, start_from=None
    )
    assert all(parameter.isfinite().all() for parameter in average.parameters())


def test_timesteps_cover_the_table() -> None:
    timesteps = random_timesteps(4000)
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert timesteps.float().mean() > 500
