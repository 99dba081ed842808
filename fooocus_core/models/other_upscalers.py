"""Networks that enlarge pictures, of every kind that spandrel knows: ESRGAN's many layouts, SwinIR and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fooocus_core.errors import UnsupportedModel


class OtherUpscaler(nn.Module):
    """Pixels ``[batch, 3, h, w]`` in ``[0, 1]`` of any size to ``[batch, 3, scale h, scale w]``."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network = descriptor.model
        self._descriptor = descriptor

    def forward(self, pixels: Tensor) -> Tensor:
        enlarged: Tensor = self._descriptor(pixels)  # fills up sides that the network cannot take
        return enlarged


def other_upscaler(
    weights: Mapping[str, Tensor], name: str, *, device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, int]:
    """The network of a file's tensors, and how many times it enlarges.

    Raises ``UnsupportedModel`` for any other file.
    """
    # Imports every kind that it knows, which takes seconds.
    from spandrel import ImageModelDescriptor, ModelLoader  # type: ignore[import-untyped]

    try:
        descriptor = ModelLoader(device).load_from_state_dict(dict(weights))
    except Exception as error:  # that it is of no known kind, and whatever a broken file makes of a known one
        raise UnsupportedModel(name, "not an enlargement network of a kind that is known") from error
    if not isinstance(descriptor, ImageModelDescriptor) or descriptor.scale < 2:
        raise UnsupportedModel(name, "this network does not enlarge pictures")
    if (descriptor.input_channels, descriptor.output_channels) != (3, 3):
        raise UnsupportedModel(name, "this network does not enlarge pictures of three colours")
    descriptor.eval().to(device=device, dtype=dtype)
    return OtherUpscaler(descriptor).requires_grad_(False), int(descriptor.scale)
