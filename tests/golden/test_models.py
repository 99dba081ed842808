"""Golden family D: denoising network, autoencoder, text encoders and preview, loaded by the general loaders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fooocus_core.conditioning.adm import select_timed_adm
from fooocus_core.models.unet import DiffusionNetwork, load_unet, unet_names
from tests.golden.vectors import golden_json, golden_tensors

CPU = torch.device("cpu")
TOLERANCE = 1e-4
UNET = golden_json("D_models/unet.json")
UNET_PREFIX = "model.diffusion_model."


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


# --- denoising network --------------------------------------------------------------------------------------------


@cache
def unet_weights() -> dict[str, Tensor]:
    return {key.removeprefix(UNET_PREFIX): t for key, t in golden_tensors("D_models/unet.safetensors").items()}


@cache
def unet_io() -> dict[str, Tensor]:
    return golden_tensors("D_models/unet_io.safetensors")


def network(weights: dict[str, Tensor]) -> DiffusionNetwork:
    head_width = UNET["ldm_config"]["num_head_channels"]
    return load_unet(weights, "unet.safetensors", device=CPU, dtype=torch.float32, head_width=head_width)


@cache
def first_network() -> DiffusionNetwork:
    return network(unet_weights())


def second_weights() -> dict[str, Tensor]:
    """The derived second network: biases negated, 3x3 kernels mirrored left-right, the last weight x 0.75."""
    derived = {}
    for key, tensor in unet_weights().items():
        if key.endswith(".bias"):
            tensor = -tensor
        elif tensor.shape[2:] == (3, 3):
            tensor = tensor.flip(3)
        derived[key] = tensor * 0.75 if key == "out.2.weight" else tensor
    return derived


def evaluate(net: DiffusionNetwork, case: dict[str, Any]) -> Tensor:
    x, timesteps, context, y = (unet_io()[f"{case['id']}/{part}"] for part in ("x", "timesteps", "context", "y"))
    if case["adm_scaler_end"] is not None:
        y = select_timed_adm(y, timesteps, case["adm_scaler_end"], net.adm_width)
    return net(x, timesteps, context, y)


@pytest.mark.parametrize("case", UNET["cases"], ids=lambda case: case["id"])
def test_unet(case: dict[str, Any]) -> None:
    close(evaluate(first_network(), case), unet_io()[f"{case['id']}/output"])


SECOND = [case for case in UNET["cases"] if f"{case['id']}/output_second_unet" in unet_io()]


@pytest.mark.parametrize("case", SECOND, ids=lambda case: case["id"])
def test_second_unet(case: dict[str, Any]) -> None:
    close(evaluate(network(second_weights()), case), unet_io()[f"{case['id']}/output_second_unet"])


@contextmanager
def recorded_outputs(net: DiffusionNetwork) -> Iterator[dict[str, Tensor]]:
    """Collects the output of the last part of every block, under the block's ldm name."""
    outputs: dict[str, Tensor] = {}
    parts: dict[str, nn.Module] = dict(net.unet.named_modules())
    last = {}
    for ldm_name, name in unet_names(net.shape).items():
        if not ldm_name.startswith(("time", "label", "out.")):
            last[ldm_name.rpartition(".")[0]] = parts[name]

    def keep(block: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[block] = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)

        return hook

    handles = [part.register_forward_hook(keep(block)) for block, part in last.items()]
    yield outputs
    for handle in handles:
        handle.remove()


def test_unet_block_by_block() -> None:
    probed = UNET["block_probes"]
    case = next(case for case in UNET["cases"] if case["id"] == probed["case"])
    with recorded_outputs(first_network()) as outputs:
        evaluate(first_network(), case)
    for probe in probed["probes"]:
        output = outputs[probe["block"]]
        assert list(output.shape) == probe["shape"], probe["block"]
        assert output.mean().item() == pytest.approx(probe["mean"], abs=TOLERANCE), probe["block"]
        assert output.std().item() == pytest.approx(probe["std"], abs=TOLERANCE), probe["block"]
        close(output.flatten()[torch.tensor(probe["at_index"])], torch.tensor(probe["values"]))
