"""The arithmetic of the service's figures and where they come from; the processes are tested where they live."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks import bare_engine, service
from benchmarks.report import with_figures
from benchmarks.server_process import POCKET, Case
from benchmarks.service import (
    ROOT,
    SCRIPT,
    Added,
    Packed,
    Service,
    added,
    as_json,
    as_markdown,
    last_plan,
    measure_packing,
    queries,
)
from fooocus_core.events import Failed
from fooocus_core.metadata.files import encode_image
from fooocus_core.plan import PNG_LEVEL, Plan
from fooocusapi.images.outputs import OutputStore
from fooocusapi.patience import PatientProtocol
from tests.fooocusapi.fakes import ScriptedEngine, a_plan
from tests.fooocusapi.served import FIRST_ID, House, wait_until
from tests.fooocusapi.test_patience import listening

CASE = Case(POCKET, steps=30, runs=5, device="auto")
SLOW = Added("1 of 1024x1024", request_s=1.7, engine_s=1.5, added_s=0.19, saving_s=0.12, rest_s=0.07)
FOUND = Service(
    0.26,
    0.89,
    8.4,
    1.0,
    1200.0,
    1500.0,
    (SLOW, Added("4 of 96x96", 0.21, 0.2, 0.01, 0.004, None)),
    (Packed(4, 0.05, 455.0),),
)


def test_what_the_server_adds_is_measured_in_pairs() -> None:
    """A machine that grows slower slows both of a pair: medians of each side would tell another difference."""
    pairs = [(request_s, {"engine_s": request_s - 0.1, "saving_s": 0.04}) for request_s in (1.0, 5.0, 1.2)]
    found = added("96*96", 1, pairs)
    assert (found.what, found.request_s) == ("1 of 96x96", 1.2)
    assert (found.added_s, found.saving_s) == (pytest.approx(0.1), 0.04)
    assert found.rest_s == pytest.approx(0.06)
    assert added("96*96", 4, pairs).rest_s is None, "they are saved while the next is made"


def test_every_figure_has_a_row_and_a_goal_where_there_is_one() -> None:
    table = as_markdown(CASE, FOUND)
    assert "| start to `/ping` without any bytecode cache, s | 1 | 0.89 |" in table
    assert "| submit to worker, ms | 5 | 1 |" in table
    assert re.search(r"what the server adds, ms \| 45 \| 190 \|", table), "3 % of the engine's run"
    assert re.search(r"what the server adds, ms \| 15 \| 10 \|", table), "or 15 ms"
    assert re.findall(r"what else it adds, ms \| – \| (\d+) \|", table) == ["70"]  # noqa: RUF001
    assert "| a PNG of 1024x1024 with `--png-level` 4, ms and kB | – | 50, 455 |" in table  # noqa: RUF001
    assert "pocket.safetensors, 30 steps, medians of 5" in table


def test_the_documented_page_has_a_place_for_the_table() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    written = with_figures(page, as_markdown(CASE, FOUND), SCRIPT)
    assert with_figures(written, as_markdown(CASE, FOUND), SCRIPT) == written
    assert "| submit to worker, ms | 5 | 1 |" in written


def test_raw_figures_are_kept() -> None:
    figures = json.loads(as_json(CASE, FOUND))
    assert (figures["ping_s"], figures["added"][0]["saving_s"]) == (0.26, 0.12)


@pytest.mark.parametrize("callers", [1, 3])
def test_queries_are_counted_in_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callers: int) -> None:
    monkeypatch.setattr(service, "ROUND_S", 0.1)
    with listening(House(tmp_path), protocol=PatientProtocol) as (port, _):
        body = {"prompt": "x", "async_process": True}
        httpx.post(f"http://127.0.0.1:{port}/v1/generation/text-to-image", json=body).raise_for_status()
        assert asyncio.run(queries(port, FIRST_ID, callers)) > 10


def test_an_answer_that_is_none_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ROUND_S", 0.02)
    with pytest.raises(SystemExit, match="query"):
        asyncio.run(queries(1, FIRST_ID, 1))


def test_the_bare_engine_runs_what_the_server_ran(tmp_path: Path) -> None:
    house = House(tmp_path / "outputs")
    house.root.mkdir()
    services = house.open()
    for prompt in ("one", "two"):
        services.jobs.submit(a_plan(prompt), "classic", "Text to Image", {})
    wait_until(lambda: services.jobs.counters().unfinished == 0)
    plan = Plan.from_json(json.loads(last_plan(tmp_path)))
    services.close()
    assert plan == a_plan("two")
    engine, store = ScriptedEngine(), OutputStore(tmp_path / "bare", "http://x")
    figures = bare_engine.run(engine, store, plan)
    assert engine.plans == [plan]
    assert set(figures) == {"engine_s", "saving_s"}
    assert len(list((tmp_path / "bare").rglob("*.png"))) == 1


def test_a_picture_is_packed_by_default_and_harder() -> None:
    noise = np.random.default_rng(0).integers(0, 8, (64, 64, 3), np.uint8)
    packed = measure_packing(encode_image(noise, "png"), runs=1)
    sizes = {one.level: one.kilobytes for one in packed}
    assert sizes == {level: len(encode_image(noise, "png", png_level=level)) / 1000 for level in (PNG_LEVEL, 4, 6)}


def test_a_plan_that_fails_is_no_figure(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda plan: [Failed("no room")])
    with pytest.raises(SystemExit, match="no room"):
        bare_engine.run(engine, OutputStore(tmp_path, "http://x"), a_plan())
