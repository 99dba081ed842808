"""The benchmark of loading and reuse: what it measures and how it shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from benchmarks import reuse
from benchmarks.report import with_figures
from benchmarks.reuse import CHECKPOINTS, LORAS, POCKET, ROOT, SCRIPT, Case, Measured, as_markdown, measure, run
from fooocus_core.plan import Lora, Models

CASE = Case(POCKET, runs=1, device="cpu")


def test_all_is_measured_with_loras_that_fit() -> None:
    measured = measure(CASE)
    assert all(median > 0 for median in measured.seconds.values())
    assert {"another checkpoint", "the same text again", "one LoRA for another"} <= measured.seconds.keys()
    assert measured.lora_weights > 50


def test_loras_change_all_networks_and_differ(tmp_path: Path) -> None:
    engine = reuse.engine_of(CASE, tmp_path)
    model = engine.models.checkpoint(Models(CHECKPOINTS[0]))
    reuse.write_loras(tmp_path, model)
    one, other = (load_file(tmp_path / "loras" / name) for name in LORAS[:2])
    assert {key.split("_")[1] for key in one} == {"unet", "te1", "te2"}
    assert one.keys() == other.keys()
    assert not any(one[key].equal(other[key]) for key in one if key.endswith("up.weight"))
    engine.models.load(Models(CHECKPOINTS[0]), [Lora(LORAS[0], 1.0)])
    assert len(model.merger._merged) * 3 == len(one)


def test_no_picture_ends_the_program(tmp_path: Path) -> None:
    engine = reuse.engine_of(CASE, tmp_path)
    with pytest.raises(SystemExit, match="made no picture"):
        run(engine, Models("missing.safetensors"), [])


def test_each_figure_has_its_row() -> None:
    measured = Measured({"LoRA off": 0.0021, "another checkpoint": 1.5}, 76, 2, None)
    table = as_markdown(CASE, measured)
    assert "LoRAs of rank 16 for 76 matrices, medians of 1;" in table
    assert "threads: 2, device cpu;" in table
    assert table.splitlines()[2:] == [
        "| | ms |",
        "|---|---:|",
        "| LoRA off | 2.1 |",
        "| another checkpoint | 1500 |",
        f"| peak memory, MB | {reuse.shown(None)} |",
    ]


def test_the_documented_page_has_a_place_for_the_table() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert with_figures(page, "table", SCRIPT).count("\ntable\n") == 1
