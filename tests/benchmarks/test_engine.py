"""The comparison: what it paints, what it counts, and how it writes it down."""

from __future__ import annotations

import pytest

from benchmarks import engine
from benchmarks.engine import (
    PEER,
    PLAIN,
    PREVIEWED,
    SHARPENED,
    Case,
    as_markdown,
    engine_kinds,
    figures,
    measure,
    plan_of,
)
from benchmarks.server_process import POCKET
from fooocus_core.library import Library
from fooocus_core.presets.sizes import Size

CASE = Case(POCKET, Size(96, 96), steps=1, rounds=1, device="cpu")
CALLS_MS = {PEER: 20.0, PLAIN: 15.0}
ROUNDS = [
    {PEER: 2.0, PLAIN: 1.0, PREVIEWED: 1.0, SHARPENED: 1.5},
    {PEER: 4.0, PLAIN: 3.0, PREVIEWED: 2.0, SHARPENED: 2.2},
    {PEER: 1.0, PLAIN: 0.6, PREVIEWED: 1.0, SHARPENED: 1.0},
]


def test_medians_of_kinds_and_of_ratios() -> None:
    found = figures(ROUNDS, CALLS_MS)
    assert found.seconds == {PEER: 2.0, PLAIN: 1.0, PREVIEWED: 1.0, SHARPENED: 1.5}
    assert found.ratio == pytest.approx(0.6)
    assert found.fastest_ratio == pytest.approx(0.6 / 1.0)
    assert found.sharpness_share == pytest.approx(0.1)


def test_the_table_has_all_kinds() -> None:
    table = as_markdown(CASE, figures(ROUNDS, CALLS_MS))
    assert [f"| {kind} |" in table for kind in (PEER, PLAIN, PREVIEWED, SHARPENED)] == [True] * 4
    assert "96x96, 1 steps" in table
    assert "| one call of the network, engine | 0.0150 | 0.75 |" in table


def test_plans_say_what_the_kinds_say() -> None:
    library = Library({"checkpoints": [POCKET.parent]}, POCKET)
    plan = plan_of(CASE, library, "a red apple", 2.0, preview=True)
    stage = plan.main
    assert (stage.guidance.sharpness, stage.guidance.scale, stage.sampling.steps) == (2.0, 4.0, 1)
    assert (stage.width_px, stage.height_px, plan.images, plan.output.preview) == (96, 96, 1, True)


def test_every_kind_makes_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CALLS", 2)
    found = measure(CASE)
    assert all(taken_ms > 0 for taken_ms in found.calls_ms.values())
    assert set(found.seconds) == {PEER, PLAIN, PREVIEWED, SHARPENED}
    assert all(taken > 0 for taken in found.seconds.values())


def test_a_failed_picture_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = engine_kinds(CASE)
    monkeypatch.setattr("fooocus_core.engine.run_diffuse", lambda *_: 1 / 0)
    with pytest.raises(SystemExit, match="no picture"):
        kinds[PLAIN]("a red apple")
