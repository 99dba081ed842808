"""Golden family C, size conditioning: the ADM vectors and their timed selection."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fooocus_core.conditioning.adm import base_adm, refiner_sizes, select_timed_adm, size_vectors
from tests.golden.vectors import golden_json, golden_tensors

CASES = golden_json("C_guidance/cases.json")
TENSORS = golden_tensors("C_guidance/adm.safetensors")
SIZES_TOLERANCE = 1e-3


def scale_of(case: dict[str, Any]) -> float:
    return float(case["positive_scale"] if case["prompt_type"] == "positive" else case["negative_scale"])


@pytest.mark.parametrize("case", CASES["adm"], ids=lambda case: case["key"])
def test_base_sizes(case: dict[str, Any]) -> None:
    emphasised, consistent = size_vectors(case["width"], case["height"], scale_of(case))
    expected = TENSORS[f"{case['key']}/vector"]
    torch.testing.assert_close(torch.cat([emphasised, consistent], 1), expected, atol=SIZES_TOLERANCE, rtol=0)
    pooled = TENSORS["pooled"]
    full = base_adm(pooled, case["width"], case["height"], scale_of(case))
    assembled = torch.cat([pooled, expected[:, :1536], pooled, expected[:, 1536:]], 1)
    torch.testing.assert_close(full, assembled, atol=SIZES_TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", CASES["adm_refiner"], ids=lambda case: case["key"])
def test_refiner_sizes(case: dict[str, Any]) -> None:
    sizes = refiner_sizes(case["width"], case["height"], case["prompt_type"])
    torch.testing.assert_close(sizes, TENSORS[f"{case['key']}/vector"], atol=SIZES_TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", CASES["adm_switch"], ids=lambda case: case["key"])
def test_timed_selection(case: dict[str, Any]) -> None:
    y, timesteps = TENSORS["switch/y"], TENSORS["switch/timesteps"]
    chosen = select_timed_adm(y, timesteps, case["adm_scaler_end"], y.shape[1] // 2)
    assert torch.equal(chosen, TENSORS[case["key"]])


def test_a_vector_of_another_width_passes_unchanged() -> None:
    short = TENSORS["switch/short_y"]
    assert select_timed_adm(short, TENSORS["switch/timesteps"], 0.3, TENSORS["switch/y"].shape[1] // 2) is short
