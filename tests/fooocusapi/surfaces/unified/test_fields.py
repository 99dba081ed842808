"""Every field of a request: what it does to the plan, or the contract's word that it does nothing.

``contract/unified.json`` holds the fields as the contract lists them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fooocus_core.masks.options import MaskOptions
from fooocus_core.plan import Detail, DetailPass, Diffuse, FreeU, Guide, Plan
from fooocus_core.presets.preset import Preset, load_preset
from fooocus_core.resolve import resolve_request
from fooocusapi.errors import RefusedField
from fooocusapi.surfaces.enhancements import EnhanceCtrlNets
from fooocusapi.surfaces.lenient import default_of
from fooocusapi.surfaces.unified.schemas import (
    ENHANCE_IMAGE,
    INPAINT_IMAGE,
    INPAINT_MASK,
    UOV_IMAGE,
    GenerateRequest,
    ImagePrompt,
)
from fooocusapi.surfaces.unified.translate import Presets, to_plan
from tests.fooocusapi.served import FakeLibrary
from tests.fooocusapi.surfaces.unified.asking import plain

CONTRACT = json.loads((Path(__file__).parent / "contract/unified.json").read_text(encoding="utf-8"))
FIELDS = {field["name"]: field for field in CONTRACT["fields"]}
OWN = load_preset("default")
LIBRARY = FakeLibrary(
    ["juggernautXL_v8Rundiffusion.safetensors", "other.safetensors"],
    ["sd_xl_offset_example-lora_1.0.safetensors", "paint.safetensors"],
    ["taef.safetensors"],
)
GUIDE_IMAGE = ("body", "controlnet_image", 0, "cn_img")
PICTURES = {
    UOV_IMAGE: plain(1),
    INPAINT_IMAGE: plain(2),
    INPAINT_MASK: plain(255),
    ENHANCE_IMAGE: plain(4),
    GUIDE_IMAGE: plain(5),
    ("body", "controlnet_image", 1, "cn_img"): plain(6),
}


def kept(pixels: Any) -> str:
    """A picture's name: its first value."""
    return str(pixels.flat[0])


def _resolved(request: Any, preset: Preset | None = None) -> Plan:
    return resolve_request(request, preset or OWN, LIBRARY, lambda: 77)


def plan_of(values: Mapping[str, Any], *, chosen: Preset = OWN, one_image: bool = False) -> Plan:
    """The plan of a body whose picture fields hold any text for the picture of that place."""
    body = GenerateRequest.model_validate(values)
    sent = {place.loc for place in body.pictures() if place.value not in (None, "", "None")}
    pictures = {loc: PICTURES[loc] for loc in sent}

    return to_plan(body, pictures, kept, _resolved, Presets(OWN, chosen), one_image=one_image)


def stage_of(values: Mapping[str, Any]) -> Diffuse:
    (stage,) = plan_of(values).stages
    return stage


VARY = {"uov_input_image": "x", "uov_method": "Vary (Subtle)"}
UPSCALE = {"uov_input_image": "x", "uov_method": "Upscale (1.5x)"}
CUSTOM = {"uov_input_image": "x", "uov_method": "upscale (custom)"}
REPAINT = {"inpaint_input_image": "x", "inpaint_mask_image_upload": "x"}
OUTPAINT = {"inpaint_input_image": "x", "outpaint_selections": ["Left"]}
PROMPTED = {"controlnet_image": [{"cn_img": "x"}]}
SENT = {
    "enhance_input_image": "x",
    "enhance_ctrls": [{"enhance_prompt": "no"}, {"enhance_enabled": True, "enhance_mask_dino_prompt": "eye"}],
}
ENHANCED = {**SENT, "enhance_checkbox": True}
ENLARGED = {**ENHANCED, "enhance_uov_method": "Upscale (Custom)"}
EYE = DetailPass(MaskOptions("sam", detection_prompt="eye"))

Look = Callable[[Plan], Any]


def staged(*names: str) -> Look:
    """The value at ``names`` in the only stage of a plan."""

    def look(plan: Plan) -> Any:
        value: Any = plan.stages[0]
        for name in names:
            value = getattr(value, name)
        return value

    return look


def saved(name: str) -> Look:
    return lambda plan: getattr(plan.output, name)


