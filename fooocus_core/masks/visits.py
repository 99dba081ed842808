"""Networks that rest in the machine's memory and are on the device only while they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fooocus_core.errors import OutOfMemory

REST = torch.device("cpu")


@contextmanager
def visiting(network: nn.Module, device: torch.device) -> Iterator[None]:
    """``network`` on ``device`` until the end of the block: a card's room is needed for pictures.

    Raises ``OutOfMemory`` where the device has no room left.
    """
    try:
        network.to(device)
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory("the device has no room to look for objects in this picture") from error
    finally:
        network.to(REST)
        if device.type == "cuda":
            torch.cuda.empty_cache()
