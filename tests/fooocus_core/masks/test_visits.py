"""Networks come to the device and go again, whatever happens there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fooocus_core.errors import OutOfMemory
from fooocus_core.masks.visits import visiting


class Traveller(nn.Module):
    """Remembers where it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def to(self, device: torch.device) -> Traveller:  # type: ignore[override]
        self.seen.append(device.type)
        return self


def test_a_network_rests_in_memory() -> None:
    network = Traveller()
    with visiting(network, torch.device("mps")):
        assert network.seen == ["mps"]
    assert network.seen == ["mps", "cpu"]


def test_a_full_device_is_told_and_left() -> None:
    network = Traveller()
    with pytest.raises(OutOfMemory, match="no room"), visiting(network, torch.device("mps")):
        raise torch.OutOfMemoryError
    assert network.seen == ["mps", "cpu"]


def test_other_errors_stay_what_they_are() -> None:
    network = Traveller()
    with pytest.raises(KeyError), visiting(network, torch.device("mps")):
        raise KeyError
    assert network.seen == ["mps", "cpu"]
