"""The mask of a picture (specification 07, section 2)::

    found = generate_mask(picture, MaskOptions("sam", detection_prompt="a cat"), models)

``picture`` is bytes ``[h, w, 3]`` or ``[h, w, 4]``, whose opacity is not looked at; ``models`` a ``MaskModels``, which
loads what is needed and may be shared between threads. ``found.mask`` is bytes of the picture's size: ``[h, w]`` and
soft from a network that removes backgrounds, ``[h, w, 3]`` of 0 and 255 from ``sam``. Where ``sam`` found nothing to
mask, ``found.is_empty`` says so: *enhance* then leaves its pass out. Raises ``UnknownModel`` for a file that is not on
disk, ``ModelError`` for one that cannot be used, and ``InvalidRequest``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fooocus_core.images.pixels import Picture
from fooocus_core.masks.boxes import drawn, grown
from fooocus_core.masks.models import MaskModels
from fooocus_core.masks.options import MaskOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundMask:
    """A mask and what it was made of. The numbers are ``None`` where nothing was looked for, only taken off."""

    mask: NDArray[np.uint8]
    boxes: int | None = None
    """Boxes that the detector found."""
    segments: int | None = None
    """Of them those whose contents are in the mask; 0 where the boxes themselves were asked for."""

    @property
    def is_empty(self) -> bool:
        """Whether what was named was looked for and not found."""
        return self.boxes == 0


def generate_mask(picture: NDArray[np.uint8], options: MaskOptions, models: MaskModels) -> FoundMask:
    """See above."""
    colours = np.ascontiguousarray(picture[:, :, :3])
    with models.in_use():
        if options.model == "sam":
            return _named(colours, options, models)
        remover = models.background_remover(options.model)
        return FoundMask(remover.mask(colours, options.cloth_category))


def _named(picture: Picture, options: MaskOptions, models: MaskModels) -> FoundMask:
    """What the prompt names: its boxes, or what is in them, joined."""
    if not options.dino_debug:
        models.segmenter_file(options.sam_model)  # that it is missing is told before anything is looked for
    found = models.detector().detect(
        picture,
        options.detection_prompt,
        box_threshold=options.box_threshold,
        text_threshold=options.text_threshold,
    )
    log.debug("boxes found: %s", ", ".join(found.phrases) or "none")
    boxes = grown(found.boxes, options.dino_erode_or_dilate)
    if options.dino_debug:
        return FoundMask(drawn(boxes, (picture.shape[1], picture.shape[0])), len(boxes), 0)
    taken = boxes[: options.max_detections or None]
    mask = _joined(picture, taken, options, models)
    return FoundMask(np.repeat(mask[:, :, None], 3, axis=2), len(boxes), len(taken))


def _joined(
    picture: Picture, boxes: NDArray[np.float32], options: MaskOptions, models: MaskModels
) -> NDArray[np.uint8]:
    """255 in any of the boxes' segments, ``[h, w]``. Without a box no segmenter is loaded."""
    union = np.zeros(picture.shape[:2], np.bool_)
    if len(boxes):
        for segment in models.segmenter(options.sam_model).segments(picture, boxes):
            union |= segment
    return np.where(union, 255, 0).astype(np.uint8)
