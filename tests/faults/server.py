"""The real server in a process of its own, over an engine that paints at once and can be told to go wrong.

Processes are forked from one that has imported the server already, so that a start takes a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fooocus_core.events import (
    Cancelled,
    CancelToken,
    Event,
    Failed,
    ImageFinished,
    Progress,
    SkipToken,
    Started,
)
from fooocus_core.plan import Plan
from fooocusapi.jobs import journal
from fooocusapi.serve import configure_logging, serve
from fooocusapi.settings import load_settings
from tests.fooocusapi.fakes import OneByOne, an_image, good_story

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["fooocusapi.app", "fooocusapi.runtime", "fooocus_core.metadata.files", __name__])

STEP_S = 0.004
BIG_BYTES = 640 * 640 * 3
SEALED = "no room for this picture"

Sabotage = Callable[[], None]


@dataclass(frozen=True)
class Trouble:
    """What goes wrong in the process."""

    dies: str = ""
    """Where it is killed from within, one of ``DEATHS``; nowhere if empty."""
    largest_file_bytes: int = 0
    """Writing beyond fails, as on a full disk; 0: no limit."""
    is_impatient: bool = False
    """Does not wait for other programs that hold the database."""


@dataclass
class QuickEngine(OneByOne):
    """Writes each plan's prompt into ``runs`` when it begins; some words in a prompt have a meaning.

    ``poison`` kills the process, ``fail`` fails, ``big`` makes a file of ``BIG_BYTES`` or more, ``hold`` waits until
    ``go`` exists, ``hang`` does so without a sign of life.
    """

    folder: Path

    def run(self, plan: Plan, cancel: CancelToken, skip: SkipToken) -> Iterator[Event]:
        prompt = plan.main.prompts.prompt
        with (self.folder / "runs").open("a") as runs:
            runs.write(f"{prompt}\n")
        yield Started(plan.images)
        if "poison" in prompt:
            kill_self()
        while "hang" in prompt and not (self.folder / "go").exists():
            time.sleep(STEP_S)
        while "hold" in prompt and not (self.folder / "go").exists() and not cancel():
            time.sleep(STEP_S)
        if "fail" in prompt:
            yield Failed(SEALED)
            return
        for event in good_story(plan):
            if cancel():
                yield Cancelled()
                return
            if isinstance(event, Progress):
                time.sleep(STEP_S)
            if "big" in prompt and isinstance(event, ImageFinished):
                event = replace(event, pixels=np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8))
            yield event


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _run(folder: Path, flags: dict[str, Any], trouble: Trouble) -> None:
    """The body of the process: what ``main.py serve`` does."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    if trouble.largest_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.largest_file_bytes, resource.RLIM_INFINITY))
    if trouble.is_impatient:
        journal.BUSY_TIMEOUT_MS = 20
    if trouble.dies:
        DEATHS[trouble.dies]()
    configure_logging("info")
    an_image()  # What the first picture needs is loaded before the first job.
    settings = load_settings(flags)
    sys.exit(serve(settings, announce=lambda _: None, make_engine=lambda *_: QuickEngine(folder)))


def start(folder: Path, port: int, trouble: Trouble, **flags: Any) -> Any:
    """A server process on ``port`` with its outputs, models and log in ``folder``."""
    own = {
        "port": port,
        "base_url": "http://pictures",
        "output_path": folder / "outputs",
        "models_root": folder / "models",
    }
    process = PROCESSES.Process(target=_run, args=(folder, own | flags, trouble), daemon=True)
    process.start()
    return process


# ------------------------------------------------------------------------------------------------------------- deaths


def _before(owner: Any, name: str, *, after: bool = False, when: Callable[..., bool] = lambda *_: True) -> Sabotage:
    """Kills the process when ``owner.name`` is called, or when it has returned."""

    def sabotage() -> None:
        whole = getattr(owner, name)

        def deadly(*arguments: Any, **named: Any) -> Any:
            if when(*arguments) and not after:
                kill_self()
            result = whole(*arguments, **named)
            if when(*arguments):
                kill_self()
            return result

        setattr(owner, name, deadly)

    return sabotage


def _deaths() -> dict[str, Sabotage]:
    from fooocusapi.jobs.job import Job, JobState
    from fooocusapi.jobs.journal import SqlJournal
    from fooocusapi.jobs.worker import Worker

    def is_picture(path: Path, *_: object) -> bool:
        return path.suffix == ".part" and "files" in path.parts

    def has_ended(_: SqlJournal, job: Job) -> bool:
        return job.state.is_terminal

    def has_result(_: SqlJournal, job: Job) -> bool:
        return job.state is JobState.RUNNING and bool(job.results)

    return {
        "before a picture is flushed": _before(os, "fsync"),
        "before a picture gets its name": _before(Path, "replace", when=is_picture),
        "when a picture has its name": _before(Path, "replace", when=is_picture, after=True),
        "before a picture is noted": _before(SqlJournal, "save", when=has_result),
        "when a picture is noted": _before(SqlJournal, "save", when=has_result, after=True),
        "before an end is written": _before(SqlJournal, "save", when=has_ended),
        "when an end is written": _before(SqlJournal, "save", when=has_ended, after=True),
        "before a job is taken": _before(Worker, "_begin"),
    }


DEATHS = _deaths()
