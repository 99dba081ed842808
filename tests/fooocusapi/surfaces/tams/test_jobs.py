"""The life of a staged job over HTTP: numbers, keys, states, cancelling, callbacks, paths and failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fooocus_core.errors import OUT_OF_MEMORY
from fooocus_core.events import Failed, Finished, ImageFinished, Progress
from fooocusapi.jobs.queue import Limits
from fooocusapi.surfaces.tams.ledger import DAY_MS
from tests.fooocusapi.served import HeldEngine, House, pixels_of, query, serving, wait_until
from tests.fooocusapi.surfaces.tams.asking import (
    JOBS,
    blank_engine,
    body,
    ended,
    fields,
    painted,
    path_of,
    shown,
    stages,
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, engine=blank_engine())


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with serving(house) as client:
        yield client


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[HeldEngine, TestClient]]:
    engine = HeldEngine()
    with serving(House(tmp_path, engine=engine)) as client:
        yield engine, client


def created(client: TestClient, *args: Any, **values: Any) -> Any:
    answer = client.post(JOBS, json=body(*args, **values))
    assert answer.status_code == 200, answer.text
    return answer.json()["job"]


def test_numbers_have_18_digits_and_rise(client: TestClient, house: House) -> None:
    numbers = []
    for name in ("a", "b", "c"):
        numbers.append(created(client, name)["id"])
        house.clock.advance(1)
    assert [len(number) for number in numbers] == [18] * 3
    assert sorted(numbers) == numbers


def test_keys_are_forgotten_after_a_day_and_jobs_after_a_week(client: TestClient, house: House) -> None:
    first = created(client, "key")
    ended(client, first["id"])
    house.clock.advance(DAY_MS - 1)
    assert created(client, "key")["id"] == first["id"]
    house.clock.advance(1)
    assert created(client, "key")["id"] != first["id"]
    house.clock.advance(6 * DAY_MS)
    assert client.get(f"{JOBS}/{first['id']}").status_code == 404


def test_a_key_knows_its_body_however_it_is_spelt(client: TestClient) -> None:
    first = created(client, "key", painted(cfgScale=7))
    spelt = {
        "request_id": "key",
        "unknown": 1,
        "stages": stages(
            {"type": 2, "diffusion": {**painted(cfg_scale="7.0")["diffusion"], "steps": "20", "lora": None}}
        ),
    }
    again = client.post(JOBS, json=spelt)
    assert again.json()["job"]["id"] == first["id"]
    assert client.post(JOBS, json=body("key", painted(cfgScale=8))).json()["code"] == 6


def test_what_says_as_much_as_nothing_makes_no_other_body(client: TestClient) -> None:
    """What proto3 cannot tell from absent; where a present 0 or false is a value, it can."""
    part: dict[str, Any] = {"adModel": "face_yolov8n.pt"}
    parts = {"type": "IMAGE_TO_ADETAILER", "imageToAdetailer": {"args": [part]}}
    larger = {"hrUpscaler": "None", "hrScale": 1, "hrSecondPassSteps": 0, "denoisingStrength": 0}
    upscaled: dict[str, Any] = {"type": "IMAGE_TO_UPSCALER", "imageToUpscaler": larger}
    first = created(client, "key", painted(), parts, upscaled, start={"seed": 5})
    silent = painted(
        sdVae="",
        scheduleName="",
        sampler="",
        cfgScale=0,
        clipSkip="0",
        denoisingStrength=0.0,
        prompts=[{"text": "a red ball", "weight": 0}],
        negativePrompts=[],
    )
    said = {**upscaled, "imageToUpscaler": {**larger, "hrResizeX": 0, "hrResizeY": "0"}}
    same = {**part, "adPrompt": [], "adMaskMergeInvert": "", "adCheckpoint": ""}
    same_parts = {**parts, "imageToAdetailer": {"args": [same]}}
    start = {"seed": 5, "count": 0, "imageResourceId": ""}
    assert created(client, "key", silent, same_parts, said, start=start, notifyUrl="")["id"] == first["id"]
    for other in ({"adInpaintOnlyMasked": False}, {"adDilateErode": 0}, {"adConfidence": 0}):
        others = {**parts, "imageToAdetailer": {"args": [{**part, **other}]}}
        answer = client.post(JOBS, json=body("key", painted(), others, upscaled, start={"seed": 5}))
        assert (answer.status_code, answer.json()["code"]) == (409, 6), other


def test_a_refused_body_does_not_use_its_key_up(client: TestClient) -> None:
    assert client.post(JOBS, json=body("key", painted(steps=99))).status_code == 400
    created(client, "key")


def test_jobs_and_keys_outlive_the_server(tmp_path: Path) -> None:
    with serving(House(tmp_path, engine=blank_engine())) as client:
        first = created(client, "key")
        ended(client, first["id"])
    with serving(House(tmp_path, engine=blank_engine())) as client:
        assert shown(client, first["id"])["status"] == "SUCCESS"
        assert created(client, "key")["id"] == first["id"]


def test_waiting_jobs_know_their_rank(held: tuple[HeldEngine, TestClient]) -> None:
    engine, client = held
    ids = [created(client, name)["id"] for name in "abc"]
    engine.begin()
    assert [shown(client, job_id)["status"] for job_id in ids] == ["RUNNING", "WAITING", "WAITING"]
    assert shown(client, ids[2])["waitingInfo"] == {"queueRank": "2", "queueLen": "2"}
    client.delete(f"{JOBS}/{ids[1]}")
    assert shown(client, ids[2])["waitingInfo"] == {"queueRank": "1", "queueLen": "1"}


def test_every_picture_of_a_running_job_is_told(held: tuple[HeldEngine, TestClient]) -> None:
    engine, client = held
    job = created(client, start={"count": 3})
    engine.begin()
    engine.play(Progress(0.25, "Step"))
    assert shown(client, job["id"])["runningInfo"] == {"processingImages": [{"progress": 25.0}] * 3}


def test_a_job_that_is_taken_while_it_is_looked_at_is_not_behind_itself(tmp_path: Path) -> None:
    engine = HeldEngine()
    house = House(tmp_path, engine=engine)
    with serving(house) as client:
        for name in "ab":
            created(client, name)
        engine.begin()
        (second,) = house.jobs.unfinished().waiting
        assert house.staged.renderer.job(second, "")["job"]["waitingInfo"] == {"queueRank": "1", "queueLen": "1"}
        engine.play(Failed("broken"))
        engine.begin()
        told = house.staged.renderer.job(second, "")["job"]
        assert (told["status"], told.keys()) == ("RUNNING", {"id", "status", "credits", "runningInfo"})
        engine.play(Finished())


def test_a_running_job_shows_what_it_has_so_far(held: tuple[HeldEngine, TestClient]) -> None:
    """The picture that is painted by a preview, one that is done by itself; the others not at all."""
    engine, client = held
    job = created(client, "one", painted(), painted_anew(), start={"count": 3})
    plan = engine.begin()
    grey = np.full((64, 96, 3), 120, np.uint8)
    engine.play(Progress(0.25, "Step", grey))  # the middle of the second picture of the first of two stages
    first, second, third = shown(client, job["id"])["runningInfo"]["processingImages"]
    assert first == third == {"progress": 25.0}
    image = second.pop("resourceImage")
    assert second == {"progress": 25.0}
    assert (image["expiredIn"], image["meta"]) == ("3600", {"image": {"format": "png", "width": 128, "height": 128}})
    answer = client.get(path_of(image["url"]))
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("image/png", "no-store")
    assert pixels_of(answer.content).shape == (128, 128, 3)
    engine.play(ImageFinished(0, 42, np.full((512, 512, 3), 7, np.uint8), None))
    engine.play(Progress(0.75, "Step", grey))
    wait_until(lambda: "resourceImage" in shown(client, job["id"])["runningInfo"]["processingImages"][0])
    first, second, third = shown(client, job["id"])["runningInfo"]["processingImages"]
    assert pixels_of(client.get(path_of(first["resourceImage"]["url"])).content).shape == (512, 512, 3)
    assert second["resourceImage"]["id"] == image["id"]
    assert "resourceImage" not in third
    for index in (1, 2):
        engine.play(ImageFinished(index, 42 + index, np.full((512, 512, 3), 9, np.uint8), None))
    assert plan.output.preview
    engine.play(Finished())
    last = ended(client, job["id"])["successInfo"]["images"][1]
    assert last["id"] == image["id"], "a preview is how a result of its own stands"
    assert pixels_of(client.get(path_of(image["url"])).content).shape == (512, 512, 3)


def painted_anew() -> dict[str, Any]:
    block = {"hrUpscaler": "None", "hrScale": 1, "hrSecondPassSteps": 5, "denoisingStrength": 0.3}
    return {"type": "IMAGE_TO_UPSCALER", "imageToUpscaler": block}


def test_a_running_job_is_cancelled_at_once(held: tuple[HeldEngine, TestClient]) -> None:
    engine, client = held
    job = created(client)
    engine.begin()
    assert client.delete(f"{JOBS}/{job['id']}").json() == {"jobId": job["id"]}
    assert shown(client, job["id"]) == {"id": job["id"], "status": "CANCELED", "credits": 0}
    engine.play(Progress(0.5, "Step"))


def test_an_ended_job_keeps_its_state(client: TestClient) -> None:
    job = created(client)
    ended(client, job["id"])
    for call in (client.delete(f"{JOBS}/{job['id']}"), client.post(f"{JOBS}/{job['id']}/cancel")):
        assert call.json() == {"jobId": job["id"]}
    assert shown(client, job["id"])["status"] == "SUCCESS"


@pytest.mark.parametrize(("reason", "code"), [("broken", "FATAL_ERROR"), (OUT_OF_MEMORY, "TRANSITORY_ERROR")])
def test_failures_say_whether_another_time_may_do(held: tuple[HeldEngine, TestClient], reason: str, code: str) -> None:
    engine, client = held
    job = created(client)
    engine.begin()
    engine.play(Failed(reason))
    assert ended(client, job["id"])["failedInfo"] == {"reason": reason, "code": code}


def test_a_callback_is_what_the_job_is_told_as(client: TestClient, house: House) -> None:
    job = created(client, notifyUrl="http://localhost:9/hook")
    told = ended(client, job["id"])
    wait_until(lambda: len(house.told) == 1)
    (delivery,) = house.told
    assert delivery.url == "http://localhost:9/hook"
    assert delivery.body == {"job": told}
    assert delivery.retries_after_s == (1, 5, 25)


def test_nobody_is_told_who_did_not_ask(client: TestClient, house: House) -> None:
    ended(client, created(client, notifyUrl="")["id"])
    assert house.told == []


@pytest.mark.parametrize("url", ["ftp://localhost/", "http://example.com/", "localhost", "http://[::1", "http:///x"])
def test_callbacks_go_to_allowed_hosts_only(client: TestClient, url: str) -> None:
    answer = client.post(JOBS, json=body(notifyUrl=url))
    assert (answer.status_code, fields(answer)) == (400, ["notifyUrl"])


def test_other_dialects_that_list_all_jobs_know_this_one(client: TestClient, house: House) -> None:
    ended(client, created(client)["id"])
    told = query(client)
    assert (told["job_type"], told["job_stage"]) == ("Text to Image", "SUCCESS")
    assert client.get("/tasks").json()["history"] == []


def test_a_full_queue_is_told_in_this_dialects_shape(tmp_path: Path) -> None:
    engine = HeldEngine()
    with serving(House(tmp_path, engine=engine, limits=Limits(queue_size=1))) as client:
        created(client, "a")
        answer = client.post(JOBS, json=body("b"))
        assert (answer.status_code, answer.json()["code"]) == (429, 8)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/models", 404, 5),
        ("GET", "/v1/models/1", 404, 5),
        ("GET", "/v1/jobs/x/y", 404, 5),
        ("GET", f"/v1/jobs/{10**40}", 404, 5),
        ("GET", "/v1/resource/upload-address", 404, 5),
        ("GET", "/v1/jobs", 405, 12),
        ("PATCH", "/v1/jobs/1", 405, 12),
        ("GET", "/v1/resource/image", 405, 12),
        ("POST", "/v1/resource/image/sts", 501, 12),
        ("POST", "/v1/jobs/workflow", 501, 12),
        ("POST", "/v1/jobs/workflow/params/check", 501, 12),
        ("POST", "/v1/jobs/workflow/template", 501, 12),
        ("GET", "/v1/workflows/123", 501, 12),
        ("POST", "/v1/workflows/template/check", 501, 12),
    ],
)
def test_paths(shared_client: TestClient, method: str, path: str, status: int, code: int) -> None:
    answer = shared_client.request(method, path, content=b"{" if method == "POST" else None)
    assert answer.status_code == status
    assert (answer.json()["code"], answer.json()["details"]) == (code, [])
    assert answer.json()["message"]


def test_a_final_slash_changes_nothing(shared_client: TestClient) -> None:
    assert shared_client.get("/v1/jobs/1/").json()["code"] == 5


def test_failures_in_front_of_the_routes_have_the_shape_too(shared_client: TestClient) -> None:
    answer = shared_client.post(JOBS, content=b"{}", headers={"content-length": str(10**12)})
    assert (answer.status_code, answer.json()["code"], answer.json()["details"]) == (413, 3, [])
    assert shared_client.get("/v1/nowhere").json() == {"detail": "Not Found"}


def test_browsers_may_ask(shared_client: TestClient) -> None:
    headers = {"Origin": "http://a.example", "Access-Control-Request-Method": "PUT"}
    answer = shared_client.options(JOBS, headers={**headers, "Access-Control-Request-Headers": "authorization"})
    assert answer.status_code == 200
    assert "PUT" in answer.headers["access-control-allow-methods"]
