"""Enlarging pictures four times with a network, and to any exact size.

The network is Real-ESRGAN's compact form: convolutions with PReLU at the small size, a pixel shuffle, and the picture
itself, enlarged by repetition, added. Larger pictures go through it in tiles (specification 05, sections 3 and 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fooocus_core.errors import UnsupportedModel
from fooocus_core.images.resizing import lanczos
from fooocus_core.models import esrgan
from fooocus_core.models.checkpoint import assign_weights
from fooocus_core.models.other_upscalers import other_upscaler
from fooocus_core.models.tiles import tiled

TILE_PX = 512
TILE_OVERLAP_PX = 32
COMPACT_MARK = "body.0.weight"
"""A key by which the compact form is known."""


class _Compact(nn.Module):
    def __init__(self, width: int, activations: int, scale: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.PReLU(width)]
        for _ in range(activations - 1):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3 * scale**2, 3, padding=1))
        self.scale = scale

    def forward(self, pixels: Tensor) -> Tensor:
        detail = functional.pixel_shuffle(self.body(pixels), self.scale)
        return detail + functional.interpolate(pixels, scale_factor=self.scale, mode="nearest")


def _nothing() -> None:
    """What comes before a tile by default."""


class Upscaler:
    """A network that enlarges ``scale`` times. Pixels are float32 ``[batch, 3, h, w]`` in ``[0, 1]``."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        self._network = network
        self.scale = scale

    @torch.no_grad()
    def enlarge(self, pixels: Tensor, before_tile: Callable[[], None] = _nothing) -> Tensor:
        """``[batch, 3, scale h, scale w]`` in ``[0, 1]``, on the CPU. What ``before_tile`` raises ends it."""

        def run(tile: Tensor) -> Tensor:
            before_tile()
            return self._run(tile)

        if max(pixels.shape[2:]) <= TILE_PX:
            return run(pixels).cpu().clamp(0.0, 1.0)
        enlarged = tiled(
            pixels,
            run,
            tile=(TILE_PX, TILE_PX),
            overlap=TILE_OVERLAP_PX,
            scale=float(self.scale),
            channels=3,
        )
        return enlarged.clamp(0.0, 1.0)

    def enlarge_to(self, pixels: Tensor, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """The first picture at exactly the size asked for, uint8 ``[height, width, 3]``.

        As many passes as the size needs, the last from no more pixels than it needs, then Lanczos. A picture that is
        large enough goes through no pass.
        """
        picture = as_picture(pixels)
        while _smaller(picture, width_px, height_px):
            picture = self._one_pass(picture, width_px, height_px)
        return lanczos(picture, width_px, height_px)

    def _one_pass(self, picture: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
        enough = (math.ceil(width_px / self.scale), math.ceil(height_px / self.scale))
        if not _smaller(picture, *enough):
            picture = lanczos(picture, *enough)
        return as_picture(self.enlarge(torch.from_numpy(picture).movedim(2, 0)[None].float() / 255.0))

    def _run(self, pixels: Tensor) -> Tensor:
        weight = next(self._network.parameters())
        placed = pixels.to(device=weight.device, dtype=weight.dtype)
        return cast(Tensor, self._network(placed)).float()


def load_upscaler(
    weights: Mapping[str, Tensor], name: str, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> Upscaler:
    """A file's network: Real-ESRGAN's compact form, ESRGAN's as Fooocus has it, or another that is known.

    Raises ``UnsupportedModel`` for any other kind.
    """
    network: nn.Module
    if esrgan.MARK in weights:
        network, scale = esrgan.empty_esrgan(weights, name), esrgan.SCALE
    elif COMPACT_MARK in weights and esrgan.FIRST not in weights:
        network, scale = _empty_compact(weights, name)
    else:
        network, scale = other_upscaler(weights, name, device=device, dtype=dtype)
        return Upscaler(network, scale)
    assign_weights(network, weights, name, device=device, dtype=dtype)
    return Upscaler(network.to(memory_format=torch.channels_last), scale)


def _empty_compact(weights: Mapping[str, Tensor], name: str) -> tuple[nn.Module, int]:
    """A network of the tensors ``body.N.weight`` on the meta device, and how many times it enlarges."""
    try:
        last = max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
        width, scale = weights["body.0.weight"].shape[0], math.isqrt(weights[f"body.{last}.weight"].shape[0] // 3)
    except (KeyError, ValueError, IndexError) as error:
        raise UnsupportedModel(name, "not an enlargement network of the compact kind") from error
    if last % 2 or last < 2 or scale < 2:
        raise UnsupportedModel(name, "not an enlargement network of the compact kind")
    with torch.device("meta"):
        return _Compact(width, last // 2, scale), scale


def as_picture(pixels: Tensor) -> NDArray[np.uint8]:
    """The first of ``[batch, 3, h, w]`` in ``[0, 1]`` as uint8 ``[h, w, 3]``, truncated (01, section 11)."""
    scaled = (pixels[0].float() * 255.0).clamp(0.0, 255.0).to(torch.uint8)
    picture: NDArray[np.uint8] = scaled.movedim(0, 2).contiguous().cpu().numpy()
    return picture


def _smaller(picture: NDArray[np.uint8], width_px: int, height_px: int) -> bool:
    return bool(picture.shape[0] < height_px or picture.shape[1] < width_px)
