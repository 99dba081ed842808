"""Outpainting: a picture grows at its sides, and the mask covers what is new (specification 04, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from fooocus_core.images.pixels import Mask, Picture

Side = Literal["left", "right", "top", "bottom"]
SHARE = 0.3
"""Of the height or width that is added at a side by default."""


def extended(picture: Picture, mask: Mask, sides: Mapping[Side, int]) -> tuple[Picture, Mask]:
    """Both with more at each of the sides; there the picture's edge is repeated and the mask is 255.

    ``sides`` says how many pixels; 0 and less is three tenths of the height before either, or of the width.
    """
    height, width = mask.shape
    room = (
        (_added("top", sides, height), _added("bottom", sides, height)),
        (_added("left", sides, width), _added("right", sides, width)),
    )
    return np.pad(picture, (*room, (0, 0)), mode="edge"), np.pad(mask, room, constant_values=255)


def _added(side: Side, sides: Mapping[Side, int], length_px: int) -> int:
    if side not in sides:
        return 0
    return sides[side] if sides[side] > 0 else int(SHARE * length_px)
