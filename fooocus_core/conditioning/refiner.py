"""The base model's texts as a refiner reads them (specification 02, section 7; 03, section 8)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fooocus_core.conditioning.adm import PromptSide, base_adm, refiner_adm
from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.conditioning.encode import EncodedText
from fooocus_core.models.checkpoint import CheckpointKind

FinalNorm = Callable[[Tensor], Tensor]
"""The final layer norm of the base's first text encoder."""


def refiner_context(context: Tensor, kind: CheckpointKind, width_l: int, final_norm: FinalNorm) -> Tensor:
    """The part of ``context`` ``[1, tokens, channels]`` that a refiner of this kind reads.

    The first ``width_l`` channels are the first text encoder's; SD 1.5 reads those alone, normalised, SDXL's refiner
    the others, and a refiner of the base's own kind everything.
    """
    match kind:
        case "sdxl":
            return context
        case "sdxl_refiner":
            return context[..., width_l:]
        case "sd15":
            return final_norm(context[..., :width_l])


def refiner_conditioning(
    text: EncodedText,
    side: PromptSide,
    kind: CheckpointKind,
    *,
    width_l: int,
    final_norm: FinalNorm,
    size_px: tuple[int, int],
    adm_scale: float,
) -> Conditioning:
    """One side of the prompt with the refiner's own size vector; ``size_px``: width and height of the sampled picture.

    ``adm_scale`` is the side's factor for a refiner of the base's kind; the others know none.
    """
    context = refiner_context(text.context, kind, width_l, final_norm)
    match kind:
        case "sdxl":
            return Conditioning(context, base_adm(text.pooled, *size_px, adm_scale))
        case "sdxl_refiner":
            return Conditioning(context, refiner_adm(text.pooled, *size_px, side))
        case "sd15":
            return Conditioning(context, None)