EFFECTS: Mapping[str, tuple[Mapping[str, Any], Any, Look, Any]] = {
    "prompt": ({}, "a red apple", staged("prompts", "prompt"), "a red apple"),
    "negative_prompt": ({}, "blur", staged("prompts", "negative_prompt"), "blur"),
    "style_selections": ({}, "Fooocus Sharp, Fooocus V2", staged("prompts", "styles"), ("Fooocus Sharp", "Fooocus V2")),
    "performance_selection": ({}, "quality", staged("sampling", "steps"), 60),
    "aspect_ratios_selection": ({}, "832\u00d71216", staged("width_px"), 832),
    "image_number": ({}, 3, staged("image_number"), 3),
    "output_format": ({}, "JPG", saved("image_format"), "jpg"),
    "image_seed": ({}, "123", staged("seed"), 123),
    "read_wildcards_in_order": ({}, True, staged("prompts", "read_wildcards_in_order"), True),
    "sharpness": ({}, 7, staged("guidance", "sharpness"), 7.0),
    "guidance_scale": ({}, "5.5", staged("guidance", "scale"), 5.5),
    "base_model_name": ({}, "other", staged("models", "checkpoint"), "other.safetensors"),
    "refiner_model_name": ({}, "other.safetensors", staged("models", "refiner"), "other.safetensors"),
    "refiner_switch": ({}, 0.8, staged("switch_step"), 24),
    "loras": ({}, [{"model_name": "paint", "weight": -1}], staged("models", "loras"), (("paint.safetensors", -1.0),)),
    "uov_method": ({"uov_input_image": "x"}, "Vary (Strong)", staged("start", "denoise"), 0.85),
    "uov_input_image": ({"uov_method": "Vary (Subtle)"}, "x", staged("start", "picture"), "1"),
    "outpaint_selections": (
        {"inpaint_input_image": "x"},
        "left, TOP",
        staged("repaint", "outpaint"),
        (("left", 19), ("top", 14)),
    ),
    "inpaint_input_image": ({"inpaint_mask_image_upload": "x"}, "x", staged("repaint", "picture"), "2"),
    "inpaint_additional_prompt": ({**REPAINT, "prompt": "b"}, "a", staged("prompts", "prompt"), "a\nb"),
    "inpaint_mask_image_upload": ({"inpaint_input_image": "x"}, "x", staged("repaint", "mask"), "255"),
    "disable_preview": ({}, True, saved("preview"), False),
    "black_out_nsfw": ({}, True, saved("black_out_nsfw"), True),
    "disable_seed_increment": ({}, True, staged("seed_increment"), False),
    "adm_scaler_positive": ({}, 0.5, staged("guidance", "adm_positive"), 0.5),
    "adm_scaler_negative": ({}, 3, staged("guidance", "adm_negative"), 3.0),
    "adm_scaler_end": ({}, 0.7, staged("guidance", "adm_end"), 0.7),
    "adaptive_cfg": ({}, 9, staged("guidance", "adaptive_scale"), 9.0),
    "clip_skip": ({}, 1, staged("models", "clip_skip"), 1),
    "sampler_name": ({}, "EULER", staged("sampling", "sampler"), "euler"),
    "scheduler_name": ({}, "normal", staged("sampling", "scheduler"), "normal"),
    "vae_name": ({}, "taef.safetensors", staged("models", "vae"), "taef.safetensors"),
    "overwrite_step": ({}, 12, staged("sampling", "steps"), 12),
    "overwrite_switch": ({}, 0.1, staged("overwrite_switch"), 3),
    "overwrite_width": ({}, 640, staged("width_px"), 640),
    "overwrite_height": ({}, 640, staged("height_px"), 640),
    "overwrite_vary_strength": (VARY, 0.25, staged("start", "denoise"), 0.25),
    "overwrite_upscale_strength": (UPSCALE, 0.25, staged("start", "denoise"), 0.25),
    "mixing_image_prompt_and_vary_upscale": ({**VARY, **PROMPTED}, True, staged("start", "picture"), "1"),
    "mixing_image_prompt_and_inpaint": ({**REPAINT, **PROMPTED}, True, staged("repaint", "picture"), "2"),
    "debugging_cn_preprocessor": (PROMPTED, True, staged("guides", "only_prepare"), True),
    "skipping_cn_preprocessor": (PROMPTED, True, staged("guides", "use_preprocessor"), False),
    "canny_low_threshold": (PROMPTED, 10, staged("guides", "canny_low"), 10),
    "canny_high_threshold": (PROMPTED, 20, staged("guides", "canny_high"), 20),
    "refiner_swap_method": ({}, "vae", staged("refiner_swap"), "vae"),
    "controlnet_softness": (PROMPTED, 0.5, staged("guides", "softness"), 0.5),
    "freeu_enabled": ({}, True, staged("freeu"), FreeU()),
    "freeu_b1": ({"freeu_enabled": True}, 1.5, staged("freeu"), FreeU(b1=1.5)),
    "freeu_b2": ({"freeu_enabled": True}, 1.5, staged("freeu"), FreeU(b2=1.5)),
    "freeu_s1": ({"freeu_enabled": True}, 0.5, staged("freeu"), FreeU(s1=0.5)),
    "freeu_s2": ({"freeu_enabled": True}, 0.5, staged("freeu"), FreeU(s2=0.5)),
    "debugging_inpaint_preprocessor": (REPAINT, True, staged("repaint", "only_prepare"), True),
    "inpaint_disable_initial_latent": (REPAINT, True, staged("repaint", "use_initial_latent"), False),
    "inpaint_engine": (REPAINT, "V1", staged("repaint", "engine"), "v1"),
    "inpaint_strength": (REPAINT, 0.5, staged("repaint", "denoise"), 0.5),
    "inpaint_respective_field": (REPAINT, 0, staged("repaint", "respective_field"), 0.0),
    "save_metadata_to_images": ({}, False, saved("save_metadata"), False),
    "metadata_scheme": ({}, "a111", saved("metadata_scheme"), "a1111"),
    "controlnet_image": (
        {},
        [{"cn_img": "x", "cn_type": "face swap", "cn_stop": 0.2, "cn_weight": 0}],
        staged("guides", "pictures"),
        (Guide("5", "FaceSwap", 0.2, 0.0),),
    ),
    "save_name": ({}, "apple", saved("save_name"), "apple"),
    "outpaint_distance": (OUTPAINT, [5, 6, 7, 8], staged("repaint", "outpaint"), (("left", 5),)),
    "upscale_multiple": (CUSTOM, 1.25, staged("start", "factor"), 1.25),
    "enhance_input_image": ({}, "x", staged("picture"), "4"),
    "enhance_checkbox": (SENT, True, staged("passes"), (EYE,)),
    "enhance_uov_method": (ENHANCED, "vary (subtle)", staged("start", "denoise"), 0.5),
    "enhance_uov_processing_order": (ENLARGED, "After Last Enhancement", staged("start", "comes_last"), True),
    "enhance_uov_prompt_type": (
        ENLARGED,
        "Last Filled Enhancement Prompts",
        staged("start", "uses_last_prompts"),
        True,
    ),
    "enhance_ctrls": ({**ENHANCED, "enhance_uov_method": "Vary (Subtle)"}, [{}], staged("passes"), ()),
    "save_final_enhanced_image_only": (ENHANCED, True, staged("only_last"), True),
    "debugging_dino": (ENHANCED, True, lambda plan: plan.stages[0].passes[0].mask.dino_debug, True),
    "dino_erode_or_dilate": (ENHANCED, 5, lambda plan: plan.stages[0].passes[0].mask.dino_erode_or_dilate, 5),
    "debugging_enhance_masks_checkbox": (ENHANCED, True, staged("show_masks"), True),
}
"""Beside which fields it is sent, what is sent, where it shows and what it is there."""

