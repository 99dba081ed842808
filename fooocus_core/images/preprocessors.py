"""Control pictures: edges over a pyramid of sizes, and structure out of colour (specification 06, section 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fooocus_core.images.pixels import Mask, Picture

PYRAMID = tuple(tenths / 10 for tenths in range(2, 11))
"""Shares of the full size, from coarse to fine."""
COARSE_SHARE = np.float32(0.75)
"""What the coarser sizes together weigh beside the next one."""
CANNY_LOW, CANNY_HIGH = 64, 128
CANNY_PERCENTILES = (1.0, 99.0)
CPDS_SIGMA = 0.8
CPDS_PERCENTILES = (4.0, 96.0)


def pyramid_canny(picture: Picture, low: int = CANNY_LOW, high: int = CANNY_HIGH) -> Mask:
    """Edges ``[h, w]`` of a picture of at least 5 pixels a side; ``low`` and ``high`` are Canny's thresholds."""
    import cv2  # here, as in all of this package: its import takes longer than most of what is done with it

    height, width = picture.shape[:2]
    coarsest, *finer = [(int(width * share), int(height * share)) for share in PYRAMID]
    edges = _edges_at(picture, coarsest, low, high)
    for size in finer:
        coarse = np.asarray(cv2.resize(edges, size, interpolation=cv2.INTER_LINEAR), np.float32)
        edges = coarse * COARSE_SHARE + _edges_at(picture, size, low, high) * (1 - COARSE_SHARE)
    return _stretched(edges.sum(axis=2), CANNY_PERCENTILES)


def _edges_at(picture: Picture, size: tuple[int, int], low: int, high: int) -> NDArray[np.float32]:
    """Canny's edges, 0 or 1, of each colour by itself, of the picture at a size (width, height): ``[h, w, 3]``."""
    import cv2

    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    channels = [cv2.Canny(np.ascontiguousarray(small[..., index]), low, high) for index in range(3)]
    return np.stack(channels, axis=2).astype(np.float32) / 255.0


def cpds(picture: Picture) -> Mask:
    """Structure ``[h, w]``: a gray that keeps the contrast of colours, plus what decolouring took away."""
    import cv2

    blurred = cv2.GaussianBlur(picture, (0, 0), CPDS_SIGMA)
    gray, boosted = cv2.decolor(blurred)
    lost = blurred.astype(np.float32) - boosted.astype(np.float32)
    return _stretched(gray.astype(np.float32) + np.sqrt((lost**2).sum(axis=2)), CPDS_PERCENTILES)


def _stretched(values: NDArray[np.float32], percentiles: tuple[float, float]) -> Mask:
    """Bytes that reach from 0 at the lower percentile to 255 at the upper; a flat picture is black."""
    low, high = np.percentile(values, percentiles)
    with np.errstate(divide="ignore", invalid="ignore"):
        stretched = (values - low) / (high - low) * 255.0
    control: Mask = np.clip(np.nan_to_num(stretched, nan=0.0), 0, 255).astype(np.uint8)
    return control
