"""How a picture's steps are shared between a base model and a refiner (specification 03, section 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fooocus_core.plan import SwapMethod

FULL_STRENGTH: Final = 0.9
"""Above this denoise a refiner with its own autoencoder gets a run of its own; at or below it one model runs alone."""
ALONE_EXPONENT: Final = 0.834

SwapPlan = Literal["base", "refiner", "joint", "separate", "vae"]
"""``base``, ``refiner``: that model alone."""


@dataclass(frozen=True)
class Swap:
    """``step``: the first step that is not wholly the base's; ``None``: there is no switch."""

    method: SwapMethod = "joint"
    step: int | None = None


def resolve_swap(swap: Swap, *, has_refiner: bool, refiner_owns_vae: bool, steps: int, denoise: float) -> SwapPlan:
    """What is really done.

    A switch at step 0 leaves nothing to the base, so the refiner runs alone; the reference fails there with ``vae``.
    """
    if swap.step is None:
        return "base"
    if has_refiner and refiner_owns_vae:
        method = _with_own_vae(swap.step, steps, denoise)
    elif swap.method == "joint" and not has_refiner:
        method = "base"
    else:
        method = swap.method
    if swap.step == 0 and method in ("separate", "vae"):
        return "refiner" if has_refiner else "base"
    return method


def _with_own_vae(step: int, steps: int, denoise: float) -> SwapPlan:
    """Latents of two kinds cannot share a run: a hand-over, or whichever model has the larger part alone."""
    if denoise > FULL_STRENGTH:
        return "vae"
    share_left = max(steps - step, 0) / steps
    return "base" if denoise > share_left**ALONE_EXPONENT else "refiner"
