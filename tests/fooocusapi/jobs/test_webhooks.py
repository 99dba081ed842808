"""Webhooks over a transport that the test plays: nothing leaves the process."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable

import httpx
import pytest

from fooocusapi.jobs.webhooks import Delivery, WebhookSender
from tests.fooocusapi.fakes import PATIENCE_S

Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


def sender(answer: Answer, **options: float) -> WebhookSender:
    made = WebhookSender(lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)), **options)
    made.start()
    return made


def a_delivery(host: str = "receiver", job_id: str = "1") -> Delivery:
    return Delivery(job_id, f"http://{host}/hook?token=secret", {"job_id": job_id, "job_result": []})


def test_what_is_posted() -> None:
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204)

    hooks = sender(answer)
    assert hooks.send(a_delivery())
    hooks.close(PATIENCE_S)
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "http://receiver/hook?token=secret")
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {"job_id": "1", "job_result": []}


def test_text_is_posted_as_a_json_string() -> None:
    """Receivers of tasks decode twice."""
    bodies: list[bytes] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(204)

    hooks = sender(answer)
    hooks.send(Delivery("1", "http://receiver/hook", '{"task_id": "1"}'))
    hooks.close(PATIENCE_S)
    assert bodies == [b'"{\\"task_id\\": \\"1\\"}"']


def test_a_slow_receiver_delays_nobody() -> None:
    quick_done = threading.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "slow":
            await asyncio.Event().wait()
        quick_done.set()
        return httpx.Response(200)

    hooks = sender(answer)
    for _ in range(5):
        hooks.send(a_delivery("slow"))
    hooks.send(a_delivery("quick"))
    assert quick_done.wait(PATIENCE_S)
    hooks.close(0)


def test_a_receiver_that_never_answers_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        return httpx.Response(200)

    caplog.set_level(logging.INFO)
    hooks = sender(answer, timeout_s=0.01)
    hooks.send(a_delivery())
    hooks.close(PATIENCE_S)
    assert "webhook of job 1: failed: TimeoutError" in caplog.text


def test_failures_are_logged_without_the_address_and_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "broken":
            raise httpx.ConnectError("no route to secret")
        return httpx.Response(500)

    caplog.set_level(logging.INFO)
    hooks = sender(answer)
    hooks.send(a_delivery("broken", "1"))
    hooks.send(Delivery("2", "http://\0/", {}))
    hooks.send(a_delivery("angry", "3"))
    hooks.close(PATIENCE_S)
    for line in ("job 1: failed: ConnectError", "job 2: failed: InvalidURL", "job 3: answered 500"):
        assert line in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("fooocusapi")]
    assert "secret" not in "".join(ours)
    assert "secret" not in repr(a_delivery())


def test_what_waits_is_bounded() -> None:
    release = threading.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.to_thread(release.wait, PATIENCE_S)
        return httpx.Response(200)

    hooks = sender(answer, capacity=2)
    assert [hooks.send(a_delivery()) for _ in range(3)] == [True, True, False]
    release.set()
    hooks.close(PATIENCE_S)
    assert not hooks.send(a_delivery()), "nothing is taken after the end"


def test_closing_without_a_start_or_twice_is_nothing() -> None:
    hooks = WebhookSender(httpx.AsyncClient)
    hooks.close(0)
    hooks._loop.close()
