"""Requests that repaint, are guided or enhanced become plans (specification 01, section 10; 04; 06; 07, section 1)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fooocus_core.errors import InvalidRequest
from fooocus_core.plan import Detail, Diffuse, GuideKind, Plan, Repaint
from fooocus_core.presets.preset import Preset, load_preset
from fooocus_core.presets.sizes import SizeLimits
from fooocus_core.request import AskedDetail, AskedGuide, AskedGuides, AskedPass, AskedRepaint, GenerationRequest
from fooocus_core.resolve import resolve_request
from tests.fooocus_core.test_resolve import SHELF

PRESET = load_preset("default")
FACE = AskedPass(detection_prompt="face")


def _plan(preset: Preset = PRESET, limits: SizeLimits | None = None, **fields: Any) -> Plan:
    return resolve_request(GenerationRequest(**fields), preset, SHELF, lambda: 42, limits or SizeLimits())


def _stage(preset: Preset = PRESET, **fields: Any) -> Diffuse:
    (stage,) = _plan(preset, **fields).stages
    assert isinstance(stage, Diffuse)
    return stage


def _repaint(preset: Preset = PRESET, **fields: Any) -> tuple[Diffuse, Repaint]:
    asked = AskedRepaint("abc", 800, 600, **fields)
    stage = _stage(preset, repaint=asked)
    assert stage.repaint is not None
    return stage, stage.repaint


# --- repainting ---------------------------------------------------------------------------------------------------


def test_what_is_not_said_about_a_repainting() -> None:
    stage, repaint = _repaint(mask="def")
    assert repaint == Repaint("abc", "def", (), 1.0, 0.618, "v2.6", True, True, False)
    assert (stage.width_px, stage.height_px) == (800, 600)
    assert (stage.refiner_switch, stage.switch_step) == (0.8, 24)


def test_an_engine_hands_over_only_where_there_is_no_refiner() -> None:
    stage, _ = _repaint(mask="def", engine="None")
    assert (stage.refiner_switch, stage.switch_step) == (0.5, 15)
    sai = load_preset("sai")
    stage, repaint = _repaint(replace(sai, refiner=None), mask="def", engine="v1")
    assert (repaint.engine, stage.refiner_switch) == ("v1", 0.8)
    assert _repaint(load_preset("pony_v6"), mask="def")[1].engine == "None"


def test_a_distilled_mode_hands_over_as_well() -> None:
    stage = _stage(repaint=AskedRepaint("abc", 800, 600, "def"), performance="Lightning")
    assert (stage.refiner_switch, stage.switch_step, stage.sampling.steps) == (0.8, 3, 4)


@pytest.mark.parametrize("asked", [None, 0, -1])
def test_outpainted_sides_grow_by_three_tenths_or_as_said(asked: int | None) -> None:
    stage, repaint = _repaint(outpaint=(("left", asked), ("top", 77)))
    assert repaint.outpaint == (("left", 240), ("top", 77))
    assert (stage.width_px, stage.height_px) == (1040, 677)


def test_the_additional_prompt_stands_first() -> None:
    asked = AskedRepaint("abc", 800, 600, "def", additional_prompt="a hat")
    assert _stage(repaint=asked, prompt="a cat").prompts.prompt == "a hat\na cat"
    assert _stage(repaint=asked, prompt="").prompts.prompt == "a hat"


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("inpaint_strength", {"strength": 1.1}),
        ("inpaint_strength", {"strength": 1e-9}),
        ("inpaint_respective_field", {"respective_field": -0.1}),
        ("inpaint_engine", {"engine": "v3"}),
        ("outpaint", {"outpaint": (("left", 10**7),)}),
        ("inpaint_additional_prompt", {"additional_prompt": "x" * 30_000}),
    ],
)
def test_what_cannot_be_repainted(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _repaint(mask="def", **fields)
    assert caught.value.field == field


# --- guides -------------------------------------------------------------------------------------------------------


def _guides(*pictures: AskedGuide, **fields: Any) -> Any:
    return _stage(guides=AskedGuides(pictures, **fields)).guides


@pytest.mark.parametrize(
    ("kind", "stop", "weight"),
    [("ImagePrompt", 0.5, 0.6), ("FaceSwap", 0.9, 0.75), ("PyraCanny", 0.5, 1.0), ("CPDS", 0.5, 1.0)],
)
def test_every_kind_of_guide_has_its_defaults(kind: GuideKind, stop: float, weight: float) -> None:
    (guide,) = _guides(AskedGuide("abc", kind)).pictures
    assert (guide.kind, guide.stop, guide.weight) == (kind, stop, weight)
    (guide,) = _guides(AskedGuide("abc", kind, 0.0, 2.0)).pictures
    assert (guide.stop, guide.weight) == (0.0, 2.0)


def test_only_the_first_four_guides_count() -> None:
    assert [guide.picture for guide in _guides(*(AskedGuide(name) for name in "abcdef")).pictures] == list("abcd")


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("guides.1.kind", AskedGuides((AskedGuide("a"), AskedGuide("b", "Depth")))),
        ("guides.0.stop", AskedGuides((AskedGuide("a", stop=1.5),))),
        ("guides.0.weight", AskedGuides((AskedGuide("a", weight=float("nan")),))),
        ("controlnet_softness", AskedGuides((AskedGuide("a"),), softness=2)),
        ("canny_low_threshold", AskedGuides((AskedGuide("a"),), canny_low=0)),
    ],
)
def test_what_cannot_guide(field: str, asked: AskedGuides) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _stage(guides=asked)
    assert caught.value.field == field


# --- enhancing ----------------------------------------------------------------------------------------------------


def test_made_pictures_are_enhanced_by_a_second_stage() -> None:
    stage, detail = _plan(detail=AskedDetail((FACE,), method="Upscale (Custom)"), image_number=3).stages
    assert isinstance(detail, Detail)
    assert (detail.base, detail.picture) == (stage, None)
    assert (detail.steps, detail.upscale_steps, detail.most_results) == (30, 18, 2)
    assert detail.start is not None
    assert detail.start.factor == 1.0
    assert detail.refines_itself is False


def test_a_sent_picture_is_enhanced_alone() -> None:
    plan = _plan(detail=AskedDetail((FACE,), "abc", 800, 600), image_number=3, overwrite_steps=7)
    (detail,) = plan.stages
    assert isinstance(detail, Detail)
    assert (detail.steps, detail.upscale_steps, detail.base.image_number) == (7, 7, 1)
    assert plan.pictures == ("abc",)
    assert plan.main == detail.base


def test_passes_refine_as_the_requests_own_inpainting() -> None:
    _, detail = _plan(detail=AskedDetail((FACE,)), repaint=AskedRepaint("abc", 800, 600, "def")).stages
    assert isinstance(detail, Detail)
    assert detail.refines_itself


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("detail.passes.1.detection_prompt", AskedDetail((FACE, AskedPass(detection_prompt=" . ")))),
        ("detail.passes.0.model", AskedDetail((AskedPass(mask_model="yolo"),))),
        ("detail.passes.0.engine", AskedDetail((replace(FACE, engine="v9"),))),
        ("detail.passes.0.erode_or_dilate", AskedDetail((replace(FACE, erode_or_dilate=65),))),
        ("detail.method", AskedDetail(method="Vary")),
        ("detail.picture", AskedDetail(picture="abc", width_px=5000, height_px=5000, method="Upscale (2x)")),
    ],
)
def test_what_cannot_be_enhanced(field: str, asked: AskedDetail) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _plan(detail=asked)
    assert caught.value.field == field


def test_the_way_to_json_and_back() -> None:
    plan = _plan(
        repaint=AskedRepaint("abc", 800, 600, "def", (("left", 3),)),
        guides=AskedGuides((AskedGuide("ghi", "CPDS"),)),
        detail=AskedDetail((FACE,), method="Vary (Strong)"),
    )
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.pictures == ("abc", "def", "ghi")
