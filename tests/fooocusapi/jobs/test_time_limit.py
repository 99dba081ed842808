"""Jobs that may not run for ever: they fail, and those behind them run."""

from __future__ import annotations

from pathlib import Path

from fooocus_core.events import Finished, Progress
from fooocusapi.jobs.job import JobState
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.jobs.reasons import TOOK_TOO_LONG
from fooocusapi.jobs.worker import Worker
from tests.fooocusapi.fakes import PATIENCE_S, CountedIds, FakeClock, FakeStore, HandEngine, a_plan
from tests.fooocusapi.served import wait_until


def test_a_job_beyond_its_limit_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    store, engine = FakeStore(), HandEngine()
    journal = SqlJournal(f"sqlite:///{tmp_path / 'journal.db'}")
    queue = JobQueue(journal, clock=FakeClock(), new_id=CountedIds(), delete_files=store.delete)
    worker = Worker(queue, store, lambda: engine, lambda job: 0.0 if job.surface == "short" else 3600.0)
    worker.start()
    ids = [queue.submit(a_plan(), surface, "kind", {}).id for surface in ("short", "long")]
    engine.begin()
    engine.play(Progress(0.5, "Step"))
    engine.begin()
    engine.play(Finished())
    wait_until(lambda: all(queue.get(job_id).state.is_terminal for job_id in ids))  # type: ignore[union-attr]
    short, long = (queue.get(job_id) for job_id in ids)
    assert short is not None
    assert long is not None
    assert (short.state, short.reason) == (JobState.FAILED, TOOK_TOO_LONG)
    assert long.state is JobState.SUCCEEDED
    worker.stop(0, PATIENCE_S)
    journal.close()
