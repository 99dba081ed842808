"""From SDXL's latents to Stable Diffusion 1.5's, without a way through pixels (specification 08, section 1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import assign_weights

INTERPOSER_FILE = "xl-to-v1_interposer-v4.0.safetensors"
_CORE_BLOCK = re.compile(r"core\.(\d+)\.long\.0\.weight")


class _LongPath(nn.Sequential):
    """Three convolutions. The parts' numbers are those of the file's keys."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(width_in, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )


class _Head(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.long = _LongPath(channels, width)
        self.short = nn.Conv2d(channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.long(x) + self.short(x))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.long = _LongPath(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return relu(self.long(x) + x)


class _Network(nn.Module):
    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.head = _Head(channels, width)
        # The file counts a first part without weights, an enlargement by one.
        self.core = nn.Sequential(
            nn.Identity(), *(_Block(width) for _ in range(blocks)), nn.BatchNorm2d(width), nn.SiLU()
        )
        self.tail = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        translated: Tensor = self.tail(self.core(self.head(latents)))
        return translated


class Interposer:
    """Un-scaled latents ``[batch, 4, h, w]`` of SDXL to un-scaled ones of SD 1.5, float32 at both ends."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        weight = next(self._network.parameters())
        translated: Tensor = self._network(latents.to(device=weight.device, dtype=weight.dtype))
        return translated.float()


def load_interposer(
    weights: Mapping[str, Tensor], name: str, *, device: torch.device, dtype: torch.dtype
) -> Interposer:
    """The network of a file's tensors. Raises ``UnsupportedModel`` for any other file."""
    blocks = sum(1 for key in weights if _CORE_BLOCK.fullmatch(key))
    if "head.short.weight" not in weights or not blocks:
        raise UnsupportedModel(name, "this is no translator of latents")
    width, channels = weights["head.short.weight"].shape[:2]
    with torch.device("meta"):
        network = _Network(channels, width, blocks)
    counted = {key: tensor for key, tensor in weights.items() if not key.endswith("num_batches_tracked")}
    counters = {key: torch.zeros(()) for key in network.state_dict() if key.endswith("num_batches_tracked")}
    assign_weights(network, {**counted, **counters}, name, device=device, dtype=dtype)
    return Interposer(network)
