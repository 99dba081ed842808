"""A queue that is full: each dialect says so in its own words, looks go on, and there is room again at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.events import Finished
from fooocusapi.jobs.queue import Limits
from tests.attacks.table import CLASSIC, NOTHING_SAID, STAGED, UNIFIED
from tests.fooocusapi.fakes import an_image
from tests.fooocusapi.served import FIRST_ID, HeldEngine, House, finished, serving, wait_until

REFUSALS: list[tuple[str, dict[str, Any], int, str]] = [
    (CLASSIC, {"async_process": True}, 200, "QUEUE_IS_FULL"),
    (CLASSIC, {}, 200, "QUEUE_IS_FULL"),
    (UNIFIED, {}, 429, "waiting or running"),
    (UNIFIED, {"async_process": True}, 429, "waiting or running"),
    (UNIFIED, {"stream_output": True}, 429, "waiting or running"),
    (STAGED, NOTHING_SAID[STAGED], 429, '"code":8'),
]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, TestClient]]:
    house = House(tmp_path_factory.mktemp("full"), engine=HeldEngine(), limits=Limits(queue_size=1))
    with serving(house) as client:
        client.post(CLASSIC, json={"async_process": True})
        house.engine.begin()
        yield house, client


@pytest.mark.parametrize(("path", "body", "status", "says"), REFUSALS)
def test_each_dialect_refuses_in_its_own_words(
    full: tuple[House, TestClient], path: str, body: dict[str, Any], status: int, says: str
) -> None:
    answer = full[1].post(path, json=body)
    assert (answer.status_code, says in answer.text) == (status, True)


def test_looking_goes_on_while_the_worker_paints(full: tuple[House, TestClient]) -> None:
    """From memory, on the event loop: neither the journal nor the worker is asked."""
    house, client = full
    with house.jobs._submitting, house.jobs._files:
        for _ in range(50):
            assert client.get(f"/v1/generation/query-job?job_id={FIRST_ID}").json()["job_stage"] == "RUNNING"


def test_there_is_room_again_once_a_job_has_ended(full: tuple[House, TestClient]) -> None:
    house, client = full
    house.engine.play(an_image())
    house.engine.play(Finished())
    finished(client)
    wait_until(lambda: client.post(UNIFIED, json={"async_process": True}).status_code == 200)
