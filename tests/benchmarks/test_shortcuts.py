"""What shortcuts save and change: counted right, and made by the real engine."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import shortcuts
from benchmarks.engine import Case
from benchmarks.server_process import POCKET
from benchmarks.shortcuts import WAYS, Figures, as_markdown, figures, measure
from fooocus_core.presets.sizes import Size

CASE = Case(POCKET, Size(96, 96), steps=3, rounds=1, device="cpu")


def test_deviations_are_of_pixels() -> None:
    plain = np.full((2, 2, 3), 250, np.uint8)
    other = plain.copy()
    other[0, 0] = 10
    assert figures([(1.0, plain), (3.0, other)], [plain, plain]) == Figures(2.0, 30.0, 120.0)


def test_every_way_is_painted_and_only_shortcuts_change_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "TEXTS", ("a red apple",))
    found = measure(CASE)
    assert set(found) == set(WAYS)
    assert found["none"].mean == 0
    assert all(one.mean > 0 for way, one in found.items() if way != "none")
    table = as_markdown(CASE, found)
    assert all(f"| {way} |" in table for way in WAYS)
