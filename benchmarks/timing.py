"""What both sides of the benchmark measure, and how."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """One side's figures; ``None`` where there is nothing to measure. Pictures are medians, in seconds."""

    first_picture_s: float
    """From the start of the process to its first picture: imports, loading and warming up included."""
    picture_s: float
    """A picture of the size asked for."""
    sampled_picture_s: float | None = None
    """A picture as it was sampled, for a model that is sampled at its own area and enlarged."""
    peak_memory_mb: float | None = None
    """The process's highest resident memory; known on Linux only."""
    ping_s: float | None = None
    """From the start of the process to its first answer."""
    submit_to_worker_ms: float | None = None
    """From the submission of a job to its begin, while nothing else runs."""

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


def median_seconds(action: Callable[[], object], runs: int) -> float:
    """Median wall time of ``runs`` calls after one that does not count."""
    action()
    return statistics.median(_seconds(action) for _ in range(runs))


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def peak_memory_mb(process: int | str) -> float | None:
    """The highest resident memory so far of a process by its number, or of ``"self"``."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return None
    lines = status.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
