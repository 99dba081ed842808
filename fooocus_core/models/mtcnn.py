"""A small finder of faces that ships with the project: three networks, each of which judges what the one before left.

Zhang et al. 2016, "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks", with the
weights of facenet-pytorch. A box that is found is moved by what a network says, in shares of its sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fooocus_core.images.pixels import Picture
from fooocus_core.models.checkpoint import assign_weights
from fooocus_core.models.face_detector import detection_size, distinct_boxes, resized

SMALLEST_FACE_PX = 20
CELL_PX, STRIDE_PX = 12, 2
"""The first network looks through a window of 12 pixels, moved by two."""
PYRAMID_STEP = 0.709
PROPOSED, REFINED = 0.6, 0.7
"""How sure the first network and the second have to be of what is shown to the next."""
LEAST_SURE = 0.05
"""Of the last network: what is less sure is never a face, whatever is asked for."""
SAME_SCALE, SAME_FACE = 0.5, 0.7
"""The overlap from which two boxes are one, within a scale of the pyramid and after."""
MOST_PROPOSED = 2000
"""Of the windows of one picture: one that is all texture would take minutes."""
REFINED_PX, JUDGED_PX = 24, 48


class FoundBox(NamedTuple):
    """A face: its probability, and left, top, right and bottom in pixels, parts of which may lie outside."""

    score: float
    box: NDArray[np.float32]


class _Candidates(NamedTuple):
    """``boxes``: ``[n, 4]``; ``scores``: ``[n]``."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def best(self, overlap: float) -> _Candidates:
        """Of those that overlap more the surest, by falling score."""
        order = np.argsort(-self.scores, kind="stable")
        kept = order[distinct_boxes(self.boxes[order], overlap)]
        return _Candidates(self.boxes[kept], self.scores[kept])


class _Judging(nn.Module):
    """A network that says of pictures ``[n, 3, side, side]`` whether they show a face, and how the box has to move."""

    features: nn.Sequential
    is_face: nn.Linear
    move: nn.Linear

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.features(pictures)
        return self.is_face(seen).softmax(1)[:, 1], self.move(seen)


class _Proposing(nn.Module):
    """The first network: the same of every window of a picture, in grids ``[1, ..., h, w]``."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolved(3, 10, 3), _halved(2), *_convolved(10, 16, 3), *_convolved(16, 32, 3))
        self.is_face = nn.Conv2d(32, 2, 1)
        self.move = nn.Conv2d(32, 4, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.features(picture)
        return self.is_face(seen).softmax(1)[:, 1], self.move(seen)


class _Refining(_Judging):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolved(3, 28, 3),
            _halved(3),
            *_convolved(28, 48, 3),
            _halved(3),
            *_convolved(48, 64, 2),
            *_dense(576, 128),
        )
        self.is_face, self.move = nn.Linear(128, 2), nn.Linear(128, 4)


class _Last(_Judging):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolved(3, 32, 3),
            _halved(3),
            *_convolved(32, 64, 3),
            _halved(3),
            *_convolved(64, 64, 3),
            _halved(2),
            *_convolved(64, 128, 2),
            *_dense(1152, 256),
        )
        self.is_face, self.move = nn.Linear(256, 2), nn.Linear(256, 4)


def _convolved(width_in: int, width_out: int, side: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(width_in, width_out, side), nn.PReLU(width_out)


def _halved(side: int) -> nn.Module:
    return nn.MaxPool2d(side, 2, ceil_mode=True)


def _dense(width_in: int, width_out: int) -> tuple[nn.Module, ...]:
    return _Columns(), nn.Linear(width_in, width_out), nn.PReLU(width_out)


class _Columns(nn.Module):
    """Flattens column by column, as the networks were trained."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 3).flatten(1)


