"""Sigma lists: the noise levels a sampler walks through, float32 ``[steps + 1]`` on the CPU, decreasing, 0 at the end.

Specification 03, section 4. Every list is built to the last bit, see ``float32``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling import float32
from fooocus_core.sampling.prediction import NoiseLevels

ListMaker = Callable[[NoiseLevels, int], Tensor]

KARRAS_RHO = 7
TURBO_ENTRIES = 10
BETA_SHAPE = 0.6
"""Both parameters of the distribution."""

# Hand-tuned for ten steps by Sabour et al. 2024, "Align Your Steps", for SDXL.
ALIGNED_SIGMAS = (
    14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
    0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582,
)  # fmt: skip

# These build one step more and leave out the last level above 0.
EXTRA_STEP_SAMPLERS = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})
EXTRA_STEP_SAMPLERS_OF_RANGE = frozenset({"dpm_2", "dpm_2_ancestral"})

FULL_DENOISE = 0.9999
LARGEST_SHARE = 0.999
"""Of the steps of a run that takes its share of them."""


# ------------------------------------------------------------------ the lists


def normal(levels: NoiseLevels, steps: int) -> Tensor:
    """Evenly spaced in the network's time, both ends included."""
    return levels.sigma_of_timestep(float32.linspace(*_time_range(levels), steps))


def sgm_uniform(levels: NoiseLevels, steps: int) -> Tensor:
    """Evenly spaced in the network's time, the low end left out."""
    return levels.sigma_of_timestep(float32.linspace(*_time_range(levels), steps + 1)[:-1])


def karras(levels: NoiseLevels, steps: int) -> Tensor:
    """Karras et al. 2022, equation 5 with rho 7."""
    return karras_between(levels.sigma_min, levels.sigma_max, steps)


def karras_between(sigma_min: float, sigma_max: float, steps: int) -> Tensor:
    """``steps`` levels from sigma_max to sigma_min, without the trailing 0."""
    root_min, root_max = sigma_min ** (1 / KARRAS_RHO), sigma_max ** (1 / KARRAS_RHO)
    return float32.power(root_max + float32.linspace(0, 1, steps) * (root_min - root_max), KARRAS_RHO)


def exponential(levels: NoiseLevels, steps: int) -> Tensor:
    """Evenly spaced in the logarithm of sigma."""
    return float32.linspace(math.log(levels.sigma_max), math.log(levels.sigma_min), steps).exp()


def simple(levels: NoiseLevels, steps: int) -> Tensor:
    """Entries of the table at even distances, from the highest down."""
    size = len(levels.sigmas)
    spacing = size / steps
    return levels.sigmas[[size - 1 - int(step * spacing) for step in range(steps)]]


def ddim_uniform(levels: NoiseLevels, steps: int) -> Tensor:
    """Entries 1, 1 + q, 1 + 2q ... of the table, decreasing; where q does not divide it, more than ``steps``."""
    spacing = max(len(levels.sigmas) // steps, 1)
    return levels.sigmas[1::spacing].flip(0)


def beta(levels: NoiseLevels, steps: int) -> Tensor:
    """Entries of the table at the quantiles of a beta distribution, dense at both ends (Lee et al. 2024, "Beta
    Sampling is All You Need"); where two fall on one entry, fewer than ``steps``."""
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    shares = 1 - torch.arange(steps, dtype=torch.float64) / steps
    places = (betaincinv(BETA_SHAPE, BETA_SHAPE, shares.numpy()) * (len(levels.sigmas) - 1)).round().astype(int)
    return levels.sigmas[list(dict.fromkeys(places.tolist()))]


def turbo(levels: NoiseLevels, steps: int) -> Tensor:
    """The times the turbo networks were distilled at, 999, 899 ... 99; never more than ten."""
    times = torch.arange(TURBO_ENTRIES - 1, -1, -1) * 100 + 99
    return levels.sigma_of_timestep(times[:steps].float())


def align_your_steps(levels: NoiseLevels, steps: int) -> Tensor:
    """The tuned list, interpolated in ln sigma for other step counts; its last level gives way to the trailing 0."""
    del levels  # the list is one of constants
    if steps == len(ALIGNED_SIGMAS) - 1:
        return torch.tensor(ALIGNED_SIGMAS[:-1])
    logs = torch.tensor(ALIGNED_SIGMAS, dtype=torch.float64).log()
    position = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:-1] * (len(logs) - 1)
    below = position.long()
    return torch.lerp(logs[below], logs[below + 1], position - below).exp().float()


