"""Networks that take less room answer as those that take it all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.models.device import Placement
from fooocus_core.models.loaded import load_model
from fooocus_core.models.residence import RESIDENCES
from fooocus_core.models.sparing import ControlRowByRow, InTurn, RowByRow, Turns, place, turns_of
from fooocus_core.models.unet import DiffusionNetwork
from fooocus_core.sampling.network import ControlResiduals, NetworkCall, NetworkWrapper, StepMemory
from tests.fooocus_core.models.tiny import ADM, CONTEXT, write_checkpoint

CPU, DEVICE = torch.device("cpu"), torch.device("meta")
PLACED = Placement(CPU, torch.float32, torch.float32)


@pytest.fixture
def network(tmp_path: Path) -> DiffusionNetwork:
    return load_model(write_checkpoint(tmp_path / "tiny.safetensors"), PLACED).network


class Noting(NetworkWrapper):
    """A network and the calls that it was asked."""

    def __init__(self, network: DiffusionNetwork) -> None:
        super().__init__(network)
        object.__setattr__(self, "calls", [])

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        noted: Any = self
        noted.calls.append((len(latents), len(timesteps), len(context), None if adm is None else len(adm), call))
        return self.network(latents, timesteps, context, adm, call)


def residuals(rows: int) -> ControlResiduals:
    """Of the tiny network's skips for latents of 8 x 8."""
    shapes = [(32, 8), (32, 8), (32, 4), (64, 4)]
    skips = tuple(torch.randn(rows, channels, side, side) for channels, side in shapes)
    return ControlResiduals(skips, torch.randn(rows, 64, 4, 4))


@pytest.mark.parametrize("is_controlled", [False, True])
def test_rows_one_after_the_other_are_the_rows_at_once(network: DiffusionNetwork, is_controlled: bool) -> None:
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([500.0, 500.0]), torch.randn(2, 77, CONTEXT), torch.randn(2, ADM))
    call = NetworkCall(("negative", "positive"), 0.5, residuals(2) if is_controlled else None)
    noting: Any = Noting(network)
    torch.testing.assert_close(RowByRow(noting)(*inputs, call), network(*inputs, call), rtol=0, atol=1e-5)
    assert [(*rows, one.sides) for *rows, one in noting.calls] == [
        (1, 1, 1, 1, ("negative",)),
        (1, 1, 1, 1, ("positive",)),
    ]


def test_each_row_remembers_its_own_steps(network: DiffusionNetwork) -> None:
    context, adm, timesteps = torch.randn(2, 77, CONTEXT), torch.randn(2, ADM), torch.tensor([500.0, 500.0])
    at_once, in_turn = (
        NetworkCall(("negative", "positive"), 0.5, memory=StepMemory(2)),
        NetworkCall(("negative", "positive"), 0.5, memory=StepMemory(2)),
    )
    for _ in range(3):
        latents = torch.randn(2, 4, 8, 8)
        expected = network(latents, timesteps, context, adm, at_once)
        answer = RowByRow(network)(latents, timesteps, context, adm, in_turn)
        torch.testing.assert_close(answer, expected, rtol=0, atol=1e-5)


def test_a_single_row_is_a_single_call(network: DiffusionNetwork) -> None:
    noting: Any = Noting(network)
    call = NetworkCall(("positive",), 0.5)
    RowByRow(noting)(
        torch.randn(1, 4, 8, 8), torch.tensor([1.0]), torch.randn(1, 77, CONTEXT), torch.randn(1, ADM), call
    )
    assert [call for *_, call in noting.calls] == [call]


class Looking:
    """A control that knows its rows, up to noise of level 1."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, tuple[str, ...]]] = []

    def residuals(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        adm: Tensor | None,
        sigma: float,
        sides: Sequence[PromptSide],
    ) -> ControlResiduals | None:
        self.rows.append((len(latents), tuple(sides)))
        if sigma > 1 or adm is None:
            return None
        counts = torch.tensor([1.0 if side == "positive" else 0.5 for side in sides])[:, None, None, None]
        seen = latents * context.mean() * timesteps[:, None, None, None] + adm.mean(1)[:, None, None, None]
        return ControlResiduals((seen * counts, seen[:, :2]), seen * 2)


def test_what_looks_on_is_asked_alike() -> None:
    looking = Looking()
    context = torch.randn(1, 77, CONTEXT).expand(2, -1, -1)
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([500.0, 400.0]), context, torch.randn(2, ADM))
    sides: tuple[PromptSide, ...] = ("negative", "positive")
    whole, rows = (one.residuals(*inputs, 1.0, sides) for one in (looking, ControlRowByRow(looking)))
    assert whole is not None
    assert rows is not None
    torch.testing.assert_close((rows.skips, rows.middle), (whole.skips, whole.middle))
    assert looking.rows == [(2, sides), (1, ("negative",)), (1, ("positive",))]
    assert ControlRowByRow(looking).residuals(*inputs, 2.0, sides) is None


# --- turns --------------------------------------------------------------------------------------------------------


def test_the_other_makes_room_first() -> None:
    first, second, third = (object() for _ in range(3))
    moves: list[tuple[object, str]] = []
    names: Sequence[Any] = (first, second, third)
    turns = Turns(names, DEVICE, lambda network, device: moves.append((network, device.type)))
    turns.take(names[1])
    assert moves == [(first, "cpu"), (third, "cpu"), (second, "meta")]


def test_a_network_takes_its_turn_before_it_is_called(network: DiffusionNetwork) -> None:
    moves: list[tuple[object, str]] = []
    other: Any = object()
    turns = Turns((other, network), DEVICE, lambda network, device: moves.append((network, device.type)))
    called = InTurn(network, network, turns)
    assert called.device == DEVICE, "it says where it works, also while it rests"
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([500.0]), torch.randn(1, 77, CONTEXT), torch.randn(1, ADM))
    answer = called(*inputs, NetworkCall(("positive",), 0.5))
    assert answer.shape == (1, 4, 8, 8)
    assert moves == [(other, "cpu"), (network, "meta")]


def test_weights_go_where_their_turn_is_and_none_are_left_behind(network: DiffusionNetwork) -> None:
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([500.0]), torch.randn(1, 77, CONTEXT), torch.randn(1, ADM))
    network(*inputs, NetworkCall(("positive",), 0.5))
    place(network, DEVICE)
    assert {weight.device.type for weight in network.unet.parameters()} == {"meta"}
    with torch.device("meta"):
        elsewhere = [torch.empty(tensor.shape) for tensor in inputs]
    answer = network(*elsewhere, NetworkCall(("positive",), 0.5))  # fails where anything is still on the CPU
    assert (answer.device.type, answer.shape) == ("meta", (1, 4, 8, 8))


def test_what_is_there_already_is_left_alone(network: DiffusionNetwork) -> None:
    before = [weight.data_ptr() for weight in network.unet.parameters()]
    place(network, CPU)
    assert [weight.data_ptr() for weight in network.unet.parameters()] == before


def test_networks_share_the_device_unless_vram_is_low(network: DiffusionNetwork) -> None:
    low = Placement(DEVICE, torch.float32, torch.float32, residence=RESIDENCES["low"])
    assert turns_of(network, network, PLACED) is None
    turns = turns_of(network, network, low)
    assert turns is not None
    assert turns.device == DEVICE
