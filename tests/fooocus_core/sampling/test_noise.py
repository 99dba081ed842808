"""Noise belongs to the seed."""

from __future__ import annotations

import math

import pytest
import torch
import torchsde  # type: ignore[import-untyped]

from fooocus_core.sampling.noise import BrownianNoise, NoiseSource

CPU = torch.device("cpu")
SHAPE = (1, 4, 5, 6)


def level(value: float) -> torch.Tensor:
    return torch.tensor(value)


def test_step_noise_goes_on_where_the_start_stopped() -> None:
    source = NoiseSource(3, CPU)
    parts = torch.cat([source.initial(SHAPE).flatten(), source.step(torch.zeros(SHAPE)).flatten()])
    whole = NoiseSource(3, CPU)
    assert torch.equal(parts, torch.cat([whole.initial(SHAPE).flatten(), whole.initial(SHAPE).flatten()]))


def test_step_noise_may_have_a_seed_of_its_own() -> None:
    own = NoiseSource(3, CPU, step_seed=8)
    assert torch.equal(own.initial(SHAPE), NoiseSource(3, CPU).initial(SHAPE))
    assert torch.equal(own.step(torch.zeros(SHAPE)), NoiseSource(8, CPU).initial(SHAPE))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    source = NoiseSource(3, CPU)
    source.step(source.initial(SHAPE))
    BrownianNoise(3, (0.03, 14.0), SHAPE, CPU)(level(10.0), level(5.0), torch.zeros(SHAPE))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [0, 2**32 + 5, 2**63 - 1, 2**63])
def test_brownian_noise_is_the_library_s_path_backwards(seed: int) -> None:
    low, high = level(0.5), level(2.25)
    path = torchsde.BrownianTree(0.25, torch.zeros(SHAPE), 8.0, entropy=seed)
    expected = -path(low.item(), high.item()) / math.sqrt(1.75)
    noise = BrownianNoise(seed, (0.25, 8.0), SHAPE, CPU)
    torch.testing.assert_close(noise(high, low, expected), expected)
    torch.testing.assert_close(noise(low, high, expected), -expected)


def test_brownian_noise_has_unit_variance() -> None:
    noise = BrownianNoise(11, (0.03, 14.6), (1, 4, 64, 64), CPU)
    drawn = noise(level(9.0), level(4.0), torch.zeros(1))
    assert drawn.std().item() == pytest.approx(1, abs=0.03)


def test_increments_add_up() -> None:
    noise, like = BrownianNoise(5, (0.03, 14.6), SHAPE, CPU), torch.zeros(SHAPE)
    whole = noise(level(9.0), level(1.0), like) * math.sqrt(8)
    parts = noise(level(9.0), level(4.0), like) * math.sqrt(5) + noise(level(4.0), level(1.0), like) * math.sqrt(3)
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)


def test_noise_fades_out_beyond_the_path() -> None:
    noise, like = BrownianNoise(5, (1.0, 4.0), SHAPE, CPU), torch.zeros(SHAPE)
    assert not noise(level(9.0), level(6.0), like).any()
    inside = noise(level(4.0), level(2.0), like) * math.sqrt(2)
    across = noise(level(9.0), level(2.0), like) * math.sqrt(7)
    torch.testing.assert_close(inside, across)


def test_levels_nearer_than_the_path_tells_have_no_noise_between_them() -> None:
    noise = BrownianNoise(5, (1.0, 4.0), SHAPE, CPU)
    assert not noise(level(2.0000002), level(2.0), torch.zeros(SHAPE)).any()


def test_a_range_of_one_level_has_no_noise() -> None:
    noise = BrownianNoise(5, (4.0, 4.0), SHAPE, CPU)
    assert not noise(level(9.0), level(2.0), torch.zeros(SHAPE)).any()
