"""Sizes and the ways to bring a picture to one (specification 01, section 11; 04, section 4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fooocus_core.images.area_classes import fitted_size
from fooocus_core.images.pixels import Picture

LONGEST = 8
"""How many times longer than what is shown of it a picture may be, to be enlarged before it is cut."""

Enlarge = Callable[[Picture], Picture]
"""Four times as large, by a super-resolution network."""


def lanczos(image: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Resize ``[h, w]``, ``[h, w, 3]`` or ``[h, w, 4]`` to exactly this size.

    Two calls: only then is the horizontal pass first in every Pillow. Colours count by their opacity, and both calls
    lie between one multiplication by it and one division.
    """
    if image.shape[:2] == (height_px, width_px):
        return image
    source = Image.fromarray(image)
    if source.mode != "RGBA":
        return np.array(_resized(source, width_px, height_px))
    return np.array(_resized(source.convert("RGBa"), width_px, height_px).convert("RGBA"))


def _resized(source: Image.Image, width_px: int, height_px: int) -> Image.Image:
    wide = source.resize((width_px, source.height), Image.Resampling.LANCZOS)
    return wide.resize((width_px, height_px), Image.Resampling.LANCZOS)


def covering(picture: Picture, width_px: int, height_px: int) -> Picture:
    """Fill the size, keeping the aspect ratio; what is too much is cut off, half on either side."""
    picture = _without_far_ends(picture, width_px, height_px)
    height, width = picture.shape[:2]
    if width_px / height_px > width / height:
        scaled = lanczos(picture, width_px, _proportion(height, width_px, width))
    else:
        scaled = lanczos(picture, _proportion(width, height_px, height), height_px)
    return centred(scaled, width_px, height_px)


def _without_far_ends(picture: Picture, width_px: int, height_px: int) -> Picture:
    """Much too long a picture, cut down in advance: one row of pixels would become gigabytes before the cut."""
    height, width = picture.shape[:2]
    rows = min(height, max(1, LONGEST * width * height_px // width_px))
    columns = min(width, max(1, LONGEST * height * width_px // height_px))
    return centred(picture, columns, rows)


def contained(picture: Picture, width_px: int, height_px: int) -> Picture:
    """Fit into the size, keeping the aspect ratio; the bands left over continue the picture's own edges.

    Both bands have one thickness: what an odd remainder leaves at the bottom or at the right stays black.
    """
    height, width = picture.shape[:2]
    if width_px / height_px < width / height:
        scaled = lanczos(picture, width_px, _proportion(height, width_px, width))
        return _banded(scaled, width_px, height_px)
    scaled = lanczos(picture, _proportion(width, height_px, height), height_px)
    return np.swapaxes(_banded(np.swapaxes(scaled, 0, 1), height_px, width_px), 0, 1)


def _proportion(side: int, target: int, other_side: int) -> int:
    return max(1, side * target // other_side)


def centred(picture: Picture, width_px: int, height_px: int) -> Picture:
    """The middle of a picture that is as large or larger."""
    left, top = picture.shape[1] // 2 - width_px // 2, picture.shape[0] // 2 - height_px // 2
    return picture[top : top + height_px, left : left + width_px]


def _banded(picture: Picture, width_px: int, height_px: int) -> Picture:
    """A picture of this width, or nearly, in the middle of black, with a band above it and one below."""
    canvas = np.zeros((height_px, width_px, 3), np.uint8)
    band = height_px // 2 - picture.shape[0] // 2
    end = band + picture.shape[0]
    canvas[band:end] = picture
    canvas[:band] = _continued(picture[0], picture[min(1, len(picture) - 1)])
    canvas[end : end + band] = _continued(picture[-1], picture[max(-2, -len(picture))])
    return canvas


def _continued(edge: NDArray[np.uint8], neighbour: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The row past an edge, as Pillow's bicubic filter makes it of a box without height."""
    value = (9 * edge.astype(np.int32) - neighbour + 4) // 8
    row: NDArray[np.uint8] = np.clip(value, 0, 255).astype(np.uint8)
    return row


def fitted(picture: Picture, target_class: int) -> Picture:
    """The picture at the size of its shape in an area class."""
    height, width = fitted_size(picture.shape[0], picture.shape[1], target_class)
    return lanczos(picture, width, height)
