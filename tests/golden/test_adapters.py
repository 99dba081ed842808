"""Golden family G: image prompts and control networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.adapters.adapted import Adaptations, AdaptedNetwork
from fooocus_core.adapters.control import ControlChain
from fooocus_core.adapters.image_prompt import (
    ImagePrompt,
    attention_layers,
    clip_pixels,
    injected,
    projected,
    resampled,
)
from fooocus_core.conditioning.adm import select_timed_adm
from fooocus_core.models.forward_pass import all_in_heads, attended, in_heads
from fooocus_core.models.unet import UNetShape
from fooocus_core.sampling.network import Attended, ControlResiduals, KeysValues, NetworkCall
from fooocus_core.sampling.prediction import eps_prediction, sdxl_levels
from tests.golden.adapters import control_tensors, control_unit, index, prompts_of
from tests.golden.networks import first_network
from tests.golden.vectors import golden_tensors

TOLERANCE = 1e-4
ADM_END = 0.3
CASES = index()
IMAGES = golden_tensors("G_adapters/image_prompt.safetensors")
CONTROL = control_tensors()
SDXL = UNetShape(
    in_channels=4,
    out_channels=4,
    channels=(320, 640, 1280),
    down_depths=((0, 0), (2, 2), (10, 10)),
    middle_depth=10,
    up_depths=((10, 10, 10), (2, 2, 2), (0, 0, 0)),
    context_width=2048,
    adm_width=2816,
    linear_projections=True,
)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


def weights_of(part: str) -> dict[str, Tensor]:
    prefix = f"{part}/weights/"
    return {key.removeprefix(prefix): tensor for key, tensor in IMAGES.items() if key.startswith(prefix)}


def test_resampler() -> None:
    tokens = resampled(weights_of("resampler"), IMAGES["resampler/in"], CASES["resampler"]["dim_head"])
    close(tokens, IMAGES["resampler/out"])


def test_projection() -> None:
    close(projected(weights_of("projection"), IMAGES["projection/in"]), IMAGES["projection/out"])


def test_pixels() -> None:
    close(clip_pixels(IMAGES["pixels/in_every16"]), IMAGES["pixels/out_every16"])


def test_order_of_layers() -> None:
    assert [list(layer) for layer in attention_layers(SDXL)] == CASES["layer_order"]
    assert [list(layer) for layer in attention_layers(first_network().shape)] == [
        layer[:3] for layer in CASES["ip_layers"]
    ]


@pytest.mark.parametrize("case", CASES["inject"], ids=lambda case: case["key"])
def test_injection(case: dict[str, Any]) -> None:
    key = case["key"]

    def tokens(task: int, side: str) -> list[KeysValues]:
        return [KeysValues(*(IMAGES[f"{key}/task{task}/{part}_{side}"] for part in "kv"))]

    prompts = [
        ImagePrompt(tokens(number, "cond"), tokens(number, "uncond"), task["weight"], task["stop"])
        for number, task in enumerate(case["tasks"])
    ]
    text = injected(
        KeysValues(IMAGES[f"{key}/k"], IMAGES[f"{key}/v"]), prompts, 0, case["batch_roles"], case["progress"]
    )
    known = all_in_heads([Attended(1.0, text)], case["heads"])
    close(attended(in_heads(IMAGES[f"{key}/q"], case["heads"]), known), IMAGES[f"{key}/out"])


def evaluated(case: dict[str, Any]) -> tuple[ControlResiduals | None, Tensor]:
    """What the case's control networks add, and the network's raw output under all its adapters."""
    network, sigma = first_network(), torch.tensor(case["sigma"])
    timestep = sdxl_levels().timestep_of_sigma(sigma)
    timesteps = timestep.expand(2)
    latents = eps_prediction().scale_input(CONTROL["io/x"], sigma)
    adm = select_timed_adm(CONTROL["io/y"], timesteps, ADM_END, network.adm_width)
    inputs = latents, timesteps, CONTROL["io/context"], adm
    chain = ControlChain([control_unit(unit) for unit in case["units"]], case["softness"], sdxl_levels())
    residuals = chain.residuals(*inputs, sigma.item(), tuple(case["batch_roles"]))
    call = NetworkCall(tuple(case["batch_roles"]), float(1 - timestep / 999), residuals)
    adapted = AdaptedNetwork(network, Adaptations(prompts=prompts_of(case["ip"]) if case["ip"] else ()))
    return residuals, adapted(*inputs, call)


@pytest.mark.parametrize("case", CASES["control"], ids=lambda case: case["key"])
def test_control(case: dict[str, Any]) -> None:
    key = case["key"]
    unit = {"weights": "first", "hint": "plain", "strength": case["strength"], "start_end": case["start_end"]}
    whole = {**case, "units": [unit], "ip": [], "batch_roles": ["positive", "negative"]}
    residuals, output = evaluated(whole)
    close(output, CONTROL[f"{key}/unet_out"])
    close(evaluated({**whole, "units": []})[1], CONTROL[f"{key}/unet_out_without"])
    assert (residuals is not None) == case["active"]
    if residuals is not None:
        assert len(residuals.skips) == case["counts"]["output"]
        close(residuals.middle, CONTROL[f"{key}/middle0"])
        for number, skip in enumerate(residuals.skips):
            close(skip, CONTROL[f"{key}/output{number}"])


@pytest.mark.parametrize("case", CASES["chain"], ids=lambda case: case["key"])
def test_chain(case: dict[str, Any]) -> None:
    residuals, output = evaluated(case)
    assert (residuals is not None) == case["control"]
    close(output, CONTROL[f"{case['key']}/unet_out"])
