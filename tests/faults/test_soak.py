"""Memory stays flat over checkpoints and LoRAs that alternate, and over jobs that come and go.

``FAULTS_SOAK=100 pytest tests/faults/test_soak.py`` does a hundred times as much and prints what it has measured.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fooocus_core.events import Finished
from tests.faults.harness import serving, tell
from tests.faults.studio import CHECKPOINTS, LORAS, events_of, tiny_plan, tiny_studio

TIMES = int(os.environ.get("FAULTS_SOAK", "1"))
MIB = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="where the system tells how much memory is in use")


def resident_bytes(process: int | str = "self") -> int:
    """What a process holds of the computer's memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth_bytes(work: Callable[[], None], warm_up: int, rounds: int, resident: Callable[[], int]) -> int:
    """By how much memory grows while ``work`` is done ``rounds`` times, after it was done ``warm_up`` times."""
    for _ in range(warm_up):
        work()
    gc.collect()
    before = resident()
    for _ in range(rounds):
        work()
    gc.collect()
    return resident() - before


def test_memory_is_flat_over_alternating_checkpoints_and_loras(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint that stayed behind at each turn would be told."""
    studio = tiny_studio(tmp_path)
    turns = itertools.cycle(itertools.product([(), LORAS[:1], LORAS[1:]], CHECKPOINTS))

    def paint() -> None:
        loras, checkpoint = next(turns)
        assert events_of(studio, tiny_plan(studio, checkpoint, loras))[-1] == Finished()

    rounds = 8 * TIMES
    grown = growth_bytes(paint, 6, rounds, resident_bytes)
    if TIMES > 1:
        tell(capsys, f"{rounds} plans: {grown / MIB:+.1f} MiB")
    checkpoint = (tmp_path / "checkpoints" / CHECKPOINTS[0]).stat().st_size
    assert grown < min(rounds, 16) * checkpoint / 2


def test_memory_is_flat_over_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The history in memory is bounded but fills over the first hundreds of jobs: each has 10 KiB."""
    with serving(tmp_path, queue_history=10) as server:

        def work() -> None:
            for job_id in [server.submit("job") for _ in range(10)]:
                server.ended(job_id)

        rounds = 3 * TIMES
        grown = growth_bytes(work, 2, rounds, lambda: resident_bytes(server.process.pid))
    if TIMES > 1:
        tell(capsys, f"{10 * rounds} jobs: {grown / MIB:+.1f} MiB")
    assert grown < 4 * MIB + min(rounds, 30) * 10 * 10 * 1024