class Mtcnn:
    """Finds faces on the CPU in float32."""

    def __init__(self, proposing: _Proposing, refining: _Judging, judging: _Judging) -> None:
        self._proposing, self._refining, self._judging = proposing, refining, judging

    @torch.no_grad()
    def detect(self, picture: Picture, min_score: float = REFINED) -> list[FoundBox]:
        """The faces of ``[h, w, 3]``, RGB, that are at least as sure, by falling score."""
        height, width = picture.shape[:2]
        seen = resized(picture, *detection_size(width, height))
        pixels = (torch.from_numpy(np.ascontiguousarray(seen)).float().movedim(2, 0)[None] - 127.5) / 128.0
        found = self._judged(self._refining, pixels, self._proposed(pixels), REFINED_PX, REFINED).best(SAME_FACE)
        found = self._judged(self._judging, pixels, found, JUDGED_PX, max(min_score, LEAST_SURE))
        found = _without_inner(found.best(SAME_FACE))
        scale = np.tile(np.array((width / seen.shape[1], height / seen.shape[0]), np.float32), 2)
        return [FoundBox(float(score), box * scale) for box, score in zip(*found, strict=True)]

    def _proposed(self, pixels: Tensor) -> _Candidates:
        """Windows that may show a face, from all scales."""
        found = [self._of_scale(pixels, scale).best(SAME_SCALE) for scale in _scales(*pixels.shape[2:])]
        joined = _Candidates(
            np.concatenate([np.zeros((0, 4), np.float32), *(each.boxes for each in found)]),
            np.concatenate([np.zeros(0, np.float32), *(each.scores for each in found)]),
        )
        best = joined.best(SAME_FACE)
        return _Candidates(best.boxes[:MOST_PROPOSED], best.scores[:MOST_PROPOSED])

    def _of_scale(self, pixels: Tensor, scale: float) -> _Candidates:
        size = [int(side * scale + 1) for side in pixels.shape[2:]]
        scores, moves = self._proposing(functional.interpolate(pixels, size, mode="area"))
        row, column = torch.nonzero(scores[0] >= PROPOSED, as_tuple=True)
        start = torch.stack([column, row], 1) * STRIDE_PX + 1
        boxes = torch.cat([(start / scale).floor(), ((start + CELL_PX - 1) / scale).floor()], 1)
        sure, order = scores[0, row, column].sort(descending=True, stable=True)
        order = order[:MOST_PROPOSED]
        moved = _moved(boxes[order].numpy(), moves[0, :, row, column].T[order].numpy())
        return _Candidates(moved, sure[:MOST_PROPOSED].numpy())

    def _judged(
        self, network: _Judging, pixels: Tensor, candidates: _Candidates, side_px: int, min_score: float
    ) -> _Candidates:
        """Those that the network takes for faces, moved to where it sees them."""
        squares = _squared(candidates.boxes)
        cut = [_cut(pixels, box, side_px) for box in squares]
        if not cut:
            return candidates
        scores, moves = network(torch.cat(cut))
        sure = (scores >= min_score).numpy()
        return _Candidates(_moved(squares[sure], moves.numpy()[sure]), scores.numpy()[sure])


def _scales(height_px: int, width_px: int) -> Iterator[float]:
    """From that in which the smallest face fills a window on, until the picture is smaller than one."""
    scale = CELL_PX / SMALLEST_FACE_PX
    while min(height_px, width_px) * scale >= CELL_PX:
        yield scale
        scale *= PYRAMID_STEP


def _moved(boxes: NDArray[np.float32], moves: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    return (boxes + moves * np.tile(sides, 2)).astype(np.float32)


def _squared(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squares of the longer side around the same middle."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.max(1, keepdims=True)
    start = boxes[:, :2] + (sides - longest) / 2
    return np.concatenate([start, start + longest], 1).astype(np.float32)


def _cut(pixels: Tensor, box: NDArray[np.float32], side_px: int) -> Tensor:
    """What a box shows of the picture, at a network's size; what lies outside is cut off."""
    height, width = pixels.shape[2:]
    left, top = (min(max(0, int(edge) - 1), limit - 1) for edge, limit in zip(box[:2], (width, height), strict=True))
    right, bottom = max(left + 1, min(int(box[2]), width)), max(top + 1, min(int(box[3]), height))
    return functional.interpolate(pixels[:, :, top:bottom, left:right], (side_px, side_px), mode="area")


def _without_inner(found: _Candidates) -> _Candidates:
    """Less sure boxes of which most lies in a surer one are parts of that face."""
    kept: list[int] = []
    for index, box in enumerate(found.boxes):
        if all(_shared(box, found.boxes[other]) <= SAME_FACE for other in kept):
            kept.append(index)
    return _Candidates(found.boxes[kept], found.scores[kept])


def _shared(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """What both have in common, as a share of the smaller one."""
    both = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    areas = [(box[2:] - box[:2]).prod() for box in (one, other)]
    return float(both / max(1e-6, min(areas)))


_NETWORKS: Mapping[str, Callable[[], nn.Module]] = {"proposing": _Proposing, "refining": _Refining, "judging": _Last}


def load_mtcnn(weights: Mapping[str, Tensor], name: str) -> Mtcnn:
    """The three networks of a file's tensors, under ``proposing.``, ``refining.`` and ``judging.``.

    Raises ``UnsupportedModel`` for any other file.
    """
    loaded: dict[str, nn.Module] = {}
    for part, make in _NETWORKS.items():
        with torch.device("meta"):
            network = make()
        own = {key.removeprefix(f"{part}."): value for key, value in weights.items() if key.startswith(f"{part}.")}
        assign_weights(network, own, name, device=torch.device("cpu"), dtype=torch.float32)
        loaded[part] = network
    return Mtcnn(**loaded)  # type: ignore[arg-type]
