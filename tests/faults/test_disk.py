"""The disk is full, a folder cannot be written, another program holds the database: one job fails, the server lives."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from fooocusapi.jobs.reasons import PICTURE_LOST
from tests.faults.harness import (
    Server,
    a_picture,
    assert_files_are_those_of_the_journal,
    journal_of,
    runs_of,
    serving,
    until,
)
from tests.faults.server import BIG_BYTES, Trouble

TEXT_TO_IMAGE = "/v1/generation/text-to-image"


def test_a_picture_that_does_not_fit_on_the_disk_fails_its_job_and_no_other(tmp_path: Path) -> None:
    with serving(tmp_path, Trouble(largest_file_bytes=BIG_BYTES // 2)) as server:
        big, small = server.submit("big"), server.submit("small")
        assert server.ended(big)["job_status"] == PICTURE_LOST
        assert server.ended(small)["job_stage"] == "SUCCESS"
        assert server.end(signal.SIGTERM) == 0
    assert_files_are_those_of_the_journal(tmp_path)


def test_a_journal_without_room_takes_no_job_and_loses_none(tmp_path: Path) -> None:
    """Jobs are sent until the journal is as long as a file may be."""
    taken: list[str] = []
    with serving(tmp_path, Trouble(largest_file_bytes=200_000)) as server:
        while (answer := ask(server, f"job {len(taken)}")).status_code == 200:
            taken.append(answer.json()["job_id"])
            assert len(taken) < 200, "the journal has not become long enough"
        assert answer.status_code == 503
        assert answer.json() == {"detail": "the journal of jobs cannot be written"}
        assert server.client.get("/ping").json() == "pong"
        until(lambda: server.client.get("/readyz").status_code == 503 or None)
        assert server.client.get("/healthz").status_code == 200
        server.end(signal.SIGKILL)
    assert taken
    with serving(tmp_path) as server:
        for job_id in taken:
            server.ended(job_id)
        assert server.ended(server.submit("another"))["job_stage"] == "SUCCESS"
        assert server.end(signal.SIGTERM) == 0
    assert_files_are_those_of_the_journal(tmp_path)


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    with serving(tmp_path) as server:
        for folder in ("files", "inputs"):
            (outputs / folder).write_text("this is no folder")
        assert server.ended(server.submit("lost"))["job_status"] == PICTURE_LOST
        body = {"async_process": True, "uov_method": "Vary (Subtle)", "input_image": a_picture(1)}
        answer = server.client.post("/v2/generation/image-upscale-vary", json=body)
        assert answer.status_code == 500
        assert str(tmp_path) not in answer.text
        for folder in ("files", "inputs"):
            (outputs / folder).unlink()
        assert server.ended(server.submit("good"))["job_stage"] == "SUCCESS"
        assert server.ended(server.vary("good", a_picture(1)))["job_stage"] == "SUCCESS"
        assert server.end(signal.SIGTERM) == 0
    assert_files_are_those_of_the_journal(tmp_path)


def test_an_end_that_cannot_be_written_is_told_and_written_once_it_can_be(tmp_path: Path) -> None:
    with serving(tmp_path, Trouble(is_impatient=True)) as server:
        held = server.submit("hold fail")
        until(lambda: runs_of(tmp_path) or None)
        with locked(tmp_path):
            answer = ask(server, "refused")
            assert (answer.status_code, answer.json()["detail"]) == (503, "the journal of jobs cannot be written")
            (tmp_path / "go").touch()
            assert server.ended(held)["job_stage"] == "ERROR"
            assert server.client.get("/readyz").json()["reason"] == "the journal of jobs cannot be written"
            assert journal_of(tmp_path)[held][0] == "running"
        until(lambda: server.client.get("/readyz").status_code == 200 or None)
        assert journal_of(tmp_path)[held][0] == "failed"
        assert server.ended(server.submit("good"))["job_stage"] == "SUCCESS"
        assert server.end(signal.SIGTERM) == 0


def ask(server: Server, prompt: str) -> httpx.Response:
    return server.client.post(TEXT_TO_IMAGE, json={"prompt": prompt, "async_process": True})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else can write the journal until the end of the block."""
    other = sqlite3.connect(folder / "outputs" / "journal.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()
