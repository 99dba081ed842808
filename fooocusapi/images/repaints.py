"""What is painted anew, for every dialect: a picture, a mask of any size, and sides to grow at (specification 04, 1).

The arithmetic is imported on use, because the server's port must open before it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fooocus_core.request import AskedRepaint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocus_core.plan import Side


@dataclass(frozen=True)
class SentRepaint:
    """What a request brings. ``picture`` and ``mask`` are ``[h, w, 3]`` or ``[h, w, 4]``, of one size or of two."""

    picture: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None = None
    """White repaints; brought to the picture's size. ``None``: all black."""
    sides: tuple[tuple[Side, int | None], ...] = ()
    """As in ``AskedRepaint.outpaint``."""
    erode_or_dilate: int = 0
    """Pixels by which the mask grows, or shrinks below 0; before it is inverted."""
    invert: bool = False


def to_repaint(sent: SentRepaint, keep: Callable[[NDArray[np.uint8]], str]) -> AskedRepaint | None:
    """``sent`` with its picture and its mask kept, and the defaults in all else. Takes its time: not on the event loop.

    ``None``, and nothing kept, where nothing is to be painted anew: no pixel of the mask above the half, and no side.
    ``keep`` is ``HeldPictures.keep``.
    """
    import numpy as np

    from fooocus_core.images.masks import assembled_mask, repaints

    height_px, width_px = sent.picture.shape[:2]
    black = np.zeros((height_px, width_px, 1), np.uint8)
    mask = assembled_mask(black, sent.mask, erode_or_dilate=sent.erode_or_dilate, invert=sent.invert)
    is_masked = repaints(mask)
    if not is_masked and not sent.sides:
        return None
    return AskedRepaint(
        picture=keep(sent.picture),
        width_px=width_px,
        height_px=height_px,
        mask=keep(mask) if is_masked else None,
        outpaint=sent.sides,
    )
