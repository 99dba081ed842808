"""What may be asked of a mask."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from fooocus_core.errors import InvalidRequest
from fooocus_core.masks.options import MASK_MODELS, MaskOptions


def test_the_defaults_are_the_contract_s() -> None:
    assert asdict(MaskOptions()) == {
        "model": "isnet-general-use",
        "cloth_category": "full",
        "detection_prompt": "",
        "sam_model": "vit_b",
        "box_threshold": 0.3,
        "text_threshold": 0.25,
        "max_detections": 0,
        "dino_erode_or_dilate": 0,
        "dino_debug": False,
    }


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("model", "bria-rmbg", "isnet-general-use"),
        ("cloth_category", "hat", "upper"),
        ("sam_model", "vit_x", "vit_h"),
        ("box_threshold", 1.1, "from 0 to 1"),
        ("text_threshold", -0.1, "from 0 to 1"),
        ("text_threshold", float("nan"), "from 0 to 1"),
        ("max_detections", 11, "from 0 to 10"),
        ("dino_erode_or_dilate", -65, "from -64 to 64"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(field: str, value: Any, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told) as error:
        MaskOptions(**{field: value})
    assert error.value.field == field


@pytest.mark.parametrize("prompt", ["", "  ", ".", " . .\n"])
def test_sam_needs_something_to_look_for(prompt: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        MaskOptions("sam", detection_prompt=prompt)
    assert error.value.field == "detection_prompt"


@pytest.mark.parametrize("model", [model for model in MASK_MODELS if model != "sam"])
def test_all_others_need_nothing(model: Any) -> None:
    assert MaskOptions(model).detection_prompt == ""
