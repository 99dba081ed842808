"""An orderly end at any moment: exit code 0 in time, no attempt used up, no file left over."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from tests.faults.harness import (
    Client,
    assert_nothing_was_lost,
    await_jobs,
    journal_of,
    runs_of,
    serving,
    until,
    visited,
)

STOPS = 3
ENDS_WITHIN_S = 10.0
"""What container systems allow before they kill."""


def test_stops_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    choice, client = random.Random(3), Client(random.Random(4))
    for stop in range(STOPS):
        with serving(tmp_path, is_awaited=False) as server:
            visiting = visited(client, server, jobs=4)
            await_jobs(client, len(client.taken) + stop, visiting)  # The first is stopped while it starts.
            time.sleep(choice.uniform(0, 0.1))
            begun_s = time.monotonic()
            assert server.end(signal.SIGTERM) in (0, -signal.SIGTERM), "the latter before it listens to signals"
            assert time.monotonic() - begun_s < ENDS_WITHIN_S
            visiting.join()
    with serving(tmp_path) as server:
        client.ask_all(server)
        assert server.end(signal.SIGTERM) == 0
    client.wrong = [wrong for wrong in client.wrong if "shutting down" not in wrong]
    assert_nothing_was_lost(tmp_path, client, attempts=STOPS + 1)


def test_stops_use_up_no_attempt(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        held = server.submit("hold")
        until(lambda: runs_of(tmp_path) or None)
        assert server.end(signal.SIGTERM) == 0
    for _ in range(2):
        with serving(tmp_path) as server:
            until(lambda: server.job(held)["job_stage"] == "RUNNING" or None)
            assert server.end(signal.SIGTERM) == 0
        assert journal_of(tmp_path)[held] == ("waiting", set())
    (tmp_path / "go").touch()
    with serving(tmp_path) as server:
        assert server.ended(held)["job_stage"] == "SUCCESS"


def test_idle_networks_are_forgotten_and_the_next_job_runs(tmp_path: Path) -> None:
    with serving(tmp_path, unload_after_s=0.05) as server:
        assert server.ended(server.submit("job 1"))["job_stage"] == "SUCCESS"
        until(lambda: "networks are forgotten" in (tmp_path / "log").read_text() or None)
        assert server.ended(server.submit("job 2"))["job_stage"] == "SUCCESS"
