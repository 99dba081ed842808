"""Which device and which precision a machine gets, on machines that are not this one."""

from __future__ import annotations

import pytest
import torch

from fooocus_core.models.device import Placement, choose_placement

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without any accelerator."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


def give_card(machine: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    machine.setattr(torch.cuda, "is_bf16_supported", lambda: capability >= (8, 0))


@pytest.mark.usefixtures("machine")
def test_a_processor_calculates_in_float32() -> None:
    assert choose_placement() == Placement(torch.device("cpu"), SINGLE, SINGLE)


@pytest.mark.parametrize(
    ("capability", "network", "autoencoder"),
    [((9, 0), HALF, BRAIN), ((8, 0), HALF, BRAIN), ((7, 5), HALF, SINGLE), ((6, 1), SINGLE, SINGLE)],
)
def test_a_card_calculates_in_what_it_is_good_at(
    machine: pytest.MonkeyPatch, capability: tuple[int, int], network: torch.dtype, autoencoder: torch.dtype
) -> None:
    give_card(machine, capability)
    chosen = choose_placement(index=1)
    assert (chosen.device, chosen.network, chosen.autoencoder) == (torch.device("cuda", 1), network, autoencoder)
    assert choose_placement("cpu").network == SINGLE, "the processor is still there for those who name it"


def test_an_apple_is_tolerated(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_placement() == Placement(torch.device("mps"), HALF, SINGLE)
    give_card(machine, (9, 0))
    assert choose_placement().device.type == "cuda"


def test_either_precision_can_be_asked_for(machine: pytest.MonkeyPatch) -> None:
    give_card(machine, (9, 0))
    chosen = choose_placement(precision="fp32", autoencoder_precision="fp16")
    assert (chosen.network, chosen.autoencoder, chosen.preview) == (SINGLE, HALF, HALF)
