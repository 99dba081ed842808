"""Webhooks that have not arrived yet, in the journal's database: a restart forgets none of them."""

from __future__ import annotations

import json

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from fooocusapi.jobs.journal import UNFINISHED, jobs, translated
from fooocusapi.jobs.webhooks import Delivery, Due

metadata = MetaData()

deliveries = Table(
    "fooocusapi_delivery",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("job", String(36), nullable=False),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("retries_after_s", Text, nullable=False),
    Column("timeout_s", Float, nullable=False),
    Column("is_trusted", Boolean, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_ms", BigInteger, nullable=False, index=True),
)


class SqlOutbox:
    """``Outbox`` beside the journal. Thread-safe; every method blocks for the database and raises ``JournalError``."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        with translated("open"):
            metadata.create_all(database)

    def add(self, delivery: Delivery) -> None:
        """Keeps a delivery of which no try was made; the one that has its identifier is replaced."""
        row = {
            "id": delivery.id,
            "job": delivery.job_id,
            "url": delivery.url,
            "body": delivery.text,
            "retries_after_s": json.dumps(delivery.retries_after_s),
            "timeout_s": delivery.timeout_s,
            "is_trusted": delivery.is_trusted,
            "tries": 0,
            "due_ms": 0,
        }
        with translated("written"), self._database.begin() as connection:
            connection.execute(delete(deliveries).where(deliveries.c.id == delivery.id))
            connection.execute(insert(deliveries).values(row))

    def postpone(self, due: Due) -> None:
        """Records how often it was tried and when it is next."""
        with translated("written"), self._database.begin() as connection:
            values = {"tries": due.tries, "due_ms": due.due_ms}
            connection.execute(update(deliveries).where(deliveries.c.id == due.delivery.id).values(values))

    def forget(self, delivery: Delivery) -> None:
        """It has arrived, or never will."""
        with translated("written"), self._database.begin() as connection:
            connection.execute(delete(deliveries).where(deliveries.c.id == delivery.id))

    def load(self) -> list[Due]:
        """All that is left, the oldest first.

        Those of jobs that have not ended are forgotten: the process was lost before the end was written down, so that
        it has not come about.
        """
        running = select(jobs.c.id).where(jobs.c.state.in_(UNFINISHED))
        with translated("read"), self._database.begin() as connection:
            connection.execute(delete(deliveries).where(deliveries.c.job.in_(running)))
            rows = connection.execute(select(deliveries).order_by(deliveries.c.due_ms)).mappings().all()
        return [_due(row) for row in rows]


def _due(row: RowMapping) -> Due:
    delivery = Delivery(
        job_id=row["job"],
        url=row["url"],
        body=json.loads(row["body"]),
        retries_after_s=tuple(json.loads(row["retries_after_s"])),
        timeout_s=row["timeout_s"],
        is_trusted=row["is_trusted"],
    )
    return Due(delivery, row["tries"], row["due_ms"])
