"""The journal: every job's plan, state and results in a database, SQLite by default, PostgreSQL by URL.

An entry that clients are told of is flushed to the disk before it is told: a job that was taken on, one that waits
again, one that has ended, one that was deleted. It is there after a killed process and after a power cut; SQLite has a
write-ahead log and ``synchronous = FULL`` for it. A flush takes 0.2 ms on a fast disk and 10 ms on a slow one.

What is noted of a running job, that it was begun and which pictures it has, is handed to the system and not waited for.
A killed process loses nothing of that. A power cut may take what was noted since the last flush, never the middle of
the log: ``settle`` flushes within a second, and so does every entry that is told. A job whose begin was lost is begun
again without the lost attempt being counted; of a picture that no entry knows, its file may stay.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    RowMapping,
    Select,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from fooocus_core.plan import Plan
from fooocusapi.jobs.job import Job, JobState, ResultImage
from fooocusapi.jobs.journal_base import JournalError, TimeRange

logger = logging.getLogger(__name__)

UNFINISHED = (JobState.WAITING.value, JobState.RUNNING.value)

_UNFLUSHED: Final[Mapping[str, str]] = {
    "sqlite": "PRAGMA synchronous = NORMAL",
    "postgresql": "SET LOCAL synchronous_commit = off",
}
"""How a transaction says, before all else, that its end shall not wait for the disk. Other databases always do."""

BUSY_TIMEOUT_MS = 10_000
"""How long another program, such as one that makes a copy, may hold the database of SQLite."""

metadata = MetaData()

# SQLite hands out row numbers only for a plain INTEGER key.
_Number = BigInteger().with_variant(Integer, "sqlite")

jobs = Table(
    "fooocusapi_job",
    metadata,
    Column("sequence", _Number, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("surface", String(32), nullable=False),
    Column("job_type", String(64), nullable=False),
    Column("plan", Text, nullable=False),
    Column("context", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("queued_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger, nullable=False),
    Column("fraction", Float, nullable=False),
    Column("text", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    # Row numbers are the order of the queue: one that was deleted must not come back as the oldest.
    sqlite_autoincrement=True,
)

results = Table(
    "fooocusapi_result",
    metadata,
    Column("job", ForeignKey(jobs.c.sequence, ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True),
    # As text: the seed of a later picture may be one more than 63 bits hold.
    Column("seed", String(24), nullable=False),
    Column("path", String(1024), nullable=False, index=True),
)


class SqlJournal:
    """``Journal`` over SQLAlchemy. Thread-safe; every method blocks for the database."""

    def __init__(self, url: str) -> None:
        """Opens the database at ``url``, makes the tables that are missing, and keeps other servers out.

        Raises ``JournalError`` when it cannot be opened or another server works on it (SQLite files only).
        """
        with translated("open"):
            self._engine = _engine(url)
            self._claim = _claim(self._engine)
            self._owes_flush = False
            metadata.create_all(self._engine)

    @property
    def database(self) -> Engine:
        """For tables of others beside the journal's own."""
        return self._engine

    def close(self) -> None:
        """Let go of the database and of the claim on it."""
        self._engine.dispose()
        if self._claim is not None:
            self._claim.close()

    def add(self, job: Job) -> int:
        """Append a new job, whose ``plan`` must be there; its number."""
        if job.plan is None:
            raise ValueError("a job without a plan cannot be added")
        fixed = {
            "id": job.id,
            "surface": job.surface,
            "job_type": job.job_type,
            "plan": json.dumps(job.plan.to_json()),
            "context": json.dumps(dict(job.context)),
            "queued_ms": job.queued_ms,
        }
        with self._writing() as connection:
            added = connection.execute(insert(jobs).values(fixed | _changing(job)))
        (number,) = added.inserted_primary_key or (0,)
        return int(number)

    def save(self, job: Job) -> None:
        """Record state, times, results and attempts; what was asked is never written again.

        On return it is on the disk, unless the job is running: then ``settle`` flushes it.
        """
        with self._writing(flushed=job.state is not JobState.RUNNING) as connection:
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(_changing(job)))
            self._save_results(connection, job)

    def settle(self) -> None:
        """Flush what was noted of running jobs, if anything was since the last call. PostgreSQL does so by itself.

        Whoever calls it once a second bounds what a power cut takes, and so how often a job can be begun that brings
        the whole machine down.
        """
        if self._owes_flush and self._engine.dialect.name == "sqlite":
            self._owes_flush = False
            with self._reading() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def get(self, job_id: str) -> Job | None:
        """The job of this identifier."""
        found = self._jobs(select(jobs).where(jobs.c.id == job_id))
        return found[0] if found else None

    def unfinished(self) -> list[Job]:
        """Waiting and running jobs in the order in which they were added."""
        return self._jobs(select(jobs).where(jobs.c.state.in_(UNFINISHED)).order_by(jobs.c.sequence))

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
        query = select(jobs).where(jobs.c.state.not_in(UNFINISHED))
        if job_id is not None:
            query = query.where(jobs.c.id == job_id)
        if surface is not None:
            query = query.where(jobs.c.surface == surface)
        if queued_ms is not None:
            query = query.where(jobs.c.queued_ms.between(*queued_ms))
        query = query.order_by(jobs.c.sequence.desc() if newest_first else jobs.c.sequence)
        if page_size is not None:
            query = query.limit(page_size).offset(page * page_size)
        return self._jobs(query)

    def count_finished(self) -> int:
        """How many jobs have ended and are kept."""
        with self._reading() as connection:
            query = select(func.count()).select_from(jobs).where(jobs.c.state.not_in(UNFINISHED))
            return int(connection.execute(query).scalar_one())

    def finished_beyond(self, keep: int, at_most: int = 500) -> list[Job]:
        """The finished jobs that are left when the newest ``keep`` are taken away, oldest first.

        The first ``at_most`` of them: ask again after deleting these.
        """
        surplus = min(self.count_finished() - keep, at_most)
        return self.history(page_size=surplus, newest_first=False) if surplus > 0 else []

    def shared_paths(self, job: Job) -> set[str]:
        """Those of the job's result paths that are results of another job as well."""
        paths = [result.path for result in job.results]
        query = select(results.c.path).join(jobs).where(results.c.path.in_(paths), jobs.c.id != job.id)
        with self._reading() as connection:
            return set(connection.execute(query).scalars())

    def mentions(self, name: str) -> bool:
        """Whether what any job's dialect has noted holds this name, which has neither ``%`` nor ``_`` in it."""
        query = select(jobs.c.id).where(jobs.c.context.contains(name)).limit(1)
        with self._reading() as connection:
            return connection.execute(query).first() is not None

    def delete(self, job_id: str) -> None:
        """Forget the job; an unknown one is forgotten already."""
        with self._writing() as connection:
            sequence = select(jobs.c.sequence).where(jobs.c.id == job_id)
            connection.execute(delete(results).where(results.c.job.in_(sequence)))
            connection.execute(delete(jobs).where(jobs.c.id == job_id))

    def _save_results(self, connection: Connection, job: Job) -> None:
        sequence = connection.execute(select(jobs.c.sequence).where(jobs.c.id == job.id)).scalar_one_or_none()
        if sequence is None:
            return
        connection.execute(delete(results).where(results.c.job == sequence))
        rows = [
            {"job": sequence, "place": result.index, "seed": str(result.seed), "path": result.path}
            for result in job.results
        ]
        if rows:
            connection.execute(insert(results), rows)

    def _jobs(self, query: Select[Any]) -> list[Job]:
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
            pictures = _pictures(connection, query.with_only_columns(jobs.c.sequence))
        return [_job(row, pictures.get(row["sequence"], ())) for row in rows]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated("read"), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self, *, flushed: bool = True) -> Iterator[Connection]:
        with translated("written"), self._engine.begin() as connection:
            if not flushed and (unflushed := _UNFLUSHED.get(self._engine.dialect.name)):
                connection.exec_driver_sql(unflushed)
            yield connection
        if not flushed:
            self._owes_flush = True


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "checkout", _flush_again)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")


