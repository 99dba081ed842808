"""Tasks as they are asked for: one by one, in lists, by time, and forgotten."""

from __future__ import annotations

import base64
import io
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from fooocus_core.events import Finished, Progress
from tests.fooocusapi.fakes import BIRTH_MS, a_preview, an_image
from tests.fooocusapi.served import TEXT_TO_IMAGE, HeldEngine, House, serving
from tests.fooocusapi.surfaces.unified.asking import GENERATE, ended, task

HOUR_MS = 3_600_000


def lists(client: TestClient, **parameters: Any) -> Any:
    return client.get("/tasks", params=parameters).json()


def numbers(client: TestClient, name: str = "history", **parameters: Any) -> list[int]:
    return [record["id"] for record in lists(client, **parameters)[name]]


def local(ms: int) -> str:
    """A time as clients write it."""
    return datetime.fromtimestamp(ms / 1000).isoformat(timespec="seconds")


def test_nothing_on_a_fresh_server(client: TestClient) -> None:
    assert client.get("/tasks").text == '{"history":[],"current":[],"pending":[]}'
    assert client.get("/tasks/").json() == lists(client)


@pytest.mark.parametrize("task_id", ["f" * 32, "none", "0", "%00", "a" * 5000])
def test_an_unknown_task_is_an_empty_list(shared_client: TestClient, task_id: str) -> None:
    answer = shared_client.get(f"/tasks/{task_id}")
    assert (answer.status_code, answer.json()) == (200, [])


def test_a_task_from_waiting_to_its_end(house: House) -> None:
    house.engine = HeldEngine()
    with serving(house) as client:
        client.post(GENERATE, json={"async_process": True, "webhook_url": "http://127.0.0.1:9/hook", "image_seed": 5})
        second = client.post(GENERATE, json={"async_process": True}).json()["task_id"]
        house.engine.begin()

        begun = task(client)
        assert list(begun)[-4:] == ["progress", "preview", "webhook_url", "result"]
        assert (begun["id"], begun["task_status"], begun["progress"], begun["preview"]) == (-1, "running", 0, "")
        assert (begun["start_mills"], begun["finish_mills"]) == (BIRTH_MS, -1)
        assert (begun["webhook_url"], begun["result"]) == ("", [])

        house.engine.play(Progress(0.426, "Encoding positive #1 ..."))
        assert (task(client)["progress"], task(client)["preview"]) == (42, None)
        house.engine.play(Progress(0.5, "Step 1/2 in the 1-th Sampling", a_preview(7)))
        preview = base64.b64decode(task(client)["preview"], validate=True)
        with Image.open(io.BytesIO(preview)) as picture:
            assert picture.format == "PNG"
        house.engine.play(an_image())
        assert task(client)["result"] == []

        waiting = task(client, second)
        assert (waiting["id"], waiting["progress"], waiting["result"]) == (2, None, None)
        assert (waiting["task_status"], waiting["start_mills"], waiting["finish_mills"]) == (None, None, None)
        assert "preview" not in waiting
        shown = lists(client)
        assert (shown["history"], shown["current"], shown["pending"]) == ([], [task(client)], [waiting])

        house.engine.play(Finished())
        record = ended(client)
        assert (record["id"], record["progress"], len(record["result"])) == (1, 100, 1)
        assert record["webhook_url"] == "http://127.0.0.1:9/hook"
        assert record["req_params"]["image_seed"] == 5
        assert "preview" not in record
        house.engine.begin()
        house.engine.play(Finished())
        ended(client, second)


def made(client: TestClient, house: House, count: int) -> None:
    """As many finished tasks, an hour between two of them."""
    for _ in range(count):
        client.post(GENERATE, json={})
        house.clock.advance(HOUR_MS)


def test_history_in_pages_newest_first(house: House, client: TestClient) -> None:
    made(client, house, 5)
    assert numbers(client) == [5, 4, 3, 2, 1]
    assert numbers(client, page_size=2) == [5, 4]
    assert numbers(client, page_size=2, page=2) == [1]
    assert numbers(client, page_size=2, page=3) == []
    assert lists(client, query="HISTORY")["history"] == lists(client)["history"]
    for query in ("current", "pending", "nonsense"):
        assert lists(client, query=query) == {"history": [], "current": [], "pending": []}


