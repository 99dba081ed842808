"""Photographs that come with scikit-image, and by hand around what stands out in them.

``coffee`` is in the public domain (CC0), ``astronaut`` by NASA and in the public domain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data

from fooocus_core.images.pixels import Picture

CUP_AND_SAUCER = (
    *((180, 71), (150, 85), (118, 110), (92, 145), (79, 185), (77, 220), (84, 260), (100, 295), (125, 328), (160, 356)),
    *((200, 374), (250, 387), (300, 388), (350, 379), (400, 358), (440, 325), (465, 285), (478, 240), (478, 205)),
    *((468, 170), (448, 140), (428, 118), (417, 108), (424, 76), (416, 68), (398, 68), (396, 64), (385, 50), (360, 33)),
    *((330, 22), (290, 18), (250, 22), (215, 36), (193, 54)),
)
ASTRONAUT_AND_HELMET = (
    *((155, 66), (170, 45), (192, 30), (224, 16), (256, 22), (282, 40), (298, 68), (300, 95), (285, 120), (268, 132)),
    *((258, 150), (255, 172), (285, 200), (302, 232), (320, 240), (340, 260), (350, 290), (362, 345), (385, 344)),
    *((415, 346), (450, 364), (475, 392), (490, 425), (500, 455), (511, 480), (511, 511), (30, 511), (26, 470)),
    *((20, 420), (24, 380), (30, 330), (40, 290), (55, 255), (80, 232), (112, 210), (118, 185), (135, 160), (160, 148)),
    *((184, 148), (182, 130), (165, 118), (154, 95)),
)


def coffee() -> tuple[Picture, NDArray[np.bool_]]:
    """A cup on its saucer, and where they are."""
    return _with_outline(data.coffee(), CUP_AND_SAUCER)


def astronaut() -> tuple[Picture, NDArray[np.bool_]]:
    """A woman with a helmet before her, and where both are."""
    return _with_outline(data.astronaut(), ASTRONAUT_AND_HELMET)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def _with_outline(picture: Picture, points: tuple[tuple[int, int], ...]) -> tuple[Picture, NDArray[np.bool_]]:
    outline = Image.new("L", (picture.shape[1], picture.shape[0]))
    ImageDraw.Draw(outline).polygon(list(points), fill=255)
    return picture, np.asarray(outline) > 0
