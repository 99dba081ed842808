"""How much of what a picture takes is on the device at a time: what ``low``, ``normal`` and ``high`` mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import nn

Vram = Literal["low", "normal", "high"]
CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class Residence:
    """Where the networks of a picture live, and how much of the work is done at once."""

    helpers_stay: bool = True
    """Whether what a picture needs for moments (text encoders, autoencoder, readers of pictures) stays on the device;
    else the computer's memory is its home."""
    second: Literal["on device", "where room", "in computer"] = "where room"
    """Where a second network, or a second set of a network's weights, is while the first one works."""
    row_by_row: bool = False
    """Whether both sides of the guidance are asked one after the other."""
    in_tiles: bool = False
    """Whether pictures larger than a tile are decoded and encoded in tiles without trying them whole."""
    compiles: bool = True
    """Whether networks are compiled beside the pictures: that runs them a second time, with weights that stay."""

    def home(self, device: torch.device) -> torch.device:
        """Where helpers live that work for ``device``."""
        return device if self.helpers_stay else CPU


RESIDENCES: Final[Mapping[Vram, Residence]] = MappingProxyType(
    {
        "low": Residence(helpers_stay=False, second="in computer", row_by_row=True, in_tiles=True, compiles=False),
        "normal": Residence(),
        "high": Residence(second="on device"),
    }
)


@contextmanager
def at_work(network: nn.Module, device: torch.device | None) -> Iterator[None]:
    """``network`` on ``device`` inside ``with``, and back at home behind it; ``None``: it works where it lives."""
    home = next(network.parameters()).device
    if device is None or device.type == home.type:
        yield
        return
    try:
        network.to(device)
        yield
    finally:
        network.to(home)
