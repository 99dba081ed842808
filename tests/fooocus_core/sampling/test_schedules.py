"""What holds for every sigma list."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling import float32
from fooocus_core.sampling.names import SCHEDULER_NAMES, WEB_UI_SCHEDULER_NAMES
from fooocus_core.sampling.prediction import distilled_levels, edm_levels, sdxl_levels
from fooocus_core.sampling.sample import resolve_scheduler
from fooocus_core.sampling.schedules import (
    LISTS,
    beta,
    brownian_range,
    effective_sigmas,
    first_steps,
    range_sigmas,
    raw_sigmas,
    steps_taken,
)
from tests.cases import check_all


@pytest.mark.parametrize("name", dict.fromkeys(SCHEDULER_NAMES + WEB_UI_SCHEDULER_NAMES))
def test_a_run_goes_down_to_zero(name: str) -> None:
    def check(case: tuple[str, float, int]) -> None:
        sampler, denoise, steps = case
        resolved = resolve_scheduler(name, "eps")
        sigmas = effective_sigmas(resolved.list_name, steps, denoise, sampler, resolved.prediction.levels)
        assert sigmas.dtype == torch.float32
        assert len(sigmas) <= steps + 1
        assert sigmas[-1] == 0
        # Where the table has fewer entries than the list, neighbours are equal.
        assert (sigmas.diff() <= 0).all()

    check_all(
        {str(case): case for case in product(["euler", "dpm_2", "uni_pc"], [1.0, 0.5, 0.1], [1, 2, 30, 200])}, check
    )


def test_partial_denoise_starts_lower() -> None:
    whole, half = (effective_sigmas("karras", 20, denoise, "euler", sdxl_levels()) for denoise in (1.0, 0.5))
    assert len(whole) == len(half) == 21
    assert half[0] < whole[0]


@pytest.mark.parametrize(
    ("steps", "denoise", "taken"),
    [(20, 0.75, 15), (15, 0.3, 4), (10, 0.05, 1), (20, 1.0, 19), (1, 1.0, 1), (50, 0.4, 20)],
)
def test_a_share_of_the_steps_is_the_end_of_the_list(steps: int, denoise: float, taken: int) -> None:
    assert steps_taken(steps, denoise) == taken
    for sampler in ("euler", "dpm_2"):
        whole = effective_sigmas("karras", steps, 1.0, sampler, sdxl_levels())
        share = effective_sigmas("karras", steps, denoise, sampler, sdxl_levels(), takes_share=True)
        assert torch.equal(share, whole[-(taken + 1) :])
        assert torch.equal(range_sigmas("karras", steps, denoise, sampler, sdxl_levels(), takes_share=True), share)


def test_all_steps_are_the_end_of_a_longer_list() -> None:
    """The second pass of an enlarging: 10 steps at 0.3 are the last 10 of 33."""
    sigmas = effective_sigmas("karras", 10, 0.3, "euler", sdxl_levels())
    assert torch.equal(sigmas, effective_sigmas("karras", 33, 1.0, "euler", sdxl_levels())[-11:])


def test_the_beta_list_has_the_quantiles_of_its_distribution() -> None:
    sigmas = beta(sdxl_levels(), 4)
    # The distribution is symmetric: half of it lies below the middle.
    assert sigmas[0] == sdxl_levels().sigmas[999]
    assert sigmas[2] == sdxl_levels().sigmas[500]
    # scipy.stats.beta.ppf(0.75, 0.6, 0.6) is 0.8239.
    assert sigmas[1] == sdxl_levels().sigmas[823]


def test_two_names_walk_the_normal_list() -> None:
    normal = effective_sigmas("normal", 8, 1.0, "euler", sdxl_levels())
    for name in ("turbo", "align_your_steps"):
        assert torch.equal(effective_sigmas(name, 8, 1.0, "euler", sdxl_levels()), normal)
        assert not torch.equal(raw_sigmas(name, 8, sdxl_levels()), normal)


def test_cut_lists_end_clean() -> None:
    sigmas = torch.tensor([3.0, 2.0, 1.0, 0.0])
    assert first_steps(sigmas, 2).tolist() == [3.0, 2.0, 0.0]
    assert torch.equal(first_steps(sigmas, 3), sigmas)


def test_brownian_range_leaves_out_the_zero() -> None:
    assert brownian_range(torch.tensor([3.0, 0.5, 0.0])) == (0.5, 3.0)


@pytest.mark.parametrize("levels", [sdxl_levels(), distilled_levels(), edm_levels()])
def test_time_and_level_are_inverse_on_the_table(levels: object) -> None:
    assert isinstance(levels, type(sdxl_levels()) | type(edm_levels()))
    sigma = levels.sigmas[::7]
    torch.testing.assert_close(levels.sigma_of_timestep(levels.timestep_of_sigma(sigma)), sigma, rtol=1e-5, atol=0)


@pytest.mark.parametrize("count", [1, 2, 3, 30, 200])
def test_linspace_keeps_both_ends(count: int) -> None:
    values = float32.linspace(14.614643, 0.029167, count)
    assert len(values) == count
    assert values[0] == torch.tensor(14.614643)
    if count > 1:
        assert values[-1] == torch.tensor(0.029167)


def test_bad_input_is_refused_by_field() -> None:
    with pytest.raises(InvalidRequest, match=r"scheduler.*karras"):
        raw_sigmas("karas", 8, sdxl_levels())
    with pytest.raises(InvalidRequest, match=r"scheduler.*lcm"):
        resolve_scheduler("karas", "eps")
    with pytest.raises(InvalidRequest, match="steps"):
        raw_sigmas("karras", 0, sdxl_levels())
    with pytest.raises(InvalidRequest, match="denoise"):
        effective_sigmas("karras", 8, 0.0, "euler", sdxl_levels())
    assert set(LISTS) < {*SCHEDULER_NAMES, *WEB_UI_SCHEDULER_NAMES}
