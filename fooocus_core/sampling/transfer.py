"""The way of values between the computer's memory and a device inside a run (no part of the specification)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def works_apart(device: torch.device) -> bool:
    """Whether the host goes on while the device does what it was told, and waits only where it wants values of it."""
    return device.type == "cuda"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on the device. A graphics card fetches it when it comes to it, and nobody waits until then.

    An ordinary copy would wait until the card has done all that it was told before.
    """
    if not works_apart(device) or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class SideStream:
    """A second line of work of a device that works apart, beside the one that all else goes; other devices have one."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None

    def fetch(self, make: Callable[[Tensor], Tensor], source: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """``make(source)`` in the computer's memory, and the event before which it is not there; ``None``: it is there.

        Nobody waits for a device that works apart. There ``make`` comes behind all that was told before, and what is
        told afterwards does not come behind ``make``.
        """
        device = source.device
        if not works_apart(device):
            return make(source).cpu(), None
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))
        source.record_stream(self._stream)  # else its memory could go to others while it is still read here
        with torch.cuda.stream(self._stream):
            made = make(source).contiguous()
            # Only into memory that never moves is copied without waiting. To get some from the system takes long, but
            # torch keeps it for the next one, and gives none away again while a copy into it is under way.
            values = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
            values.copy_(made, non_blocking=True)
            return values, self._stream.record_event()
