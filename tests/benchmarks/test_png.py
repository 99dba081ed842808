"""The comparison of levels of PNGs: what it measures and how it shows it."""

from __future__ import annotations

from benchmarks.png import LEVELS, PHOTOGRAPHS, ROOT, SCRIPT, Packed, as_markdown, measure, packed, picture
from benchmarks.report import with_figures


def test_pictures_have_about_a_megapixel() -> None:
    sizes = [picture(name, enlarged).shape for name, enlarged in PHOTOGRAPHS.items()]
    assert all(0.5e6 < height * width < 2e6 and channels == 3 for height, width, channels in sizes)


def test_every_level_packs_every_picture() -> None:
    small = picture("chelsea")[:64, :64]
    found = measure([small, small[:32]], runs=1)
    assert tuple(found) == LEVELS
    for level, several in found.items():
        assert [one.pixels for one in several] == [64 * 64, 32 * 64]
        assert several[0].size_bytes == packed(small, level, runs=1).size_bytes
        assert all(one.seconds > 0 for one in several)


def test_levels_are_told_as_shares_of_the_usual_one() -> None:
    photographs = {
        1: [Packed(0.1, 900, 10**6), Packed(0.1, 1100, 5 * 10**5)],
        6: [Packed(0.5, 1000, 10**6), Packed(0.2, 1000, 5 * 10**5)],
    }
    table = as_markdown(photographs, {"a page": {1: Packed(0.1, 30000, 1), 6: Packed(0.1, 20000, 1)}})
    assert table.splitlines()[2:] == [
        "| `--png-level` | ms a megapixel | time, of 6's | size, of 6's | size of a page, kB |",
        "|---:|---:|---:|---:|---:|",
        "| 1 | 150 | 0.35 (0.20 to 0.50) | 1.00 (0.90 to 1.10) | 30 |",
        "| 6 | 450 | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) | 20 |",
    ]


def test_the_documented_page_has_a_place_for_the_table() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert with_figures(page, "table", SCRIPT).count("\ntable\n") == 1
