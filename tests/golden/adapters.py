"""Image prompts, control networks and the interposer as golden families D, E and G describe them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from fooocus_core.adapters.control import ControlChain, ControlNetwork, ControlUnit, build_control
from fooocus_core.adapters.image_prompt import ImagePrompt, KeysValues
from fooocus_core.models.interposer import Interposer, load_interposer
from fooocus_core.sampling.prediction import sdxl_levels
from tests.golden.networks import CPU, first_network
from tests.golden.vectors import golden_json, golden_tensors


@cache
def control_tensors() -> dict[str, Tensor]:
    return golden_tensors("G_adapters/control.safetensors")


@cache
def index() -> dict[str, Any]:
    return dict(golden_json("G_adapters/cases.json"))


@cache
def control_network(weights: str) -> ControlNetwork:
    """``second``: every ``.up`` negated, every zero convolution's weight halved."""
    file = {key.removeprefix("weights/"): t for key, t in control_tensors().items() if key.startswith("weights/")}
    if weights == "second":
        file = {key: _second(key, tensor) for key, tensor in file.items()}
    return build_control(file, "control.safetensors", first_network())


def _second(key: str, tensor: Tensor) -> Tensor:
    if key.endswith(".up"):
        return -tensor
    is_zero_convolution = key.startswith(("zero_convs", "middle_block_out")) and key.endswith(".weight")
    return tensor / 2 if is_zero_convolution else tensor


def control_unit(unit: dict[str, Any]) -> ControlUnit:
    hint = control_tensors()["io/hint"]
    hint = hint.flip(3) if unit["hint"] == "mirrored" else hint
    start, stop = unit["start_end"]
    return ControlUnit(control_network(unit["weights"]), hint, unit["strength"], stop, start)


def control_chain(case: dict[str, Any]) -> ControlChain | None:
    units = case.get("control") or []
    return ControlChain([control_unit(unit) for unit in units], case["softness"], sdxl_levels()) if units else None


def prompts_of(tasks: list[dict[str, Any]]) -> list[ImagePrompt]:
    return [
        ImagePrompt(_layers(task["image"]), _layers(f"{task['adapter']}_negative"), task["weight"], task["stop"])
        for task in tasks
    ]


def _layers(image: str) -> list[KeysValues]:
    """Every layer's share of what is stored joined along the channels."""
    widths = [channels for *_, channels in index()["ip_layers"]]
    keys, values = (control_tensors()[f"ip/{image}/{part}"].split(widths, -1) for part in ("k", "v"))
    return [KeysValues(*pair) for pair in zip(keys, values, strict=True)]


@cache
def translator() -> Interposer:
    stored = golden_tensors("D_models/interposer.safetensors")
    weights = {key.removeprefix("weights/"): t for key, t in stored.items() if key.startswith("weights/")}
    return load_interposer(weights, "interposer.safetensors", device=CPU, dtype=torch.float32)
