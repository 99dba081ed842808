"""The journal over a real SQLite file: what is written comes back, also after a restart."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from fooocus_core.plan import Diffuse, Lora, Models, Output, Plan, Prompts
from fooocusapi.jobs.job import Job, JobState, ResultImage
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


def test_a_power_cut_is_survived(journal: SqlJournal) -> None:
    """Write-ahead log and full synchronisation: the settings that the promise of ``submit`` rests on."""
    with journal._reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_what_dialects_have_noted_is_searched(journal: SqlJournal) -> None:
    journal.add(dataclasses.replace(a_job("1"), context={"params": {"picture": "http://host/inputs/abc.png"}}))
    assert journal.mentions("abc.png")
    assert not journal.mentions("abd.png")
    journal.delete("1")
    assert not journal.mentions("abc.png")
