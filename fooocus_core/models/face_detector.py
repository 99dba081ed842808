"""Where the faces of a picture are, and their eyes, noses and mouths (specification 06, section 3).

The network answers for *anchors*: squares of two sizes around the middle of every cell of three grids. A box and five
landmarks are told as offsets from an anchor, in shares of its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core.images.pixels import Picture
from fooocus_core.models.checkpoint import assign_weights
from fooocus_core.models.retinaface import RetinaFace, empty_retinaface

FACE_DETECTOR_FILE = "detection_Resnet50_Final.pth"

ANCHOR_SIZES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
"""Stride of a grid to the sizes of its anchors, in pixels."""
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
MIN_SCORE = 0.97
MAX_OVERLAP = 0.4
MEAN_BGR = np.array((104.0, 117.0, 123.0), np.float32)

MAX_PIXELS = 2**22
"""Four million: 1 GB while the network runs, and half a minute on two busy cores."""
MAX_SIDE_PX = 8192
"""Of a row of pixels the network makes as much as of 32 rows: what is long and thin is bounded by its length."""


@dataclass(frozen=True)
class Face:
    """A found face, in pixels of the picture. Parts of it may lie outside.

    ``score`` is its probability, ``box`` is ``[4]``: left, top, right, bottom. ``landmarks`` are ``[5, 2]``, ``x, y``
    of the eye on the left of the picture, the one on the right, the nose, and the mouth's corners in the same order.
    """

    score: float
    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]


class FaceDetector:
    """Finds faces on the CPU in float32, in a picture's own size up to ``MAX_PIXELS`` and ``MAX_SIDE_PX``.

    A larger picture is looked at in the largest size of about its aspect ratio that keeps both bounds, and what is
    found is scaled back. The reference knows no bound: 25 million pixels take it 6 GB.
    """

    def __init__(self, network: RetinaFace) -> None:
        self._network = network

    def detect(self, picture: Picture, min_score: float = MIN_SCORE) -> list[Face]:
        """The faces of ``[h, w, 3]``, RGB, that are surer, by falling score; of those that overlap much the surest."""
        faces = self._candidates(picture, min_score)
        return [faces[index] for index in distinct_boxes(np.array([face.box for face in faces]).reshape(-1, 4))]

    def landmarks(self, picture: Picture) -> NDArray[np.float32] | None:
        """The five points ``[5, 2]`` of the surest face; ``None`` where there is none."""
        # No overlap can cost the surest one its place.
        faces = self._candidates(picture)
        return faces[0].landmarks if faces else None

    def _candidates(self, picture: Picture, min_score: float = MIN_SCORE) -> list[Face]:
        """Whatever looks like a face, by falling score."""
        height, width = picture.shape[:2]
        seen = resized(picture, *detection_size(width, height))
        seen_height, seen_width = seen.shape[:2]
        scores, boxes, landmarks = self._run(seen)
        chosen = sure_ones(scores, min_score)
        places = anchors(seen_width, seen_height)[chosen]
        scale = np.array((width / seen_width, height / seen_height), np.float32)
        found = (
            scores[chosen],
            decoded_boxes(boxes[chosen], places) * np.tile(scale, 2),
            decoded_landmarks(landmarks[chosen], places) * scale,
        )
        return [Face(float(score), box, points) for score, box, points in zip(*found, strict=True)]

    @torch.no_grad()
    def _run(self, picture: Picture) -> list[NDArray[np.float32]]:
        """Scores ``[anchors]`` and the offsets of boxes ``[anchors, 4]`` and of landmarks ``[anchors, 10]``."""
        # The colours of a pixel stay side by side: so convolutions are faster, by half on large pictures.
        pixels = picture[:, :, ::-1].astype(np.float32) - MEAN_BGR
        outputs = self._network(torch.from_numpy(pixels).movedim(2, 0)[None])
        return [output.numpy() for output in outputs]


def load_face_detector(weights: Mapping[str, Tensor], name: str) -> FaceDetector:
    """The detector of a file's tensors, whose keys may begin with ``module.``, on the CPU in float32.

    ``name`` is the file's. Raises ``UnsupportedModel`` for any other file.
    """
    weights = {key.removeprefix("module."): tensor for key, tensor in weights.items()}
    network = empty_retinaface(weights, name)
    assign_weights(network, weights, name, device=torch.device("cpu"), dtype=torch.float32)
    return FaceDetector(network.to(memory_format=torch.channels_last))


def detection_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Width and height in which a picture is looked at: its own, unless that is beyond the bounds."""
    scale = min(1.0, math.sqrt(MAX_PIXELS / (width_px * height_px)), MAX_SIDE_PX / max(width_px, height_px))
    return max(1, int(width_px * scale)), max(1, int(height_px * scale))


