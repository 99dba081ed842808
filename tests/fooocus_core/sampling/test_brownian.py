"""The Brownian path beside the library's that the reference uses, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchsde  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from fooocus_core.sampling import brownian
from fooocus_core.sampling.brownian import BrownianPath, Seeds
from fooocus_core.sampling.prediction import sdxl_levels
from fooocus_core.sampling.schedules import karras

CPU = torch.device("cpu")
LOW, HIGH = 0.0291671582, 14.6146412293
SHAPE = (1, 4, 2, 3)

times = st.floats(round(LOW, 6), round(HIGH, 6)) | st.sampled_from([round(LOW, 6), round(HIGH, 6), 7.0, 7.000001])
stretches = st.tuples(times, times).map(sorted).filter(lambda ends: round(ends[0], 6) < round(ends[1], 6))


@given(seed=st.integers(0, 2**64 - 1), key=st.just(()) | st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 40)))
def test_seeds_are_numpy_s(seed: int, key: tuple[int, ...]) -> None:
    theirs = np.random.SeedSequence(seed, spawn_key=key, pool_size=24).generate_state(4)[0]
    assert Seeds(seed).of(*key) == theirs


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**64 - 1), asked=st.lists(stretches, min_size=1, max_size=6))
def test_the_library_s_path(seed: int, asked: Sequence[tuple[float, float]]) -> None:
    theirs = torchsde.BrownianTree(LOW, torch.zeros(SHAPE), HIGH, entropy=seed, tol=1e-6)
    ours = BrownianPath(seed, LOW, HIGH, SHAPE, CPU)
    for start, end in asked:
        assert torch.equal(ours(start, end), theirs(start, end))


@pytest.mark.parametrize("stretch", [(2.0, 1.0), (1.0, 1.0000001), (0.01, 1.0), (1.0, 15.0)])
def test_what_is_no_part_of_the_path(stretch: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"is no part of 0\.029167"):
        BrownianPath(1, LOW, HIGH, SHAPE, CPU)(*stretch)


def test_no_half_is_drawn_twice_on_the_way_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step shares an end with the one before; the library draws three times as often."""
    drawn: list[tuple[int, int]] = []
    plain = BrownianPath._drawn_halves

    def counted(path: BrownianPath, whole: brownian._Part) -> tuple[brownian._Part, brownian._Part]:
        drawn.append((whole.place, whole.depth))
        return plain(path, whole)

    monkeypatch.setattr(BrownianPath, "_drawn_halves", counted)
    levels = karras(sdxl_levels(), 30).tolist()
    path = BrownianPath(1, levels[-1], levels[0], SHAPE, CPU)
    for high, low in pairwise(levels):
        path(max(low, round(levels[-1], 6)), min(high, round(levels[0], 6)))
    assert len(drawn) == len(set(drawn))