LISTS: Mapping[str, ListMaker] = MappingProxyType(
    {
        "normal": normal,
        "karras": karras,
        "exponential": exponential,
        "sgm_uniform": sgm_uniform,
        "simple": simple,
        "ddim_uniform": ddim_uniform,
        "turbo": turbo,
        "align_your_steps": align_your_steps,
        "beta": beta,
    }
)

# The sampler proper does not know these two names and walks ``normal``; only the Brownian range honours them.
UNKNOWN_TO_SAMPLERS = frozenset({"turbo", "align_your_steps"})


# ------------------------------------------------------- what a run makes of them


def raw_sigmas(list_name: str, steps: int, levels: NoiseLevels) -> Tensor:
    """The list of one name with its trailing 0."""
    if list_name not in LISTS:
        raise InvalidRequest.unknown_name("scheduler", list_name, LISTS)
    if steps < 1:
        raise InvalidRequest("steps", "must be at least 1")
    return torch.cat([LISTS[list_name](levels, steps), torch.zeros(1)])


def effective_sigmas(
    list_name: str, steps: int, denoise: float, sampler: str, levels: NoiseLevels, *, takes_share: bool = False
) -> Tensor:
    """The list the sampler runs on, at most ``steps + 1`` entries.

    A ``denoise`` (0 to 1) below 1 makes a longer list and keeps its end: the run starts at a lower noise level. A run
    that ``takes_share`` keeps the end of the list as it is (``steps_taken``).
    """
    honoured = "normal" if list_name in UNKNOWN_TO_SAMPLERS else list_name
    extra_step = sampler in EXTRA_STEP_SAMPLERS
    sigmas = _partial_sigmas(honoured, steps, denoise, levels, extra_step=extra_step, takes_share=takes_share)
    return first_steps(sigmas, steps)


def range_sigmas(
    list_name: str, steps: int, denoise: float, sampler: str, levels: NoiseLevels, *, takes_share: bool = False
) -> Tensor:
    """The list whose positive ends bound the Brownian noise; here every name means itself (section 5.3)."""
    extra_step = sampler in EXTRA_STEP_SAMPLERS_OF_RANGE
    return _partial_sigmas(list_name, steps, denoise, levels, extra_step=extra_step, takes_share=takes_share)


def steps_taken(steps: int, denoise: float) -> int:
    """How many of ``steps`` a run takes that takes its share of them (TAMS contract, section 13.1)."""
    return max(1, math.floor(steps * min(denoise, LARGEST_SHARE)))


def brownian_range(sigmas: Tensor) -> tuple[float, float]:
    """Smallest positive and largest entry."""
    return sigmas[sigmas > 0].min().item(), sigmas.max().item()


def first_steps(sigmas: Tensor, steps: int) -> Tensor:
    """The list cut after ``steps`` steps and ended with 0; a list that is not longer stays as it is."""
    if steps >= len(sigmas) - 1:
        return sigmas
    return torch.cat([sigmas[:steps], torch.zeros(1)])


def _partial_sigmas(
    list_name: str, steps: int, denoise: float, levels: NoiseLevels, *, extra_step: bool, takes_share: bool
) -> Tensor:
    if denoise <= 0:
        raise InvalidRequest("denoise", "must be above 0")
    if takes_share:
        whole = _sigmas_of_class(list_name, steps, levels, extra_step=extra_step)
        return whole[-(steps_taken(steps, denoise) + 1) :]
    if denoise > FULL_DENOISE:
        return _sigmas_of_class(list_name, steps, levels, extra_step=extra_step)
    whole = _sigmas_of_class(list_name, int(steps / denoise), levels, extra_step=extra_step)
    return whole[-(steps + 1) :]


def _sigmas_of_class(list_name: str, steps: int, levels: NoiseLevels, *, extra_step: bool) -> Tensor:
    if not extra_step:
        return raw_sigmas(list_name, steps, levels)
    sigmas = raw_sigmas(list_name, steps + 1, levels)
    return torch.cat([sigmas[:-2], sigmas[-1:]])


def _time_range(levels: NoiseLevels) -> tuple[float, float]:
    ends = levels.timestep_of_sigma(torch.stack([levels.sigmas[-1], levels.sigmas[0]]))
    return ends[0].item(), ends[1].item()
