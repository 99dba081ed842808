"""The load of many callers, from a few of them for a moment, and its arithmetic."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.load import Load, Tally, percentile, report, run
from fooocusapi.patience import PatientProtocol
from tests.fooocusapi.served import House
from tests.fooocusapi.test_patience import listening


def test_percentiles() -> None:
    seconds = [number / 1000 for number in range(1, 101)]
    assert [percentile(seconds, share) for share in (0.5, 0.99, 1.0)] == pytest.approx([50, 99, 100])
    assert percentile([0.002], 0.99) == pytest.approx(2)


def test_a_job_whose_end_nobody_saw_is_lost() -> None:
    assert Tally(submitted=["a", "b"], ended={"b"}).lost == 1


def test_a_few_callers_for_a_moment(tmp_path: Path) -> None:
    with listening(House(tmp_path), protocol=PatientProtocol) as (port, _):
        load = Load(port, seconds=0.5, pollers=5, submitters=3, every_s=0.05)
        figures = report(load, asyncio.run(run(load)), (1.0, 2.0), (0.0, 0.0))
    assert (figures["lost"], figures["failures"]) == (0, 0)
    assert figures["submitted"] == figures["ended"] > 0
    assert "GET /v1/generation/query-job" in figures["endpoints"]


def test_failures_are_counted() -> None:
    load = Load(1, seconds=0.2, pollers=1, submitters=1, every_s=0.02)
    figures = report(load, asyncio.run(run(load)), (1.0, 2.0), (0.0, 0.0))
    assert figures["failures"] > 0
    assert figures["endpoints"] == {}