@pytest.mark.parametrize(
    ("start_at", "end_at", "expected"),
    [
        (0, None, [1, 2, 3, 4, 5]),
        (1, 3, [2, 3, 4]),
        (4, None, [5]),
        (6, None, [5, 4, 3, 2, 1]),  # Later than now: no range, and so a page.
        (3, 1, [5, 4, 3, 2, 1]),
        (2, 2, [5, 4, 3, 2, 1]),
    ],
)
def test_history_of_a_time_oldest_first_and_whole(
    shared: House, shared_client: TestClient, start_at: int, end_at: int | None, expected: list[int]
) -> None:
    if not shared.files:
        made(shared_client, shared, 5)
    asked = {"start_at": local(BIRTH_MS + start_at * HOUR_MS), "page_size": 100}
    if end_at is not None:
        asked["end_at"] = f"{local(BIRTH_MS + end_at * HOUR_MS)}.123+00:00"
    assert numbers(shared_client, **asked) == expected


@pytest.mark.parametrize(
    "start_at", ["yesterday", "2025-02-30T00:00:00", "9999-99-99T00:00:00", "0001-01-01T00:00:00", ""]
)
def test_times_that_make_no_sense_are_no_range(shared: House, shared_client: TestClient, start_at: str) -> None:
    answer = shared_client.get("/tasks", params={"start_at": start_at, "action": "delete", "end_at": "later"})
    assert (answer.status_code, answer.json()) == (200, None)
    assert shared_client.get("/tasks", params={"start_at": start_at}).status_code == 200


@pytest.mark.parametrize(
    "asked", [{"page": -1}, {"page": "x"}, {"page_size": 0}, {"page_size": 1001}, {"page_size": "x"}]
)
def test_pages_that_there_cannot_be(shared_client: TestClient, asked: dict[str, Any]) -> None:
    answer = shared_client.get("/tasks", params=asked)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", *asked]


def test_deleting_forgets_a_time_and_its_pictures_alone(house: House, client: TestClient) -> None:
    made(client, house, 3)
    kept = lists(client)["history"][0]["result"][0].rpartition("/")[2]
    within = {"start_at": local(BIRTH_MS), "end_at": local(BIRTH_MS + HOUR_MS)}
    answer = client.get("/tasks", params={**within, "action": "DELETE"})
    assert (answer.status_code, answer.text) == (200, "null")
    assert numbers(client) == [3]
    assert [path.rpartition("/")[2] for path in house.files] == [kept]
    assert task(client) == []


def test_deleting_without_a_time_deletes_nothing(house: House, client: TestClient) -> None:
    made(client, house, 2)
    for asked in ({}, {"end_at": local(BIRTH_MS + 9 * HOUR_MS)}, {"start_at": "nonsense"}):
        assert client.get("/tasks", params={**asked, "action": "delete"}).json() is None
    assert numbers(client) == [2, 1]


def test_jobs_of_another_dialect_are_none_of_these(house: House, client: TestClient) -> None:
    client.post(TEXT_TO_IMAGE, json={})
    assert lists(client) == {"history": [], "current": [], "pending": []}
    assert task(client) == []
    client.get("/tasks", params={"start_at": local(BIRTH_MS - HOUR_MS), "action": "delete"})
    assert len(house.files) == 1
    client.post(GENERATE, json={})
    assert numbers(client) == [2]
    query = client.get("/v1/generation/query-job", params={"job_id": "00000000-0000-4000-8000-000000000002"})
    assert query.json()["job_stage"] == "SUCCESS"


def test_the_history_outlasts_the_server(house: House) -> None:
    with serving(house) as client:
        record = client.post(GENERATE, json={"prompt": "a red apple"}).json()
    with serving(house) as client:
        assert lists(client)["history"] == [record]
        assert task(client) == record
