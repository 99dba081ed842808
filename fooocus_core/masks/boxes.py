"""From what the detector says to boxes in the picture (specification 07, section 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fooocus_core.images.pixels import Picture

SHORT_SIDE_PX: Final = 800
LONG_SIDE_PX: Final = 1333


class Detections(NamedTuple):
    """What was found, in the detector's order, which is not that of the scores.

    ``boxes``: float32 ``[n, 4]``, left, top, right and bottom in pixels; ``phrases``: the words that each stands for;
    ``scores``: ``[n]``, how much the surest of its words excites it.
    """

    boxes: NDArray[np.float32]
    phrases: tuple[str, ...]
    scores: NDArray[np.float32]


def caption_of(prompt: str) -> str:
    """A prompt as the detector was taught to read it: in lower case, ended by a full stop."""
    caption = prompt.lower().strip()
    return caption if caption.endswith(".") else f"{caption}."


def detector_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Width and height at which the detector looks at a picture: 800 the shorter side, 1333 the longer at most."""
    short, long = sorted((width_px, height_px))
    wanted = SHORT_SIDE_PX
    if long / short * wanted > LONG_SIDE_PX:
        wanted = round(LONG_SIDE_PX * short / long)
    other = long if short == wanted else wanted * long // short
    return (wanted, other) if width_px < height_px else (other, wanted)


def detections_of(
    scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    size: tuple[int, int],
    *,
    box_threshold: float,
    text_threshold: float,
    words: Callable[[Sequence[int]], str],
) -> Detections:
    """The queries that some place of the text excites by more than ``box_threshold``.

    ``scores``: ``[queries, places]`` in ``[0, 1]``; ``boxes``: ``[queries, 4]``, centre and size as shares of ``size``,
    width and height in pixels. ``words`` gives the text of places; named are those above ``text_threshold``.
    """
    surest = scores.max(axis=1)
    kept = surest > box_threshold
    phrases = (words(np.flatnonzero(row > text_threshold).tolist()) for row in scores[kept])
    return Detections(_corners(boxes[kept], size), tuple(phrases), surest[kept])


def _corners(boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    width, height = size
    centre_x, centre_y, across, down = (boxes * np.array([width, height, width, height], np.float32)).T
    half_x, half_y = across / 2, down / 2
    corners = [centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y]
    return np.stack(corners, axis=1).astype(np.float32)


def grown(boxes: NDArray[np.float32], by_px: float) -> NDArray[np.float32]:
    """Every side moved outwards, inwards below 0; boxes may reach beyond the picture, or turn inside out."""
    return boxes + np.array([-by_px, -by_px, by_px, by_px], np.float32)


def drawn(boxes: NDArray[np.float32], size: tuple[int, int]) -> Picture:
    """The boxes in white on black, ``[h, w, 3]`` of ``size``; one turned inside out shows nothing."""
    picture = Image.new("RGB", size, "black")
    draw = ImageDraw.Draw(picture)
    for left, top, right, bottom in boxes.tolist():
        if left <= right and top <= bottom:
            draw.rectangle((left, top, right, bottom), fill="white")
    return np.array(picture)
