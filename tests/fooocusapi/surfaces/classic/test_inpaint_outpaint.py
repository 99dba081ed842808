"""Inpainting and outpainting over HTTP: what is understood, what is refused, and what is kept for how long."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fooocus_core.plan import Repaint
from fooocus_core.presets.preset import load_preset
from fooocusapi.settings import Settings
from tests.fooocusapi.served import TEXT_TO_IMAGE, House, finished, pixels_of, query, serving
from tests.fooocusapi.surfaces.classic.pictures import (
    accepted,
    half,
    nothing_kept,
    plain,
    png,
    refused_field,
    stage_of,
    text,
)

V1, V2 = "/v1/generation/image-inpaint-outpaint", "/v2/generation/image-inpaint-outpaint"
HEIGHT, WIDTH = 64, 96
PIXELS = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
PICTURE, MASK = png(PIXELS), half(HEIGHT, WIDTH)
BOTH = {"input_image": text(PICTURE), "input_mask": text(MASK)}
FIELDS = {"prompt": "a red ball", "inpaint_additional_prompt": "a blue cube"}
SIDES = ("left", "right", "top", "bottom")


@pytest.fixture
def house(shared: House) -> House:
    return shared


@pytest.fixture
def client(shared_client: TestClient) -> TestClient:
    return shared_client


def repaint_of(house: House) -> Repaint:
    repaint = stage_of(house).repaint
    assert repaint is not None
    return repaint


def repainted(client: TestClient, house: House, **fields: Any) -> Repaint:
    """What is asked of the engine for a picture with a mask and ``fields``."""
    accepted(client, V2, json={**BOTH, **fields})
    return repaint_of(house)


def advanced(**fields: Any) -> dict[str, Any]:
    return {"advanced_params": fields}


# ----------------------------------------------------------------------------------------------------------- all forms


@pytest.mark.parametrize(
    "sent",
    [
        {"files": {"input_image": PICTURE, "input_mask": MASK}, "data": FIELDS},
        {"files": {"input_image": ("input_image", PICTURE)}, "data": {**FIELDS, "input_mask": text(MASK)}},
        {"data": {**FIELDS, **BOTH}},
        {"files": {"input_image": (None, PICTURE), "input_mask": (None, text(MASK))}, "data": FIELDS},
        {"json": {**FIELDS, **BOTH}},
        {"json": {**FIELDS, **{name: f"data:image/png;base64,{value}" for name, value in BOTH.items()}}},
        {"content": json.dumps({**FIELDS, **BOTH})},
        {"content": json.dumps({**FIELDS, **BOTH}), "headers": {"content-type": "text/plain"}},
    ],
    ids=["files", "file and text", "urlencoded", "parts without names", "base64", "data", "no type", "wrong type"],
)
@pytest.mark.parametrize("path", [V1, V2, V1.replace("inpaint", "inpait"), f"{V2.replace('inpaint', 'inpait')}/"])
def test_a_picture_and_its_mask_come_in_every_form(
    house: House, client: TestClient, path: str, sent: dict[str, Any]
) -> None:
    accepted(client, path, **sent)
    stage, repaint = stage_of(house), repaint_of(house)
    assert repaint.mask is not None
    assert (stage.width_px, stage.height_px) == (WIDTH, HEIGHT)
    assert stage.prompts.prompt == "a blue cube\na red ball"
    assert query(client, latest(client))["job_type"] == "Image Inpaint or Outpaint"


def latest(client: TestClient) -> str:
    return str(client.get("/v1/generation/job-queue").json()["last_job_id"])


def test_pictures_of_this_server_come_from_its_disk(house: House, client: TestClient) -> None:
    (made,) = client.post(TEXT_TO_IMAGE, json={}).json()
    address = made["url"].replace("127.0.0.1", "elsewhere")
    accepted(client, V2, json={"input_image": address, "input_mask": text(MASK)})
    assert (stage_of(house).width_px, stage_of(house).height_px) == (8, 8)


def test_what_is_left_out_has_this_dialects_default(house: House, client: TestClient) -> None:
    repaint = repainted(client, house)
    assert (repaint.denoise, repaint.respective_field, repaint.engine) == (1.0, 1.0, "v2.6")
    assert repaint.use_initial_latent
    assert not repaint.only_prepare
    assert repaint.outpaint == ()
    assert house.engine.plans[-1].output.save_metadata
    accepted(client, V2, files={"input_image": PICTURE}, data={"outpaint_selections": "Left"})
    assert house.engine.plans[-1].output.save_metadata
    accepted(client, V1, files={"input_image": PICTURE}, data={"outpaint_selections": "Left"})
    assert not house.engine.plans[-1].output.save_metadata


def test_the_finer_controls_are_passed_on(house: House, client: TestClient) -> None:
    repaint = repainted(
        client,
        house,
        **advanced(
            inpaint_strength="0.5",
            inpaint_respective_field=0.25,
            inpaint_engine="V1",
            inpaint_disable_initial_latent=True,
            debugging_inpaint_preprocessor="true",
        ),
    )
    assert (repaint.denoise, repaint.respective_field, repaint.engine) == (0.5, 0.25, "v1")
    assert not repaint.use_initial_latent
    assert repaint.only_prepare


@pytest.mark.parametrize(
    ("asked", "engine"), [("none", "None"), ("None", "None"), ("v2.5", "v2.5"), ("nonsense", "v2.6"), ("", "v2.6")]
)
def test_engines(house: House, client: TestClient, asked: str, engine: str) -> None:
    assert repainted(client, house, **advanced(inpaint_engine=asked)).engine == engine


# --------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    "mask", [half(20, 200), half(1024, 700), half(8, 8), plain(40, 40)], ids=["wide", "large", "small", "white"]
)
def test_a_mask_of_any_size_and_shape_will_do(house: House, client: TestClient, mask: bytes) -> None:
    accepted(client, V1, files={"input_image": PICTURE, "input_mask": mask})
    assert repaint_of(house).mask is not None
    assert (stage_of(house).width_px, stage_of(house).height_px) == (WIDTH, HEIGHT)


NOTHING: list[dict[str, Any]] = [
    {"input_mask": text(plain(HEIGHT, WIDTH, 0))},
    {"input_mask": text(plain(HEIGHT, WIDTH, 127))},
    {"input_mask": ""},
    {"input_mask": None},
    {"input_mask": "None"},
    {"input_image": "", "outpaint_selections": ["Left"]},
    {"input_image": None},
    {"input_image": "string"},
    advanced(inpaint_advanced_masking_checkbox=False),
    {"input_mask": text(plain(9, 9)), **advanced(invert_mask_checkbox=True)},
    advanced(inpaint_erode_or_dilate=-64),
]


@pytest.mark.parametrize("fields", NOTHING)
def test_nothing_to_repaint_is_text_to_image(house: House, client: TestClient, fields: dict[str, Any]) -> None:
    accepted(client, V2, json={**BOTH, **FIELDS, **fields})
    stage = stage_of(house)
    assert stage.repaint is None
    assert (stage.width_px, stage.height_px) == (1152, 896)
    assert stage.prompts.prompt == "a red ball"
    assert query(client, latest(client))["job_type"] == "Image Inpaint or Outpaint"
    assert nothing_kept(house)


def test_the_old_name_of_the_checkbox_says_nothing(house: House, client: TestClient) -> None:
    assert repainted(client, house, **advanced(inpaint_mask_upload_checkbox=False)).mask is not None


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_additional_prompt(house: House, client: TestClient, value: Any) -> None:
    repainted(client, house, prompt="a red ball", inpaint_additional_prompt=value)
    assert stage_of(house).prompts.prompt == "a red ball"


# --------------------------------------------------------------------------------------------------------------- sides


@pytest.mark.parametrize(
    "selections",
    [
        "Left,Top",
        "Left, Top",
        " left , TOP ",
        '["Left", "Top"]',
        ["Left", "Top"],
        ["Left", "Top", "Left"],
        ["left,top"],
    ],
)
@pytest.mark.parametrize("path", [V1, V2])
def test_sides_in_every_spelling_of_a_form(house: House, client: TestClient, path: str, selections: Any) -> None:
    accepted(client, path, files={"input_image": PICTURE}, data={"outpaint_selections": selections})
    assert repaint_of(house) == Repaint(
        repaint_of(house).picture, outpaint=(("left", 28), ("top", 19)), respective_field=1.0
    )
    assert (stage_of(house).width_px, stage_of(house).height_px) == (WIDTH + 28, HEIGHT + 19)


@pytest.mark.parametrize("selections", [["Right"], "Right", ["right", None, ""], '["RIGHT"]'])
def test_sides_in_every_spelling_of_json(house: House, client: TestClient, selections: Any) -> None:
    accepted(client, V2, json={"input_image": text(PICTURE), "outpaint_selections": selections})
    assert repaint_of(house).outpaint == (("right", 28),)


@pytest.mark.parametrize("selections", [[], "", None, "[]"])
def test_no_side(house: House, client: TestClient, selections: Any) -> None:
    assert repainted(client, house, outpaint_selections=selections, outpaint_distance_left=9).outpaint == ()


@pytest.mark.parametrize("distance", [0, -1, -5, None, "", "0", "-1"])
def test_distances_that_mean_automatic(house: House, client: TestClient, distance: Any) -> None:
    fields = {f"outpaint_distance_{side}": distance for side in SIDES}
    sides = repainted(client, house, outpaint_selections=["Left", "Right", "Top", "Bottom"], **fields).outpaint
    assert dict(sides) == {"left": 28, "right": 28, "top": 19, "bottom": 19}
    data = {name: "" if value is None else str(value) for name, value in fields.items()}
    accepted(client, V1, files={"input_image": PICTURE}, data={"outpaint_selections": "Top", **data})
    assert repaint_of(house).outpaint == (("top", 19),)


def test_distances_count_for_selected_sides(house: House, client: TestClient) -> None:
    fields = {f"outpaint_distance_{side}": str(number) for number, side in enumerate(SIDES, 10)}
    assert repainted(client, house, outpaint_selections=["Bottom", "Right"], **fields).outpaint == (
        ("bottom", 13),
        ("right", 11),
    )
    assert (stage_of(house).width_px, stage_of(house).height_px) == (WIDTH + 11, HEIGHT + 13)


# ----------------------------------------------------------------------------------------------------- what is refused

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"outpaint_selections": ["Up"]}, "outpaint_selections"),
    ({"outpaint_selections": "Left,Up"}, "outpaint_selections"),
    ({"outpaint_selections": 5}, "outpaint_selections"),
    ({"outpaint_selections": ["Left"], "outpaint_distance_left": 10**7}, "outpaint_distance_left"),
    (
        {"outpaint_selections": ["Left", "Top"], "outpaint_distance_left": 300, "outpaint_distance_top": 99_000},
        "outpaint_distance_top",
    ),
    ({"outpaint_selections": ["Top"], "outpaint_distance_top": 10**4000}, "outpaint_distance_top"),
    ({"outpaint_distance_right": "far"}, "outpaint_distance_right"),
    ({"outpaint_distance_bottom": 1.5}, "outpaint_distance_bottom"),
    ({"inpaint_additional_prompt": "x" * 30_000}, "inpaint_additional_prompt"),
    ({"inpaint_additional_prompt": 5}, "inpaint_additional_prompt"),
    ({"input_mask": 5}, "input_mask"),
    ({"input_image": []}, "input_image"),
    (advanced(inpaint_strength=1.1), "inpaint_strength"),
    (advanced(inpaint_respective_field=-0.1), "inpaint_respective_field"),
    (advanced(inpaint_erode_or_dilate=65), "inpaint_erode_or_dilate"),
    ({"image_number": 99}, "image_number"),
    (advanced(sampler_name="nonsense"), "sampler_name"),
]


@pytest.mark.parametrize(("fields", "field"), REFUSED)
def test_what_is_refused_is_named_and_leaves_nothing(
    house: House, client: TestClient, fields: dict[str, Any], field: str
) -> None:
    assert field in refused_field(client, V2, json={**BOTH, **fields})
    assert nothing_kept(house)


@pytest.mark.parametrize("data", [{"outpaint_selections": "Up"}, {"outpaint_distance_left": "far"}])
def test_forms_are_refused_by_field_too(client: TestClient, data: dict[str, str]) -> None:
    answer = client.post(V1, files={"input_image": ("a.png", PICTURE)}, data=data)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["body", next(iter(data))]
    assert answer.json()["body"] == {"input_image": "a.png", **data}


@pytest.mark.parametrize(
    "sent", [{"data": FIELDS}, {"files": {"input_image": b""}}, {"data": {"input_image": ""}}, {"files": {"x": b"y"}}]
)
def test_a_form_needs_a_picture(client: TestClient, sent: dict[str, Any]) -> None:
    assert refused_field(client, V1, **sent) == ["input_image"]


def test_a_result_that_would_be_too_large_names_what_makes_it_so(tmp_path: Any) -> None:
    house = House(tmp_path, settings=Settings(max_input_pixels=9_000))
    with serving(house) as client:
        grown = {"input_image": text(PICTURE), "outpaint_selections": ["Left", "Right"]}
        assert refused_field(client, V2, json=grown) == ["outpaint_selections"]
        assert refused_field(client, V2, json={**grown, "outpaint_distance_right": 70}) == ["outpaint_distance_right"]
        accepted(client, V2, json={**grown, "outpaint_distance_left": 9, "outpaint_distance_right": 9})


# ------------------------------------------------------------------------------------------------ what is kept, history


def test_picture_and_mask_are_kept_until_their_job_has_ended(house: House, client: TestClient) -> None:
    seen: list[tuple[int, int, int]] = []
    story = house.engine._story

    def looking(plan: Any) -> Any:
        repaint = plan.stages[0].repaint
        assert np.array_equal(house.kept.read(repaint.picture), PIXELS)
        mask = house.kept.read(repaint.mask)
        seen.append((len(list(house.root.glob("inputs/*"))), int(mask[0, 0]), int(mask[0, -1])))
        yield from story(plan)

    house.engine._story = looking
    try:
        accepted(client, V2, json=BOTH)
    finally:
        house.engine._story = story
    assert seen == [(2, 0, 255)]
    assert nothing_kept(house)


def test_a_full_queue_keeps_nothing(tmp_path: Any) -> None:
    house = House(tmp_path)
    house.limits = house.limits.__class__(queue_size=0)
    with serving(house) as client:
        (answer,) = client.post(V2, json=BOTH).json()
        assert answer["finish_reason"] == "QUEUE_IS_FULL"
        assert nothing_kept(house)


def test_the_answer_may_be_the_picture_or_a_job(house: House, client: TestClient) -> None:
    form = {"files": {"input_image": PICTURE}, "data": {"outpaint_selections": "Left", "image_number": "2"}}
    answer = client.post(V1, **form, headers={"Accept": "image/png"})  # type: ignore[arg-type]
    assert pixels_of(answer.content).shape == (8, 8, 3)
    assert stage_of(house).image_number == 1
    job = client.post(V2, json={**BOTH, "async_process": True}).json()
    assert (job["job_type"], job["job_stage"]) == ("Image Inpaint or Outpaint", "WAITING")
    assert finished(client, job["job_id"])["job_stage"] == "SUCCESS"


def test_the_history_tells_what_was_asked(tmp_path: Any) -> None:
    house = House(tmp_path, settings=Settings(persistent=True), preset=load_preset("pony_v6"))
    sides = {"outpaint_selections": "Top,Left", "outpaint_distance_left": 5}
    with serving(house) as client:
        accepted(client, V2, json={**BOTH, **FIELDS, **sides, **advanced(inpaint_strength=0.5)})
        accepted(client, V2, json={**BOTH, "inpaint_additional_prompt": "a cube"})
        newest, oldest = (job["params"] for job in client.get("/v1/generation/job-history").json()["history"])
    assert (oldest["prompt"], oldest["inpaint_additional_prompt"]) == ("a red ball", "a blue cube")
    assert oldest["outpaint_selections"] == ["Top", "Left"]
    assert [oldest[f"outpaint_distance_{side}"] for side in SIDES] == [5, 0, 19, 0]
    assert (oldest["advanced_params"]["inpaint_strength"], oldest["advanced_params"]["inpaint_engine"]) == (0.5, "None")
    assert (oldest["input_image"], oldest["input_mask"]) == (None, None)
    assert (newest["prompt"], newest["inpaint_additional_prompt"]) == (house.preset.prompt, "a cube")
    assert newest["outpaint_selections"] == []
