"""A server whose job hangs says so, and goes on when the job does."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.faults.harness import serving, until


def test_a_job_that_hangs_makes_the_server_unhealthy_until_it_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path, stalled_after_s=0.2) as server:
        hanging, good = server.submit("hang"), server.submit("good")
        until(lambda: server.client.get("/healthz").status_code == 503 or None)
        health = server.client.get("/readyz").json()
        assert health["status"] == "unhealthy"
        assert health["reason"].startswith("the running job has made no progress for 0 s; its last step:")
        until(lambda: "in run\n" in (tmp_path / "log").read_text() or None)
        (tmp_path / "go").touch()
        for job_id in (hanging, good):
            assert server.ended(job_id)["job_stage"] == "SUCCESS"
        until(lambda: server.client.get("/healthz").json()["status"] == "ready" or None)
        assert server.end(signal.SIGTERM) == 0


def test_a_job_that_hangs_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        hanging = server.submit("hang")
        until(lambda: server.job(hanging)["job_stage"] == "RUNNING" or None)
        assert server.end(signal.SIGTERM) == 0
    (tmp_path / "go").touch()
    with serving(tmp_path) as server:
        assert server.ended(hanging)["job_stage"] == "SUCCESS"
