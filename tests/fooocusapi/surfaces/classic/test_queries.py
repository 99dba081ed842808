"""Queries over HTTP: jobs, queue, history, models, styles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.events import Event, Failed, Finished
from fooocus_core.plan import Plan
from fooocusapi.jobs.queue import Limits
from fooocusapi.settings import Settings
from fooocusapi.surfaces.classic.schemas import AdvancedParams
from tests.fooocusapi.fakes import BIRTH_MS, an_image
from tests.fooocusapi.served import (
    DRAWN_SEED,
    FIRST_ID,
    STYLE_NAMES,
    TEXT_TO_IMAGE,
    TODAY,
    HeldEngine,
    House,
    UnloadableEngine,
    query,
    serving,
    wait_until,
)

QUERY_JOB = "/v1/generation/query-job"
JOB_QUEUE = "/v1/generation/job-queue"
HISTORY = "/v1/generation/job-history"
UNKNOWN = (
    '{"job_id":"","job_type":"Not Found","job_stage":"ERROR","job_progress":0,"job_status":"Job not found",'
    '"job_step_preview":null,"job_result":null}'
)


def id_of(number: int) -> str:
    return f"{FIRST_ID[:-12]}{number:012d}"


def make_jobs(client: TestClient, count: int) -> None:
    for _ in range(count):
        client.post(TEXT_TO_IMAGE, json={})


@pytest.fixture
def persistent(house: House) -> Iterator[TestClient]:
    house.settings = Settings(persistent=True)
    with serving(house) as client:
        yield client


# ------------------------------------------------------------------------------------------------------------ query-job


@pytest.mark.parametrize("job_id", ["5", "", "no such", "\x00", "x" * 3000, id_of(9)])
def test_an_unknown_job_is_404_with_the_whole_object(client: TestClient, job_id: str) -> None:
    answer = client.post(QUERY_JOB, json={"job_id": job_id or "0"})
    assert (answer.status_code, answer.text) == (404, UNKNOWN)
    assert client.get(QUERY_JOB, params={"job_id": job_id or "0"}).text == UNKNOWN


def test_no_job_id_is_422(client: TestClient) -> None:
    answer = client.get(QUERY_JOB)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "job_id"]
    assert client.post(QUERY_JOB, json={}).json()["detail"][0]["loc"] == ["body", "job_id"]


def test_the_query_by_post(client: TestClient) -> None:
    make_jobs(client, 1)
    by_post = client.post(QUERY_JOB, content=f'{{"job_id":"{FIRST_ID}","require_step_preivew":"true"}}')
    assert by_post.json() == query(client)


@pytest.mark.parametrize("value", ["true", "True", "1", "", "no"])
@pytest.mark.parametrize("name", ["require_step_preview", "require_step_preivew"])
def test_the_preview_parameter_in_all_its_forms(client: TestClient, name: str, value: str) -> None:
    make_jobs(client, 1)
    assert client.get(QUERY_JOB, params={"job_id": FIRST_ID, name: value}).status_code == 200


# ------------------------------------------------------------------------------------------------------------ job-queue


@pytest.mark.parametrize("path", [JOB_QUEUE, "/v1/engines/job-queue", JOB_QUEUE + "/"])
def test_a_fresh_server_has_no_last_job(client: TestClient, path: str) -> None:
    assert client.get(path).text == '{"running_size":0,"finished_size":0,"last_job_id":null}'


def test_the_running_job_counts(held_client: TestClient, held: HeldEngine) -> None:
    for _ in range(3):
        held_client.post(TEXT_TO_IMAGE, json={"async_process": True})
    held.begin()
    assert held_client.get(JOB_QUEUE).json() == {"running_size": 3, "finished_size": 0, "last_job_id": id_of(3)}


@pytest.fixture
def held() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
def held_client(house: House, held: HeldEngine) -> Iterator[TestClient]:
    house.engine = held
    with serving(house) as client:
        yield client


# ---------------------------------------------------------------------------------------------------------- job-history


def test_the_history_in_memory_is_oldest_first(client: TestClient) -> None:
    assert client.get(HISTORY).text == '{"queue":[],"history":[]}'
    make_jobs(client, 3)
    history = client.get(HISTORY).json()["history"]
    assert [job["job_id"] for job in history] == [id_of(number) for number in (1, 2, 3)]
    assert history[0] == {
        "job_id": FIRST_ID,
        "in_queue_mills": BIRTH_MS,
        "start_mills": BIRTH_MS,
        "finish_mills": BIRTH_MS,
        "is_finished": True,
    }


def test_waiting_and_running_jobs_are_in_the_queue(held_client: TestClient, held: HeldEngine) -> None:
    for _ in range(2):
        held_client.post(TEXT_TO_IMAGE, json={"async_process": True})
    held.begin()
    queue = held_client.get(HISTORY).json()["queue"]
    assert [(job["job_id"], job["start_mills"], job["is_finished"]) for job in queue] == [
        (id_of(1), BIRTH_MS, False),
        (id_of(2), 0, False),
    ]
    assert len(held_client.get(HISTORY, params={"job_id": id_of(2)}).json()["queue"]) == 1
    held.play(an_image())
    held.play(Finished())


@pytest.fixture(scope="module", params=[False, True], ids=["memory", "persistent"])
def after_25_jobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(persistent=request.param)
    with serving(House(tmp_path_factory.mktemp("jobs"), settings=settings)) as client:
        make_jobs(client, 25)
        yield client


@pytest.mark.parametrize(
    ("parameters", "numbers"),
    [
        ({}, list(range(1, 26))),
        ({"page": 0}, list(range(1, 21))),
        ({"page": 1}, [21, 22, 23, 24, 25]),
        ({"page_size": 3}, [1, 2, 3]),
        ({"page": 2, "page_size": 3}, [7, 8, 9]),
        ({"page": 99}, []),
        ({"page": 10**9, "page_size": 1000}, []),
        ({"page": "", "page_size": ""}, list(range(1, 26))),
        ({"job_id": id_of(4)}, [4]),
        ({"job_id": "nobody"}, []),
        ({"delete": "true"}, list(range(1, 26))),
    ],
)
def test_pages(after_25_jobs: TestClient, parameters: dict[str, Any], numbers: list[int]) -> None:
    history = after_25_jobs.get(HISTORY, params=parameters).json()["history"]
    if not after_25_jobs.app.state.settings.persistent:  # type: ignore[attr-defined]
        assert [job["job_id"] for job in history] == [id_of(number) for number in numbers]
        return
    newest_first = list(range(25, 0, -1))
    page, size = int(parameters.get("page") or 0), int(parameters.get("page_size") or 20)
    expected = numbers if "job_id" in parameters else newest_first[page * size : (page + 1) * size]
    assert [job["task_info"]["task_id"] for job in history] == [id_of(number) for number in expected]


@pytest.mark.parametrize(
    ("name", "value"), [("page", "-1"), ("page", "x"), ("page_size", "0"), ("page_size", "1001"), ("page", "1.5"),
                        ("page", "9" * 5000), ("delete", "perhaps")]
)  # fmt: skip
def test_pages_that_are_none(after_25_jobs: TestClient, name: str, value: str) -> None:
    answer = after_25_jobs.get(HISTORY, params={name: value})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", name]


def test_the_durable_history(persistent: TestClient) -> None:
    body = {"prompt": "a red apple", "require_base64": True, "save_name": "x", "image_number": 2,
            "loras": [["paint", 0.5]], "advanced_params": {"overwrite_step": 5}}  # fmt: skip
    persistent.post(TEXT_TO_IMAGE, json=body)
    (recorded,) = persistent.get(HISTORY).json()["history"]
    params, task = recorded["params"], recorded["task_info"]
    urls = [f"http://127.0.0.1:8888/files/{TODAY}/x-{index}.png" for index in (0, 1)]
    assert task | {"date_time": ""} == {
        "task_id": FIRST_ID,
        "task_type": "Text to Image",
        "task_in_queue_mills": BIRTH_MS,
        "task_start_mills": BIRTH_MS,
        "task_finish_mills": BIRTH_MS,
        "result_url": ",".join(urls),
        "finish_reason": "SUCCESS",
        "date_time": "",
    }
    assert len(task["date_time"]) == len("2025-02-23 10:11:12")
    assert params["prompt"] == "a red apple"
    assert params["image_seed"] == DRAWN_SEED
    assert params["aspect_ratios_selection"] == "1152*896"
    assert params["advanced_params"]["overwrite_step"] == 5
    assert params["advanced_params"]["sampler_name"] == "dpmpp_2m_sde_gpu"
    assert params["advanced_params"]["overwrite_width"] == -1
    assert set(params["advanced_params"]) == set(AdvancedParams.model_fields)
    assert params["require_base64"] is True
    assert params["webhook_url"] is None
    assert params["loras"] == []


def test_the_durable_history_outlives_the_server(house: House) -> None:
    house.settings = Settings(persistent=True)
    with serving(house) as client:
        make_jobs(client, 1)
    with serving(house) as client:
        answer = client.get(HISTORY).json()
        assert [job["task_info"]["task_id"] for job in answer["history"]] == [FIRST_ID]
        assert query(client)["job_stage"] == "SUCCESS"


def test_failed_jobs_are_in_the_history_too(house: House) -> None:
    def failing(plan: Plan) -> Iterator[Event]:
        yield Failed("no")

    house.engine = UnloadableEngine(failing)
    house.settings = Settings(persistent=True)
    with serving(house) as client:
        make_jobs(client, 1)
        (recorded,) = client.get(HISTORY).json()["history"]
    assert recorded["task_info"]["finish_reason"] == "ERROR"
    assert recorded["task_info"]["result_url"] == ""


@pytest.mark.parametrize("is_persistent", [False, True])
def test_deleting_takes_the_record_and_the_files(house: House, is_persistent: bool) -> None:
    house.settings = Settings(persistent=is_persistent)
    with serving(house) as client:
        make_jobs(client, 2)
        url = query(client)["job_result"][0]["url"].partition("8888")[2]
        answer = client.get(HISTORY, params={"job_id": FIRST_ID, "delete": "true"})
        assert (answer.status_code, answer.text) == (200, '{"message":"Deleted","queue":[],"history":[]}')
        again = client.get(HISTORY, params={"job_id": FIRST_ID, "delete": "True"})
        assert (again.status_code, again.text) == (200, '{"message":"Not found","queue":[],"history":[]}')
        assert client.get(QUERY_JOB, params={"job_id": FIRST_ID}).status_code == 404
        assert client.get(url).status_code == 404
        assert house.files == [f"{TODAY}/{id_of(2)}-0.png"]
        assert len(client.get(HISTORY).json()["history"]) == 1


def test_deleting_leaves_what_another_job_wrote_under_the_same_name(client: TestClient, house: House) -> None:
    for _ in range(2):
        client.post(TEXT_TO_IMAGE, json={"save_name": "shared"})
    client.get(HISTORY, params={"job_id": FIRST_ID, "delete": "true"})
    assert house.files == [f"{TODAY}/shared-0.png"]


def test_beyond_the_limit_the_oldest_go_with_their_files(house: House) -> None:
    house.limits = Limits(history=2)
    with serving(house) as client:
        make_jobs(client, 3)
        wait_until(lambda: len(client.get(HISTORY).json()["history"]) == 2)
        gone, kept = (client.get(QUERY_JOB, params={"job_id": id_of(number)}) for number in (1, 2))
        assert (gone.status_code, gone.text) == (404, UNKNOWN)
        assert kept.json()["job_stage"] == "SUCCESS"
        assert client.get(f"/files/{TODAY}/{id_of(1)}-0.png").status_code == 404
        assert house.files == [f"{TODAY}/{id_of(number)}-0.png" for number in (2, 3)]


# -------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "all-models"), ("GET", "refresh-models"), ("POST", "refresh-models"), ("GET", "all-models/")],
)
def test_models(client: TestClient, house: House, method: str, path: str) -> None:
    answer = client.request(method, f"/v1/engines/{path}")
    assert answer.text == (
        '{"model_filenames":["juggernautXL_v8Rundiffusion.safetensors","other.safetensors","deep/third.safetensors"],'
        '"lora_filenames":["sd_xl_offset_example-lora_1.0.safetensors","sub/paint.safetensors"]}'
    )
    house.library.names["checkpoints"].append("new.safetensors")
    assert "new.safetensors" in client.request(method, f"/v1/engines/{path}").json()["model_filenames"]


def test_styles(client: TestClient) -> None:
    assert client.get("/v1/engines/styles").json() == list(STYLE_NAMES)


def test_text_to_image_has_no_second_version(client: TestClient) -> None:
    assert client.post("/v2/generation/text-to-image", json={}).status_code == 404