def resized(picture: Picture, width_px: int, height_px: int) -> Picture:
    """The picture at a detector's size; shrunk, every pixel is the mean of what it was."""
    import cv2

    if picture.shape[:2] == (height_px, width_px):
        return picture
    return np.asarray(cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_AREA), np.uint8)


def anchors(width_px: int, height_px: int) -> NDArray[np.float32]:
    """Centre and size ``[anchors, 3]`` (``x, y, size``) in the network's order: grids, rows, columns, sizes."""
    return np.concatenate([_grid(width_px, height_px, stride, sizes) for stride, sizes in ANCHOR_SIZES.items()])


def _grid(width_px: int, height_px: int, stride: int, sizes: tuple[int, ...]) -> NDArray[np.float32]:
    x = (np.arange(math.ceil(width_px / stride)) + 0.5) * stride
    y = (np.arange(math.ceil(height_px / stride)) + 0.5) * stride
    rows, columns, size = np.meshgrid(y, x, sizes, indexing="ij")
    return np.stack([columns, rows, size], -1).reshape(-1, 3).astype(np.float32)


def decoded_boxes(offsets: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Offsets ``[n, 4]`` from anchors ``[n, 3]`` as left, top, right and bottom ``[n, 4]``."""
    centre, size = places[:, :2], places[:, 2:]
    middle = centre + offsets[:, :2] * CENTRE_VARIANCE * size
    extent = size * np.exp(offsets[:, 2:] * SIZE_VARIANCE)
    return np.concatenate([middle - extent / 2, middle + extent / 2], 1)


def decoded_landmarks(offsets: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Offsets ``[n, 10]`` from anchors ``[n, 3]`` as five points ``[n, 5, 2]``."""
    centre, size = places[:, None, :2], places[:, None, 2:]
    return centre + offsets.reshape(-1, 5, 2) * CENTRE_VARIANCE * size


def sure_ones(scores: NDArray[np.float32], min_score: float = MIN_SCORE) -> NDArray[np.intp]:
    """Which of ``[n]`` scores are above the threshold, by falling score; equal ones stay in their order."""
    above = np.flatnonzero(scores > min_score)
    return above[np.argsort(-scores[above], kind="stable")]


def distinct_boxes(boxes: NDArray[np.float32], max_overlap: float = MAX_OVERLAP) -> NDArray[np.intp]:
    """Which of ``[n, 4]``, given by falling score, stay: those that overlap no surer one that stays too much."""
    left = np.arange(len(boxes))
    kept = []
    while left.size:
        first, left = left[0], left[1:]
        kept.append(first)
        left = left[overlaps(boxes[first], boxes[left]) <= max_overlap]
    return np.array(kept, np.intp)


def overlaps(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a box ``[4]`` shares with each of ``[n, 4]``: the area of both over that of either."""
    shared = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = shared.clip(0.0).prod(1)
    return np.asarray(both / (_area(box) + _area(others) - both), np.float32)


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes[..., 2:] - boxes[..., :2]).prod(-1), np.float32)
