"""Where networks run and in which precision (specification 02 §1, 03 §10 and §11)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from fooocus_core.errors import OutOfMemory
from fooocus_core.models.residence import CPU, RESIDENCES, Residence, Vram

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "fp16", "bf16"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_HALF_CAPABILITY = 7
"""CUDA compute capability from which half precision is fast and sound."""
_BFLOAT_CAPABILITY = 8


@dataclass(frozen=True)
class Placement:
    """A device and the dtypes of the networks on it. Text encoders always calculate in float32; this is their store."""

    device: torch.device
    network: torch.dtype
    autoencoder: torch.dtype
    text: torch.dtype = torch.float16
    preview: torch.dtype = torch.float32
    residence: Residence = RESIDENCES["normal"]
    """How much is on the device at a time."""

    @property
    def home(self) -> torch.device:
        """Where helpers live; the text encoders and the readers of pictures calculate there as well."""
        return self.residence.home(self.device)

    @property
    def second_home(self) -> torch.device:
        """Where a second network is loaded to."""
        return CPU if self.residence.second == "in computer" else self.device


def choose_placement(
    device: DeviceName = "auto",
    *,
    index: int = 0,
    precision: Precision = "auto",
    autoencoder_precision: Precision = "auto",
    vram: Vram = "normal",
) -> Placement:
    """The specification's choice for this machine, each part of which can be overridden.

    CUDA: float16 network, bfloat16 autoencoder where the card has it; CPU: float32. ``index`` picks one of several
    graphics cards; ``vram`` says how much is on it at a time. Raises ``RuntimeError`` from torch if the named device is
    not there.
    """
    chosen = replace(_default_placement(_device(device, index)), residence=RESIDENCES[vram])
    if precision != "auto":
        chosen = replace(chosen, network=_DTYPES[precision])
    if autoencoder_precision != "auto":
        chosen = replace(chosen, autoencoder=_DTYPES[autoencoder_precision])
    return chosen


def _device(name: DeviceName, index: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device("cuda", index) if name == "cuda" else torch.device(name)


def _default_placement(device: torch.device) -> Placement:
    if device.type == "cpu":
        return Placement(device, torch.float32, torch.float32)
    if device.type != "cuda":
        return Placement(device, torch.float16, torch.float32)
    capability, _ = torch.cuda.get_device_capability(device)
    if capability < _HALF_CAPABILITY:
        return Placement(device, torch.float32, torch.float32)
    bfloat = capability >= _BFLOAT_CAPABILITY and torch.cuda.is_bf16_supported()
    return Placement(device, torch.float16, torch.bfloat16 if bfloat else torch.float32, preview=torch.float16)


_SIGNS_OF_NO_ROOM = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, the computer's own memory included, had no room; each back end says so in its own way."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError, OutOfMemory)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS_OF_NO_ROOM)
