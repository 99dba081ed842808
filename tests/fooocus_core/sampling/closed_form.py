"""A denoiser one can write down (that of golden family B), and a way to run a sampler to its end."""

from __future__ import annotations

import torch
from torch import Tensor

from fooocus_core.sampling.samplers.contract import SamplerStep, Steps


class ClosedFormDenoiser:
    """D(x, s) = x / (1 + s^2) + s / (2 r) tanh(1.3 shift(x) / r + p), with r^2 = 1 + s^2, p a fixed pattern."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        channel, row, column = (torch.arange(size, dtype=torch.float32) for size in x.shape[1:])
        pattern = torch.sin(0.7 * channel[:, None, None] + 0.35 * row[:, None] - 0.22 * column)
        total = (1 + sigma**2).sqrt()
        return x / (1 + sigma**2) + 0.5 * (sigma / total) * torch.tanh(1.3 * x.roll(1, dims=-1) / total + pattern)


def run_to_end(steps: Steps) -> tuple[list[SamplerStep], Tensor]:
    """All steps and the final latents."""
    seen: list[SamplerStep] = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value
