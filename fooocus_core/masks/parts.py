"""Parts of a picture, each with a mask of its own: faces, or what a phrase names (TAMS contract, section 13.10)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fooocus_core.errors import CoreError, InvalidRequest
from fooocus_core.images.parts import boxed
from fooocus_core.images.pixels import Mask, Picture
from fooocus_core.masks.options import SamModel
from fooocus_core.plan import PartSearch

if TYPE_CHECKING:
    from fooocus_core.masks.models import MaskModels
    from fooocus_core.models.guide_models import Faces

log = logging.getLogger(__name__)

OUTLINED_BY: Final[SamModel] = "vit_b"
"""The segmenter that finds outlines."""
TEXT_THRESHOLD: Final = 0.25


def find_parts(
    picture: Picture, search: PartSearch, models: MaskModels | None, faces: Callable[[], Faces]
) -> list[Mask]:
    """The masks ``[h, w]``, 255 in a part, of all that is found in ``[h, w, 3]``, the surest first.

    ``faces`` gives the published finder of faces, ``models`` all others. Raises ``CoreError``, ``UnknownModel`` for a
    file that is not on disk.
    """
    if search.detector == "retinaface" and not search.is_outlined:
        return boxed(_face_boxes(picture, search, faces), *picture.shape[:2])
    if models is None:
        raise CoreError("nothing can be found in pictures: this engine has no networks for masks")
    with models.in_use():
        if search.is_outlined:
            models.segmenter_file(OUTLINED_BY)  # that it is missing is told before anything is looked for
        boxes = _boxes(picture, search, models, faces)
        log.debug("%d parts found by %s", len(boxes), search.detector)
        if not search.is_outlined or not len(boxes):
            return boxed(boxes, *picture.shape[:2])
        segments = models.segmenter(OUTLINED_BY).segments(picture, boxes)
        return [np.where(segment, 255, 0).astype(np.uint8) for segment in segments]


def _boxes(picture: Picture, search: PartSearch, models: MaskModels, faces: Callable[[], Faces]) -> NDArray[np.float32]:
    match search.detector:
        case "retinaface":
            return _face_boxes(picture, search, faces)
        case "mtcnn":
            return _stacked([found.box for found in models.face_finder().detect(picture, search.confidence)])
        case "grounding_dino":
            return _named_boxes(picture, search, models)


def _face_boxes(picture: Picture, search: PartSearch, faces: Callable[[], Faces]) -> NDArray[np.float32]:
    return _stacked([face.box for face in faces().detect(picture, search.confidence)])


def _named_boxes(picture: Picture, search: PartSearch, models: MaskModels) -> NDArray[np.float32]:
    if not search.phrase.strip(" \t\r\n."):
        raise InvalidRequest("phrase", "grounding_dino needs words that name what to look for")
    found = models.detector().detect(
        picture, search.phrase, box_threshold=search.confidence, text_threshold=TEXT_THRESHOLD
    )
    return found.boxes[np.argsort(-found.scores, kind="stable")]


def _stacked(boxes: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.array(boxes, np.float32).reshape(-1, 4)
