"""DPM-Solver (Lu et al. 2022) orders 1 to 3 in the time -ln sigma: with a fixed budget, and with adaptive steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fooocus_core.sampling import float32
from fooocus_core.sampling.samplers.contract import Denoiser, SamplerContext, SamplerStep, Steps

FIRST_STEP = 0.05
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.05, 0.0078
ACCEPTED_FACTOR = 0.81
END_MARGIN = 1e-5


@dataclass(frozen=True)
class _Interval:
    """From ``time`` to ``end`` with the noise ``eps`` in ``x`` at its beginning, and the formulas over it.

    Steps inside are formed as shares of ``length``, not as differences of times: the error that steers the adaptive
    sampler lies near float32's own, so the way of rounding reaches its step sizes.
    """

    denoise: Denoiser
    x: Tensor
    time: Tensor
    end: Tensor
    eps: Tensor

    @property
    def length(self) -> Tensor:
        return self.end - self.time

    def order_1(self) -> Tensor:
        return self._straight(self.end, self.length)

    def order_2(self, eps_ahead: Tensor, share: float) -> Tensor:
        """Second order with the noise at a share of the interval."""
        growth = _sigma(self.end) * self.length.expm1()
        return self.order_1() - growth / (2 * share) * (eps_ahead - self.eps)

    def order_3(self, eps_ahead: Tensor, share: float = 1 / 3, later_share: float = 2 / 3) -> Tensor:
        """Third order with the noise at a share of the interval; a later one is evaluated here."""
        later, step = self.time + later_share * self.length, later_share * self.length
        bend = _sigma(later) * (later_share / share) * (step.expm1() / step - 1)
        eps_later = self._noise(self._straight(later, step) - bend * (eps_ahead - self.eps), later)
        bend = _sigma(self.end) / later_share * (self.length.expm1() / self.length - 1)
        return self.order_1() - bend * (eps_later - self.eps)

    def noise_ahead(self, share: float) -> Tensor:
        """The noise at a share of the interval, reached by a first-order step."""
        point = self.time + share * self.length
        return self._noise(self._straight(point, share * self.length), point)

    def of_order(self, order: int) -> Tensor:
        """The latents at the end."""
        if order == 1:
            return self.order_1()
        if order == 2:
            return self.order_2(self.noise_ahead(1 / 2), 1 / 2)
        return self.order_3(self.noise_ahead(1 / 3))

    def _straight(self, point: Tensor, step: Tensor) -> Tensor:
        return self.x - _sigma(point) * step.expm1() * self.eps

    def _noise(self, x: Tensor, time: Tensor) -> Tensor:
        return (x - self.denoise(x, _sigma(time))) / _sigma(time)


def dpm_fast(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """As many third-order steps as the number of evaluations allows; ends at the last level above 0."""
    orders = _orders_of_budget(len(sigmas) - 1)
    first, last = _time_range(sigmas)
    times = float32.linspace(first.item(), last.item(), len(orders) + 1)
    for index, order in enumerate(orders):
        time, end = times[index], times[index + 1]
        denoised = denoise(x, _sigma(time))
        yield SamplerStep(index, x, denoised)
        x = _Interval(denoise, x, time, end, (x - denoised) / _sigma(time)).of_order(order)
        context.noise.step(x)  # drawn and not used: the generator must stand where the reference's does
    return x


def _orders_of_budget(evaluations: int) -> list[int]:
    """Orders that add up to the budget, cheap ones last."""
    steps, rest = evaluations // 3 + 1, evaluations % 3
    return [3] * (steps - 2) + [2, 1] if rest == 0 else [3] * (steps - 1) + [rest]


def dpm_adaptive(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Third order with its embedded second order as the measure of error; the list gives only the two ends.

    A step record holds the latents after the attempt, whether it was accepted or not.
    """
    control = _StepControl()
    time, end = _time_range(sigmas)
    x_low_before, index = x, 0
    while time < end - END_MARGIN:
        goal = torch.minimum(end, time + control.step)
        denoised = denoise(x, _sigma(time))
        attempt = _Interval(denoise, x, time, goal, (x - denoised) / _sigma(time))
        eps_ahead = attempt.noise_ahead(1 / 3)
        x_low, x_high = attempt.order_2(eps_ahead, 1 / 3), attempt.order_3(eps_ahead)
        if control.accepts(_relative_error(x_low, x_high, x_low_before)):
            x, x_low_before, time = x_high, x_low, goal
        yield SamplerStep(index, x, denoised)
        index += 1
    return x


@dataclass
class _StepControl:
    """An integral controller of the step in -ln sigma, limited to gentle changes."""

    step: float = field(default=FIRST_STEP)

    def accepts(self, error: float) -> bool:
        """Whether an attempt with this error (1 is just right) counts; the next step is set either way."""
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1)
        self.step *= factor
        return factor >= ACCEPTED_FACTOR


def _relative_error(x_low: Tensor, x_high: Tensor, x_low_before: Tensor) -> float:
    """Root mean square of the difference of the two orders, in units of the tolerance of each value."""
    size = torch.maximum(x_low.abs(), x_low_before.abs())
    tolerance = (RELATIVE_TOLERANCE * size).clamp(min=ABSOLUTE_TOLERANCE)
    return float(torch.linalg.vector_norm((x_low - x_high) / tolerance)) / math.sqrt(x_low.numel())


def _time_range(sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """-ln sigma of the first level and of the last one above 0."""
    return -sigmas[0].log(), -sigmas[sigmas > 0][-1].log()


def _sigma(time: Tensor) -> Tensor:
    return (-time).exp()
