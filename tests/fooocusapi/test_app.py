"""The application as a whole: opening, health, both slash forms, other origins, compression, request names."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.events import Finished
from fooocusapi.app import create_app
from fooocusapi.middleware import RequestIdFilter
from fooocusapi.services import EngineStatus, Services
from fooocusapi.settings import Settings
from tests.fooocusapi.served import TEXT_TO_IMAGE, HeldEngine, House, in_background, serving, wait_until

HEAVY = ["torch", "numpy", "PIL", "sqlalchemy", "diffusers", "transformers", "httpx"]


def test_importing_the_application_loads_nothing_heavy() -> None:
    code = f"import sys, fooocusapi.app; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------------------- opening


def test_the_port_answers_while_the_services_open(house: House) -> None:
    go_on = threading.Event()

    def slow() -> Services:
        go_on.wait(10)
        return house.open()

    with TestClient(create_app(Settings(), slow)) as client:
        assert client.get("/ping").text == '"pong"'
        assert client.get("/").status_code == 200
        assert client.get("/healthz").json() == {"status": "starting", "reason": None}
        assert client.get("/readyz").status_code == 503
        assert client.get(TEXT_TO_IMAGE).status_code == 405
        assert client.get("/openapi.json").status_code == 200
        waiting = in_background(lambda: client.post(TEXT_TO_IMAGE, json={}))
        go_on.set()
        assert waiting().json()[0]["finish_reason"] == "SUCCESS"
        assert client.get("/readyz").json()["status"] == "ready"


def test_services_that_cannot_be_opened() -> None:
    def broken() -> Services:
        raise RuntimeError("/root/secret: no such database")

    with TestClient(create_app(Settings(), broken)) as client:
        wait_until(lambda: client.get("/readyz").json()["status"] == "unhealthy")
        assert client.get("/ping").status_code == 200
        assert client.get("/healthz").status_code == 503
        for answer in (client.post(TEXT_TO_IMAGE, json={}), client.get("/v1/generation/job-queue")):
            assert answer.status_code == 503
            assert "secret" not in answer.text


def test_what_was_opened_is_closed_once(house: House) -> None:
    closed: list[int] = []

    def opened() -> Services:
        from dataclasses import replace

        services = house.open()

        def close() -> None:
            services.close()
            closed.append(1)

        return replace(services, close=close)

    with TestClient(create_app(Settings(), opened)) as client:
        client.get("/v1/engines/styles")
    assert closed == [1]


def test_two_applications_in_one_process(tmp_path: Any) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with serving(House(tmp_path / "a")) as first, serving(House(tmp_path / "b")) as second:
        first.post(TEXT_TO_IMAGE, json={})
        assert first.get("/v1/generation/job-queue").json()["finished_size"] == 1
        assert second.get("/v1/generation/job-queue").json()["finished_size"] == 0


# -------------------------------------------------------------------------------------------------------------- health


def test_ready_and_busy(house: House) -> None:
    house.engine = HeldEngine()
    with serving(house) as client:
        assert client.get("/readyz").text == '{"status":"ready","reason":null}'
        client.post(TEXT_TO_IMAGE, json={"async_process": True})
        house.engine.begin()
        busy = client.get("/readyz")
        assert (busy.status_code, busy.json()["status"]) == (200, "busy")
        house.engine.play(Finished())
        wait_until(lambda: client.get("/readyz").json()["status"] == "ready")


@pytest.mark.parametrize(
    ("status", "ready", "alive"),
    [(EngineStatus("starting"), 503, 200), (EngineStatus("unhealthy", "no device"), 503, 503)],
)
def test_an_engine_that_is_not_ready(house: House, status: EngineStatus, ready: int, alive: int) -> None:
    with serving(house) as client:
        services = client.app.state.opening.opened  # type: ignore[attr-defined]
        services.engine.status = lambda: status
        assert client.get("/readyz").status_code == ready
        assert client.get("/healthz").status_code == alive
        assert client.get("/readyz").json() == {"status": status.state, "reason": status.reason or None}
        assert client.get("/ping").status_code == 200


def test_not_ready_while_the_journal_cannot_be_written_and_while_ending(house: House) -> None:
    """Neither is a reason to start the server anew."""
    with serving(house) as client:
        for name, reason in (("owes_the_journal", "cannot be written"), ("is_closed", "shutting down")):
            setattr(house.jobs, name, lambda: True)
            answer = client.get("/readyz")
            assert answer.status_code == 503
            assert reason in answer.json()["reason"]
            assert client.get("/healthz").status_code == 200


# ----------------------------------------------------------------------------------------------------------- transport


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/ping"),
        ("GET", "/v1/generation/job-queue"),
        ("GET", "/v1/engines/all-models"),
        ("POST", TEXT_TO_IMAGE),
        ("POST", "/v1/generation/stop"),
        ("GET", "/healthz"),
    ],
)
def test_both_slash_forms_without_a_redirect(client: TestClient, method: str, path: str) -> None:
    body = {"json": {"save_name": "x"}} if path == TEXT_TO_IMAGE else {}
    plain = client.request(method, path, follow_redirects=False, **body)  # type: ignore[arg-type]
    slashed = client.request(method, path + "/", follow_redirects=False, **body)  # type: ignore[arg-type]
    assert plain.status_code == slashed.status_code == 200
    assert plain.text == slashed.text


ORIGIN = {"Origin": "http://front.example"}


@pytest.mark.parametrize("path", ["/ping", "/nowhere", "/v1/generation/query-job", "/v1/generation/query-job?job_id=1"])
def test_pages_of_other_origins_may_read_every_answer(client: TestClient, path: str) -> None:
    assert client.get(path, headers=ORIGIN).headers["access-control-allow-origin"]


def test_a_bug_is_readable_for_pages_too_and_tells_nothing(client: TestClient, house: House) -> None:
    house.library.names.clear()
    answer = client.get("/v1/engines/all-models", headers=ORIGIN)
    assert (answer.status_code, answer.text) == (500, '{"detail":"Internal Server Error"}')
    assert answer.headers["access-control-allow-origin"]


@pytest.mark.parametrize("path", [TEXT_TO_IMAGE, "/v1/generation/stop", "/files/x.png", "/nowhere"])
def test_preflights(client: TestClient, path: str) -> None:
    asked = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-KEY"}
    answer = client.options(path, headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-credentials"] == "true"


def test_compression_from_a_thousand_bytes_and_only_when_asked_for(client: TestClient, house: House) -> None:
    house.library.names["loras"] = ["a" * 100] * 20
    path = "/v1/engines/all-models"
    assert client.get(path, headers={"accept-encoding": "gzip"}).headers["content-encoding"] == "gzip"
    assert "content-encoding" not in client.get(path, headers={"accept-encoding": "identity"}).headers
    assert "content-encoding" not in client.get("/ping", headers={"accept-encoding": "gzip"}).headers


def test_requests_have_names_in_answer_and_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fooocusapi")
    caplog.handler.addFilter(RequestIdFilter())
    assert client.get("/ping", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = client.get("/ping").headers["x-request-id"]
    assert made.isalnum()
    for hostile in ("a b", "x" * 65, "a\tb"):
        assert client.get("/ping", headers={"x-request-id": hostile}).headers["x-request-id"] != hostile
    names = [record.request_id for record in caplog.records if record.name.startswith("fooocusapi")]  # type: ignore[attr-defined]
    assert names[:2] == ["abc-1", made]


def test_the_log_names_the_request_of_a_refusal(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    caplog.handler.addFilter(RequestIdFilter())
    client.post(TEXT_TO_IMAGE, json={"styles": []}, headers={"x-request-id": "hint-1"})
    (hint,) = [record for record in caplog.records if "did the client mean" in record.getMessage()]
    assert hint.request_id == "hint-1"  # type: ignore[attr-defined]


def test_pollers_do_not_fill_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fooocusapi")
    for path in ("/ping", "/readyz", "/v1/generation/query-job?job_id=1", "/v1/generation/job-queue"):
        client.get(path)
    client.post("/v1/generation/stop")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("fooocusapi")]
    assert len(lines) == 1
    assert lines[0].startswith("POST '/v1/generation/stop' 200")


@pytest.mark.parametrize("path", ["/ping", "/"])
def test_probes(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    if path == "/ping":
        assert (answer.text, answer.headers["content-type"]) == ('"pong"', "application/json")
    else:
        assert answer.headers["content-type"].startswith("text/html")
        assert "/docs" in answer.text


def test_every_json_answer_says_that_it_is_json(client: TestClient) -> None:
    for answer in (client.get("/nowhere"), client.post(TEXT_TO_IMAGE, content=b"{"), client.get(TEXT_TO_IMAGE)):
        assert answer.headers["content-type"] == "application/json"
        json.loads(answer.text)
