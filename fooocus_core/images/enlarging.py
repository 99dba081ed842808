"""Pictures brought to a size by means of choice (TAMS contract, sections 13.1 and 13.5)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fooocus_core.images.pixels import Picture
from fooocus_core.images.resizing import Enlarge, centred, lanczos
from fooocus_core.plan import Enlarging
from fooocus_core.presets.sizes import GRID_PX, Size


def enlarged_size(size: Size, asked: Enlarging) -> Size:
    """The size of what a picture of ``size`` becomes. Raises ``ValueError`` where nothing is asked for."""
    if asked.factor:
        return Size(_on_grid(size.width_px * asked.factor), _on_grid(size.height_px * asked.factor))
    width, height = asked.width_px, asked.height_px
    if width is None and height is None:
        raise ValueError("neither a factor nor a side is asked for")
    return Size(
        width or _on_grid(size.width_px * (height or 0) / size.height_px),
        height or _on_grid(size.height_px * (width or 0) / size.width_px),
    )


def covering_size(size: Size, asked: Enlarging) -> Size:
    """The size before the cut: as ``enlarged_size``, but where both sides are asked for, all of the picture."""
    result = enlarged_size(size, asked)
    if asked.factor or asked.width_px is None or asked.height_px is None:
        return result
    stretch = max(result.width_px / size.width_px, result.height_px / size.height_px)
    return Size(
        max(result.width_px, round(size.width_px * stretch)), max(result.height_px, round(size.height_px * stretch))
    )


def _on_grid(length_px: float) -> int:
    """The nearest multiple of 8; halves go up."""
    return max(1, math.floor(length_px / GRID_PX + 0.5)) * GRID_PX


def enlarged_picture(picture: Picture, asked: Enlarging, enlarge: Enlarge) -> Picture:
    """The picture at its new size. ``enlarge`` is asked where a network is to do it, as often as the size needs."""
    height, width = picture.shape[:2]
    size = Size(width, height)
    covering, result = covering_size(size, asked), enlarged_size(size, asked)
    if asked.method == "nearest":
        scaled = _nearest(picture, covering)
    elif asked.method == "lanczos":
        scaled = lanczos(picture, *covering)
    else:
        while picture.shape[1] < covering.width_px or picture.shape[0] < covering.height_px:
            picture = enlarge(picture)
        scaled = lanczos(picture, *covering)
    return centred(scaled, *result)


def _nearest(picture: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
