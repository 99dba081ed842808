"""The networks of golden family D as the loaders make them, for every family that runs them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from fooocus_core.models.unet import DiffusionNetwork, load_unet
from tests.golden.vectors import golden_json, golden_tensors

CPU = torch.device("cpu")
UNET_PREFIX = "model.diffusion_model."


@cache
def unet_weights() -> dict[str, Tensor]:
    return {key.removeprefix(UNET_PREFIX): t for key, t in golden_tensors("D_models/unet.safetensors").items()}


def network(weights: dict[str, Tensor]) -> DiffusionNetwork:
    head_width = golden_json("D_models/unet.json")["ldm_config"]["num_head_channels"]
    return load_unet(weights, "unet.safetensors", device=CPU, dtype=torch.float32, head_width=head_width)


@cache
def first_network() -> DiffusionNetwork:
    return network(unet_weights())


@cache
def second_network() -> DiffusionNetwork:
    return network(second_weights())


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