WITHOUT_EFFECT: Mapping[str, tuple[Mapping[str, Any], Any]] = {
    "input_image_checkbox": (VARY, False),  # Section 4: always true.
    "current_tab": (VARY, "inpaint"),  # Section 4: worked out from the pictures.
    "inpaint_advanced_masking_checkbox": (REPAINT, False),  # Section 4: true exactly when a mask was given.
    "invert_mask_checkbox": (REPAINT, True),  # Section 4: always false.
    "require_base64": ({}, True),  # Section 4: no effect on this surface.
    "generate_image_grid": ({}, True),  # Section 4: never saved or listed.
    "disable_intermediate_results": ({}, True),  # Concerns the program's own page alone.
}
"""Beside which fields it is sent, and what: the plan stays the same, for the reason in the contract."""

ELSEWHERE = {
    "preset": "test_a_preset_counts_where_the_request_says_nothing",
    "inpaint_erode_or_dilate": "test_the_mask_grows",
    "stream_output": "test_stream",
    "async_process": "test_answers",
    "webhook_url": "test_answers",
}
"""What shows in the answer rather than in the plan, or is shown by a test of its own."""


def test_every_field_of_the_contract_is_shown() -> None:
    listed = [*EFFECTS, *WITHOUT_EFFECT, *ELSEWHERE]
    assert len(listed) == len(set(listed)) == 84
    assert set(listed) == {name for name in FIELDS if "." not in name} == set(GenerateRequest.model_fields)


