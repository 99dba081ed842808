"""Outpainting: a picture grows at its sides, and the mask covers what is new (specification 04, section 2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fooocus_core.images.methods import added_px
from fooocus_core.images.pixels import Mask, Picture
from fooocus_core.plan import Side


def extended(picture: Picture, mask: Mask, sides: Mapping[Side, int]) -> tuple[Picture, Mask]:
    """Both with more at each of the sides; there the picture's edge is repeated and the mask is 255.

    ``sides`` says how many pixels; 0 and less is three tenths of the height before either, or of the width.
    """
    height, width = mask.shape
    added = added_px(height, width, sides)
    room = ((added["top"], added["bottom"]), (added["left"], added["right"]))
    return np.pad(picture, (*room, (0, 0)), mode="edge"), np.pad(mask, room, constant_values=255)
