"""What is asked of a mask, and what may be asked (specification 07, sections 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from fooocus_core.errors import InvalidRequest

MaskModel = Literal[
    "u2net",
    "u2netp",
    "u2net_human_seg",
    "u2net_cloth_seg",
    "silueta",
    "isnet-general-use",
    "isnet-anime",
    "sam",
]
ClothCategory = Literal["full", "upper", "lower"]
SamModel = Literal["vit_b", "vit_l", "vit_h"]

MASK_MODELS: Final[tuple[MaskModel, ...]] = get_args(MaskModel)
CLOTH_CATEGORIES: Final[tuple[ClothCategory, ...]] = get_args(ClothCategory)
SAM_MODELS: Final[tuple[SamModel, ...]] = get_args(SamModel)

MAX_DETECTIONS: Final = 10
MAX_GROWTH_PX: Final = 64


@dataclass(frozen=True)
class MaskOptions:
    """How a mask is found. The defaults are those of a mask that is asked for alone; *enhance* takes ``sam``.

    ``cloth_category`` is for ``u2net_cloth_seg`` only, everything below it for ``sam``, which segments what
    ``detection_prompt`` names. ``max_detections`` 0 takes all that is found. ``dino_erode_or_dilate`` moves each side
    of the found boxes outwards by as many pixels, inwards below 0; ``dino_debug`` gives the boxes instead of what is in
    them. ``text_threshold`` only decides which words a found box is reported under. Raises ``InvalidRequest`` naming
    the field.
    """

    model: MaskModel = "isnet-general-use"
    cloth_category: ClothCategory = "full"
    detection_prompt: str = ""
    sam_model: SamModel = "vit_b"
    box_threshold: float = 0.3
    text_threshold: float = 0.25
    max_detections: int = 0
    dino_erode_or_dilate: float = 0
    dino_debug: bool = False

    def __post_init__(self) -> None:
        _require_known("model", self.model, MASK_MODELS)
        _require_known("cloth_category", self.cloth_category, CLOTH_CATEGORIES)
        _require_known("sam_model", self.sam_model, SAM_MODELS)
        _require_within("box_threshold", self.box_threshold, 0, 1)
        _require_within("text_threshold", self.text_threshold, 0, 1)
        _require_within("max_detections", self.max_detections, 0, MAX_DETECTIONS)
        _require_within("dino_erode_or_dilate", self.dino_erode_or_dilate, -MAX_GROWTH_PX, MAX_GROWTH_PX)
        if self.model == "sam" and not self.detection_prompt.strip(" \t\r\n."):
            raise InvalidRequest("detection_prompt", "sam needs words that name what to look for")


def _require_known(field: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InvalidRequest.unknown_name(field, name, known)


def _require_within(field: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise InvalidRequest(field, f"must be from {lowest} to {highest}")