@pytest.mark.parametrize("name", EFFECTS)
def test_a_field_has_its_effect(name: str) -> None:
    others, sent, look, expected = EFFECTS[name]
    found = look(plan_of({**others, name: sent}))
    found = tuple((lora.name, lora.weight) for lora in found) if name == "loras" else found
    assert found == expected


@pytest.mark.parametrize("name", EFFECTS)
def test_the_effect_is_the_fields_own(name: str) -> None:
    others, sent, _, _ = EFFECTS[name]
    assert plan_of({**others, name: sent}) != plan_of(others)


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_a_field_without_effect_has_none(name: str) -> None:
    others, sent = WITHOUT_EFFECT[name]
    assert plan_of({**others, name: sent}) == plan_of(others)


@pytest.mark.parametrize("name", list(GenerateRequest.model_fields))
def test_null_is_as_not_sent(name: str) -> None:
    assert plan_of({name: None}) == plan_of({})


# -------------------------------------------------------------------------------------------------------------- schema

SHARED_RANGES = {
    "overwrite_step": (-1, 200),  # What the sampler takes; the contract leaves it open.
    "overwrite_switch": (-1, 200),
}
WHERE_NOTHING_IS_SAID = {"upscale_multiple": 2.0}
"""Decision 6."""


PUBLISHED = {
    "": GenerateRequest.model_json_schema(),
    "controlnet_image": ImagePrompt.model_json_schema(),
    "enhance_ctrls": EnhanceCtrlNets.model_json_schema(),
}


def described(name: str) -> Any:
    """A field as it is published."""
    model, _, field = name.rpartition("[].")
    return PUBLISHED[model]["properties"][field]


CHECKED = [name for name in FIELDS if not name.startswith("loras")]


@pytest.mark.parametrize("name", CHECKED)
def test_every_range_is_the_contracts(name: str) -> None:
    field = FIELDS[name]
    expected = SHARED_RANGES.get(name, (field["min"], field["max"]))
    assert (described(name).get("minimum"), described(name).get("maximum")) == expected


@pytest.mark.parametrize("name", CHECKED)
def test_every_default_is_the_contracts(name: str) -> None:
    assert described(name).get("default") == WHERE_NOTHING_IS_SAID.get(name, FIELDS[name]["default"])


@pytest.mark.parametrize(
    "name", [name for name in CHECKED if FIELDS[name]["enum"] and FIELDS[name]["type"] == "string"]
)
def test_every_choice_of_the_contract_is_taken_in_any_case(name: str) -> None:
    if "." in name:
        return
    for choice in FIELDS[name]["enum"]:
        plan_of({name: choice.swapcase()})


# ------------------------------------------------------------------------------------------------------------- presets


def test_a_preset_counts_where_the_request_says_nothing() -> None:
    chosen = partial(plan_of, chosen=load_preset("anime"))
    assert chosen({}).stages[0].guidance.scale == 6
    assert chosen({"guidance_scale": 7}).stages[0].guidance.scale == 7
    assert (chosen({}).stages[0].width_px, chosen({}).stages[0].prompts.styles[1]) == (896, "Fooocus Semi Realistic")


def test_the_servers_own_defaults_do_not_stand_above_a_preset() -> None:
    """Whole bodies are copied from the documentation page, with nothing but the preset's name changed."""
    page = {name: default_of(field) for name, field in GenerateRequest.model_fields.items()}
    for name in ("anime", "realistic", "pony_v6", "sai", "playground_v2.5", "lightning"):
        chosen = load_preset(name)
        assert plan_of(page, chosen=chosen) == plan_of({"save_metadata_to_images": True}, chosen=chosen)
    assert plan_of({**page, "sharpness": 3}, chosen=load_preset("anime")).stages[0].guidance.sharpness == 3


def test_a_preset_names_the_inpaint_engine() -> None:
    chosen = load_preset("pony_v6")
    for said in ({}, {"inpaint_engine": "v2.6"}):
        repaint = plan_of({**REPAINT, **said}, chosen=chosen).stages[0].repaint
        assert repaint is not None
        assert repaint.engine == "None"
    for said in ({}, {"enhance_inpaint_engine": "v2.6"}):
        step = {**SENT["enhance_ctrls"][1], **said}
        (detail,) = plan_of({**ENHANCED, "enhance_ctrls": [step]}, chosen=chosen).stages
        assert [one.engine for one in detail.passes] == ["None"]


