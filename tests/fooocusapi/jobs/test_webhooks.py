"""Webhooks over a transport that the test plays: nothing leaves the process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest

from fooocus_core.events import Failed, Finished
from fooocusapi.fetch import GuardedTransport
from fooocusapi.jobs.job import JobState
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.outbox import SqlOutbox
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.jobs.signatures import secret_bytes
from fooocusapi.jobs.webhooks import RETRIES_AFTER_S, Delivery, Due, Notices, Outbox, WebhookSender
from tests.fooocusapi.fakes import PATIENCE_S, CountedIds, FakeClock, FakeStore, a_plan

Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]
KEY = bytes(range(32))


class Memory:
    """An outbox that forgets with the test, and tells what was done to it."""

    def __init__(self, left: Sequence[Due] = ()) -> None:
        self.left = list(left)
        self.calls: list[tuple[str, str]] = []
        self.forgotten = threading.Event()

    def add(self, delivery: Delivery) -> None:
        self.calls.append(("add", delivery.id))

    def postpone(self, due: Due) -> None:
        self.calls.append(("postpone", due.delivery.id))

    def forget(self, delivery: Delivery) -> None:
        self.calls.append(("forget", delivery.id))
        self.forgotten.set()

    def load(self) -> Sequence[Due]:
        return self.left


def sender(answer: Answer, outbox: Outbox | None = None, **options: Any) -> WebhookSender:
    made = WebhookSender(lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)), outbox, **options)
    made.start()
    return made


def a_delivery(host: str = "receiver", job_id: str = "1", **options: Any) -> Delivery:
    return Delivery(job_id, f"http://{host}/hook?token=secret", {"job_id": job_id, "job_result": []}, **options)


def answering(*statuses: int) -> tuple[Answer, list[httpx.Request]]:
    """A receiver that answers so, the last status again and again; and what it was sent."""
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(statuses[min(len(seen), len(statuses)) - 1])

    return answer, seen


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
    hooks = sender(answer)
    hooks.send(a_delivery(timeout_s=0.01))
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


# ------------------------------------------------------------------------------------------------- again and again


@pytest.mark.parametrize("status", [500, 503, 404, 302, 429])
def test_what_is_not_accepted_is_tried_again_until_it_is(status: int) -> None:
    answer, seen = answering(status, status, 200)
    memory = Memory()
    hooks = sender(answer, memory, jitter=lambda: 0.0)
    hooks.send(a_delivery(retries_after_s=(0.001, 0.001, 0.001)))
    assert memory.forgotten.wait(PATIENCE_S)
    hooks.close(PATIENCE_S)
    assert len(seen) == 3
    assert [name for name, _ in memory.calls] == ["postpone", "postpone", "forget"]
    assert len({request.headers["webhook-id"] for request in seen}) == 1, "receivers know what comes twice"


def test_tries_come_to_an_end(caplog: pytest.LogCaptureFixture) -> None:
    answer, seen = answering(500)
    memory = Memory()
    hooks = sender(answer, memory)
    hooks.send(a_delivery(retries_after_s=(0.001, 0.001)))
    assert memory.forgotten.wait(PATIENCE_S)
    hooks.close(PATIENCE_S)
    assert len(seen) == 3
    assert "given up after 3 tries" in caplog.text


def test_a_receiver_that_wants_no_more_is_left_alone() -> None:
    answer, seen = answering(410)
    memory = Memory()
    hooks = sender(answer, memory)
    hooks.send(a_delivery(retries_after_s=(0.001,)))
    assert memory.forgotten.wait(PATIENCE_S)
    hooks.close(PATIENCE_S)
    assert len(seen) == 1


def test_pauses_grow_and_none_is_as_long_as_another() -> None:
    assert list(RETRIES_AFTER_S) == sorted(RETRIES_AFTER_S)
    pauses_s = []
    for jitter in (0.0, 0.5, 1.0):
        hooks = WebhookSender(httpx.AsyncClient, jitter=lambda jitter=jitter: jitter)
        pauses_s.append(hooks._next(Due(a_delivery())).due_ms / 1000 - time.time())
        hooks._loop.close()
    assert pauses_s == pytest.approx([5.0, 5.5, 6.0], abs=0.5)


def test_a_pause_does_not_hold_up_the_end_and_stays_in_the_outbox() -> None:
    answer, seen = answering(500)
    memory = Memory()
    hooks = sender(answer, memory)
    hooks.send(a_delivery())
    hooks.close(PATIENCE_S)
    assert len(seen) == 1
    assert memory.calls == [("postpone", "msg_1")]


def test_a_clock_that_was_set_back_puts_off_nothing() -> None:
    answer, seen = answering(200)
    in_a_year_ms = time.time_ns() // 10**6 + 365 * 86_400_000
    memory = Memory([Due(a_delivery(retries_after_s=(0.001,)), tries=1, due_ms=in_a_year_ms)])
    hooks = sender(answer, memory)
    assert memory.forgotten.wait(PATIENCE_S)
    hooks.close(PATIENCE_S)
    assert len(seen) == 1


def test_hosts_that_never_answer_do_not_take_all_places() -> None:
    done = threading.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "slow":
            await asyncio.Event().wait()
        done.set()
        return httpx.Response(200)

    hooks = sender(answer)
    for number in range(200):
        hooks.send(a_delivery("slow", str(number)))
    hooks.send(a_delivery("quick"))
    assert done.wait(PATIENCE_S)
    hooks.close(0)


def test_an_outbox_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Memory):
        def forget(self, delivery: Delivery) -> None:
            raise OSError("disk full")

    answer, seen = answering(200)
    hooks = sender(answer, Broken())
    hooks.send(a_delivery(job_id="1"))
    hooks.send(a_delivery(job_id="2"))
    hooks.close(PATIENCE_S)
    assert len(seen) == 2
    assert "could not be written down" in caplog.text


# -------------------------------------------------------------------------------------------------------- signatures


def test_a_signature_is_that_of_standard_webhooks() -> None:
    answer, seen = answering(200)
    hooks = sender(answer, key=KEY)
    hooks.send(a_delivery(job_id="7"))
    hooks.close(PATIENCE_S)
    (request,) = seen
    sent_s = request.headers["webhook-timestamp"]
    assert abs(int(sent_s) - time.time()) < 60
    assert request.headers["webhook-id"] == "msg_7"
    signed = b"msg_7." + sent_s.encode() + b"." + request.content
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_without_a_secret_there_is_no_signature() -> None:
    answer, seen = answering(200)
    hooks = sender(answer)
    hooks.send(a_delivery())
    hooks.close(PATIENCE_S)
    assert "webhook-signature" not in seen[0].headers


def test_secrets() -> None:
    text = base64.b64encode(KEY).decode()
    assert secret_bytes(f"whsec_{text}") == secret_bytes(text) == KEY
    for wrong in ("whsec_", "whsec_abc", "short", base64.b64encode(bytes(65)).decode(), "\N{SNOWMAN}" * 40):
        with pytest.raises(ValueError, match=r"base64|bytes") as caught:
            secret_bytes(wrong)
        assert wrong not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ targets


async def resolve(host: str, port: int) -> Sequence[Any]:
    return [ip_address({"open.test": "93.184.215.14", "inner.test": "10.1.2.3"}.get(host, host))]


@pytest.mark.parametrize(
    ("host", "trusted", "allowed", "reached"),
    [
        ("open.test", False, False, True),
        ("inner.test", False, False, False),
        ("inner.test", True, False, True),
        ("inner.test", False, True, True),
        ("127.0.0.1", False, False, False),
        ("[::ffff:169.254.169.254]", False, False, False),
        ("169.254.169.254", False, False, False),
    ],
)
def test_private_networks_are_closed_to_what_callers_name(
    host: str, trusted: bool, allowed: bool, reached: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer, seen = answering(200)
    guarded = GuardedTransport(httpx.MockTransport(answer), allow_private=allowed, resolve=resolve)
    memory = Memory()
    hooks = WebhookSender(lambda: httpx.AsyncClient(transport=guarded), memory)
    hooks.start()
    hooks.send(a_delivery(host, is_trusted=trusted))
    hooks.close(PATIENCE_S)
    assert bool(seen) is reached
    assert memory.calls == [("forget", "msg_1")], "what is refused is not tried again"
    assert ("closed network" in caplog.text) is not reached


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://open.test/", "http://", "gopher://open.test/", "/hook"])
def test_only_the_web_is_posted_to(url: str) -> None:
    answer, seen = answering(200)
    guarded = GuardedTransport(httpx.MockTransport(answer), resolve=resolve)
    memory = Memory()
    hooks = WebhookSender(lambda: httpx.AsyncClient(transport=guarded), memory)
    hooks.start()
    hooks.send(Delivery("1", url, {}))
    hooks.close(PATIENCE_S)
    assert not seen
    assert memory.calls == [("forget", "msg_1")]


# ------------------------------------------------------------------------------------------------------ the database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqlJournal]:
    journal = SqlJournal(f"sqlite:///{tmp_path / 'journal.db'}")
    yield journal
    journal.close()


def test_the_outbox_keeps_all_that_counts(database: SqlJournal) -> None:
    outbox = SqlOutbox(database.database)
    told = Delivery("a", "http://receiver/?x=1", {"prompt": "\0\ud800 \N{SNOWMAN}"}, (1.5, 2.0), 3.5, True)
    text = Delivery("b", "http://receiver/", '{"task_id": "b"}')
    for delivery in (text, told, told):
        outbox.add(delivery)
    outbox.postpone(Due(text, tries=2, due_ms=5))
    assert SqlOutbox(database.database).load() == [Due(told), Due(text, 2, 5)]
    outbox.forget(told)
    assert [due.delivery.job_id for due in outbox.load()] == ["b"]


def queue_over(journal: SqlJournal, hooks: WebhookSender) -> JobQueue:
    def compose(job: Any) -> Delivery:
        return Delivery(job.id, "http://receiver/hook", {"state": job.state.value})

    notices = Notices(hooks, {"classic": compose})
    return JobQueue(
        journal,
        clock=FakeClock(),
        new_id=CountedIds(),
        delete_files=FakeStore().delete,
        on_ending=[notices.prepare],
        on_ended=[notices.send],
    )


def test_what_a_lost_process_did_not_deliver_is_delivered_at_the_next_start(database: SqlJournal) -> None:
    lost = WebhookSender(httpx.AsyncClient, SqlOutbox(database.database))
    jobs = queue_over(database, lost)
    ids = [jobs.submit(a_plan(), surface, "Text to Image", {}).id for surface in ("classic", "other")]
    for job_id, ending in zip(ids, (Failed("no room"), Finished()), strict=True):
        jobs.take()
        jobs.apply(job_id, ending)
    lost._loop.close()

    answer, seen = answering(200)
    hooks = sender(answer, SqlOutbox(database.database))
    hooks.close(PATIENCE_S)
    assert [json.loads(request.content) for request in seen] == [{"state": JobState.FAILED.value}]
    assert SqlOutbox(database.database).load() == []


def test_an_end_that_was_not_written_down_is_not_told(database: SqlJournal) -> None:
    """The process is lost between the two: the job runs again, and its true end is told."""
    answer, seen = answering(200)
    outbox = SqlOutbox(database.database)
    hooks = sender(answer, outbox)
    jobs = queue_over(database, hooks)
    job = jobs.submit(a_plan(), "classic", "Text to Image", {})
    outbox.add(Delivery(job.id, "http://receiver/hook", {"state": "never came about"}))
    hooks.close(PATIENCE_S)

    again = sender(answer, outbox)
    restarted = queue_over(database, again)
    restarted.restore()
    restarted.take()
    restarted.apply(job.id, Finished())
    again.close(PATIENCE_S)
    assert [json.loads(request.content) for request in seen] == [{"state": JobState.SUCCEEDED.value}]


def test_the_delivery_is_written_down_before_the_end_of_the_job(database: SqlJournal) -> None:
    order: list[str] = []

    class Watched(SqlOutbox):
        def add(self, delivery: Delivery) -> None:
            found = database.get(delivery.job_id)
            order.append(found.state.value if found else "gone")
            super().add(delivery)

    answer, _ = answering(200)
    hooks = sender(answer, Watched(database.database))
    jobs = queue_over(database, hooks)
    job = jobs.submit(a_plan(), "classic", "Text to Image", {})
    jobs.take()
    jobs.apply(job.id, Finished())
    hooks.close(PATIENCE_S)
    assert order == [JobState.WAITING.value]
