"""Enhancing over HTTP: both spellings of the controllers, their defaults, what is refused and what is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.events import Finished, Started
from fooocus_core.masks.options import MaskOptions
from fooocus_core.plan import Detail, DetailPass, DetailStart
from fooocusapi.settings import Settings
from tests.fooocusapi.fakes import an_image, good_story
from tests.fooocusapi.served import House, finished
from tests.fooocusapi.surfaces.classic.pictures import accepted, nothing_kept, plain, refused_field, text

V1, V2 = "/v1/generation/image-enhance", "/v2/generation/image-enhance"
PICTURE = plain(64, 96, 90)
FILE = {"enhance_input_image": PICTURE}
BODY = {"enhance_input_image": text(PICTURE)}
OFF = {"enhance_uov_method": "Disabled"}
CONTROLLER: dict[str, Any] = {
    "enhance_enabled": True,
    "enhance_mask_dino_prompt": "an eye",
    "enhance_prompt": "a green eye",
    "enhance_negative_prompt": "red",
    "enhance_mask_model": "u2net_cloth_seg",
    "enhance_mask_cloth_category": "upper",
    "enhance_mask_sam_model": "vit_l",
    "enhance_mask_text_threshold": 0.5,
    "enhance_mask_box_threshold": 0.6,
    "enhance_mask_sam_max_detections": 2,
    "enhance_inpaint_disable_initial_latent": True,
    "enhance_inpaint_engine": "v1",
    "enhance_inpaint_strength": 0.4,
    "enhance_inpaint_respective_field": 0.3,
    "enhance_inpaint_erode_or_dilate": -3,
    "enhance_mask_invert": True,
}
UNDERSTOOD = DetailPass(
    mask=MaskOptions(
        "u2net_cloth_seg",
        cloth_category="upper",
        detection_prompt="an eye",
        sam_model="vit_l",
        box_threshold=0.6,
        text_threshold=0.5,
        max_detections=2,
        dino_erode_or_dilate=5,
        dino_debug=True,
    ),
    prompt="a green eye",
    negative_prompt="red",
    erode_or_dilate=-3,
    invert=True,
    denoise=0.4,
    respective_field=0.3,
    engine="v1",
    use_initial_latent=False,
)
DEBUG = {"debugging_dino": True, "dino_erode_or_dilate": 5, "debugging_enhance_masks_checkbox": True}


def flat(number: int, controller: dict[str, Any] = CONTROLLER) -> dict[str, Any]:
    return {f"{name}_{number}": value for name, value in controller.items()}


def as_texts(fields: dict[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else str(value) for name, value in fields.items()}


def detail_of(house: House) -> Detail:
    (stage,) = house.engine.plans[-1].stages
    assert isinstance(stage, Detail)
    return stage


def steps_of(house: House) -> list[tuple[str, str]]:
    """What is looked for, and what is painted there."""
    return [(one.mask.detection_prompt, one.prompt) for one in passes_of(house)]


def passes_of(house: House) -> list[DetailPass]:
    return [one for one in detail_of(house).passes if isinstance(one, DetailPass)]


@pytest.fixture
def house(shared: House) -> Iterator[House]:
    shared.engine._story = good_story
    yield shared
    shared.engine._story = good_story


@pytest.fixture
def client(shared_client: TestClient) -> TestClient:
    return shared_client


# --- what is understood -------------------------------------------------------------------------------------------

FORM = {**OFF, **as_texts(flat(2)), "advanced_params": json.dumps(DEBUG)}
LISTED = {**BODY, **OFF, "enhance_ctrlnets": [{}, CONTROLLER, None], "advanced_params": DEBUG}


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(
    "sent",
    [
        {"files": FILE, "data": FORM},
        {"data": {**FORM, **BODY}},
        {"json": LISTED},
        {"json": {**BODY, **OFF, **flat(2), "advanced_params": DEBUG}},
        {"json": {**LISTED, "enhance_ctrls": [CONTROLLER] * 3}},
        {"json": {**BODY, **OFF, "enhance_ctrls": json.dumps([None, CONTROLLER]), "advanced_params": DEBUG}},
        {"files": FILE, "data": {**OFF, "enhance_ctrlnets": str([{}, CONTROLLER]), "advanced_params": str(DEBUG)}},
        {"json": {**LISTED, "enhance_ctrlnets": [{}, {**CONTROLLER, "enhance_prompt": "x"}], **flat(2)}},
        {"json": {**LISTED, "enhance_ctrlnets": [{}, CONTROLLER, {}, CONTROLLER]}},
    ],
    ids=["files", "texts", "list", "own fields", "both names", "alias", "list in a form", "list and own", "surplus"],
)
def test_every_spelling_asks_for_the_same(house: House, client: TestClient, path: str, sent: dict[str, Any]) -> None:
    accepted(client, path, **sent)
    stage = detail_of(house)
    assert stage.passes == (UNDERSTOOD,)
    assert (stage.start, stage.show_masks, stage.only_last) == (None, True, True)
    assert stage.picture is not None
    assert nothing_kept(house)


def test_own_fields_stand_before_the_list_one_by_one(house: House, client: TestClient) -> None:
    listed = [{"enhance_enabled": True, "enhance_prompt": "first"}, {"enhance_enabled": True}]
    own = {"enhance_mask_dino_prompt_1": "hat", "enhance_enabled_2": "false", "enhance_enabled_3": True}
    accepted(client, V2, json={**BODY, "enhance_ctrlnets": listed, **own})
    assert steps_of(house) == [("hat", "first"), ("face", "")]


def test_what_is_left_out_has_the_contracts_default(house: House, client: TestClient) -> None:
    """The two forms differ in what is looked for and in the metadata."""
    accepted(client, V2, json={**BODY, "enhance_ctrlnets": [{"enhance_enabled": True}]})
    stage = detail_of(house)
    assert stage.passes == (DetailPass(MaskOptions("sam", detection_prompt="face")),)
    assert stage.start == DetailStart("Vary (Strong)", 0.85)
    assert house.engine.plans[-1].output.save_metadata
    named = {"enhance_enabled_1": "true", "enhance_mask_dino_prompt_1": "eye", "enhance_mask_model_1": ""}
    accepted(client, V1, files=FILE, data=named)
    assert detail_of(house).passes == (DetailPass(MaskOptions("sam", detection_prompt="eye")),)
    assert not house.engine.plans[-1].output.save_metadata


@pytest.mark.parametrize("ignored", [{"enhance_checkbox": False}, {"save_final_enhanced_image_only": False}])
def test_what_is_always_on(house: House, client: TestClient, ignored: dict[str, Any]) -> None:
    accepted(client, V2, json={**BODY, **ignored})
    assert detail_of(house).only_last


def test_the_step_before_or_after(house: House, client: TestClient) -> None:
    last = {
        "enhance_uov_method": "upscale (custom)",
        "enhance_uov_processing_order": "after last enhancement",
        "enhance_uov_prompt_type": "Last Filled Enhancement Prompts",
    }
    accepted(client, V1, files=FILE, data=last)
    assert detail_of(house).start == DetailStart(
        "Upscale (Custom)", 0.382, 1.0, comes_last=True, uses_last_prompts=True
    )


def test_what_all_steps_have_in_common(house: House, client: TestClient) -> None:
    common = {"prompt": "a cat", "image_seed": 12, "image_number": 4, "performance_selection": "Quality"}
    answer = accepted(client, V2, json={**BODY, **common, "advanced_params": {"overwrite_vary_strength": 0.2}})
    stage = detail_of(house)
    assert (stage.base.prompts.prompt, stage.base.seed, stage.base.image_number) == ("a cat", 12, 1)
    assert (stage.steps, stage.upscale_steps) == (60, 36)
    assert stage.start is not None
    assert stage.start.denoise == 0.2
    assert [result["seed"] for result in answer] == ["12"]


# --- what is answered ---------------------------------------------------------------------------------------------


def test_the_kept_picture_has_its_place_in_its_name(house: House, client: TestClient) -> None:
    house.engine._story = lambda plan: [Started(1), an_image(2), Finished()]
    (answer,) = accepted(client, V2, json={**BODY, "save_name": "cup"})
    assert answer["url"].endswith("/cup-2.png")


def test_the_job_has_its_kind(house: House, client: TestClient) -> None:
    answer = client.post(V1, files=FILE, data={"async_process": "true"}).json()
    assert answer["job_type"] == "Image Enhancement"
    assert finished(client, answer["job_id"])["job_stage"] == "SUCCESS"


def test_where_nothing_was_found_the_job_succeeds_with_nothing(house: House, client: TestClient) -> None:
    house.engine._story = lambda plan: [Started(1), Finished()]
    enabled = {**BODY, **OFF, "enhance_ctrlnets": [{"enhance_enabled": True}]}
    answer = client.post(V2, json={**enabled, "async_process": True}).json()
    job = finished(client, answer["job_id"])
    assert (job["job_stage"], job["job_result"]) == ("SUCCESS", [])
    (waited,) = client.post(V2, json=enabled).json()
    assert (waited["url"], waited["finish_reason"]) == (None, "ERROR")  # an empty list is more than clients bear


def test_the_record_tells_what_was_asked(house: House, client: TestClient) -> None:
    accepted(client, V2, json={**LISTED, "prompt": "a cat"})
    params = house.jobs.get(client.get("/v1/generation/job-queue").json()["last_job_id"]).context["params"]
    assert (params["prompt"], params["enhance_uov_method"], params["enhance_input_image"]) == (
        "a cat",
        "Disabled",
        None,
    )
    assert params["enhance_ctrlnets"] == [CONTROLLER]
    assert (params["uov_method"], params["input_image"]) == ("Disabled", None)


# --- what is refused ----------------------------------------------------------------------------------------------

SAM = {"enhance_enabled": True, "enhance_mask_dino_prompt": ""}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ["enhance_input_image"]),
        ({"enhance_input_image": "None"}, ["enhance_input_image"]),
        ({**BODY, **OFF}, ["enhance_uov_method"]),
        ({**BODY, **OFF, "enhance_ctrlnets": [{"enhance_prompt": "x"}]}, ["enhance_uov_method"]),
        ({**BODY, "enhance_uov_method": "Vary"}, ["enhance_uov_method"]),
        ({**BODY, "enhance_uov_processing_order": "Never"}, ["enhance_uov_processing_order"]),
        ({**BODY, "enhance_uov_prompt_type": "None"}, ["enhance_uov_prompt_type"]),
        ({**BODY, "enhance_ctrlnets": {}}, ["enhance_ctrlnets"]),
        ({**BODY, "enhance_ctrlnets": [{"enhance_mask_model": "x"}]}, ["enhance_ctrlnets", 0, "enhance_mask_model"]),
        ({**BODY, "enhance_mask_sam_model_3": "vit_x"}, ["enhance_mask_sam_model_3"]),
        ({**BODY, "enhance_mask_box_threshold_1": 1.5}, ["enhance_mask_box_threshold_1"]),
        ({**BODY, "enhance_ctrlnets": [{}, SAM]}, ["enhance_ctrlnets", 1, "enhance_mask_dino_prompt"]),
        ({**BODY, "enhance_enabled_3": True, "enhance_mask_dino_prompt_3": " . "}, ["enhance_mask_dino_prompt_3"]),
        (
            {**BODY, "enhance_ctrlnets": [{}, {"enhance_enabled": True, "enhance_inpaint_strength": 1e-9}]},
            ["enhance_ctrlnets", 1, "enhance_inpaint_strength"],
        ),
        (
            {**BODY, "enhance_ctrlnets": [{"enhance_mask_dino_prompt": "x" * 2001}]},
            ["enhance_ctrlnets", 0, "enhance_mask_dino_prompt"],
        ),
        (
            {**BODY, "advanced_params": {"overwrite_vary_strength": 1e-9}},
            ["advanced_params", "overwrite_vary_strength"],
        ),
    ],
)
def test_what_is_refused_is_named(house: House, client: TestClient, body: dict[str, Any], field: list[Any]) -> None:
    assert refused_field(client, V2, json=body) == field
    assert nothing_kept(house)


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"data": {"enhance_enabled_1": "true"}}, "enhance_input_image"),
        ({"files": {"enhance_input_image": b""}}, "enhance_input_image"),
        ({"files": {"enhance_input_image": b"no picture"}}, "enhance_input_image"),
        ({"files": FILE, "data": OFF}, "enhance_uov_method"),
        ({"files": FILE, "data": {"enhance_mask_model_2": "yolo"}}, "enhance_mask_model_2"),
        ({"files": FILE, "data": {"enhance_mask_sam_max_detections_2": "11"}}, "enhance_mask_sam_max_detections_2"),
        ({"files": FILE, "data": {"enhance_enabled_2": "true"}}, "enhance_mask_dino_prompt_2"),
    ],
)
def test_what_a_form_lacks_is_named(house: House, client: TestClient, sent: dict[str, Any], field: str) -> None:
    assert refused_field(client, V1, **sent) == [field]
    assert nothing_kept(house)


def test_prompts_are_as_long_as_the_server_takes(
    house: House, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "settings", Settings(max_prompt_characters=9))
    enabled = {**BODY, "enhance_enabled_2": True}
    accepted(client, V2, json={**enabled, "enhance_negative_prompt_2": "x" * 9})
    assert refused_field(client, V2, json={**enabled, "enhance_prompt_2": "x" * 10}) == ["enhance_prompt_2"]


def test_controllers_that_do_not_take_part_need_nothing(house: House, client: TestClient) -> None:
    accepted(client, V1, files=FILE, data={"enhance_mask_dino_prompt_1": "", "enhance_prompt_2": "x"})
    assert detail_of(house).passes == ()
