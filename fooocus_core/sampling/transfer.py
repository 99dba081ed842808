"""The way of values from the computer's memory to a device inside a run (no part of the specification)."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on the device. A graphics card fetches it when it comes to it, and nobody waits until then.

    An ordinary copy would wait until the card has done all that it was told before.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
