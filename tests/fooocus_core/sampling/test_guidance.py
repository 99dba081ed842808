"""Guidance and the sharpness filter, beside a second way of writing them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad, unfold

from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling.guidance import (
    GuidanceSettings,
    _rows_at_once,
    anisotropic_filter,
    guided_residual,
    sharpened,
)


def latents(seed: int, height: int = 9, width: int = 12) -> Tensor:
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(seed))


def filter_at_once(x: Tensor, guide: Tensor) -> Tensor:
    """The definition, with all 169 neighbours side by side (specification 03, section 6)."""
    rows, channels, height, width = x.shape
    guide = (guide - guide.mean((1, 2, 3), keepdim=True)) / (guide.std((1, 2, 3), keepdim=True) + 1e-5)

    def windows(values: Tensor) -> Tensor:
        return unfold(pad(values, (6, 6, 6, 6), mode="reflect"), 13).view(rows, channels, 169, height, width)

    distance = (windows(guide) - guide.unsqueeze(2)).abs().sum(1, keepdim=True)
    offset = torch.arange(-6.0, 7.0)
    gauss = torch.exp(-(offset**2) / 18)
    gauss = gauss / gauss.sum()
    weight = torch.exp(-(distance**2) / 18) * torch.outer(gauss, gauss).view(1, 1, 169, 1, 1)
    return (weight * windows(x)).sum(2) / weight.sum(2)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (14, 11), (9, 40), (36, 44), (64, 104)])
def test_filter_follows_its_definition(height: int, width: int) -> None:
    x, guide = latents(1, height, width), latents(2, height, width)
    torch.testing.assert_close(anisotropic_filter(x, guide), filter_at_once(x, guide), rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [12, 40])
def test_filter_of_a_batch_is_that_of_each_sample_to_the_last_bit(side: int) -> None:
    x, guide = (torch.cat([latents(seed, side, side) for seed in seeds]) for seeds in ((1, 2, 3), (4, 5, 6)))
    alone = [anisotropic_filter(x[row : row + 1], guide[row : row + 1]) for row in range(3)]
    assert torch.equal(anisotropic_filter(x, guide), torch.cat(alone))


@pytest.mark.parametrize(
    ("side", "device", "rows"), [(12, "cpu", 13), (64, "cpu", 2), (128, "cpu", 1), (128, "meta", 13)]
)
def test_filter_works_on_so_many_rows_of_its_window_at_once(side: int, device: str, rows: int) -> None:
    """As many as a CPU's cache holds; on another device, where launches are what costs, all of an SDXL picture's."""
    assert _rows_at_once(torch.empty(4, 4, side, side, device=device)) == rows


def test_filter_leaves_its_inputs_alone() -> None:
    x, guide = latents(1), latents(2)
    anisotropic_filter(x, guide)
    assert torch.equal(x, latents(1))
    assert torch.equal(guide, latents(2))


def test_filter_keeps_what_is_flat() -> None:
    flat = torch.full((1, 4, 9, 9), 3.0)
    torch.testing.assert_close(anisotropic_filter(flat, latents(1, 9, 9)), flat)


def test_filter_smooths() -> None:
    noise = latents(3, 24, 24)
    assert anisotropic_filter(noise, noise).std() < noise.std()


def test_too_small_latents_are_refused_only_where_the_filter_acts() -> None:
    x = latents(1, 6, 20)
    with pytest.raises(InvalidRequest, match=r"sharpness.*7 x 7"):
        anisotropic_filter(x, x)
    settings = GuidanceSettings(scale=4, sharpness=0, adaptive_scale=7, adm_end=0.3)
    assert guided_residual(x, latents(2, 6, 20), latents(3, 6, 20), settings, 0.5).isfinite().all()


def test_no_share_changes_nothing() -> None:
    x, guide = latents(1), latents(2)
    assert torch.equal(sharpened(x, guide, 0), x)
    torch.testing.assert_close(sharpened(x, guide, 1e-7), x)


def test_scale_one_is_the_positive_alone() -> None:
    x, positive, negative = latents(1), latents(2), latents(3)
    settings = GuidanceSettings(scale=1.0, sharpness=30, adaptive_scale=7, adm_end=0.3)
    assert torch.equal(guided_residual(x, positive, negative, settings, 0.5), x - positive)


def test_equal_sides_make_the_scale_irrelevant() -> None:
    x, side = latents(1), latents(2)
    for scale in (2.0, 30.0):
        settings = GuidanceSettings(scale, sharpness=0, adaptive_scale=7, adm_end=0.3)
        torch.testing.assert_close(guided_residual(x, side, side, settings, 0.3), x - side)


def test_adaptive_scale_rules_at_the_start_and_is_gone_at_the_end() -> None:
    x, positive, negative = latents(1), latents(2), latents(3)
    strong = GuidanceSettings(scale=20, sharpness=0, adaptive_scale=5, adm_end=0.3)
    mild = GuidanceSettings(scale=5, sharpness=0, adaptive_scale=5, adm_end=0.3)
    unbound = GuidanceSettings(scale=20, sharpness=0, adaptive_scale=30, adm_end=0.3)
    at_start, at_end = (guided_residual(x, positive, negative, strong, progress) for progress in (0.0, 1.0))
    torch.testing.assert_close(at_start, guided_residual(x, positive, negative, mild, 0.0))
    torch.testing.assert_close(at_end, guided_residual(x, positive, negative, unbound, 1.0))
