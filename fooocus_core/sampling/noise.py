"""Where every random number of a run comes from (specification 03, section 5).

The noise of the start always comes from the CPU, so one seed gives one start on any device. Noise inside the steps
comes from ``step_device``: the sampling device, as in the reference, or the CPU where the same picture on every device
matters more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fooocus_core.sampling.brownian import DIGITS, BrownianPath
from fooocus_core.sampling.transfer import sent


class NoiseSource:
    """Unit noise of one seed (0 ... 2^64 - 1). ``step_seed``: one of its own for the noise inside the steps."""

    def __init__(self, seed: int, step_device: torch.device, step_seed: int | None = None) -> None:
        self.seed = seed
        self.cpu_generator = torch.Generator().manual_seed(seed)
        # On the CPU the steps go on where the start stopped; another device has its own generator, freshly seeded.
        goes_on = step_device.type == "cpu" and step_seed is None
        own_seed = seed if step_seed is None else step_seed
        self._step_generator = self.cpu_generator if goes_on else torch.Generator(step_device).manual_seed(own_seed)

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        """The noise of the start, float32 on the CPU."""
        return torch.randn(shape, generator=self.cpu_generator)

    def step(self, like: Tensor) -> Tensor:
        """The next unit noise inside the steps, of the shape and on the device of ``like``."""
        generator = self._step_generator
        return sent(torch.randn(like.shape, generator=generator, device=generator.device), like.device)

    def reseed(self, seed: int) -> None:
        """Start both sequences again from another seed."""
        self.cpu_generator.manual_seed(seed)
        self._step_generator.manual_seed(seed)


class BrownianNoise:
    """Increments of one Brownian path over the noise levels, scaled to unit noise (section 5.3).

    A path belongs to one image: two queries of the same interval give the same noise. ``bounds`` is the range of levels
    that the path covers; beyond it the path stands still while the scaling goes on, so noise fades out there.
    """

    def __init__(
        self, seed: int, bounds: tuple[float, float], shape: tuple[int, ...], step_device: torch.device
    ) -> None:
        self._low, self._high = (torch.tensor(bound, dtype=torch.float32).item() for bound in bounds)
        self._seed = seed
        self._shape = shape
        self._device = step_device
        self._path: BrownianPath | None = None

    def __call__(self, sigma: Tensor, sigma_next: Tensor, like: Tensor) -> Tensor:
        """Noise of the step between two levels, on the device of ``like``; steps down and up differ in sign."""
        rising = bool(sigma_next > sigma)
        low, high = (sigma, sigma_next) if rising else (sigma_next, sigma)
        increment = sent(self._increment(self._inside(low.item()), self._inside(high.item())), like.device)
        noise = increment / (high - low).sqrt()
        return noise if rising else -noise

    def _increment(self, low: float, high: float) -> Tensor:
        if low == high:
            return torch.zeros(self._shape, device=self._device)
        if self._path is None:
            self._path = BrownianPath(self._seed, self._low, self._high, self._shape, self._device)
        return self._path(low, high)

    def _inside(self, sigma: float) -> float:
        # The path rounds its own ends, so they are what a level may not pass.
        low, high = round(self._low, DIGITS), round(self._high, DIGITS)
        return min(max(round(sigma, DIGITS), low), high)
