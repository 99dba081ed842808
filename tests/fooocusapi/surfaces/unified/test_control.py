"""The running task is stopped, or its picture left out; words that mean nothing, and nothing to say them to."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.events import Finished
from tests.fooocusapi.fakes import an_image
from tests.fooocusapi.served import TEXT_TO_IMAGE, HeldEngine, House, finished, serving
from tests.fooocusapi.surfaces.unified.asking import FIRST_TASK, GENERATE, ended

CONTROL = "/v1/engine/control"


def said(client: TestClient, action: str) -> Any:
    return client.post(CONTROL, params={"action": action}).json()["message"]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("stop", "No task running"),
        ("skip", "No task running"),
        ("STOP", "No task running"),
        ("pause", "Invalid control action"),
        ("", "Invalid control action"),
    ],
)
def test_words_on_an_idle_server(shared_client: TestClient, action: str, message: str) -> None:
    answer = shared_client.post(f"{CONTROL}/", params={"action": action})
    assert (answer.status_code, answer.text) == (200, f'{{"message":"{message}"}}')


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"action": "stop"}},
        {"content": '{"action": "stop"}'},
        {"data": {"action": "stop"}},
        {"files": {"action": (None, "stop")}},
    ],
    ids=["JSON", "JSON without a type", "form", "multipart"],
)
def test_a_word_may_be_a_body(shared_client: TestClient, sent: dict[str, Any]) -> None:
    assert shared_client.post(CONTROL, **sent).json() == {"message": "No task running"}


@pytest.mark.parametrize(
    "sent", [{}, {"json": {}}, {"json": {"action": None}}, {"data": {"act": "stop"}}, {"content": "x"}]
)
def test_no_word_at_all_is_refused(shared_client: TestClient, sent: dict[str, Any]) -> None:
    assert shared_client.post(CONTROL, **sent).status_code == 422


def test_a_stop_ends_the_running_task_alone(house: House) -> None:
    house.engine = HeldEngine()
    with serving(house) as client:
        client.post(GENERATE, json={"async_process": True, "image_number": 2})
        second = client.post(GENERATE, json={"async_process": True}).json()["task_id"]
        house.engine.begin()
        house.engine.play(an_image(0))
        assert said(client, "stop") == "task stoped"
        house.engine.play(an_image(1))
        record = ended(client)
        assert (record["task_status"], record["progress"], len(record["result"])) == ("stop", 100, 1)
        house.engine.begin()
        house.engine.play(an_image(0))
        house.engine.play(Finished())
        assert ended(client, second)["task_status"] == "finished"
        assert said(client, "stop") == "No task running"


def test_a_skip_leaves_out_the_picture_in_work(house: House) -> None:
    house.engine = HeldEngine()
    with serving(house) as client:
        client.post(GENERATE, json={"async_process": True, "image_number": 3, "save_name": "x"})
        house.engine.begin()
        house.engine.play(an_image(0))
        assert said(client, "skip") == "task skiped"
        house.engine.play(an_image(1))
        house.engine.play(an_image(2))
        house.engine.play(Finished())
        record = ended(client, FIRST_TASK)
        assert record["task_status"] == "finished"
        assert [url.rpartition("/")[2] for url in record["result"]] == ["x-0.png", "x-2.png"]


def test_the_running_job_is_meant_whichever_dialect_asked_for_it(house: House) -> None:
    house.engine = HeldEngine()
    with serving(house) as client:
        client.post(TEXT_TO_IMAGE, json={"async_process": True})
        house.engine.begin()
        assert said(client, "stop") == "task stoped"
        house.engine.play(an_image())
        assert finished(client)["job_stage"] == "ERROR"
