"""What lies in a box, to the pixel, by Segment Anything (specification 07, section 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor, sam_model_registry  # type: ignore[import-untyped]
from segment_anything.utils.amg import remove_small_regions  # type: ignore[import-untyped]

from fooocus_core.images.pixels import Picture
from fooocus_core.masks.options import SamModel
from fooocus_core.masks.visits import REST, visiting
from fooocus_core.models.checkpoint import assign_weights, open_checkpoint

if TYPE_CHECKING:
    from segment_anything.modeling import Sam  # type: ignore[import-untyped]

SMALL_HOLE_PX: Final = 400
"""Pixels below which a hole is filled."""


class Segmenter:
    """One network of Segment Anything."""

    def __init__(self, network: Sam, device: torch.device) -> None:
        """``device``: where the network calculates."""
        self._network = network
        self._device = device

    @torch.no_grad()
    def segments(self, picture: Picture, boxes: NDArray[np.float32]) -> Iterator[NDArray[np.bool_]]:
        """For each box ``[n, 4]`` (left, top, right, bottom) what is in it, ``[h, w]``, without small holes.

        One at a time: at the picture's size, the masks of many boxes are too much to be held together.
        """
        with visiting(self._network, self._device):
            predictor = SamPredictor(self._network)
            predictor.set_image(picture)
            placed = predictor.transform.apply_boxes_torch(torch.from_numpy(boxes), picture.shape[:2])
            for box in placed.to(self._device):
                found, _, _ = predictor.predict_torch(
                    point_coords=None, point_labels=None, boxes=box[None], multimask_output=False
                )
                yield without_small_holes(found[0, 0].cpu().numpy())


def without_small_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``mask`` with gaps of fewer than 400 pixels filled; pixels that touch at a corner belong together."""
    filled: NDArray[np.bool_] = remove_small_regions(mask, SMALL_HOLE_PX, mode="holes")[0]
    return filled


def load_segmenter(
    name: SamModel, path: Path, device: torch.device, build: Callable[[], Any] | None = None
) -> Segmenter:
    """The network of a file; ``build`` makes one of other sizes than the name's, without weights.

    Raises ``UnreadableModel`` and ``UnsupportedModel``.
    """
    file = open_checkpoint(path)
    with torch.device("meta"):
        network = (build or sam_model_registry[name])()
    assign_weights(network, file.tensors, file.name, device=REST, dtype=torch.float32)
    return Segmenter(network, device)