# ------------------------------------------------------------------------------------------------------------ pictures

ALL = {**VARY, **REPAINT, **PROMPTED}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, ""),
        (VARY, "start"),
        ({**VARY, "uov_method": "disable"}, ""),
        ({**VARY, "uov_method": "None"}, ""),
        ({"uov_method": "Vary (Subtle)"}, ""),
        (REPAINT, "repaint"),
        (OUTPAINT, "repaint"),
        ({"inpaint_input_image": "x"}, ""),
        ({"inpaint_input_image": "x", "outpaint_distance": [9, 9, 9, 9]}, ""),
        (PROMPTED, "guides"),
        ({"controlnet_image": [{}, None, {"cn_img": "None"}]}, ""),
        ({**VARY, **REPAINT}, "start"),
        ({**VARY, **REPAINT, "current_tab": "inpaint"}, "start"),
        ({**VARY, **REPAINT, "uov_method": "Disabled"}, ""),
        (ALL, "guides"),
        ({**ALL, "mixing_image_prompt_and_vary_upscale": True}, "start guides"),
        ({**ALL, "mixing_image_prompt_and_inpaint": True}, "repaint guides"),
        (
            {**ALL, "mixing_image_prompt_and_inpaint": True, "mixing_image_prompt_and_vary_upscale": True},
            "repaint guides",
        ),
        ({"controlnet_image": [{"cn_img": None}, {"cn_img": "x"}], **VARY}, "guides"),
    ],
)
def test_what_is_done_follows_from_the_pictures(values: Mapping[str, Any], parts: str) -> None:
    stage = stage_of(values)
    assert [name for name in ("start", "repaint", "guides") if getattr(stage, name) is not None] == parts.split()


def test_a_fast_upscale_ends_before_a_repainting() -> None:
    mixed = {"mixing_image_prompt_and_inpaint": True, "mixing_image_prompt_and_vary_upscale": True}
    stage = stage_of({**ALL, **mixed, "uov_method": "Upscale (Fast 2x)"})
    assert stage.start is not None
    assert stage.repaint is None


@pytest.mark.parametrize(
    ("prompt", "stop_and_weight"),
    [
        ({}, (0.6, 0.6)),
        ({"cn_stop": "", "cn_weight": ""}, (0.6, 0.6)),
        ({"cn_stop": None, "cn_weight": None}, (0.9, 0.75)),
        ({"cn_stop": 0, "cn_weight": 0}, (0.0, 0.0)),
    ],
)
def test_null_is_the_kinds_own_share(prompt: Mapping[str, Any], stop_and_weight: tuple[float, float]) -> None:
    guides = stage_of({"controlnet_image": [{"cn_img": "x", "cn_type": "FaceSwap", **prompt}]}).guides
    assert guides is not None
    assert (guides.pictures[0].stop, guides.pictures[0].weight) == stop_and_weight


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ([5, 6, 7, 8], (("left", 5), ("bottom", 8))),
        ("[5, 6, 7, 8]", (("left", 5), ("bottom", 8))),
        ([None, 0, 0, -1], (("left", 19), ("bottom", 14))),
        ([5], (("left", 5), ("bottom", 14))),
        (None, (("left", 19), ("bottom", 14))),
    ],
)
def test_distances_are_left_top_right_bottom(distances: Any, expected: Any) -> None:
    sides = {"inpaint_input_image": "x", "outpaint_selections": ["Left", "bottom"], "outpaint_distance": distances}
    repaint = stage_of(sides).repaint
    assert repaint is not None
    assert repaint.outpaint == expected


def test_upscale_multiple_is_two_where_nothing_is_said() -> None:
    factors = [stage_of({**CUSTOM, "upscale_multiple": said}).start for said in (None, "", 1)]
    assert [start.factor for start in factors if start] == [2, 2, 1]


def test_every_picture_that_is_made_is_enhanced_where_none_was_sent() -> None:
    made, detail = plan_of({**ENHANCED, **VARY, "enhance_input_image": None, "image_number": 3}).stages
    assert isinstance(made, Diffuse)
    assert isinstance(detail, Detail)
    assert (made.image_number, detail.base, detail.picture, detail.passes) == (3, made, None, (EYE,))


