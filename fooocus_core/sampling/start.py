"""The first noisy latents of a run (specification 03, section 5.1)."""

from __future__ import annotations

import math

from torch import Tensor

START_TOLERANCE = 1e-5


def start_latents(noise: Tensor, latents: Tensor, sigma: float, sigma_max: float) -> Tensor:
    """``latents`` (in the network's space, zeros for text to image) under ``noise`` of the list's first level.

    A run from the table's top starts with the total deviation of picture and noise, as the network saw it in training.
    """
    from_the_top = sigma >= sigma_max or math.isclose(sigma, sigma_max, rel_tol=START_TOLERANCE)
    return noise * (math.sqrt(1 + sigma**2) if from_the_top else sigma) + latents
