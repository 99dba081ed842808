"""What stands in for the detectors that clients name (contract sections 5.8 and 13.7): local ones for the same part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from fooocus_core.library import ModelKind
from fooocus_core.plan import PartSearch

FACE: Final = "face"


class FileNames(Protocol):
    """What is asked of the library of model files."""

    def find(self, kind: ModelKind, name: str) -> str | None: ...


@dataclass(frozen=True)
class Part:
    """What a detector finds, in a word, and whether by its outline."""

    name: str = FACE
    is_outlined: bool = False


_PARTS: Final = {
    "face_yolov8n.pt": Part(),
    "face_yolov8s.pt": Part(),
    "face_yolov8n_v2.pt": Part(),
    "mediapipe_face_full": Part(),
    "mediapipe_face_short": Part(),
    "mediapipe_face_mesh": Part(),
    "mediapipe_face_mesh_eyes_only": Part("eye"),
    "hand_yolov8n.pt": Part("hand"),
    "person_yolov8n-seg.pt": Part("person", is_outlined=True),
    "person_yolov8s-seg.pt": Part("person", is_outlined=True),
}


def part_of(name: str, mapped: Any) -> Part | None:
    """What a detector finds; ``mapped`` is its entry in the table of models. ``None``: nobody knows it."""
    if isinstance(mapped, dict):
        return Part(str(mapped.get("part") or FACE), mapped.get("kind") == "segm")
    return Part() if mapped is not None else _PARTS.get(name)


def search_for(part: Part, confidence: float, library: FileNames) -> PartSearch | None:
    """How it is found with the files that are there; ``None`` where they are not."""
    # On use: they load torch, for which the server's port does not wait.
    from fooocus_core.masks.models import DETECTOR_FILE, SEGMENTER_FILES
    from fooocus_core.masks.parts import OUTLINED_BY
    from fooocus_core.models.face_detector import FACE_DETECTOR_FILE

    if part.is_outlined and library.find("sam", SEGMENTER_FILES[OUTLINED_BY]) is None:
        return None
    if part.name != FACE:
        found = library.find("inpaint", DETECTOR_FILE)
        return None if found is None else PartSearch("grounding_dino", part.name, confidence, part.is_outlined)
    is_published_there = library.find("controlnet", FACE_DETECTOR_FILE) is not None
    return PartSearch("retinaface" if is_published_there else "mtcnn", "", confidence, part.is_outlined)
