"""Pictures as arrays of bytes, and the way to numbers in ``[0, 1]`` and back (specification 01, section 11)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""Bytes ``[height, width, 3]``, RGB."""

Mask = NDArray[np.uint8]
"""Bytes ``[height, width]``; 255 repaints, 0 keeps."""


def to_rgb(image: NDArray[np.uint8]) -> Picture:
    """Gray ``[h, w]`` or ``[h, w, 1]``, RGB or RGBA as RGB; what is transparent shows white.

    Raises ``ValueError`` for another number of channels.
    """
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if channels == 3:
        return image
    if channels == 4:
        return _over_white(image)
    raise ValueError(f"a picture has 1, 3 or 4 channels, not {channels}")


def _over_white(image: NDArray[np.uint8]) -> Picture:
    colour = image[:, :, :3].astype(np.float32)
    alpha = image[:, :, 3:].astype(np.float32) / 255.0
    return _truncated(colour * alpha + 255.0 * (1.0 - alpha))


def mixed(front: Picture, back: Picture, share: Mask) -> Picture:
    """``front`` where ``share`` is 255, ``back`` to the last bit where it is 0, and in between a mixture."""
    weight = share[:, :, None].astype(np.float32) / 255.0
    return _truncated(front.astype(np.float32) * weight + back.astype(np.float32) * (1.0 - weight))


def as_floats(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``[h, w, c]`` as ``[1, h, w, c]`` in ``[0, 1]``."""
    return picture[None].astype(np.float32) / 255.0


def as_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values of any shape, clipped to ``[0, 1]``, as bytes. Truncated, as the reference does: 0.999 becomes 254."""
    return _truncated(255.0 * values)


def _truncated(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(values, 0.0, 255.0).astype(np.uint8)
