"""What the memory benchmark counts and writes, on thin copies of the published layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import memory
from benchmarks.memory import (
    NOT_MEASURED,
    ROOT,
    VRAM,
    Files,
    Row,
    as_markdown,
    painter,
    peak_row,
    weight_rows,
    work_rows,
)
from benchmarks.report import write_section
from fooocus_core.models.checkpoint import UNET_PREFIX
from fooocus_core.models.residence import RESIDENCES
from fooocus_core.presets.sizes import Size
from tests.fooocus_core.stages.rendering import CPU
from tests.fooocus_core.stages.test_refiners import is_shallow
from tools.synthetic import NEGATIVE, published_shapes, thin_checkpoint, write_hollow


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return memory.write_files(
        tmp_path_factory.mktemp("thin"),
        lambda manifest, path: save_file(thin_checkpoint(manifest, keep=is_shallow), path),
    )


def test_weights_are_counted_where_they_live(files: Files) -> None:
    rows = {row.name: row.mib for row in weight_rows(files)}
    network = sum(t.numel() for key, t in load_file(files.base).items() if key.startswith(UNET_PREFIX)) * 2 / 2**20
    assert rows["denoising network"] == dict.fromkeys(VRAM, network)
    for name in ("text encoders", "autoencoder", "refiner's denoising network", "image encoder of image prompts"):
        assert rows[name]["low"] == 0
        assert rows[name]["normal"] == rows[name]["high"] != 0
    together = rows["together, for text to image"]
    assert together["low"] == network
    assert together["high"] == network + (rows["text encoders"]["high"] or 0) + (rows["autoencoder"]["high"] or 0)


def test_what_work_takes_is_counted_beside_the_weights(files: Files) -> None:
    weights = {row.name: row.mib for row in weight_rows(files)}
    step, decoding, peak = (row.mib for row in work_rows(files.base, Size(1024, 1024)))
    assert 0 < 2 * (step["low"] or 0) == (step["normal"] or 0) == step["high"], "one row in place of two"
    assert (decoding["normal"] or 0) > 3.5 * (decoding["low"] or 0), "the largest tile is a quarter of the picture"
    for vram in ("normal", "high"):
        most = max(step[vram] or 0, decoding[vram] or 0)
        assert peak[vram] == pytest.approx((weights["together, for text to image"][vram] or 0) + most)
    assert (peak["low"] or 0) < (peak["normal"] or 0)


@pytest.mark.parametrize("vram", VRAM)
def test_a_picture_can_be_painted_with_random_weights(files: Files, vram: memory.Vram) -> None:
    paint = painter(files.base, replace(CPU, residence=RESIDENCES[vram]), Size(64, 64))
    paint()


def test_the_peak_is_that_of_the_picture_and_not_of_the_loading(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a card; here its counters are the test's."""
    asked: list[str] = []
    monkeypatch.setattr(memory, "SIZE", Size(64, 64))
    monkeypatch.setattr(memory, "choose_placement", lambda device, vram: replace(CPU, residence=RESIDENCES[vram]))
    monkeypatch.setattr(memory, "fill_with_noise", lambda model: asked.append("loaded"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    assert memory.measured_peak_mib(files.base, "low") == 3
    assert asked == ["loaded", "reset"]


def test_no_picture_ends_the_program(files: Files) -> None:
    with pytest.raises(SystemExit):
        painter(files.base, CPU, Size(64, 8))()


def test_without_a_card_there_is_no_peak(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_row(files.base) == Row("peak of a picture of 1024x1024, measured", dict.fromkeys(VRAM))


def test_tiles_change_a_picture_that_is_larger_than_one() -> None:
    assert memory.tile_differences(Size(64, 64))[1] <= 1
    mean, largest = memory.tile_differences(Size(1024, 32))
    assert 0 < mean < largest


def test_the_table_has_its_place(tmp_path: Path) -> None:
    rows = [Row("weights", {"low": 1.4, "normal": 2.0, "high": 3.0}), Row("peak", dict.fromkeys(VRAM))]
    table = as_markdown(rows, (1.26, 9), "here")
    assert "by 1.3 of 255 in the mean and by 9 at most" in table
    assert "| weights | 1 | 2 | 3 |" in table
    assert f"| peak |{f' {NOT_MEASURED} |' * 3}" in table
    page = tmp_path / "performance.md"
    for text in ("", "# Speed\n\nOther figures.\n"):
        page.write_text(text, encoding="utf-8")
        write_section(page, memory.SECTION, "old table", memory.SCRIPT)
        write_section(page, memory.SECTION, table, memory.SCRIPT)
        written = page.read_text(encoding="utf-8")
        assert written.startswith(text)
        assert (written.count(table), written.count("## Memory"), written.count("old table")) == (1, 1, 0)


def test_a_new_page_has_a_title(tmp_path: Path) -> None:
    write_section(tmp_path / "performance.md", memory.SECTION, "table", memory.SCRIPT)
    assert (tmp_path / "performance.md").read_text(encoding="utf-8").startswith("# Performance\n")


def test_the_documented_page_has_the_table() -> None:
    assert memory.SCRIPT in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_a_hollow_file_has_the_published_layout(tmp_path: Path) -> None:
    """A small one: not every disk knows holes."""
    path = tmp_path / "hollow.safetensors"
    assert write_hollow(NEGATIVE, path) == path.stat().st_size
    tensors = load_file(path)
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
        key: shape for key, (shape, _) in published_shapes(NEGATIVE).items()
    }
    assert not any(tensor.any() for tensor in tensors.values())
