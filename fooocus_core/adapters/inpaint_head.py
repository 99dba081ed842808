"""The inpaint head: the masked picture as a feature beside the network's first convolution (specification 04, 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, cat
from torch.nn.functional import conv2d, pad

from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

HEAD_KEY = "head"


def read_head(path: Path) -> Tensor:
    """The weight of a head's file, ``[channels, 5, 3, 3]``. Raises ``UnreadableModel``, ``UnsupportedModel``."""
    file = open_checkpoint(path)
    weight = file.tensors.get(HEAD_KEY)
    if weight is None or weight.ndim != 4 or weight.shape[1:] != (5, 3, 3):
        raise UnsupportedModel(file.name, "this is no inpaint head")
    return weight


def head_feature(weight: Tensor, mask: Tensor, latent: Tensor) -> Tensor:
    """``[1, channels, h, w]`` float32.

    ``weight``: ``[channels, 5, 3, 3]``; ``mask``: ``[1, 1, h, w]``, 1 where to repaint; ``latent``: the masked picture,
    ``[1, 4, h, w]`` in the network's space.
    """
    padded = pad(cat([mask.float(), latent.float()], 1), (1, 1, 1, 1), mode="replicate")
    return conv2d(padded, weight.float())
