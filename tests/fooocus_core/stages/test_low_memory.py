"""Pictures of a device with little room: those of one with enough, made by smaller calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fooocus_core.images.pixels import Picture
from fooocus_core.library import Library
from fooocus_core.models.loaded import ModelStore
from fooocus_core.models.residence import RESIDENCES
from fooocus_core.models.sparing import Turns
from fooocus_core.models.unet import DiffusionNetwork
from fooocus_core.plan import Diffuse, Guidance, GuideKind, Plan, Sampling, SwapMethod
from fooocus_core.stages import networks as networks_module
from tests.fooocus_core.stages.rendering import CPU, Studio
from tests.fooocus_core.stages.test_guided_pictures import guides
from tests.fooocus_core.stages.test_guided_pictures import plan as guided_plan
from tests.fooocus_core.stages.test_guided_pictures import studio as guided_studio  # noqa: F401 - a fixture
from tests.fooocus_core.stages.test_refiners import plan as refined_plan
from tests.fooocus_core.stages.test_refiners import studio as refined_studio  # noqa: F401 - a fixture

STEPS = 4
LEVELS = 1
"""How far a picture's values may be from the other's, of 255: sums of one row add up in another order."""


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of a denoising network had."""
    counted: list[int] = []
    call = DiffusionNetwork.__call__

    def counting(self: DiffusionNetwork, latents: torch.Tensor, *others: Any) -> torch.Tensor:
        counted.append(len(latents))
        return call(self, latents, *others)

    monkeypatch.setattr(DiffusionNetwork, "__call__", counting)
    return counted


@contextmanager
def low(studio: Studio) -> Iterator[None]:
    """The studio's engine with a store of its own, on a device with little room."""
    usual = studio.engine.models
    studio.engine.models = ModelStore(Library.below(studio.root), replace(CPU, residence=RESIDENCES["low"]))
    yield
    studio.engine.models = usual


def assert_same(usual: Picture, spared: Picture) -> None:
    assert usual.std() > 1, "a picture of one colour would tell nothing"
    assert np.abs(usual.astype(int) - spared.astype(int)).max() <= LEVELS


def pocket_plan(studio: Studio) -> Plan:
    [stage] = studio.plan().stages
    assert isinstance(stage, Diffuse)
    stage = replace(stage, sampling=Sampling("euler", "karras", STEPS), guidance=Guidance(scale=4.0))
    return Plan((stage,), studio.plan().output)


def test_the_pocket_model_paints_the_same_picture_by_calls_of_one_row(tmp_path: Path, rows: list[int]) -> None:
    studio = Studio(tmp_path)
    usual = studio.finished(pocket_plan(studio)).pixels
    assert rows == [2] * STEPS
    rows.clear()
    with low(studio):
        spared = studio.finished(pocket_plan(studio)).pixels
    assert rows == [1] * (2 * STEPS)
    assert_same(usual, spared)


@pytest.mark.parametrize("kind", ["ImagePrompt", "PyraCanny"])
def test_guides_count_for_every_row(guided_studio: Studio, rows: list[int], kind: GuideKind) -> None:  # noqa: F811
    asked = guided_plan(guided_studio, guides(kind), guidance=Guidance(scale=4.0, sharpness=0.0))
    usual = guided_studio.finished(asked).pixels
    with low(guided_studio):
        spared = guided_studio.finished(asked).pixels
    assert rows == [2, 1, 1]
    assert_same(usual, spared)


@pytest.mark.parametrize(
    ("refiner", "swap"),
    [("refiner.safetensors", "joint"), ("refiner.safetensors", "separate"), ("sd15.safetensors", "joint")],
)
def test_base_and_refiner_take_turns_and_paint_the_same_picture(
    refined_studio: Studio,  # noqa: F811
    refiner: str,
    swap: SwapMethod,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = refined_plan(refined_studio, refiner, swap)
    usual = refined_studio.finished(asked).pixels
    turns: list[Turns] = []
    moves: list[tuple[object, str]] = []

    def noted(first: DiffusionNetwork, second: DiffusionNetwork, placement: Any) -> Turns:
        def place(network: DiffusionNetwork, device: torch.device) -> None:
            moves.append((network, device.type))

        turns.append(Turns((first, second), placement.device, place))
        return turns[-1]

    monkeypatch.setattr(networks_module, "turns_of", noted)
    with low(refined_studio):
        spared = refined_studio.finished(asked).pixels
    assert_same(usual, spared)
    first, second = turns[0].networks
    pairs = [moves[index : index + 2] for index in range(0, len(moves), 2)]
    working = [there for (_, _), (there, _) in pairs]
    assert all(away is not there for (away, _), (there, _) in pairs)
    assert working[0] is first
    assert working[-1] is first, "the base is at its place again when the picture is done"
    assert second in working
    changes = [one for index, one in enumerate(working) if index == 0 or one is not working[index - 1]]
    assert changes == [first, second, first], "weights travel once, not with every call"
