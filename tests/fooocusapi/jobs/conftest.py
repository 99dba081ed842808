"""One queue over a real journal file for every test of this folder; nothing else is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fooocusapi.jobs.job import Job
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.queue import JobQueue, Limits
from tests.fooocusapi.fakes import CountedIds, FakeClock, FakeStore


@pytest.fixture
def journal_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'journal.db'}"


@pytest.fixture
def journal(journal_url: str) -> Iterator[SqlJournal]:
    journal = SqlJournal(journal_url)
    yield journal
    journal.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def ended() -> list[Job]:
    """The jobs whose end was told, in that order."""
    return []


@pytest.fixture
def make_queue(journal: SqlJournal, clock: FakeClock, store: FakeStore, ended: list[Job]) -> Callable[..., JobQueue]:
    def make(limits: Limits | None = None, journal: Any = journal, new_id: Any = None) -> JobQueue:
        return JobQueue(
            journal,
            clock=clock,
            limits=limits,
            new_id=new_id or CountedIds(),
            delete_files=store.delete,
            on_ended=[ended.append],
        )

    return make


@pytest.fixture
def jobs(make_queue: Callable[..., JobQueue]) -> JobQueue:
    return make_queue()
