"""UniPC (Zhao et al. 2023), data prediction, in the variance-preserving form.

Each update predicts the next latents from past estimates, evaluates there, and corrects itself with the new estimate,
which the next update uses in turn: one evaluation a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fooocus_core.sampling.samplers.contract import Denoiser, SamplerContext, SamplerStep, Steps

MAX_ORDER = 3
SIGMA_FOR_ZERO = 0.001

StepFunction = Callable[[Tensor], Tensor]


def uni_pc(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """The variant B(h) = h."""
    return (yield from _uni_pc(denoise, x, sigmas, _identity))


def uni_pc_bh2(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """The variant B(h) = exp(h) - 1."""
    return (yield from _uni_pc(denoise, x, sigmas, torch.expm1))


def _identity(step: Tensor) -> Tensor:
    return step


@dataclass(frozen=True)
class _Point:
    """A noise level in the variance-preserving form: signal ``alpha``, noise ``deviation``, half log ratio ``lam``."""

    sigma: Tensor
    alpha: Tensor
    deviation: Tensor
    lam: Tensor

    @classmethod
    def of(cls, sigma: Tensor) -> _Point:
        alpha = 1 / (1 + sigma**2).sqrt()
        # Not sigma * alpha: the cancellation at small sigma is part of the reference's result.
        deviation = (1 - alpha**2).sqrt()
        return cls(sigma, alpha, deviation, alpha.log() - deviation.log())

    def estimate(self, denoise: Denoiser, x: Tensor) -> Tensor:
        """The clean latents by way of the noise, as the method defines its data prediction."""
        spread = x * (self.sigma**2 + 1).sqrt()
        noise = (spread - denoise(spread, self.sigma)) / self.sigma
        return (x - self.deviation * noise) / self.alpha


def _uni_pc(denoise: Denoiser, x: Tensor, sigmas: Tensor, step_function: StepFunction) -> Steps:
    points = [_Point.of(sigma) for sigma in sigmas.where(sigmas > 0, SIGMA_FOR_ZERO)]
    updates = len(points) - 1
    max_order = min(MAX_ORDER, updates - 1)
    x = x * points[0].alpha
    estimates = [points[0].estimate(denoise, x)]
    yield SamplerStep(0, x / points[0].alpha, estimates[-1])
    for step in range(1, updates):
        order = step if step < max_order else min(max_order, updates + 1 - step)
        update = _Update.of(points[: step + 1], estimates, order, step_function)
        estimate = points[step].estimate(denoise, update.predicted(x))
        x = update.corrected(x, estimate)
        estimates = [*estimates, estimate][-MAX_ORDER:]
        if step == updates - 1:
            x = _Update.of(points, estimates, min(max_order, 1), step_function).predicted(x)
        yield SamplerStep(step, x / points[step].alpha, estimates[-1])
    return x / points[-1].alpha


@dataclass(frozen=True)
class _Update:
    """One update to the last of its points. ``differences`` are the past estimates' divided differences D1."""

    start: _Point
    end: _Point
    latest: Tensor
    differences: list[Tensor]
    ratios: Tensor
    targets: Tensor
    step: Tensor
    scale: Tensor

    @classmethod
    def of(cls, points: list[_Point], estimates: list[Tensor], order: int, step_function: StepFunction) -> _Update:
        """An update of one order; ``estimates`` belong to the points before the last, newest last."""
        start, end = points[-2], points[-1]
        length = end.lam - start.lam
        past = [(points[-2 - back].lam - start.lam) / length for back in range(1, order)]
        differences = [(estimates[-1 - back] - estimates[-1]) / ratio for back, ratio in enumerate(past, start=1)]
        ratios = torch.stack([*past, torch.ones(())])
        scale = step_function(-length)
        return cls(start, end, estimates[-1], differences, ratios, _targets(-length, scale, order), -length, scale)

    def predicted(self, x: Tensor) -> Tensor:
        """The latents at the end from past estimates alone."""
        return self._base(x) - self.end.alpha * self.scale * self._sum(self._predictor_weights(), self.differences)

    def corrected(self, x: Tensor, estimate: Tensor) -> Tensor:
        """The same with the estimate at the end."""
        differences = [*self.differences, estimate - self.latest]
        return self._base(x) - self.end.alpha * self.scale * self._sum(self._corrector_weights(), differences)

    def _base(self, x: Tensor) -> Tensor:
        ratio = self.end.deviation / self.start.deviation
        return ratio * x - self.end.alpha * self.step.expm1() * self.latest

    def _predictor_weights(self) -> Tensor:
        order = len(self.ratios)
        if order <= 2:
            return torch.full((order - 1,), 0.5)
        weights: Tensor = torch.linalg.solve(self._powers()[:-1, :-1], self.targets[:-1])
        return weights

    def _corrector_weights(self) -> Tensor:
        if len(self.ratios) == 1:
            return torch.tensor([0.5])
        weights: Tensor = torch.linalg.solve(self._powers(), self.targets)
        return weights

    def _powers(self) -> Tensor:
        """Row i holds the ratios to the power of i."""
        return torch.stack([self.ratios**power for power in range(len(self.ratios))])

    @staticmethod
    def _sum(weights: Tensor, differences: list[Tensor]) -> Tensor:
        total = torch.zeros(())
        for weight, difference in zip(weights, differences, strict=True):
            total = total + weight * difference
        return total


def _targets(step: Tensor, scale: Tensor, order: int) -> Tensor:
    """The right-hand side b of the order conditions: phi_i(step) i! / B."""
    phi = step.expm1() / step - 1
    targets, factorial = [], 1
    for degree in range(1, order + 1):
        targets.append(phi * factorial / scale)
        factorial *= degree + 1
        phi = phi / step - 1 / factorial
    return torch.stack(targets)
