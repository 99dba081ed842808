"""Webhooks: one POST for every ended job that asked for it, from a thread of its own.

The sender is an event loop on that thread, so that a receiver which takes its fifteen seconds holds up neither the
worker nor the server nor the other receivers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fooocusapi.jobs.job import Job

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """What is posted where. The address may hold a secret, so it is not shown."""

    job_id: str
    url: str = field(repr=False)
    body: Mapping[str, Any] | str
    """The JSON value, as the dialect of the job writes it."""
    retries_after_s: tuple[float, ...] = ()
    """After how long each further try follows one that was not answered with 2xx."""
    timeout_s: float | None = None
    """Of each try; ``None``: the sender's own."""


Composer = Callable[[Job], Delivery | None]
"""What a dialect has to tell of an ended job, and to whom; ``None`` when nobody asked."""


class WebhookSender:
    """Delivers once, or as often as a delivery wants to be tried; what fails is logged and forgotten."""

    def __init__(
        self,
        make_client: Callable[[], httpx.AsyncClient],
        *,
        timeout_s: float = 15.0,
        capacity: int = 1000,
        at_once: int = 32,
    ) -> None:
        """``timeout_s`` bounds a whole try. Beyond ``capacity`` unfinished deliveries, new ones are dropped.

        ``make_client`` is called on the sender's thread.
        """
        self._make_client = make_client
        self._timeout_s = timeout_s
        self._capacity = capacity
        self._lock = threading.Lock()
        self._pending = 0
        self._closed = False
        self._flush_within_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._deliveries: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(at_once)
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to deliver; once."""
        self._thread.start()

    def send(self, delivery: Delivery) -> bool:
        """Queue a delivery, from any thread, without blocking; false when it was dropped."""
        with self._lock:
            accepted = not self._closed and self._pending < self._capacity
            if accepted:
                self._pending += 1
                self._loop.call_soon_threadsafe(self._deliveries.put_nowait, delivery)
        if not accepted:
            logger.warning("webhook of job %s dropped: too many wait already", delivery.job_id)
        return accepted

    def close(self, flush_within_s: float) -> None:
        """Deliver what waits, for at most ``flush_within_s``, then end the thread."""
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
            while (delivery := await self._deliveries.get()) is not None:
                task = asyncio.create_task(self._deliver(client, delivery))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            if under_way:
                await asyncio.wait(under_way, timeout=self._flush_within_s)

    async def _deliver(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        for wait_s in (0.0, *delivery.retries_after_s):
            await asyncio.sleep(wait_s)
            if await self._is_accepted(client, delivery):
                break
        with self._lock:
            self._pending -= 1

    async def _is_accepted(self, client: httpx.AsyncClient, delivery: Delivery) -> bool:
        """Whether one try was answered with 2xx."""
        status = 0
        async with self._slots:
            try:
                status = await self._post(client, delivery)
                outcome = f"answered {status}"
            except Exception as error:  # Whatever a receiver, a resolver or an address does is its own affair.
                outcome = f"failed: {type(error).__name__}"
        logger.info("webhook of job %s: %s", delivery.job_id, outcome)
        return 200 <= status < 300

    async def _post(self, client: httpx.AsyncClient, delivery: Delivery) -> int:
        """The answer's status; its body is not read, so it cannot be too long or too slow."""
        async with (
            asyncio.timeout(delivery.timeout_s or self._timeout_s),
            client.stream("POST", delivery.url, json=delivery.body) as answer,
        ):
            return answer.status_code
