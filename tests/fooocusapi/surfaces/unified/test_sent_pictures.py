"""Pictures that come with requests: read, kept for their job, and shown by the records."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.fooocusapi.served import House, pixels_of, wait_until
from tests.fooocusapi.surfaces.unified.asking import GENERATE, MASK, OTHER, PICTURE, plain

REPAINT = {"inpaint_input_image": PICTURE, "inpaint_mask_image_upload": MASK, "inpaint_additional_prompt": "a plum"}


def path_of(url: str) -> str:
    return url.removeprefix("http://127.0.0.1:8888")


def asked(client: TestClient, **body: Any) -> Any:
    answer = client.post(GENERATE, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_records_show_what_was_sent(house: House, client: TestClient) -> None:
    record = asked(
        client, prompt="x", controlnet_image=[{"cn_type": "CPDS"}, {"cn_img": OTHER, "cn_stop": None}], **REPAINT
    )
    params = record["req_params"]
    assert (params["current_tab"], params["input_image_checkbox"]) == ("ip", True)
    assert params["inpaint_advanced_masking_checkbox"] is True
    assert (params["prompt"], params["inpaint_additional_prompt"]) == ("x", "a plum")
    prompts = params["controlnet_image"]
    assert [prompt["cn_type"] for prompt in prompts] == ["CPDS", "ImagePrompt", "ImagePrompt", "ImagePrompt"]
    assert [(prompt["cn_stop"], prompt["cn_weight"]) for prompt in prompts[:2]] == [(0.6, 0.6), (None, 0.6)]
    assert [bool(prompt["cn_img"]) for prompt in prompts] == [False, True, False, False]
    assert params["uov_input_image"] == params["enhance_input_image"] == ""
    shown = client.get(path_of(prompts[1]["cn_img"]))
    assert shown.headers["content-type"] == "image/png"
    assert np.array_equal(pixels_of(shown.content), plain(200, 80, 56))
    assert client.get(path_of(params["inpaint_mask_image_upload"])).status_code == 200


def test_they_stay_when_their_task_is_forgotten(house: House, client: TestClient) -> None:
    params = asked(client, **REPAINT)["req_params"]
    wait_until(lambda: not list(house.root.glob("inputs/*")))
    house.clock.advance(1000)
    client.get("/tasks", params={"start_at": "2000-01-01T00:00:00", "action": "delete"})
    assert client.get("/tasks").json()["history"] == []
    assert client.get(path_of(params["inpaint_input_image"])).status_code == 200


def test_the_same_picture_is_kept_once(house: House, client: TestClient) -> None:
    first, second = (asked(client, uov_input_image=PICTURE)["req_params"]["uov_input_image"] for _ in range(2))
    assert first == second
    assert len(list(house.root.glob("sent/*"))) == 1


def test_calls_are_chained_by_addresses(house: House, client: TestClient) -> None:
    """Of results and of pictures that were sent, under any name that the server goes by."""
    first = asked(client, uov_input_image=PICTURE, uov_method="Vary (Subtle)")
    sent = first["req_params"]["uov_input_image"].replace("127.0.0.1:8888", "localhost:7866")
    made = first["result"][0].replace("127.0.0.1", "example.org")
    record = asked(client, uov_input_image=made, uov_method="Upscale (2x)", controlnet_image=[{"cn_img": sent}])
    assert record["req_params"]["controlnet_image"][0]["cn_img"] == first["req_params"]["uov_input_image"]


@pytest.mark.parametrize("form", [PICTURE, f"data:image/png;base64,{PICTURE}", f"\n{PICTURE[:40]}\n{PICTURE[40:]}"])
def test_base64_in_every_form(house: House, client: TestClient, form: str) -> None:
    asked(client, uov_input_image=form, uov_method="Vary (Subtle)")
    assert house.engine.plans[-1].stages[0].start is not None


@pytest.mark.parametrize("accept", ["image/webp", "image/jpg"])
def test_shown_pictures_are_converted(client: TestClient, accept: str) -> None:
    url = asked(client, uov_input_image=PICTURE)["req_params"]["uov_input_image"]
    answer = client.get(f"{path_of(url)}?cacheBust=1", headers={"accept": accept})
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == {"image/webp": "WEBP", "image/jpg": "JPEG"}[accept]
    assert client.head(path_of(url)).headers["content-length"] == client.get(path_of(url)).headers["content-length"]
    assert client.get(path_of(url), headers={"range": "bytes=0-3"}).content == b"\x89PNG"


@pytest.mark.parametrize(
    "name", ["x.png", "../journal.db", "..%2fjournal.db", "0" * 64, f"{'0' * 64}.png", "", "a/b.png"]
)
def test_no_other_file_is_shown(shared_client: TestClient, name: str) -> None:
    assert shared_client.get(f"/inputs/{name}").status_code == 404


def test_results_are_had_as_another_kind(client: TestClient) -> None:
    url = path_of(asked(client)["result"][0])
    assert client.get(url).content.startswith(b"\x89PNG")
    answer = client.get(f"{url}?x=1", headers={"accept": "image/webp"})
    assert answer.headers["content-type"] == "image/webp"
    assert answer.content.startswith(b"RIFF")


def test_a_name_of_the_client(house: House, client: TestClient) -> None:
    for _ in range(2):
        record = asked(client, save_name="apple", output_format="webp", image_number=2)
    assert [url.rpartition("/")[2] for url in record["result"]] == ["apple-0.webp", "apple-1.webp"]
    assert len(house.files) == 2
    assert record["req_params"]["save_name"] == "apple"


def test_base64_of_no_picture_is_the_fields_fault(client: TestClient) -> None:
    half = base64.b64encode(base64.b64decode(PICTURE)[:60]).decode()
    answer = client.post(GENERATE, json={"controlnet_image": [{"cn_img": half}]})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "controlnet_image", 0, "cn_img"]


def test_a_record_can_be_sent_again(house: House, client: TestClient) -> None:
    """All but the flat list of LoRAs is a body that makes the same plan."""
    record = asked(client, prompt="x", preset="anime", image_seed=5, outpaint_selections=["Left"], **REPAINT)
    first = house.engine.plans[-1]
    asked(client, **{name: value for name, value in record["req_params"].items() if name != "loras"})
    again = house.engine.plans[-1]
    assert (again.stages[0].repaint, again.stages[0].prompts) == (first.stages[0].repaint, first.stages[0].prompts)
    assert again.output == first.output
