"""Killed at any moment: no job is lost, none runs twice to its success, every end is told, no file lies about.

``FAULTS_KILLS=50 pytest tests/faults/test_kills.py`` is the long form; ``FAULTS_JOBS`` is how many jobs are sent before
a kill at most, ``FAULTS_SEED`` repeats a run or varies it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from fooocusapi.jobs.queue import LOST_AGAIN
from tests.faults.harness import (
    Client,
    assert_files_are_those_of_the_journal,
    assert_nothing_was_lost,
    await_jobs,
    journal_of,
    receiving,
    runs_of,
    serving,
    tell,
    until,
    visited,
)
from tests.faults.server import DEATHS, Trouble

FEW_KILLS = 5
KILLS = int(os.environ.get("FAULTS_KILLS", FEW_KILLS))
SEED = int(os.environ.get("FAULTS_SEED", "1"))
MOST_JOBS = int(os.environ.get("FAULTS_JOBS", "6"))
ENOUGH = 10**6
LATEST_KILL_S = 0.15
"""How long after a job was taken the process goes on at most."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of the system")


def test_no_job_is_lost_and_none_runs_twice_by_kills_at_random_moments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = random.Random(SEED)
    client = Client(random.Random(SEED + 1))
    with receiving() as (webhook_url, told):
        flags = {"webhook_url": webhook_url, "queue_size": ENOUGH}
        for _ in range(KILLS):
            with serving(tmp_path, is_awaited=False, **flags) as server:
                jobs = choice.randint(1, MOST_JOBS)
                enough = len(client.taken) + choice.randint(0, jobs)  # With none, it is killed while it starts.
                visiting = visited(client, server, jobs)
                await_jobs(client, enough, visiting)
                time.sleep(choice.uniform(0, LATEST_KILL_S))
                assert server.end(signal.SIGKILL) == -signal.SIGKILL
                visiting.join()
        with serving(tmp_path, **flags) as server:
            client.ask_all(server)
            until(lambda: set(client.taken) <= told or None)
            assert server.end(signal.SIGTERM) == 0
    assert client.taken
    assert_nothing_was_lost(tmp_path, client)
    if KILLS > FEW_KILLS:
        tell(capsys, f"{KILLS} kills, {len(client.taken)} jobs taken, none lost")


@pytest.mark.parametrize("moment", DEATHS)
def test_a_kill_between_two_steps_of_a_job(tmp_path: Path, moment: str) -> None:
    client = Client(random.Random(0))
    with serving(tmp_path, Trouble(dies=moment)) as server:
        with suppress(httpx.TransportError):  # It may die before it answers; the job counts all the same.
            server.submit("job 1", image_number=2, save_name="apple")
        server.process.join()
        assert server.process.exitcode == -signal.SIGKILL
    (job_id,) = journal_of(tmp_path)
    client.taken = {job_id: "job 1"}
    with serving(tmp_path) as server:
        client.ask_all(server)
        assert server.end(signal.SIGTERM) == 0
    assert client.ends[job_id]["job_stage"] == "SUCCESS"
    assert len(runs_of(tmp_path)) == (1 if moment in ("before a job is taken", "when an end is written") else 2)
    assert_nothing_was_lost(tmp_path, client)


def test_a_job_that_takes_the_process_down_does_so_twice_and_no_more(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        held, poison, good = (server.submit(prompt) for prompt in ("hold", "poison", "good"))
        (tmp_path / "go").touch()
        server.process.join()
        assert server.process.exitcode == -signal.SIGKILL
    with serving(tmp_path, is_awaited=False) as server:
        server.process.join()
        assert server.process.exitcode == -signal.SIGKILL
    with serving(tmp_path) as server:
        assert [server.ended(job_id)["job_stage"] for job_id in (held, poison, good)] == ["SUCCESS", "ERROR", "SUCCESS"]
        assert server.job(poison)["job_status"] == LOST_AGAIN
    begun = runs_of(tmp_path)
    assert [prompt for prompt in begun if prompt != "hold"] == ["poison", "poison", "good"]
    assert begun.count("hold") <= 2, "the job before may not have been saved when the process was lost"
    assert_files_are_those_of_the_journal(tmp_path)


def test_history_that_is_trimmed_takes_its_files_along_through_kills(tmp_path: Path) -> None:
    for moment in ("", "before an end is written", "when an end is written", ""):
        with serving(tmp_path, Trouble(dies=moment), is_awaited=False, queue_history=2) as server:
            if moment:
                server.process.join()
                continue
            server.client.get("/readyz")
            for number in range(3):
                server.ended(server.submit(f"job {number}"))
            server.submit("job last")
            assert server.end(signal.SIGTERM) == 0
    assert len(journal_of(tmp_path)) <= 3
    assert_files_are_those_of_the_journal(tmp_path)
