"""Which networks are asked for the parts of a picture, and in which order the parts come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.errors import CoreError, InvalidRequest, UnknownModel
from fooocus_core.library import Library
from fooocus_core.masks.boxes import Detections
from fooocus_core.masks.models import MaskModels
from fooocus_core.masks.parts import find_parts
from fooocus_core.model_files.catalogue import Catalogue
from fooocus_core.models.face_detector import Face
from fooocus_core.plan import PartSearch
from tests.fooocus_core.masks.photographs import astronaut
from tests.fooocus_core.stages.rendering import CPU

PICTURE = np.zeros((10, 20, 3), np.uint8)
BOXES = np.array([[0, 0, 2, 2], [5, 5, 9, 9]], np.float32)


class Networks:
    """In place of the networks for masks; the second box is the surer one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def in_use(self) -> nullcontext[None]:
        return nullcontext()

    def detector(self) -> Networks:
        return self

    def detect(self, picture: Any, prompt: str, *, box_threshold: float, text_threshold: float) -> Detections:
        self.asked.append((prompt, box_threshold))
        return Detections(BOXES, ("hand", "hand"), np.array([0.4, 0.9], np.float32))

    def segmenter_file(self, name: str) -> None:
        pass

    def segmenter(self, name: str) -> Networks:
        return self

    def segments(self, picture: Any, boxes: NDArray[np.float32]) -> Iterator[NDArray[np.bool_]]:
        for box in boxes:
            segment = np.zeros((10, 20), np.bool_)
            segment[int(box[1]), int(box[0])] = True
            yield segment


class Faces:
    """In place of the published finder of faces."""

    def detect(self, picture: Any, min_score: float) -> list[Face]:
        assert min_score == 0.6
        return [Face(0.9, box, np.zeros((5, 2), np.float32)) for box in BOXES]

    def landmarks(self, picture: Any) -> None:
        raise AssertionError


def found(search: PartSearch, networks: Networks | None = None) -> list[NDArray[np.uint8]]:
    return find_parts(PICTURE, search, cast(MaskModels, networks), Faces)


def test_what_a_phrase_names_comes_by_falling_confidence() -> None:
    networks = Networks()
    first, second = found(PartSearch("grounding_dino", "hand", 0.35), networks)
    assert networks.asked == [("hand", 0.35)]
    assert first[5, 5] == 255
    assert second[0, 0] == 255
    outlined = found(PartSearch("grounding_dino", "person", is_outlined=True), networks)
    assert [int((mask > 0).sum()) for mask in outlined] == [1, 1]
    assert outlined[0][5, 5] == 255


def test_faces_by_the_published_network() -> None:
    assert [int((mask > 0).sum()) for mask in found(PartSearch("retinaface", confidence=0.6))] == [4, 16]


def test_faces_by_the_bundled_network(tmp_path: Any) -> None:
    models = MaskModels(Library.below(tmp_path), Catalogue.of(), lambda: CPU.device)
    [mask] = find_parts(astronaut()[0], PartSearch("mtcnn", confidence=0.7), models, Faces)
    assert mask[120, 220] == 255
    with pytest.raises(UnknownModel, match="sam_vit_b"):
        find_parts(astronaut()[0], PartSearch("mtcnn", is_outlined=True), models, Faces)
    with pytest.raises(UnknownModel, match="groundingdino"):
        find_parts(PICTURE, PartSearch("grounding_dino", "hand"), models, Faces)


def test_what_cannot_be_looked_for() -> None:
    with pytest.raises(InvalidRequest, match="phrase"):
        found(PartSearch("grounding_dino", " . "), Networks())
    with pytest.raises(CoreError, match="no networks"):
        found(PartSearch("mtcnn"))
