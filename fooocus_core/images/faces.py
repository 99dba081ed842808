"""A found face, turned upright and cut out for the face adapter (specification 06, section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fooocus_core.images.pixels import Picture

CANVAS_PX = 512
TEMPLATE = np.array(
    [
        (192.98138, 239.94708),
        (318.90277, 240.1936),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ]
)
"""Where both eyes, the nose and the corners of the mouth go, ``x, y`` on the canvas."""
BORDER = (132, 133, 135)
"""The colour around the picture, RGB."""


def aligned_face(picture: Picture, landmarks: NDArray[np.float32] | None) -> Picture:
    """The face ``[512, 512, 3]`` whose five points ``[5, 2]`` (``x, y``) are given.

    Without a face, and with points that lie in one place, the picture itself.
    """
    matrix = None if landmarks is None else alignment(landmarks)
    return picture if matrix is None else warped(picture, matrix)


def alignment(landmarks: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """The turn, scale and shift ``[2, 3]`` from five points to the template; ``None`` where there is none."""
    import cv2

    matrix, _ = cv2.estimateAffinePartial2D(landmarks, TEMPLATE, method=cv2.LMEDS)
    return None if matrix is None else np.asarray(matrix, np.float64)


def warped(picture: Picture, matrix: NDArray[np.float64]) -> Picture:
    """The canvas of a face, with a plain colour where the picture ends."""
    import cv2

    canvas = cv2.warpAffine(picture, matrix, (CANVAS_PX, CANVAS_PX), borderMode=cv2.BORDER_CONSTANT, borderValue=BORDER)
    return np.asarray(canvas, np.uint8)
