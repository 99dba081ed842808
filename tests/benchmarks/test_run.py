"""The benchmark's arithmetic and its report; the processes it measures are tested where they live."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import BEGIN_MARK, END_MARK, shown, with_figures
from benchmarks.run import ROOT, SCRIPT, Measured, as_markdown, rows, sampled_elsewhere
from benchmarks.server_process import POCKET, Case, submit_to_worker_ms
from benchmarks.timing import Figures, median_seconds, peak_memory_mb
from fooocus_core.presets.sizes import Size
from tests.fooocus_core.models.tiny import write_checkpoint

CASE = Case(POCKET, steps=30, runs=5, device="auto")
SERVER = Figures(2.5, 1.234, 0.8, 1400.0, ping_s=0.2, submit_to_worker_ms=4.0)
PEER = Figures(9.0, 1.5, 0.9, 1500.0)


def test_each_side_has_its_column() -> None:
    assert rows(Measured(Size(1024, 1024), Size(96, 96), SERVER, PEER)) == [
        ("start to `/ping`, s", "0.2", "–"),  # noqa: RUF001
        ("start to first picture, s", "2.5", "9"),
        ("picture of 1024x1024, s", "1.23", "1.5"),
        ("picture of 96x96, nothing enlarged, s", "0.8", "0.9"),
        ("submit to worker, ms", "4", "–"),  # noqa: RUF001
        ("peak memory, MB", "1400", "1500"),
    ]


def test_a_model_without_a_native_area_has_one_picture() -> None:
    names = [name for name, _, _ in rows(Measured(Size(1152, 896), None, Figures(2.5, 1.2), Figures(9.0, 1.5)))]
    assert names == ["start to first picture, s", "picture of 1152x896, s"]


def test_the_documented_page_has_a_place_for_the_table() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    table = as_markdown(CASE, Measured(Size(1024, 1024), Size(96, 96), SERVER, PEER))
    assert "| peak memory, MB | 1400 | 1500 |" in table
    written = with_figures(page, table, SCRIPT)
    assert with_figures(written, table, SCRIPT) == written
    assert written.partition(BEGIN_MARK.format(script=SCRIPT))[0] == page.partition(BEGIN_MARK.format(script=SCRIPT))[0]
    assert written.partition(END_MARK)[2] == page.partition(END_MARK)[2]
    assert table in written


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        with_figures("# Something else", "table", SCRIPT)


def test_the_first_job_waits_for_the_engine_and_does_not_count() -> None:
    history = [{"in_queue_mills": 100, "start_mills": 100 + wait} for wait in (5000, 3, 9, 4)]
    assert submit_to_worker_ms({"history": history}) == 4


def test_only_a_native_area_is_sampled_elsewhere(tmp_path: Path) -> None:
    assert sampled_elsewhere(write_checkpoint(tmp_path / "native.safetensors"), Size(1024, 1024)) == Size(64, 64)
    assert sampled_elsewhere(write_checkpoint(tmp_path / "plain.safetensors", sidecar=None), Size(64, 128)) is None


def test_the_first_call_does_not_count() -> None:
    calls: list[int] = []
    median_seconds(lambda: calls.append(1), runs=3)
    assert len(calls) == 4


def test_memory_is_read_off_the_system() -> None:
    memory_mb = peak_memory_mb("self")
    assert memory_mb is None or 10 < memory_mb < 100_000
    assert peak_memory_mb("nobody") is None


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0123, "0.0123"), (99.96, "100"), (1234.5, "1234")])  # noqa: RUF001
def test_three_digits_that_matter(value: float | None, text: str) -> None:
    assert shown(value) == text
