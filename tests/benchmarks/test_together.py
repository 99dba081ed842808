"""The comparison of pictures painted together: what it measures and how it shows it."""

from __future__ import annotations

import numpy as np

from benchmarks.report import with_figures
from benchmarks.together import POCKET, ROOT, SCRIPT, WAYS, Case, Figures, Run, Way, as_markdown, figures, measure
from fooocus_core.presets.sizes import Size

CASE = Case(POCKET, Size(96, 96), steps=1, runs=1, device="cpu")


def test_every_way_is_measured_and_paints_the_same() -> None:
    ways = measure(CASE)
    assert tuple(figure.way for figure in ways) == WAYS
    assert all(way.wall_s > 0 and way.processor_s > 0 for way in ways)
    assert (ways[0].largest_deviation, ways[0].deviating_share) == (0, 0)
    assert all(way.largest_deviation <= 1 for way in ways)


def test_deviations_are_from_the_same_picture_painted_alone() -> None:
    alone = [np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)]
    other = [picture.copy() for picture in alone]
    other[1][0, 0, 0] = 252
    runs = [Run(wall_s, 2 * wall_s, other) for wall_s in (1.0, 9.0, 2.0)]
    assert figures(Way(2), runs, alone) == Figures(Way(2), 2.0, 4.0, largest_deviation=3, deviating_share=1 / 24)


def test_each_way_has_its_column() -> None:
    table = as_markdown(CASE, [Figures(Way(1), 8.0, 16.0, 0, 0.0), Figures(Way(4, jobs=4), 5.0, 10.0, 1, 0.0012)])
    assert table.splitlines()[2:] == [
        "| | one by one | 4 jobs, together |",
        "|---|---:|---:|",
        "| 4 pictures, s | 8 | 5 |",
        "| processor time, s | 16 | 10 |",
        "| largest deviation, of 255 | 0 | 1 |",
        "| values that deviate, % | 0 | 0.12 |",
    ]


def test_the_documented_page_has_a_place_for_the_table() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert with_figures(page, "table", SCRIPT).count("\ntable\n") == 1
