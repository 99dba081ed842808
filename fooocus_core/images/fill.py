"""A first guess for a hole: its surroundings, blurred into it from coarse to fine (specification 04, section 5)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter

from fooocus_core.images.masks import HALF
from fooocus_core.images.pixels import Mask, Picture

ROUNDS = ((512, 2), (256, 2), (128, 4), (64, 4), (33, 8), (15, 8), (5, 16), (3, 16))
"""Blur radius in pixels, and how often."""


def box_blurred(picture: Picture, radius_px: int) -> Picture:
    """Every pixel the mean of the square around it."""
    return np.array(Image.fromarray(picture).filter(ImageFilter.BoxBlur(radius_px)))


def filled(picture: Picture, mask: Mask) -> Picture:
    """The picture with its masked part blurred out of the rest; what is not masked stays to the last bit."""
    known = (mask < HALF)[:, :, None]
    guess = picture
    for radius in _radii():
        guess = np.where(known, picture, box_blurred(guess, radius))
    return guess


def _radii() -> Iterator[int]:
    for radius, times in ROUNDS:
        yield from [radius] * times
