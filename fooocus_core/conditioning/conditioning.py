"""What a prompt becomes before sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """One side (positive or negative) of the guidance.

    ``context``: ``[1, tokens, channels]`` float32, tokens a multiple of 77.
    ``adm``: ``[1, n]`` float32, the added-condition vector: either the network's own width (2816 for SDXL)
    or twice that, the emphasised half first, for the timed form of Fooocus (specification 02, section 6).
    """

    context: Tensor
    adm: Tensor | None
