"""Variations and upscales over HTTP: what is understood, what is refused, and what the pictures look like."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from fooocus_core.images.resizing import lanczos
from fooocus_core.plan import StartPicture
from tests.fooocus_core.stages.test_start import distance, scene
from tests.fooocusapi.served import House, finished, pixels_of
from tests.fooocusapi.surfaces.classic.pictures import png, stage_of

V1, V2 = "/v1/generation/image-upscale-vary", "/v2/generation/image-upscale-vary"
FIELDS = {"uov_method": "Vary (Subtle)", "prompt": "a red ball"}


PICTURE = png(scene())
TEXT = base64.b64encode(PICTURE).decode()


def start_of(house: House) -> StartPicture:
    start = stage_of(house).start
    assert start is not None
    return start


@pytest.mark.parametrize(
    "sent",
    [
        {"files": {"input_image": PICTURE}, "data": FIELDS},
        {"files": {"input_image": ("input_image", PICTURE)}, "data": FIELDS},
        {"data": {**FIELDS, "input_image": TEXT}},
        {"json": {**FIELDS, "input_image": TEXT}},
        {"json": {**FIELDS, "input_image": f"data:image/png;base64,{TEXT}"}},
        {"content": json.dumps({**FIELDS, "input_image": TEXT})},
    ],
    ids=["file", "file without a type", "text of a form", "base64", "data address", "JSON without a type"],
)
@pytest.mark.parametrize("path", [V1, V2])
def test_a_picture_comes_in_every_form(house: House, client: TestClient, path: str, sent: dict[str, Any]) -> None:
    answer = client.post(path, **sent)
    assert answer.status_code == 200
    assert answer.json()[0]["finish_reason"] == "SUCCESS"
    assert stage_of(house).prompts.prompt == "a red ball"
    assert (start_of(house).method, start_of(house).denoise) == ("Vary (Subtle)", 0.5)


def test_a_picture_of_this_server_comes_from_its_disk(house: House, client: TestClient) -> None:
    (made,) = client.post(V2, json={"input_image": TEXT}).json()
    (answer,) = client.post(V2, json={"input_image": made["url"].replace("127.0.0.1", "other")}).json()
    assert answer["finish_reason"] == "SUCCESS"


def test_what_is_left_out_has_the_contracts_default(house: House, client: TestClient) -> None:
    client.post(V2, json={"input_image": TEXT})
    assert (start_of(house).method, start_of(house).factor) == ("Upscale (2x)", 2.0)
    assert house.engine.plans[-1].output.save_metadata
    client.post(V1, files={"input_image": PICTURE}, data={"uov_method": "upscale (custom) ", "upscale_value": ""})
    assert (start_of(house).method, start_of(house).factor) == ("Upscale (Custom)", 2.0)
    assert not house.engine.plans[-1].output.save_metadata


def test_forms_of_many_clients_are_read(house: House, client: TestClient) -> None:
    data: dict[str, Any] = {
        **FIELDS,
        "style_selections": ["Fooocus Sharp, Fooocus Enhance", "Fooocus V2"],
        "advanced_params": "{'overwrite_vary_strength': 0.25, 'freeu_enabled': false, 'vae_name': null}",
        "loras": '[{"model_name": "paint", "weight": 0.5}]',
        "image_prompts": "[]",
        "image_number": "2",
        "save_meta": "True",
    }
    assert client.post(V1, files={"input_image": PICTURE}, data=data).status_code == 200
    stage = stage_of(house)
    assert stage.prompts.styles == ("Fooocus Sharp", "Fooocus Enhance", "Fooocus V2")
    assert (stage.image_number, start_of(house).denoise) == (2, 0.25)
    assert house.engine.plans[-1].output.save_metadata


@pytest.mark.parametrize("text", ["{broken", "[1]", '{"overwrite_vary_strength": 7}', "x" * 100_000])
def test_finer_controls_of_a_form_that_cannot_be_read_say_nothing(house: House, client: TestClient, text: str) -> None:
    answer = client.post(V1, files={"input_image": PICTURE}, data={**FIELDS, "advanced_params": text})
    assert answer.status_code == 200
    assert start_of(house).denoise == 0.5


def test_a_method_that_is_switched_off_paints_from_the_prompt(house: House, client: TestClient) -> None:
    answer = client.post(V2, json={"input_image": TEXT, "uov_method": "Disabled", "async_process": True}).json()
    assert answer["job_type"] == "Image Upscale or Variation"
    assert finished(client)["job_stage"] == "SUCCESS"
    assert stage_of(house).start is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input_image"),
        ({"input_image": ""}, "input_image"),
        ({"input_image": "None"}, "input_image"),
        ({"input_image": 5}, "input_image"),
        ({"input_image": "no picture!"}, "input_image"),
        ({"input_image": base64.b64encode(PICTURE[:200]).decode()}, "input_image"),
        ({"input_image": "http://192.0.2.1/picture.png"}, "input_image"),
        ({"input_image": base64.b64encode(png(scene(4))).decode()}, "input_image"),
        ({"input_image": TEXT, "uov_method": "Vary"}, "uov_method"),
        ({"input_image": TEXT, "upscale_value": 6}, "upscale_value"),
        ({"input_image": TEXT, "advanced_params": {"overwrite_vary_strength": 2}}, "overwrite_vary_strength"),
        ({"input_image": TEXT, "loras": "[broken"}, "loras"),
    ],
)
def test_what_is_refused_is_named_and_leaves_nothing(
    shared: House, shared_client: TestClient, body: dict[str, Any], field: str
) -> None:
    answer = shared_client.post(V2, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][-1] == field
    assert not list(shared.root.glob("inputs/*"))


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"files": {"input_image": PICTURE}}, "uov_method"),
        ({"files": {"input_image": PICTURE}, "data": {"uov_method": ""}}, "uov_method"),
        ({"files": {"input_image": b""}, "data": FIELDS}, "input_image"),
        ({"data": FIELDS}, "input_image"),
        ({"content": b""}, "body"),
        ({"content": b"{broken"}, 1),
        ({"json": [1]}, "body"),
    ],
)
def test_forms_and_bodies_that_lack_something(shared_client: TestClient, sent: dict[str, Any], field: Any) -> None:
    answer = shared_client.post(V1, **sent)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][-1] == field


def test_a_picture_is_kept_until_its_job_has_ended(house: House, client: TestClient) -> None:
    kept: list[Path] = []
    story = house.engine._story

    def looking(plan: Any) -> Any:
        kept.extend(house.root.glob("inputs/*"))
        assert np.array_equal(house.kept.read(plan.stages[0].start.picture), scene())
        yield from story(plan)

    house.engine._story = looking
    client.post(V2, json={"input_image": TEXT})
    assert len(kept) == 1
    assert finished(client)["job_stage"] == "SUCCESS"
    assert not list(house.root.glob("inputs/*"))


# ------------------------------------------------------------------------------------------------------------ pictures


def painted(client: TestClient, method: str, side_px: int) -> NDArray[np.uint8]:
    answer = client.post(
        V1,
        files={"input_image": png(scene(side_px))},
        data={
            "uov_method": method,
            "prompt": "a red ball",
            "style_selections": "",
            "image_seed": "7",
            "advanced_params": '{"overwrite_step": 6, "sampler_name": "euler"}',
        },
        headers={"Accept": "image/png"},
    )
    assert answer.status_code == 200, answer.text
    return pixels_of(answer.content)


def test_a_subtle_variation_stays_closer_than_a_strong_one(painting: TestClient) -> None:
    subtle, strong = (painted(painting, f"Vary ({strength})", 256) for strength in ("Subtle", "Strong"))
    whole = lanczos(scene(), 1024, 1024)
    assert distance(subtle, whole) < 0.7 * distance(strong, whole)


@pytest.mark.parametrize("method", ["Upscale (2x)", "Upscale (Fast 2x)"])
def test_an_upscale_is_twice_the_size_and_close_to_a_plain_enlargement(painting: TestClient, method: str) -> None:
    picture = painted(painting, method, 512)
    assert distance(picture, lanczos(scene(512), 1024, 1024)) < 4
