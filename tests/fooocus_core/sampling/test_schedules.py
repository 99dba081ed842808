"""What holds for every sigma list."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling import float32
from fooocus_core.sampling.names import SCHEDULER_NAMES
from fooocus_core.sampling.prediction import distilled_levels, edm_levels, sdxl_levels
from fooocus_core.sampling.sample import resolve_scheduler
from fooocus_core.sampling.schedules import LISTS, brownian_range, effective_sigmas, first_steps, raw_sigmas
from tests.cases import check_all


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
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
    assert set(LISTS) < set(SCHEDULER_NAMES)
