"""The system's clock is set back or forward while jobs wait and run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fooocus_core.events import Finished
from fooocusapi.jobs.job import JobState
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.queue import JobQueue, Limits
from fooocusapi.jobs.worker import Worker
from tests.fooocusapi.fakes import PATIENCE_S, FakeClock, FakeStore, a_plan, an_image
from tests.fooocusapi.served import HeldEngine

HOUR_MS = 3_600_000


@pytest.mark.parametrize("jump_ms", [-100 * HOUR_MS, 100 * HOUR_MS])
def test_a_clock_that_jumps_changes_no_order_and_ends_no_job(tmp_path: Path, jump_ms: int) -> None:
    clock, engine, store = FakeClock(), HeldEngine(), FakeStore()
    journal = SqlJournal(f"sqlite:///{tmp_path / 'journal.db'}")
    jobs = JobQueue(journal, clock=clock, limits=Limits(history=3), delete_files=store.delete)
    worker = Worker(jobs, store, lambda: engine, lambda job: 60.0)
    worker.start()
    sent = []
    for number in range(4):
        sent.append(jobs.submit(a_plan(f"job {number}"), "classic", "Text to Image", {}))
        clock.advance(jump_ms)
    for number in range(4):
        assert engine.begin().main.prompts.prompt == f"job {number}"
        clock.advance(-jump_ms)
        engine.play(an_image())
        engine.play(Finished())
    ended = [asyncio.run(asyncio.wait_for(jobs.wait(job.id), PATIENCE_S)) for job in sent[1:]]
    assert [job.state for job in ended] == [JobState.SUCCEEDED] * 3
    assert all(job.queued_ms <= job.started_ms <= job.finished_ms for job in ended)
    assert worker.stop(0, PATIENCE_S)
    assert [job.id for job in jobs.history()] == [job.id for job in reversed(sent[1:])], "the oldest went, by number"
    journal.close()
