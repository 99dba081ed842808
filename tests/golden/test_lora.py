"""Golden family F: LoRA files of every kind merged into the networks of family D, and taken off again."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.adapters.lora import LoraFile
from fooocus_core.adapters.merge import LoraMerger, WeightedLora
from tests.golden import test_models as models
from tests.golden.vectors import golden_json, golden_tensors

CASES = golden_json("F_lora/cases.json")["cases"]
TOLERANCE = 1e-5


@cache
def file(name: str) -> LoraFile:
    """A stored file; an 8-bit patch is put together again as its pickled form has it."""
    stored: dict[str, Any] = golden_tensors(f"F_lora/{name}.safetensors")
    for key in [key.removesuffix(".uint8") for key in stored if key.endswith(".uint8")]:
        stored[key] = tuple(stored.pop(f"{key}.{part}") for part in ("uint8", "min", "max"))
    return LoraFile(name, stored)


@cache
def merger() -> LoraMerger:
    text = models.text_encoders()
    return LoraMerger(models.first_network(), text.l, text.g)


def weights() -> dict[str, Tensor]:
    return {name: slot.parameter.detach().clone() for name, slot in merger()._slots.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "+".join(name for name, _ in case["loras"]))
def test_merging(case: dict[str, Any]) -> None:
    before = weights()
    expected = golden_tensors("F_lora/merged.safetensors")
    merger().apply([WeightedLora(file(name), weight) for name, weight in case["loras"]], skip_foreign=True)
    after = weights()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name.split(":")[1] for name in case["changed"]}
    for name in case["changed"]:
        merged = after[name.split(":")[1]]
        torch.testing.assert_close(merged, expected[f"{case['key']}/{name}"], atol=TOLERANCE, rtol=0)
    merger().remove()
    assert all(torch.equal(before[name], weight) for name, weight in weights().items())
