"""ESRGAN's network of residual-in-residual dense blocks, in the layout of Fooocus's upscaler (specification 05, 3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fooocus_core.errors import UnsupportedModel

SCALE = 4
RESIDUAL_SHARE = 0.2
SLOPE = 0.2
FIRST, TRUNK = "model.0.weight", "model.1.sub."
MARK = f"{TRUNK}0.residual_block_1.conv1.0.weight"
"""Keys by which the layout is known. The networks' parts are numbered as the file numbers them."""


class _DenseBlock(nn.Module):
    """Five convolutions, each of which sees everything before it."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for index in range(4):
            layers = (_convolution(width + index * growth, growth), nn.LeakyReLU(SLOPE))
            self.add_module(f"conv{index + 1}", nn.Sequential(*layers))
        self.conv5 = nn.Sequential(_convolution(width + 4 * growth, width))

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.children()
        seen = x
        for convolution in inner:
            seen = torch.cat([seen, convolution(seen)], 1)
        added: Tensor = last(seen)
        return x + added * RESIDUAL_SHARE


class _ResidualBlock(nn.Module):
    """Three dense blocks."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for index in range(3):
            self.add_module(f"residual_block_{index + 1}", _DenseBlock(width, growth))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for block in self.children():
            out = block(out)
        return x + out * RESIDUAL_SHARE


class _Trunk(nn.Module):
    """All residual blocks and a convolution, beside a way around them."""

    def __init__(self, width: int, growth: int, blocks: int) -> None:
        super().__init__()
        self.sub = nn.Sequential(*(_ResidualBlock(width, growth) for _ in range(blocks)), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sub(x)
        return x + out


class Esrgan(nn.Module):
    """Pixels ``[batch, 3, h, w]`` in ``[0, 1]`` to ``[batch, 3, 4 h, 4 w]``."""

    def __init__(self, width: int, growth: int, blocks: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            _convolution(3, width),
            _Trunk(width, growth, blocks),
            *_doubling(width),
            *_doubling(width),
            _convolution(width, width),
            nn.LeakyReLU(SLOPE),
            _convolution(width, 3),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        enlarged: Tensor = self.model(pixels)
        return enlarged


def _convolution(width_in: int, width_out: int) -> nn.Module:
    return nn.Conv2d(width_in, width_out, 3, padding=1)


def _doubling(width: int) -> tuple[nn.Module, ...]:
    return nn.UpsamplingNearest2d(scale_factor=2), _convolution(width, width), nn.LeakyReLU(SLOPE)


def empty_esrgan(weights: Mapping[str, Tensor], name: str) -> Esrgan:
    """The network of a file, without its tensors, on the meta device. Raises ``UnsupportedModel`` for another kind."""
    try:
        width = weights[FIRST].shape[0]
        growth = weights[MARK].shape[0]
        blocks = max(int(key.split(".")[3]) for key in weights if key.startswith(TRUNK))
    except (KeyError, ValueError, IndexError) as error:
        raise UnsupportedModel(name, "not an enlargement network of ESRGAN's kind") from error
    with torch.device("meta"):
        return Esrgan(width, growth, blocks)
