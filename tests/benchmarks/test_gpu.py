"""Every part of the graphics card's benchmark runs, on small networks and the CPU, and what fails or waits is told."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import (
    CALLS,
    NOT_MEASURED,
    PICTURES,
    ROOT,
    ROWS,
    USUAL,
    Backend,
    Bench,
    Measured,
    Ours,
    Results,
    Row,
    Settings,
    Workshop,
    measure,
)
from benchmarks.random_sdxl import published, tiny
from fooocus_core.models import autoencoder, forward_pass
from fooocus_core.stages.networks import Called

SETTINGS = Settings(tiny(), "cpu", runs=1, compiler="eager", most_steps=2, matrix_side=8)
NEEDING_A_CARD = {"cuDNN attention", "memory-efficient attention", "recorded", "compiled, recorded"}


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(SETTINGS)


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of torch's, which takes seconds for each: what is compiled is the function itself."""

    def compiled(function: Callable[..., Any], *, backend: Any, **_: Any) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            if isinstance(backend, Backend):
                backend.runs += 1
            return function(*arguments, **named)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    for module in (forward_pass, autoencoder):
        monkeypatch.setattr(module, "WORTH_CALLS", 1)


@pytest.fixture
def real_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("quick_compiler")
def test_every_part_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, file = tmp_path / "performance.md", tmp_path / "figures.json"
    gpu.main(["--tiny", "--runs", "1", "--compiler", "eager", "--markdown", str(page), "--json", str(file)])
    rows = {
        row["name"]: row for row in json.loads(file.read_text(encoding="utf-8"))["rows"] if row["part"] != "decoding"
    }
    assert {name for name, row in rows.items() if row["figures"] is None} == NEEDING_A_CARD
    for row in rows.values():
        if row["part"] == PICTURES:
            assert row["figures"]["error"] < 1e-5
            assert row["figures"]["picture_s"] > 0
            assert row["figures"]["rate_share"] > 0
    written = page.read_text(encoding="utf-8")
    assert written.startswith("# Performance\n")
    assert NOT_MEASURED not in written
    assert all(f"| {row.name} |" in written for row in ROWS)
    assert "tiny networks" in capsys.readouterr().out


def test_the_project_s_compiler_is_waited_for_and_used(bench: Bench, real_compiler: None) -> None:
    painter = bench.compiled()
    painter.get_ready(1)
    assert painter.workshop is not None
    assert bench.model.error_of(painter.answer(bench.model.question(1))) < 1e-5
    # A picture's calls have the form of the question, or the compiled network would not serve them.
    with painter.workshop.used():
        painter.sampled(SETTINGS.mode(gpu.FOUR), 1)


def test_what_cannot_be_compiled_is_told(bench: Bench, real_compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Backend, "__call__", fail)
    with pytest.raises(RuntimeError, match="no such kernel"):
        bench.compiled().get_ready(1)


def test_a_decoder_that_is_not_compiled_decodes_as_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Ours) -> None:
        raise RuntimeError("not compiled")

    monkeypatch.setattr(Ours, "get_decoder_ready", fail)
    figures = gpu.picture_figures(lambda bench: bench.ours, USUAL, 1, bench)
    assert figures["decoder"] == "not compiled"


def test_what_is_compiled_and_not_used_is_told() -> None:
    workshop = Workshop(Backend("eager"))
    with pytest.raises(RuntimeError, match="not used"), workshop.used():
        pass


def row(name: str, rank: int, figures: Any, about_s: float = 0) -> Row:
    def measured(_: Bench) -> Any:
        if isinstance(figures, Exception):
            raise figures
        return figures

    return Row(CALLS, name, rank, about_s, measured)


def test_a_row_that_fails_says_why_and_the_others_go_on() -> None:
    rows = [row("second", 2, {}), row("first", 1, ValueError("no room | here\nmore"))]
    told: list[int] = []
    results = measure(rows, SETTINGS, lambda results: told.append(len(results)), started_s=0.0 + 1e12)
    assert [(row.name, found.remark) for row, found in results.items()] == [
        ("first", "ValueError: no room | here"),
        ("second", ""),
    ]
    assert told == [1, 2]
    assert gpu.cells(rows[1], results)[0] == "failed: ValueError: no room | here"


def test_what_no_time_is_left_for_is_not_measured() -> None:
    rows = [row("one", 1, {})]
    results = measure(rows, replace(SETTINGS, budget_s=5), lambda _: None, started_s=-1e12)
    assert results == {}
    assert gpu.cells(rows[0], results)[0] == NOT_MEASURED


def test_a_second_run_goes_on() -> None:
    first, failed = ROWS[0], ROWS[1]
    results: Results = {first: Measured({"picture_s": 1.0}), failed: Measured(None, "why")}
    stored = gpu.as_json(results, "here")
    assert gpu.from_json(stored, "elsewhere") == {}
    known = gpu.from_json(stored, "here")
    assert known == {first: Measured({"picture_s": 1.0})}
    assert measure([first], SETTINGS, lambda _: None, 1e12, known) == known


def test_other_parts_are_left_out() -> None:
    assert measure([row("one", 1, {})], replace(SETTINGS, parts=(PICTURES,)), lambda _: None, 1e12) == {}


def test_numbers_that_are_none_are_no_picture(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ours, "sampled", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(ArithmeticError):
        gpu.picture_figures(lambda bench: bench.ours, USUAL, 1, bench)


def test_waits_are_told_by_their_place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    network = bench.ours.network

    class Waiting(type(network)):  # type: ignore[misc]
        def __call__(self, *arguments: Any) -> Any:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            return super().__call__(*arguments)

    waiting = Waiting(network.unet, network.shape, {}, {})
    mode = replace(USUAL, steps=3)
    steps = replace(bench.ours, network=waiting).steps(mode, 1, Called(waiting))
    places = gpu.waits_between_steps(steps, mode.steps, gpu.previewing(bench.model))
    assert [place.split(":")[0] for place in places] == ["denoiser.py"] * 2


def test_without_a_card_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    page, file = tmp_path / "performance.md", tmp_path / "figures.json"
    with pytest.raises(SystemExit, match="no CUDA card"):
        gpu.main(["--json", str(file)])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit, match="no CUDA card"):
        gpu.main(["--json", str(file), "--markdown", str(page)])
    assert not file.exists()
    written = page.read_text(encoding="utf-8")
    assert all(f"| {row.name} | {NOT_MEASURED} |" in written for row in ROWS)


def test_the_documented_page_has_every_row() -> None:
    written = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(f"| {row.name} |" in written for row in ROWS)


def test_the_published_size() -> None:
    scale = published()
    assert scale.pixels == 1024
    assert (scale.unet.channels, scale.unet.context_width, scale.unet.adm_width) == ((320, 640, 1280), 2048, 2816)
    assert scale.autoencoder["decoder.conv_in.weight"] == (512, 4, 3, 3)


def test_the_results_keep_their_order() -> None:
    one, two = row("one", 1, {}), row("two", 2, {})
    results: Results = {two: Measured({"two_rows_ms": 1.0}), one: Measured(None, "why")}
    assert [said["name"] for said in json.loads(gpu.as_json(results, "here"))["rows"]] == ["two", "one"]