def _flush_again(connection: sqlite3.Connection, _record: object, _proxy: object) -> None:
    """Whoever is handed a connection finds one that flushes, whatever was said with it before."""
    connection.execute("PRAGMA synchronous = FULL")


def _claim(engine: Engine) -> sqlite3.Connection | None:
    """Hold a lock beside an SQLite file until the process ends, however it ends.

    Two servers on one journal would both run its waiting jobs. The lock is an exclusive transaction on an empty
    database of its own: it works wherever SQLite does, and the system lets go of it when the process dies.
    """
    if engine.dialect.name != "sqlite" or engine.url.database in (None, "", ":memory:"):
        return None
    claim = sqlite3.connect(f"{engine.url.database}.lock", timeout=0, isolation_level=None, check_same_thread=False)
    try:
        claim.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        claim.close()
        if "locked" not in str(error):
            raise
        raise JournalError("another server is working on this journal; give this one its own outputs folder") from error
    return claim


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Errors of the database as ``JournalError``, cause kept. The text names no file: clients may see it."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        raise JournalError(f"the journal of jobs cannot be {action}") from error


def _changing(job: Job) -> dict[str, Any]:
    return {
        "state": job.state.value,
        "started_ms": job.started_ms,
        "finished_ms": job.finished_ms,
        "fraction": job.fraction,
        "text": _storable(job.text),
        "reason": _storable(job.reason),
        "attempts": job.attempts,
    }


def _storable(text: str) -> str:
    """Text that every database takes: no NUL (PostgreSQL refuses it), no lone surrogates (no encoding has them)."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _pictures(connection: Connection, sequences: Select[Any]) -> dict[int, tuple[ResultImage, ...]]:
    # Joined in the database: a list of numbers in the statement has a limit, a history has none.
    query = select(results).where(results.c.job.in_(sequences)).order_by(results.c.place)
    pictures: dict[int, tuple[ResultImage, ...]] = {}
    for row in connection.execute(query).mappings():
        image = ResultImage(row["place"], int(row["seed"]), row["path"])
        pictures[row["job"]] = (*pictures.get(row["job"], ()), image)
    return pictures


def _job(row: RowMapping, pictures: tuple[ResultImage, ...]) -> Job:
    return Job(
        id=row["id"],
        surface=row["surface"],
        job_type=row["job_type"],
        plan=_plan(row["id"], row["plan"]),
        context=_context(row["context"]),
        state=JobState(row["state"]),
        queued_ms=row["queued_ms"],
        started_ms=row["started_ms"],
        finished_ms=row["finished_ms"],
        fraction=row["fraction"],
        text=row["text"],
        reason=row["reason"],
        results=pictures,
        attempts=row["attempts"],
        number=row["sequence"],
    )


def _plan(job_id: str, text: str) -> Plan | None:
    """The plan, or ``None`` when this release cannot read it: that is the matter of one job and of no other."""
    try:
        return Plan.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.warning("the plan of job %s cannot be read by this release", job_id, exc_info=True)
        return None


def _context(text: str) -> Mapping[str, Any]:
    context: Mapping[str, Any] = json.loads(text)
    return context
