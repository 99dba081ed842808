"""The journal over a real SQLite file: what is written comes back, also after a restart."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from fooocus_core.events import Cancelled, Failed, Finished
from fooocus_core.plan import Diffuse, Lora, Models, Output, Plan, Prompts
from fooocusapi.jobs.job import ImageSaved, Job, JobEvent, JobState, Requeued, ResultImage, Taken, advance
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.journal_base import JournalError, TimeRange
from tests.fooocusapi.fakes import BIRTH_MS, a_plan


def a_job(job_id: str = "1", **changes: object) -> Job:
    job = Job(job_id, "classic", "Text to Image", a_plan(), {"require_base64": True}, queued_ms=BIRTH_MS)
    return dataclasses.replace(job, **changes)


def test_every_field_comes_back(journal: SqlJournal) -> None:
    plan = Plan(
        (
            Diffuse(
                Models("c", "v", (Lora("l", 0.3),), Lora("p", 1.0)),
                Prompts("ein Apfel 🍎\0", "no\ud800", ("Fooocus V2",)),
                1152,
                896,
                seed=2**63 - 1,
            ),
        ),
        Output("webp", True, "a1111", "name"),
    )
    job = a_job(plan=plan)
    job = dataclasses.replace(job, number=journal.add(job))
    assert job.number == 1
    assert journal.get("1") == job
    ended = dataclasses.replace(
        job,
        state=JobState.FAILED,
        started_ms=BIRTH_MS + 1,
        finished_ms=BIRTH_MS + 2,
        fraction=0.5,
        text="Step 1",
        reason="no room",
        results=(ResultImage(0, 2**63 - 1, "d/a-0.png"), ResultImage(1, 2**63, "d/a-1.png")),
        attempts=2,
    )
    journal.save(ended)
    assert journal.get("1") == ended


def test_saving_again_replaces_the_results(journal: SqlJournal) -> None:
    journal.add(a_job())
    journal.save(a_job(results=(ResultImage(0, 1, "a"), ResultImage(1, 2, "b"))))
    journal.save(a_job(results=(ResultImage(0, 3, "c"),)))
    found = journal.get("1")
    assert found is not None
    assert found.results == (ResultImage(0, 3, "c"),)


def test_unfinished_jobs_keep_their_order_over_a_restart(journal_url: str) -> None:
    journal = SqlJournal(journal_url)
    for number in range(5):
        journal.add(a_job(str(number)))
    journal.save(a_job("0", state=JobState.SUCCEEDED))
    journal.save(a_job("1", state=JobState.RUNNING, attempts=1))
    journal.close()
    reopened = SqlJournal(journal_url)
    assert [job.id for job in reopened.unfinished()] == ["1", "2", "3", "4"]
    reopened.close()


def test_history_of_one_dialect_within_a_time(journal: SqlJournal) -> None:
    for number in range(6):
        surface = "unified" if number % 2 else "classic"
        journal.add(a_job(str(number), surface=surface, queued_ms=BIRTH_MS + number, state=JobState.SUCCEEDED))
    assert [job.id for job in journal.history(surface="unified")] == ["5", "3", "1"]
    within = TimeRange(BIRTH_MS + 1, BIRTH_MS + 3)
    assert [job.id for job in journal.history(queued_ms=within, newest_first=False)] == ["1", "2", "3"]
    assert [job.number for job in journal.history(surface="unified", queued_ms=within, page=1, page_size=1)] == [2]


def test_history_is_paged_in_both_directions(journal: SqlJournal) -> None:
    for number in range(5):
        journal.add(a_job(str(number)))
        if number != 2:
            journal.save(a_job(str(number), state=JobState.SUCCEEDED))
    assert [job.id for job in journal.history()] == ["4", "3", "1", "0"]
    assert [job.id for job in journal.history(page=1, page_size=3)] == ["0"]
    assert [job.id for job in journal.history(page=0, page_size=2, newest_first=False)] == ["0", "1"]
    assert [job.id for job in journal.history(job_id="3")] == ["3"]
    assert journal.history(page=7, page_size=20) == []
    assert journal.count_finished() == 4
    assert [job.id for job in journal.finished_beyond(1)] == ["0", "1", "3"]
    assert journal.finished_beyond(4) == []


def test_shared_paths_are_those_of_others(journal: SqlJournal) -> None:
    for job_id, path in (("1", "same"), ("2", "same"), ("3", "own")):
        journal.add(a_job(job_id))
        journal.save(a_job(job_id, results=(ResultImage(0, 1, path),)))
    assert journal.shared_paths(a_job("1", results=(ResultImage(0, 1, "same"),))) == {"same"}
    assert journal.shared_paths(a_job("3", results=(ResultImage(0, 1, "own"),))) == set()
    journal.delete("2")
    assert journal.shared_paths(a_job("1", results=(ResultImage(0, 1, "same"),))) == set()


def test_deleting_twice_and_saving_the_deleted_are_nothing(journal: SqlJournal) -> None:
    journal.add(a_job())
    journal.delete("1")
    journal.delete("1")
    journal.save(a_job(results=(ResultImage(0, 1, "a"),)))
    assert journal.get("1") is None
    assert journal.get("' OR 1=1") is None


def test_a_plan_of_another_release_costs_only_its_own_job(journal: SqlJournal, tmp_path: Path) -> None:
    journal.add(a_job("1"))
    journal.add(a_job("2"))
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute("UPDATE fooocusapi_job SET plan = json_set(plan, '$.version', 999) WHERE id = '1'")
    first, second = journal.unfinished()
    assert first.plan is None
    assert second.plan == a_plan()


def test_a_second_server_is_kept_out_until_the_first_lets_go(journal_url: str) -> None:
    first = SqlJournal(journal_url)
    with pytest.raises(JournalError, match="another server"):
        SqlJournal(journal_url)
    first.close()
    SqlJournal(journal_url).close()


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all/journal.db", "nonsense", "nonsense://x"])
def test_a_database_that_cannot_be_opened_is_told_without_its_path(url: str) -> None:
    with pytest.raises(JournalError) as caught:
        SqlJournal(url)
    assert "nowhere" not in str(caught.value)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(JournalError):
        SqlJournal(f"sqlite:///{tmp_path / 'journal.db'}")


FULL = 2


@pytest.fixture
def flushes(journal: SqlJournal) -> list[bool]:
    """For every transaction that has ended, whether its end waits for the disk."""
    ended: list[bool] = []

    def look(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        assert driver.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        ended.append(driver.execute("PRAGMA synchronous").fetchone() == (FULL,))

    event.listen(journal.database, "commit", look)
    return ended


def test_what_is_told_is_flushed_to_the_disk_and_what_is_noted_of_a_running_job_is_not(
    journal: SqlJournal, flushes: list[bool]
) -> None:
    """A power cut takes nothing that a client has heard of, and nobody waits for more than that."""
    job = a_job()
    journal.add(job)
    assert flushes == [True]
    for happened in (Taken(), ImageSaved(0, 7, "d/1-0.png"), ImageSaved(1, 8, "d/1-1.png"), Finished()):
        job = advance(job, happened, BIRTH_MS)
        journal.save(job)
    assert flushes[1:] == [False, False, False, True]
    journal.delete("1")
    assert flushes[5:] == [True]


@pytest.mark.parametrize("last", [Requeued(orderly=True), Requeued(orderly=False), Failed("no room"), Cancelled()])
def test_every_other_end_of_a_run_is_flushed_as_well(journal: SqlJournal, flushes: list[bool], last: JobEvent) -> None:
    journal.add(a_job())
    running = advance(a_job(), Taken(), BIRTH_MS)
    journal.save(running)
    journal.save(advance(running, last, BIRTH_MS))
    assert flushes == [True, False, True]


def test_who_shares_the_database_is_flushed_after_what_was_not(journal: SqlJournal, flushes: list[bool]) -> None:
    """Webhooks and numbers of jobs lie beside the journal, and their entries go over the same connections."""
    journal.add(a_job())
    journal.save(advance(a_job(), Taken(), BIRTH_MS))
    with journal.database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE others (number INTEGER)")
    assert flushes == [True, False, True]


def test_what_was_noted_is_flushed_when_the_journal_is_settled(journal: SqlJournal, tmp_path: Path) -> None:
    """Flushing takes the log over into the database's own file, which is looked at without the log."""

    def attempts() -> list[int]:
        shutil.copy(tmp_path / "journal.db", tmp_path / "alone.db")
        with closing(sqlite3.connect(tmp_path / "alone.db")) as alone:
            return [number for (number,) in alone.execute("SELECT attempts FROM fooocusapi_job")]

    journal.add(a_job())
    journal.save(advance(a_job(), Taken(), BIRTH_MS))
    journal.settle()
    assert attempts() == [1]
    journal.save(a_job(state=JobState.SUCCEEDED, attempts=2))
    journal.settle()
    assert attempts() == [1], "an end is on the disk already, in the log"


def test_postgresql_is_told_by_the_transaction(journal: SqlJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words, which hold until the transaction ends; here they are read by a database that has others."""
    statements: list[str] = []

    def replace(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> tuple[str, Any]:
        statements.append(statement)
        return statement.replace("SET LOCAL synchronous_commit = off", "SELECT 1"), parameters

    event.listen(journal.database, "before_cursor_execute", replace, retval=True)
    journal.add(a_job())
    monkeypatch.setattr(journal.database.dialect, "name", "postgresql")
    journal.save(advance(a_job(), Taken(), BIRTH_MS))
    journal.settle()
    assert [statement for statement in statements if statement.startswith(("SET", "PRAGMA"))] == [
        "SET LOCAL synchronous_commit = off"
    ]


def test_what_dialects_have_noted_is_searched(journal: SqlJournal) -> None:
    journal.add(dataclasses.replace(a_job("1"), context={"params": {"picture": "http://host/inputs/abc.png"}}))
    assert journal.mentions("abc.png")
    assert not journal.mentions("abd.png")
    journal.delete("1")
    assert not journal.mentions("abc.png")
