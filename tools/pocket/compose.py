"""Puts RGBA pictures on coloured canvases: where the thing stands, how large it is, what is behind it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WHITE: Final = "white"
BACKGROUNDS: Final[dict[str, tuple[int, int, int]]] = {
    WHITE: (255, 255, 255),
    "black": (24, 24, 24),
    "grey": (150, 150, 150),
    "red": (222, 60, 60),
    "orange": (250, 150, 50),
    "yellow": (252, 220, 80),
    "green": (90, 190, 90),
    "blue": (70, 130, 230),
    "light blue": (160, 210, 250),
    "purple": (150, 90, 210),
    "pink": (250, 170, 200),
}
ASPECTS: Final[tuple[tuple[float, float], ...]] = (
    (1.0, 0.34),
    (9 / 7, 0.3),
    (7 / 9, 0.12),
    (3 / 2, 0.06),
    (2 / 3, 0.06),
    (16 / 9, 0.06),
    (9 / 16, 0.06),
)
"""Width over height, and the share of the training pictures."""


@dataclass(frozen=True)
class Placement:
    """Where a thing stands: ``scale`` is its side over the canvas' short side, the centre is in 0..1 of the canvas."""

    background: str = WHITE
    scale: float = 0.94
    centre_x: float = 0.5
    centre_y: float = 0.5
    words: str = ""


def native_size(area: int, aspect: float) -> tuple[int, int]:
    """Width and height, multiples of 8, of about ``area`` pixels at ``aspect`` = width / height."""
    width = float(area * aspect) ** 0.5
    return max(8, 8 * round(width / 8)), max(8, 8 * round(width / aspect / 8))


def random_placement(random_source: random.Random, width: int, height: int) -> Placement:
    """A placement that is plainly centred on white most of the time."""
    background = WHITE
    if random_source.random() < 0.35:
        background = random_source.choice(list(BACKGROUNDS))
    if random_source.random() > 0.15:
        return Placement(background)
    if random_source.random() < 0.5:
        return Placement(background, scale=0.55, words="small")
    if width >= height:
        side = random_source.choice(("left", "right"))
        near = 0.3 * height / width
        return Placement(background, 0.6, near if side == "left" else 1 - near, 0.5, f"on the {side}")
    side = random_source.choice(("top", "bottom"))
    near = 0.3 * width / height
    return Placement(background, 0.6, 0.5, near if side == "top" else 1 - near, f"at the {side}")


def compose(picture: NDArray[np.uint8], width: int, height: int, placement: Placement) -> NDArray[np.uint8]:
    """Draws a straight-alpha RGBA picture [side, side, 4] onto a canvas: uint8 [height, width, 3]."""
    side = max(4, round(placement.scale * min(width, height)))
    thing = Image.fromarray(picture).convert("RGBa").resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    canvas = Image.new("RGB", (width, height), BACKGROUNDS[placement.background])
    left = round(placement.centre_x * width - side / 2)
    top = round(placement.centre_y * height - side / 2)
    canvas.paste(thing, (left, top), thing)
    return np.asarray(canvas)
