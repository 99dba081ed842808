"""Enlarging."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fooocus_core.errors import UnsupportedModel
from fooocus_core.library import BUNDLED_UPSCALER
from fooocus_core.models.checkpoint import open_checkpoint
from fooocus_core.models.upscaler import Upscaler, load_upscaler

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundled() -> Upscaler:
    file = open_checkpoint(BUNDLED_UPSCALER)
    return load_upscaler(file.tensors, file.name, device=CPU)


def smooth_picture(height: int, width: int) -> Tensor:
    """Slow waves of colour, ``[1, 3, h, w]`` in [0, 1]."""
    y, x = torch.meshgrid(torch.arange(height) / 9.0, torch.arange(width) / 7.0, indexing="ij")
    return (torch.stack([torch.sin(y + k) * torch.cos(x - k) for k in range(3)])[None] + 1) / 2


@pytest.mark.parametrize("size", [(384, 288), (385, 200), (1152, 896), (96, 96), (40, 30), (7, 500)])
def test_exactly_the_size_asked_for(bundled: Upscaler, size: tuple[int, int]) -> None:
    picture = bundled.enlarge_to(smooth_picture(72, 96), *size)
    assert (picture.shape, picture.dtype) == ((size[1], size[0], 3), np.uint8)


@pytest.mark.parametrize("colour", [(1.0, 0.0, 0.0), (0.1, 0.3, 0.9), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)])
def test_colours_stay(bundled: Upscaler, colour: tuple[float, ...]) -> None:
    flat = torch.tensor(colour)[None, :, None, None].expand(1, 3, 24, 24)
    middle = bundled.enlarge(flat)[0, :, 40:56, 40:56].mean((1, 2))
    assert (middle - torch.tensor(colour)).abs().max() < 0.02


def test_the_picture_stays_the_same_picture(bundled: Upscaler) -> None:
    pixels = functional.interpolate(smooth_picture(32, 48), scale_factor=3, mode="bilinear")
    back = functional.avg_pool2d(bundled.enlarge(pixels), 4)
    assert (back - pixels).abs().mean() < 0.03


def test_tiles_make_no_seams(bundled: Upscaler) -> None:
    pixels = smooth_picture(24, 560)
    whole = bundled._run(pixels).clamp(0, 1)
    assert (bundled.enlarge(pixels) - whole).abs().max() < 0.02


@pytest.mark.parametrize("key", ["body.0.weight", "body.3.weight", "body.34.bias"])
def test_incomplete_upscalers_are_refused(key: str) -> None:
    tensors = dict(open_checkpoint(BUNDLED_UPSCALER).tensors)
    del tensors[key]
    with pytest.raises(UnsupportedModel):
        load_upscaler(tensors, "up.safetensors", device=CPU)


def test_other_networks_are_no_upscalers() -> None:
    with pytest.raises(UnsupportedModel):
        load_upscaler({"model.0.weight": torch.zeros(1)}, "up.bin", device=CPU)


def test_networks_of_other_layouts_are_read_by_spandrel(tmp_path: Path) -> None:
    """ESRGAN as its users publish it, with the weights where training programs put them; another scale than four."""
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    network = RRDBNet(num_filters=8, num_blocks=1, scale=2)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "2x-thin.pth")
    file = open_checkpoint(tmp_path / "2x-thin.pth")
    upscaler = load_upscaler(file.tensors, file.name, device=CPU)
    assert upscaler.scale == 2
    pixels = smooth_picture(15, 20)
    with torch.no_grad():
        torch.testing.assert_close(upscaler.enlarge(pixels), network.eval()(pixels).clamp(0, 1))