@pytest.mark.parametrize(
    "values",
    [
        {**ENHANCED, "enhance_checkbox": False},
        {**ENHANCED, "enhance_ctrls": [{"enhance_prompt": "x"}]},
        {"enhance_uov_method": "Vary (Subtle)"},
    ],
)
def test_what_is_not_switched_on_enhances_nothing(values: Mapping[str, Any]) -> None:
    """A picture that was sent has no result then; without one, what is made is made as ever."""
    if "enhance_input_image" in values:
        (detail,) = plan_of(values).stages
        assert isinstance(detail, Detail)
        assert (detail.picture, detail.passes, detail.start) == ("4", (), None)
    assert plan_of({**values, "enhance_input_image": None}) == plan_of({})


def test_a_picture_to_be_enhanced_leaves_nothing_else_to_be_done() -> None:
    plan = plan_of({**ALL, **ENHANCED, "image_number": 4})
    assert plan.pictures == ("4",)
    assert (plan.main.image_number, plan.main.start, plan.main.repaint, plan.main.guides) == (1, None, None, None)


def test_an_upscale_by_a_factor_of_ones_own_is_by_one() -> None:
    detail = plan_of({**ENLARGED, "upscale_multiple": 3}).stages[0]
    assert isinstance(detail, Detail)
    assert detail.start is not None
    assert detail.start.factor == 1.0


def test_the_mask_grows() -> None:
    grown: list[int] = []

    def keep(pixels: Any) -> str:
        grown.append(int((pixels > 127).sum()))
        return "x"

    mask = plain(0)
    mask[20:24, 20:24] = 255
    body = GenerateRequest.model_validate({**REPAINT, "inpaint_erode_or_dilate": 2})
    pictures = {INPAINT_IMAGE: plain(0), INPAINT_MASK: mask}
    to_plan(body, pictures, keep, _resolved, Presets(OWN, OWN), one_image=False)
    assert grown[-1] == 8 * 8


def test_one_picture_where_there_is_room_for_one() -> None:
    assert plan_of({"image_number": 4}, one_image=True).stages[0].image_number == 1


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"enhance_mask_dino_prompt": ""}, "enhance_mask_dino_prompt"),
        ({"enhance_inpaint_strength": 1e-9}, "enhance_inpaint_strength"),
        ({"enhance_prompt": "x" * 20_001}, "enhance_prompt"),
    ],
)
def test_what_a_controller_cannot_do_is_named(fault: Mapping[str, Any], field: str) -> None:
    eye = {"enhance_enabled": True, "enhance_mask_dino_prompt": "eye"}
    with pytest.raises(RefusedField) as caught:
        plan_of({**ENHANCED, "enhance_ctrls": [{}, eye, {**eye, **fault}]})
    assert caught.value.loc == ("body", "enhance_ctrls", 2, field)


def test_the_dialects_own_name_of_the_controllers_wins() -> None:
    body = GenerateRequest.model_validate(
        {
            "enhance_ctrlnets": [{"enhance_prompt": "theirs"}],
            "enhance_ctrls": [{"enhance_enabled": True, "enhance_prompt": "ours"}] * 4,
        }
    )
    assert [controller.step.enhance_prompt for controller in body.controllers()] == ["ours"] * 3


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"aspect_ratios_selection": "large"}, "aspect_ratios_selection"),
        ({"aspect_ratios_selection": "8*8"}, "aspect_ratios_selection"),
        ({"overwrite_width": 8}, "overwrite_width"),
        ({"sampler_name": "best"}, "sampler_name"),
        ({"scheduler_name": "best"}, "scheduler_name"),
        ({"vae_name": "absent"}, "vae_name"),
        ({"save_name": "../x"}, "save_name"),
        ({"save_name": "a/b"}, "save_name"),
        ({"save_name": "a\\b"}, "save_name"),
        ({"save_name": "a\0b"}, "save_name"),
        ({"save_name": "a" * 201}, "save_name"),
        ({"prompt": "a" * 20_001}, "prompt"),
        (
            {**OUTPAINT, "outpaint_distance": [90_000, 900, 0, 0], "outpaint_selections": "left,top"},
            "outpaint_distance",
        ),
    ],
)
def test_what_cannot_be_run_names_the_field(values: Mapping[str, Any], field: str) -> None:
    with pytest.raises(RefusedField) as refused:
        plan_of(values)
    assert refused.value.loc == ("body", field)
