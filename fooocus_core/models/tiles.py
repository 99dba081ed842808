"""Running a network over overlapping tiles whose seams are feathered (specification 05, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Tile = tuple[int, int]
"""Width and height of a tile, in the source's cells."""


def tiled(
    source: Tensor, function: Callable[[Tensor], Tensor], *, tile: Tile, overlap: int, scale: float, channels: int
) -> Tensor:
    """``function`` of ``[batch, c, H, W]``, tile by tile: ``[batch, channels, H scale, W scale]``, float32 on the CPU.

    ``overlap`` is in source cells. All four sides of every tile are feathered, those at the border too.
    """
    return torch.cat([_tiled_one(item[None], function, tile, overlap, scale, channels) for item in source])


def _tiled_one(
    source: Tensor, function: Callable[[Tensor], Tensor], tile: Tile, overlap: int, scale: float, channels: int
) -> Tensor:
    height, width = (round(side * scale) for side in source.shape[2:])
    total = torch.zeros(1, channels, height, width)
    weights = torch.zeros(1, 1, height, width)
    feather = round(overlap * scale)
    for y, x in _corners(source, tile, overlap):
        output = function(source[:, :, y : y + tile[1], x : x + tile[0]]).float().cpu()
        mask = _ramp(output.shape[2], feather)[:, None] * _ramp(output.shape[3], feather)
        rows = slice(round(y * scale), round((y + tile[1]) * scale))
        columns = slice(round(x * scale), round((x + tile[0]) * scale))
        total[:, :, rows, columns] += output * mask
        weights[:, :, rows, columns] += mask
    return total / weights


def _corners(source: Tensor, tile: Tile, overlap: int) -> Iterator[tuple[int, int]]:
    for y in range(0, source.shape[2], tile[1] - overlap):
        for x in range(0, source.shape[3], tile[0] - overlap):
            yield y, x


def _ramp(length: int, feather: int) -> Tensor:
    """Weights along one side, rising and falling over ``feather`` cells.

    A side shorter than the feather follows the reference's slices: their starts go negative and wrap around.
    """
    ramp = torch.ones(length)
    for t in range(feather):
        ramp[t : t + 1] *= (t + 1) / feather
        ramp[length - 1 - t : length - t] *= (t + 1) / feather
    return ramp
