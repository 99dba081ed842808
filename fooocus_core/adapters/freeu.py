"""FreeU (Si et al. 2023), second version: a stronger backbone, weaker low frequencies of the skips.

Specification 03, section 10. diffusers' FreeU is another form: its backbone factor does not follow the picture, and it
picks the pair of factors by level instead of by width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fooocus_core.plan import FreeU

if TYPE_CHECKING:
    from fooocus_core.models.unet import DiffusionNetwork


@contextmanager
def freeu(network: DiffusionNetwork, settings: FreeU) -> Iterator[None]:
    """The network under FreeU inside ``with``, as it was afterwards."""
    pairs = freeu_factors(settings, network.shape.channels[0])
    with ExitStack() as hooks:
        for block, width in _up_blocks(network):
            if width in pairs:
                hooks.callback(block.register_forward_pre_hook(_hook(width, *pairs[width])).remove)
        yield


def freeu_factors(settings: FreeU, model_channels: int) -> dict[int, tuple[float, float]]:
    """Backbone channels of an output block to its factors for backbone and skip; all other blocks take none."""
    return {4 * model_channels: (settings.b1, settings.s1), 2 * model_channels: (settings.b2, settings.s2)}


def freeu_block(hidden: Tensor, skip: Tensor, backbone: float, skips: float) -> tuple[Tensor, Tensor]:
    """What one output block joins: backbone ``[batch, c, h, w]`` and skip ``[batch, d, h, w]``."""
    mean = hidden.mean(1, keepdim=True)
    low, high = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
    factor = (backbone - 1) * (mean - low) / (high - low) + 1
    half = hidden.shape[1] // 2
    return torch.cat([hidden[:, :half] * factor, hidden[:, half:]], 1), _dampened(skip, skips)


def _dampened(skip: Tensor, factor: float) -> Tensor:
    """The 2 x 2 lowest frequencies multiplied by ``factor``; in float32, the transform's own precision."""
    if factor == 1:
        return skip  # the way there and back would round it
    spectrum = torch.fft.fftshift(torch.fft.fft2(skip.float()), dim=(-2, -1))
    row, column = (side // 2 for side in skip.shape[-2:])
    spectrum[..., max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] *= factor
    dampened: Tensor = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real
    return dampened.to(skip.dtype)


def _up_blocks(network: DiffusionNetwork) -> Iterator[tuple[nn.Module, int]]:
    """The residual block of every output block, and how many of its input channels are the backbone's."""
    width = network.shape.channels[-1]
    for level in range(len(network.shape.up_depths)):
        for block in _children(network.unet, f"up_blocks.{level}.resnets"):
            yield block, width
            width = block.get_parameter("conv1.weight").shape[0]


def _children(unet: nn.Module, name: str) -> Iterator[nn.Module]:
    yield from unet.get_submodule(name).children()


def _hook(width: int, backbone: float, skips: float) -> Any:
    def apply(_block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        joined, *others = inputs
        hidden, skip = freeu_block(joined[:, :width], joined[:, width:], backbone, skips)
        return torch.cat([hidden, skip], 1), *others

    return apply
