"""Webhooks: one POST for every ended job that asked for it, at least once, from a thread of its own.

A delivery is written down before the end of its job is, and forgotten once a receiver has answered it with 2xx or its
tries are used up. What a lost process left half done is made good at the next start: the receiver may then get the
same ``webhook-id`` twice, but it never misses one. The sender is an event loop on its thread, so that a receiver which
takes its fifteen seconds holds up neither the worker nor the server nor the other receivers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from fooocusapi.jobs.job import Job
from fooocusapi.jobs.signatures import signed_headers

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

TIMEOUT_S = 15.0
RETRIES_AFTER_S = (5.0, 30.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
"""A little more than two hours in all."""
JITTER = 0.2
"""Each pause is longer by up to this share: receivers that come back are not met by all at one moment."""
AT_ONCE = 32
AT_ONCE_PER_HOST = 4
"""So that no host that never answers takes the places of all others."""
CAPACITY = 1000

SUCCESS = range(200, 300)
GONE = 410
"""The receiver says that it wants no more."""


@dataclass(frozen=True)
class Delivery:
    """What is posted where. The address may hold a secret, so it is not shown."""

    job_id: str
    url: str = field(repr=False)
    body: Mapping[str, Any] | str
    """The JSON value, as the dialect of the job writes it."""
    retries_after_s: tuple[float, ...] = RETRIES_AFTER_S
    """After how long each further try follows one that was not answered with 2xx."""
    timeout_s: float = TIMEOUT_S
    """Of each try as a whole."""
    is_trusted: bool = False
    """Whether the operator named the address, and not a caller."""

    @property
    def id(self) -> str:
        """The same for every try, also of a job whose end was told before a crash."""
        return f"msg_{self.job_id}"

    @property
    def text(self) -> str:
        """The body as it is posted."""
        return json.dumps(self.body, separators=(",", ":"))


@dataclass(frozen=True)
class Due:
    """A delivery and what has become of it: how often it was tried, and when it is next."""

    delivery: Delivery
    tries: int = 0
    due_ms: int = 0
    """Since the epoch."""


Composer = Callable[[Job], Delivery | None]
"""What a dialect has to tell of an ended job, and to whom; ``None`` when nobody asked."""


class Outbox(Protocol):
    """The durable memory of deliveries. Every method may block on a disk and raise ``JournalError``."""

    def add(self, delivery: Delivery) -> None: ...

    def postpone(self, due: Due) -> None: ...

    def forget(self, delivery: Delivery) -> None: ...

    def load(self) -> Sequence[Due]: ...


class NoOutbox:
    """Remembers nothing: deliveries are lost with the process."""

    def add(self, delivery: Delivery) -> None: ...

    def postpone(self, due: Due) -> None: ...

    def forget(self, delivery: Delivery) -> None: ...

    def load(self) -> Sequence[Due]:
        return ()


class WebhookSender:
    """Delivers at least once what it can; what cannot be delivered is logged and forgotten."""

    def __init__(
        self,
        make_client: Callable[[], httpx.AsyncClient],
        outbox: Outbox | None = None,
        *,
        key: bytes = b"",
        capacity: int = CAPACITY,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Beyond ``capacity`` unfinished deliveries, new ones are dropped.

        ``make_client`` is called on the sender's thread. ``key``: what deliveries are signed with; empty: they are not.
        ``jitter``: from 0 to 1, how much of it a pause gets.
        """
        self._make_client = make_client
        self._outbox = outbox or NoOutbox()
        self._key = key
        self._capacity = capacity
        self._jitter = jitter
        self._lock = threading.Lock()
        self._pending = 0
        self._closed = False
        self._flush_within_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._deliveries: asyncio.Queue[Due | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._lanes: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to deliver, what an earlier run of the server left first; once. Raises ``JournalError``."""
        left = self._outbox.load()
        self._pending = len(left)
        for due in left:
            self._loop.call_soon_threadsafe(self._deliveries.put_nowait, due)
        if left:
            logger.info("%d webhooks of an earlier run are still to be delivered", len(left))
        self._thread.start()

    def keep(self, delivery: Delivery) -> None:
        """Write a delivery down whose job is about to end. Blocks for a disk; raises ``JournalError``."""
        self._outbox.add(delivery)

    def send(self, delivery: Delivery) -> bool:
        """Queue a delivery, from any thread, without waiting for a receiver; false when it was dropped.

        What comes after the end is delivered at the next start, if it was written down.
        """
        with self._lock:
            closed, full = self._closed, self._pending >= self._capacity
            if not closed and not full:
                self._pending += 1
                self._loop.call_soon_threadsafe(self._deliveries.put_nowait, Due(delivery))
        if full and not closed:
            logger.warning("webhook of job %s dropped: too many wait already", delivery.job_id)
            self._note(self._outbox.forget, delivery)
        return not closed and not full

    def close(self, flush_within_s: float) -> None:
        """Finish the first tries for at most ``flush_within_s``, then end the thread; the others stay in the outbox."""
        with self._lock:
            if self._closed or not self._thread.is_alive():
                return
            self._closed = True
            self._flush_within_s = flush_within_s
            self._loop.call_soon_threadsafe(self._deliveries.put_nowait, None)
        self._thread.join(flush_within_s + 1)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._deliver_all())
        except Exception:
            logger.exception("webhooks cannot be delivered any more")
        with self._lock:
            self._closed = True

    async def _deliver_all(self) -> None:
        under_way: set[asyncio.Task[None]] = set()
        async with self._make_client() as client:
            while (due := await self._deliveries.get()) is not None:
                task = asyncio.create_task(self._deliver(client, due))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            self._closing.set()
            if under_way:
                await asyncio.wait(under_way, timeout=self._flush_within_s)

    async def _deliver(self, client: httpx.AsyncClient, due: Due) -> None:
        """Tries until it has arrived, nothing is left to try, or the server ends."""
        delivery = due.delivery
        while await self._is_time(due):
            if not await self._is_to_be_retried(client, delivery):
                break
            if due.tries == len(delivery.retries_after_s):
                logger.warning("webhook of job %s given up after %d tries", delivery.job_id, due.tries + 1)
                break
            due = self._next(due)
            await asyncio.to_thread(self._note, self._outbox.postpone, due)
        else:
            return
        await asyncio.to_thread(self._note, self._outbox.forget, delivery)
        with self._lock:
            self._pending -= 1

    def _next(self, due: Due) -> Due:
        pause_s = due.delivery.retries_after_s[due.tries] * (1 + JITTER * self._jitter())
        return Due(due.delivery, due.tries + 1, _now_ms() + round(pause_s * 1000))

    async def _is_time(self, due: Due) -> bool:
        """Waits for the time of the next try; false when the server ends before it comes."""
        wait_s = (due.due_ms - _now_ms()) / 1000
        if due.tries == 0 or wait_s <= 0:
            return due.tries == 0 or not self._closing.is_set()
        # A clock that was set back must not put off a try for longer than its pause can be.
        longest_s = due.delivery.retries_after_s[due.tries - 1] * (1 + JITTER)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), min(wait_s, longest_s))
        return not self._closing.is_set()

    async def _is_to_be_retried(self, client: httpx.AsyncClient, delivery: Delivery) -> bool:
        """Makes one try; false when it has arrived, or no other try would do better."""
        import httpx

        from fooocusapi.fetch import TargetRefused

        # The lane first: whoever waits for a slow host waits without a place that others could use.
        async with self._lane(delivery.url), self._slots:
            try:
                status = await self._post(client, delivery)
                outcome, is_retried = f"answered {status}", status not in SUCCESS and status != GONE
            except TargetRefused:
                outcome, is_retried = "refused: the address leads into a closed network", False
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                outcome, is_retried = f"failed: {type(error).__name__}", False
            except Exception as error:  # Whatever a receiver or a resolver does is its own affair.
                outcome, is_retried = f"failed: {type(error).__name__}", True
        logger.info("webhook of job %s: %s", delivery.job_id, outcome)
        return is_retried

    def _lane(self, url: str) -> asyncio.Semaphore:
        """What those wait for who go to the same host; it is gone with the last of them."""
        return self._lanes.setdefault(_host(url), asyncio.Semaphore(AT_ONCE_PER_HOST))

    async def _post(self, client: httpx.AsyncClient, delivery: Delivery) -> int:
        """The answer's status; its body is not read, so it cannot be too long or too slow."""
        from fooocusapi.fetch import TRUSTED

        body = delivery.text.encode()
        headers = signed_headers(delivery.id, _now_ms() // 1000, body, self._key)
        request = client.stream(
            "POST",
            delivery.url,
            content=body,
            headers={"content-type": "application/json", **headers},
            extensions={TRUSTED: delivery.is_trusted},
        )
        async with asyncio.timeout(delivery.timeout_s), request as answer:
            return answer.status_code

    def _note(self, action: Callable[[Any], None], value: Delivery | Due) -> None:
        """Write down what has become of a delivery; at worst it is delivered once more after a restart."""
        try:
            action(value)
        except Exception:
            logger.exception("what became of a webhook could not be written down")


class Notices:
    """Between the queue and the sender: what each dialect has to tell of a job that ends."""

    def __init__(self, sender: WebhookSender, by_surface: Mapping[str, Composer]) -> None:
        self._sender = sender
        self._by_surface = by_surface
        self._composed: dict[str, Delivery] = {}

    def prepare(self, job: Job) -> None:
        """Before the end of ``job`` is in the journal. Raises ``JournalError``."""
        compose = self._by_surface.get(job.surface)
        delivery = compose(job) if compose else None
        if delivery is not None:
            self._composed[job.id] = delivery
            self._sender.keep(delivery)

    def send(self, job: Job) -> None:
        """Once it is there."""
        delivery = self._composed.pop(job.id, None)
        if delivery is not None:
            self._sender.send(delivery)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
