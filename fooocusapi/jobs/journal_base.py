"""What the queue asks of a journal, and how a journal fails. Importing this loads no database."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fooocusapi.jobs.job import Job


class TimeRange(NamedTuple):
    """Milliseconds since the epoch, both ends included."""

    first_ms: int
    last_ms: int


class JournalError(Exception):
    """The journal cannot be opened, read or written; its text is fit for clients, the cause is for the log."""


class Journal(Protocol):
    """The durable memory of jobs. Every method may block on a disk and raise ``JournalError``.

    ``fooocusapi.jobs.journal.SqlJournal`` is the real one.
    """

    def add(self, job: Job) -> int:
        """Append a new job; its number."""

    def save(self, job: Job) -> None:
        """Record the state, times, results and attempts of a job that was added."""

    def get(self, job_id: str) -> Job | None: ...

    def unfinished(self) -> list[Job]:
        """Waiting and running jobs in the order in which they were added."""

    def history(
        self,
        *,
        page: int = 0,
        page_size: int | None = None,
        newest_first: bool = True,
        job_id: str | None = None,
        surface: str | None = None,
        queued_ms: TimeRange | None = None,
    ) -> list[Job]:
        """Finished jobs in the order in which they were added; ``page`` counts from 0, no size means all.

        ``surface``: only those that this dialect took; ``queued_ms``: only those submitted within it.
        """

    def count_finished(self) -> int: ...

    def finished_beyond(self, keep: int) -> list[Job]:
        """The finished jobs except the newest ``keep``, oldest first, or the first of them."""

    def shared_paths(self, job: Job) -> set[str]:
        """Those of the job's result paths that are results of another job as well."""

    def delete(self, job_id: str) -> None: ...
