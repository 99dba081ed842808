"""The four forms of answer, which of them is given, and what each says when there is no picture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from fooocus_core.events import Event, Failed, Finished, Started
from fooocusapi.jobs.queue import Limits
from tests.fooocusapi.fakes import BIRTH_MS, ScriptedEngine, an_image
from tests.fooocusapi.served import (
    DRAWN_SEED,
    TODAY,
    HeldEngine,
    House,
    in_background,
    serving,
)
from tests.fooocusapi.surfaces.unified.asking import FIRST_TASK, GENERATE, ended, task

RECORD_KEYS = [
    "id",
    "task_id",
    "req_params",
    "in_queue_mills",
    "start_mills",
    "finish_mills",
    "task_status",
    "progress",
    "webhook_url",
    "result",
]


def test_a_call_that_waits_is_answered_with_the_record(house: House, client: TestClient) -> None:
    answer = client.post(GENERATE, json={"prompt": "a red apple", "image_number": 2, "webhook_url": None})
    assert answer.status_code == 200
    record = answer.json()
    assert list(record) == RECORD_KEYS
    assert (record["id"], record["task_id"]) == (1, FIRST_TASK)
    assert (record["task_status"], record["progress"], record["webhook_url"]) == ("finished", 100, "")
    assert (record["in_queue_mills"], record["start_mills"], record["finish_mills"]) == (BIRTH_MS,) * 3
    assert record["result"] == [f"http://127.0.0.1:8888/outputs/{path}" for path in house_files(house)]
    assert len(record["result"]) == 2
    assert record["req_params"]["image_seed"] == DRAWN_SEED
    assert '"image_seed":6023511366105519179' in answer.text
    assert task(client) == record


def house_files(house: House) -> list[str]:
    """The pictures in the order in which they were made."""
    job = house.jobs.get("00000000-0000-4000-8000-000000000001")
    assert job is not None
    assert all(path.startswith(f"{TODAY}/{TODAY}_00-00-00_") for path in house.files)
    return [result.path for result in job.results]


def test_a_call_that_does_not_wait_is_acknowledged(client: TestClient) -> None:
    answer = client.post(GENERATE, json={"async_process": True})
    assert answer.text == (
        f'{{"id":-1,"task_id":"{FIRST_TASK}","req_params":{{}},"in_queue_mills":-1,"start_mills":-1,'
        '"finish_mills":-1,"task_status":"pending","progress":-1,"preview":"","webhook_url":"","result":[]}'
    )
    assert ended(client)["task_status"] == "finished"


@pytest.mark.parametrize("path", [GENERATE, f"{GENERATE}/"])
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json"])
def test_a_body_is_json_whatever_its_type_says(shared_client: TestClient, path: str, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = shared_client.post(path, content='{"prompt": "x"}', headers=headers)
    assert answer.status_code == 200
    assert answer.json()["req_params"]["prompt"] == "x"


# ------------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("accept", "media_type", "kind"),
    [
        ("image/png", "image/png", "PNG"),
        ("image/jpeg", "image/jpeg", "JPEG"),
        ("image/jpg", "image/jpg", "JPEG"),
        ("IMAGE/WEBP", "image/webp", "WEBP"),
        ("image/*", "image/png", "PNG"),
        ("image/avif", "image/png", "PNG"),
        (" image/webp;q=0.8", "image/webp", "WEBP"),
    ],
)
def test_one_picture_type_is_answered_with_a_picture(
    shared: House, shared_client: TestClient, accept: str, media_type: str, kind: str
) -> None:
    """It stands above both other forms, and one picture is made."""
    body = {"stream_output": True, "async_process": True, "image_number": 3}
    answer = shared_client.post(GENERATE, json=body, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == kind
        assert "parameters" not in picture.info
    assert shared.engine.plans[-1].stages[0].image_number == 1


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/json",
        "application/json, text/plain, */*",
        "image/png, */*",
        "text/html,image/webp",
        "",
        "image",
    ],
)
def test_any_list_of_types_means_json(shared_client: TestClient, accept: str) -> None:
    answer = shared_client.post(GENERATE, json={}, headers={"accept": accept})
    assert answer.headers["content-type"] == "application/json"


def test_the_stream_stands_above_the_acknowledgement(client: TestClient) -> None:
    answer = client.post(GENERATE, json={"stream_output": True, "async_process": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


# ----------------------------------------------------------------------------------------------------------- no picture


def failing(plan: Any) -> Iterator[Event]:
    yield Started(1)
    yield an_image()
    yield Failed("no room for this picture")


def nothing(plan: Any) -> Iterator[Event]:
    yield Started(1)
    yield Finished()


class Playing(ScriptedEngine):
    """Has nothing to unload."""

    def unload(self) -> None:
        return


@pytest.mark.parametrize(("story", "results"), [(failing, 1), (nothing, 0)])
def test_a_task_that_failed_is_finished_with_what_there_is(house: House, story: Any, results: int) -> None:
    house.engine = Playing(story)
    with serving(house) as client:
        record = client.post(GENERATE, json={}).json()
        assert (record["task_status"], record["progress"], len(record["result"])) == ("finished", 100, results)


@pytest.mark.parametrize(("story", "status", "text"), [(failing, 500, "ERROR"), (nothing, 204, "")])
def test_no_picture_where_one_was_wanted(house: House, story: Any, status: int, text: str) -> None:
    house.engine = Playing(story)
    with serving(house) as client:
        answer = client.post(GENERATE, json={}, headers={"accept": "image/png"})
        assert (answer.status_code, answer.text) == (status, text)


@pytest.mark.parametrize("accept", ["*/*", "image/png"])
def test_a_task_that_was_stopped(house: House, accept: str) -> None:
    house.engine = HeldEngine()
    with serving(house) as client:
        answer = in_background(lambda: client.post(GENERATE, json={}, headers={"accept": accept}))
        house.engine.begin()
        assert house.jobs.stop_running()
        house.engine.play(an_image())
        if accept == "image/png":
            assert (answer().status_code, answer().text) == (400, "USER_CANCEL")
        else:
            assert (answer().json()["task_status"], answer().json()["result"]) == ("stop", [])


def test_a_full_queue(house: House) -> None:
    house.engine = HeldEngine()
    house.limits = Limits(queue_size=1)
    with serving(house) as client:
        client.post(GENERATE, json={"async_process": True})
        for body in ({}, {"async_process": True}, {"stream_output": True}):
            answer = client.post(GENERATE, json=body)
            assert (answer.status_code, "waiting or running" in answer.json()["detail"]) == (429, True)
        answer = client.post(GENERATE, json={}, headers={"accept": "image/png"})
        assert (answer.status_code, answer.text) == (409, "QUEUE_IS_FULL")
        assert answer.headers["content-type"].startswith("text/plain")


def test_a_body_that_cannot_be_taken_is_refused_in_every_form(shared_client: TestClient) -> None:
    for more in ({}, {"async_process": True}, {"stream_output": True}):
        for accept in ("*/*", "image/png"):
            answer = shared_client.post(GENERATE, json={"image_number": 99, **more}, headers={"accept": accept})
            assert answer.status_code == 422
            assert answer.json()["detail"][0]["loc"] == ["body", "image_number"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": 5}, "prompt"),
        ({"output_format": "gif"}, "output_format"),
        ({"current_tab": "describe"}, "current_tab"),
        ({"uov_method": "Vary"}, "uov_method"),
        ({"metadata_scheme": "xmp"}, "metadata_scheme"),
        ({"outpaint_selections": ["up"]}, "outpaint_selections"),
        ({"outpaint_distance": [1, 2, 3, 4, 5]}, "outpaint_distance"),
        ({"upscale_multiple": 6}, "upscale_multiple"),
        ({"controlnet_image": [{"cn_type": "depth"}]}, "controlnet_image"),
        ({"enhance_ctrls": [{"enhance_mask_model": "yolo"}]}, "enhance_ctrls"),
        ({"uov_input_image": "no picture!"}, "uov_input_image"),
        ({"inpaint_mask_image_upload": 7}, "inpaint_mask_image_upload"),
        ({"enhance_input_image": "http://192.0.2.1/a.png"}, "enhance_input_image"),
        ({"controlnet_image": [{}, {"cn_img": "no picture!"}]}, "controlnet_image"),
        ({"save_name": "../x"}, "save_name"),
    ],
)
def test_what_is_refused_is_named_and_leaves_nothing(
    shared: House, shared_client: TestClient, body: dict[str, Any], field: str
) -> None:
    answer = shared_client.post(GENERATE, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][1] == field
    assert not list(shared.root.glob("sent/*"))


@pytest.mark.parametrize("body", [b"", b"[]", b"{broken", b'{"sharpness": NaN}'])
def test_bodies_that_are_none(shared_client: TestClient, body: bytes) -> None:
    assert shared_client.post(GENERATE, content=body).status_code == 422
