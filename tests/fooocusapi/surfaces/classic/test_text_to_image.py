"""Text to image over HTTP: the three forms of answer, byte for byte, and every way in which a job can end."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fooocus_core.events import Event, Failed, Finished, Progress, Started
from fooocus_core.metadata.read import read_metadata
from fooocus_core.plan import Plan
from fooocusapi.jobs.queue import Limits
from fooocusapi.settings import Settings
from tests.fooocusapi.fakes import a_preview, an_image
from tests.fooocusapi.served import (
    DRAWN_SEED,
    FIRST_ID,
    TEXT_TO_IMAGE,
    TODAY,
    HeldEngine,
    House,
    UnloadableEngine,
    finished,
    in_background,
    pixels_of,
    query,
    serving,
)

FULL_SYNC = '[{"base64":null,"url":null,"seed":"","finish_reason":"QUEUE_IS_FULL"}]'
FULL_ASYNC = (
    '{"job_id":"","job_type":"Text to Image","job_stage":"ERROR","job_progress":0,"job_status":null,'
    f'"job_step_preview":null,"job_result":{FULL_SYNC}}}'
)
NEXT_STEP = Progress(0.9, "Step 9/10 in the 1-th Sampling")
NO_PICTURE = '[{"base64":null,"url":null,"seed":"","finish_reason":"%s"}]'


def failing_story(plan: Plan) -> Iterator[Event]:
    yield Started(1)
    yield Progress(0.5, "Step 5/10 in the 1-th Sampling")
    yield Failed("the device has no room for the job")


def failing_late(plan: Plan) -> Iterator[Event]:
    yield Started(2)
    yield an_image(0, 7)
    yield Failed("the second one did not work")


@pytest.fixture
def held(house: House) -> HeldEngine:
    engine = HeldEngine()
    house.engine = engine
    return engine


# ------------------------------------------------------------------------------------------------------------ the form


def test_waiting_answers_an_array_byte_for_byte(client: TestClient) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={"image_number": 2, "save_name": "abc"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == (
        '[{"base64":null,"url":"http://127.0.0.1:8888/files/2025-02-23/abc-0.png",'
        '"seed":"6023511366105519179","finish_reason":"SUCCESS"},'
        '{"base64":null,"url":"http://127.0.0.1:8888/files/2025-02-23/abc-1.png",'
        '"seed":"6023511366105519180","finish_reason":"SUCCESS"}]'
    )


def test_async_answers_a_job_byte_for_byte(client: TestClient) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={"async_process": True})
    assert answer.status_code == 200
    assert answer.text == (
        f'{{"job_id":"{FIRST_ID}","job_type":"Text to Image","job_stage":"WAITING","job_progress":0,'
        '"job_status":null,"job_step_preview":null,"job_result":null}'
    )


def test_a_finished_job_byte_for_byte(client: TestClient) -> None:
    client.post(TEXT_TO_IMAGE, json={"image_seed": 1937746674716894768})
    answer = client.get("/v1/generation/query-job", params={"job_id": FIRST_ID})
    assert answer.text == (
        f'{{"job_id":"{FIRST_ID}","job_type":"Text to Image","job_stage":"SUCCESS","job_progress":100,'
        '"job_status":"Finished","job_step_preview":null,"job_result":[{"base64":null,'
        f'"url":"http://127.0.0.1:8888/files/2025-02-23/{FIRST_ID}-0.png","seed":"1937746674716894768",'
        '"finish_reason":"SUCCESS"}]}'
    )


@pytest.mark.parametrize("accept", ["image/png", "IMAGE/PNG", " image/png ", "image/jpeg", "image/webp", "image/gif"])
def test_one_kind_of_picture_in_the_header_answers_a_png(client: TestClient, house: House, accept: str) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={"image_number": 5, "image_seed": 9}, headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    assert b"parameters" not in answer.content
    assert pixels_of(answer.content)[0, 0, 0] == 9
    assert house.requests[0].image_number == 1
    assert len(house.files) == 1


@pytest.mark.parametrize(
    "accept",
    ["*/*", "image/*", "image/png, */*", "application/json, text/plain, */*", "image/png;q=0.9", "image/", ""],
)
def test_any_other_header_stays_json(client: TestClient, accept: str) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={}, headers={"accept": accept})
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.json()) == 1


def test_no_accept_header_at_all(client: TestClient) -> None:
    request = client.build_request("POST", TEXT_TO_IMAGE, content=b"{}")
    del request.headers["accept"]
    assert client.send(request).json()[0]["finish_reason"] == "SUCCESS"


def test_the_query_parameter_stands_above_the_header(client: TestClient) -> None:
    by_query = client.post(
        TEXT_TO_IMAGE, params={"accept": "image/png"}, json={}, headers={"accept": "application/json"}
    )
    assert by_query.headers["content-type"] == "image/png"
    other = client.post(TEXT_TO_IMAGE, params={"accept": "application/json"}, json={}, headers={"accept": "image/png"})
    assert other.headers["content-type"] == "application/json"
    empty = client.post(TEXT_TO_IMAGE, params={"accept": ""}, json={}, headers={"accept": "image/png"})
    assert empty.headers["content-type"] == "image/png"


def test_async_beats_the_picture_but_not_its_number(client: TestClient, house: House) -> None:
    body = {"async_process": True, "image_number": 4}
    answer = client.post(TEXT_TO_IMAGE, json=body, headers={"accept": "image/png"})
    assert answer.json()["job_stage"] == "WAITING"
    assert house.requests[0].image_number == 1


# ----------------------------------------------------------------------------------------------------------- full queue


@pytest.fixture
def full(house: House, held: HeldEngine) -> Iterator[TestClient]:
    house.limits = Limits(queue_size=1)
    with serving(house) as client:
        client.post(TEXT_TO_IMAGE, json={"async_process": True})
        held.begin()
        yield client
        held.play(Finished())


def test_a_full_queue_in_the_three_forms(full: TestClient) -> None:
    assert full.post(TEXT_TO_IMAGE, json={}).text == FULL_SYNC
    assert full.post(TEXT_TO_IMAGE, json={"async_process": True}).text == FULL_ASYNC
    for is_async in (True, False):
        body = {"async_process": is_async}
        picture = full.post(TEXT_TO_IMAGE, json=body, headers={"accept": "image/png"})
        assert (picture.status_code, picture.text) == (409, "QUEUE_IS_FULL")
        assert picture.headers["content-type"].startswith("text/plain")
    assert full.get("/v1/generation/job-queue").json() == {
        "running_size": 1,
        "finished_size": 0,
        "last_job_id": FIRST_ID,
    }


# ------------------------------------------------------------------------------------------------- stopped and failed


def test_a_failed_job_in_the_three_forms(house: House) -> None:
    house.engine = UnloadableEngine(failing_story)
    with serving(house) as client:
        waited = client.post(TEXT_TO_IMAGE, json={})
        assert (waited.status_code, waited.text) == (200, NO_PICTURE % "ERROR")
        picture = client.post(TEXT_TO_IMAGE, json={}, headers={"accept": "image/png"})
        assert (picture.status_code, picture.text) == (500, "ERROR")
        assert picture.headers["content-type"].startswith("text/plain")
        job_id = client.post(TEXT_TO_IMAGE, json={"async_process": True}).json()["job_id"]
        assert finished(client, job_id) == {
            "job_id": job_id,
            "job_type": "Text to Image",
            "job_stage": "ERROR",
            "job_progress": 50,
            "job_status": "the device has no room for the job",
            "job_step_preview": None,
            "job_result": None,
        }


def test_a_job_that_fails_late_has_no_result(house: House) -> None:
    house.engine = UnloadableEngine(failing_late)
    with serving(house) as client:
        assert client.post(TEXT_TO_IMAGE, json={}).text == NO_PICTURE % "ERROR"
        assert query(client)["job_result"] is None
        assert client.post(TEXT_TO_IMAGE, json={}, headers={"accept": "image/png"}).status_code == 500


def test_an_engine_that_breaks_tells_nothing_of_its_inside(house: House) -> None:
    def broken(plan: Plan) -> Iterator[Event]:
        raise RuntimeError("/root/secret/path.py line 5")

    house.engine = UnloadableEngine(broken)
    with serving(house) as client:
        client.post(TEXT_TO_IMAGE, json={})
        status = query(client)["job_status"]
        assert status
        assert "/" not in status
        assert "line" not in status


def test_a_stop_without_a_picture(held: HeldEngine, client: TestClient) -> None:
    waited = in_background(lambda: client.post(TEXT_TO_IMAGE, json={}))
    held.begin()
    assert client.post("/v1/generation/stop").text == '{"msg":"success"}'
    held.play(NEXT_STEP)
    assert waited().text == NO_PICTURE % "USER_CANCEL"
    answer = query(client)
    assert (answer["job_stage"], answer["job_result"]) == ("ERROR", None)
    assert answer["job_status"]


def test_a_stop_without_a_picture_in_the_picture_form(held: HeldEngine, client: TestClient) -> None:
    waited = in_background(lambda: client.post(TEXT_TO_IMAGE, json={}, headers={"accept": "image/png"}))
    held.begin()
    client.post("/v1/generation/stop")
    held.play(NEXT_STEP)
    assert (waited().status_code, waited().text) == (400, "USER_CANCEL")


def test_a_stop_keeps_what_is_finished(held: HeldEngine, client: TestClient) -> None:
    waited = in_background(lambda: client.post(TEXT_TO_IMAGE, json={"image_number": 3}))
    held.begin()
    held.play(an_image(0, 7))
    client.post("/v1/generation/stop")
    held.play(NEXT_STEP)
    (picture,) = waited().json()
    assert (picture["seed"], picture["finish_reason"]) == ("7", "SUCCESS")
    answer = query(client)
    assert (answer["job_stage"], answer["job_progress"], answer["job_status"]) == ("SUCCESS", 100, "Finished")
    assert len(answer["job_result"]) == 1


def test_a_stop_while_idle_does_not_reach_the_next_job(client: TestClient) -> None:
    assert client.post("/v1/generation/stop").json() == {"msg": "success"}
    assert client.post(TEXT_TO_IMAGE, json={}).json()[0]["finish_reason"] == "SUCCESS"


def test_a_stop_leaves_waiting_jobs(held: HeldEngine, client: TestClient) -> None:
    for _ in range(2):
        client.post(TEXT_TO_IMAGE, json={"async_process": True})
    held.begin()
    client.post("/v1/generation/stop")
    held.play(NEXT_STEP)
    held.begin()
    assert query(client, FIRST_ID[:-1] + "2")["job_stage"] == "RUNNING"
    held.play(an_image(0, 5))
    held.play(Finished())
    assert finished(client, FIRST_ID[:-1] + "2")["job_stage"] == "SUCCESS"


# ---------------------------------------------------------------------------------------------------------- the course


def test_a_job_waits_runs_and_succeeds_in_that_order(held: HeldEngine, client: TestClient) -> None:
    client.post(TEXT_TO_IMAGE, json={"async_process": True})
    held.begin()
    running = query(client)
    assert (running["job_stage"], running["job_progress"], running["job_result"]) == ("RUNNING", 0, None)
    held.play(Progress(0.431, "Step 10/30 in the 1-th Sampling", a_preview(5)))
    shown = query(client, require_step_preview=True)
    assert (shown["job_progress"], shown["job_status"]) == (43, "Step 10/30 in the 1-th Sampling")
    assert pixels_of(base64.b64decode(shown["job_step_preview"], validate=True))[0, 0, 0] == 5
    assert shown["job_step_preview"].startswith("iVBORw0KGgo")
    assert query(client)["job_step_preview"] is None
    assert query(client, require_step_preivew="true")["job_step_preview"] is not None
    held.play(Progress(0.9999, "Saving image 1/1 to system ..."))
    assert query(client)["job_progress"] == 99
    assert type(query(client)["job_progress"]) is int
    held.play(an_image(0, 5))
    held.play(Finished())
    done = finished(client)
    assert (done["job_stage"], done["job_progress"], done["job_status"]) == ("SUCCESS", 100, "Finished")
    assert query(client, require_step_preview=True)["job_step_preview"] is None


def test_no_preview_before_the_first_step_and_where_it_is_switched_off(held: HeldEngine, client: TestClient) -> None:
    client.post(TEXT_TO_IMAGE, json={"async_process": True, "advanced_params": {"disable_preview": True}})
    plan = held.begin()
    assert plan.output.preview is False
    assert query(client, require_step_preview=True)["job_step_preview"] is None
    held.play(Finished())


def test_many_waiting_callers_each_get_their_own(client: TestClient, house: House) -> None:
    calls = [
        in_background(lambda seed=seed: client.post(TEXT_TO_IMAGE, json={"image_seed": seed}).json())  # type: ignore[misc]
        for seed in range(12)
    ]
    assert [call()[0]["seed"] for call in calls] == [str(seed) for seed in range(12)]
    assert len(house.files) == 12


def test_the_order_of_pictures_is_the_order_of_seeds(client: TestClient) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={"image_number": 12, "image_seed": 100}).json()
    assert [picture["seed"] for picture in answer] == [str(100 + index) for index in range(12)]
    assert [picture["url"].rpartition("-")[2] for picture in answer] == [f"{index}.png" for index in range(12)]


@pytest.mark.parametrize("extension", ["png", "jpg", "jpeg", "webp", "PNG"])
@pytest.mark.parametrize("prefix", [True, False])
def test_base64_results(house: House, extension: str, prefix: bool) -> None:
    house.settings = Settings(bare_base64=not prefix)
    with serving(house) as client:
        (picture,) = client.post(TEXT_TO_IMAGE, json={"require_base64": True, "save_extension": extension}).json()
        head, comma, data = picture["base64"].rpartition(",")
        assert head + comma == (f"data:image/{extension.lower()};base64," if prefix else "")
        stored = client.get(picture["url"].partition("8888")[2]).content
        assert np.array_equal(pixels_of(base64.b64decode(data)), pixels_of(stored))
        assert query(client)["job_result"] == [picture]


def test_base64_follows_the_jobs_own_wish(client: TestClient) -> None:
    client.post(TEXT_TO_IMAGE, json={})
    assert query(client)["job_result"][0]["base64"] is None


@pytest.mark.parametrize("scheme", ["fooocus", "a1111"])
@pytest.mark.parametrize("extension", ["png", "jpg", "jpeg", "webp"])
def test_every_kind_of_file_tells_what_made_it(
    shared_client: TestClient, shared: House, extension: str, scheme: str
) -> None:
    body = {"save_name": f"{scheme}-{extension}", "save_extension": extension, "meta_scheme": scheme}
    (picture,) = shared_client.post(TEXT_TO_IMAGE, json=body).json()
    assert picture["url"].endswith(f".{extension}")
    saved = read_metadata((shared.root / "files" / TODAY / f"{scheme}-{extension}-0.{extension}").read_bytes())
    assert saved is not None
    assert saved.scheme == scheme
    assert str(DRAWN_SEED) in str(saved.parameters)


def test_metadata_is_on_by_default_and_can_be_left_out(client: TestClient, house: House) -> None:
    client.post(TEXT_TO_IMAGE, json={})
    client.post(TEXT_TO_IMAGE, json={"save_meta": False})
    with_it, without_it = (read_metadata((house.root / "files" / name).read_bytes()) for name in house.files)
    assert with_it is not None
    assert with_it.scheme == "fooocus"
    assert without_it is None


def test_sub_folders_are_in_the_address(client: TestClient, house: House) -> None:
    (picture,) = client.post(TEXT_TO_IMAGE, json={"save_name": "garden/red apple"}).json()
    assert picture["url"] == f"http://127.0.0.1:8888/files/{TODAY}/garden/red%20apple-0.png"
    assert house.files == [f"{TODAY}/garden/red apple-0.png"]
    assert client.get(picture["url"].partition("8888")[2]).status_code == 200


def test_the_base_url_comes_from_the_settings_alone(house: House) -> None:
    house.settings = Settings(base_url="https://pictures.example/api/")
    with serving(house) as client:
        (picture,) = client.post(TEXT_TO_IMAGE, json={}, headers={"host": "evil.example"}).json()
        assert picture["url"].startswith("https://pictures.example/api/files/2025-02-23/")


def test_a_job_can_be_asked_for_as_soon_as_it_is_answered(held: HeldEngine, client: TestClient) -> None:
    answers = [client.post(TEXT_TO_IMAGE, json={"async_process": True}).json() for _ in range(3)]
    assert [query(client, answer["job_id"])["job_id"] for answer in answers] == [a["job_id"] for a in answers]
    held.begin()
    held.play(Finished())
    held.begin()
    held.play(Finished())
    held.begin()
    held.play(Finished())


def test_queries_answer_while_a_job_runs_and_others_wait(held: HeldEngine, client: TestClient) -> None:
    waited = in_background(lambda: client.post(TEXT_TO_IMAGE, json={}))
    held.begin()
    pollers = [in_background(lambda: [query(client)["job_stage"] for _ in range(10)]) for _ in range(4)]
    assert all(stages() == ["RUNNING"] * 10 for stages in pollers)
    held.play(an_image(0, 1))
    held.play(Finished())
    assert waited().status_code == 200


def test_clean_vram_unloads_the_engine(client: TestClient, house: House) -> None:
    assert client.get("/v1/engines/clean_vram").text == '{"message":"ok"}'
    assert client.post("/v1/engines/clean_vram/").text == '{"message":"ok"}'
    assert house.engine.unloaded == 2


def test_clean_vram_during_a_job_holds_up_nobody(held: HeldEngine, client: TestClient) -> None:
    client.post(TEXT_TO_IMAGE, json={"async_process": True})
    held.begin()
    cleaned = [in_background(lambda: client.get("/v1/engines/clean_vram")) for _ in range(50)]
    for _ in range(20):
        assert query(client)["job_stage"] == "RUNNING"
    held.play(Finished())
    assert all(call().status_code == 200 for call in cleaned)


def test_json_is_read_under_any_type(client: TestClient) -> None:
    bodies: list[dict[str, Any]] = [{"content": b"{}"}, {"content": b"{}", "headers": {"content-type": "text/plain"}}]
    bodies.append(
        {"content": b' \n{"image_number":1}', "headers": {"content-type": "application/x-www-form-urlencoded"}}
    )
    bodies.append({"content": b"\xef\xbb\xbf{}", "headers": {"content-type": "application/json"}})
    for body in bodies:
        assert client.post(TEXT_TO_IMAGE, **body).status_code == 200, body
