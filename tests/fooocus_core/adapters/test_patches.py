"""What is put on a network is there in its own calls alone, and neutral settings change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.adapters.adapted import Adaptations, AdaptedNetwork
from fooocus_core.adapters.control import ControlChain, ControlUnit, build_control, fitted_hint
from fooocus_core.adapters.image_prompt import ImagePrompt, attention_layers
from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import UNET_PREFIX
from fooocus_core.models.unet import DiffusionNetwork, load_unet
from fooocus_core.plan import FreeU
from fooocus_core.sampling.network import KeysValues, NetworkCall
from fooocus_core.sampling.prediction import sdxl_levels
from tests.fooocus_core.models.tiny import ADM, CHANNELS, CONTEXT, tiny_checkpoint

CALL = NetworkCall(("negative", "positive"), progress=0.2)
GENERATOR = torch.Generator().manual_seed(3)
INPUTS = (
    torch.randn(2, 4, 8, 10, generator=GENERATOR),
    torch.tensor([500.0, 500.0]),
    torch.randn(2, 77, CONTEXT, generator=GENERATOR),
    torch.randn(2, ADM, generator=GENERATOR),
)


@pytest.fixture(scope="module")
def network() -> DiffusionNetwork:
    weights = {k.removeprefix(UNET_PREFIX): t for k, t in tiny_checkpoint().items() if k.startswith(UNET_PREFIX)}
    return load_unet(weights, "tiny", device=torch.device("cpu"), dtype=torch.float32)


def prompts(network: DiffusionNetwork, weight: float = 1.0, stop: float = 0.5) -> list[ImagePrompt]:
    width = CHANNELS[1]  # all of its attention is there
    layers = [KeysValues(*torch.randn(2, 1, 4, width)) for _ in attention_layers(network.shape)]
    return [ImagePrompt(layers, layers, weight, stop)]


ADAPTATIONS = {
    "freeu": lambda network: Adaptations(freeu=FreeU(1.3, 1.4, 0.9, 0.2)),
    "head": lambda network: Adaptations(head_feature=torch.randn(1, CHANNELS[0], 8, 10)),
    "images": lambda network: Adaptations(prompts=prompts(network)),
}


@pytest.mark.parametrize("kind", ADAPTATIONS)
def test_the_network_beneath_stays_as_it_is(network: DiffusionNetwork, kind: str) -> None:
    """A refiner may be the same network, asked between two calls under adaptations."""
    before = network(*INPUTS)
    adapted = AdaptedNetwork(network, ADAPTATIONS[kind](network))
    during = adapted(*INPUTS, CALL)
    assert not torch.allclose(during, before)
    assert torch.equal(network(*INPUTS), before)
    assert torch.equal(adapted(*INPUTS, CALL), during)


def test_neutral_freeu_changes_nothing(network: DiffusionNetwork) -> None:
    adapted = AdaptedNetwork(network, Adaptations(freeu=FreeU(1.0, 1.0, 1.0, 1.0)))
    assert torch.equal(adapted(*INPUTS, CALL), network(*INPUTS))


def test_an_image_past_its_stop_is_not_seen(network: DiffusionNetwork) -> None:
    prompted = AdaptedNetwork(network, Adaptations(prompts=prompts(network, stop=0.2)))
    torch.testing.assert_close(prompted(*INPUTS, CALL), network(*INPUTS))
    assert not torch.allclose(prompted(*INPUTS, replace(CALL, progress=0.1)), network(*INPUTS))
    assert (prompted.dtype, prompted.device, prompted.adm_width) == (network.dtype, network.device, ADM)


def test_files_that_are_no_control_network(network: DiffusionNetwork) -> None:
    hint = "input_hint_block.0.weight"
    for file in ({"lora_unet_x": torch.zeros(1)}, {hint: torch.zeros(16, 4, 3, 3)}, {hint: torch.zeros(16)}):
        with pytest.raises(UnsupportedModel, match=r"some\.safetensors: this is no ControlNet-LoRA"):
            build_control(file, "some.safetensors", network)


@pytest.mark.parametrize("pair", [{"up": (7, 2), "down": (2, 9)}, {"up": (128, 2)}, {"up": (128,), "down": (2, 32)}])
def test_control_networks_of_another_shape(network: DiffusionNetwork, pair: dict[str, tuple[int, ...]]) -> None:
    misfit = {f"time_embed.0.{part}": torch.zeros(shape) for part, shape in pair.items()}
    with pytest.raises(UnsupportedModel, match=r"some\.safetensors.*time_embed\.0"):
        build_control({"input_hint_block.0.weight": torch.zeros(16, 3, 3, 3), **misfit}, "some.safetensors", network)


def test_a_unit_without_strength_is_not_asked() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("asked")

    unit = ControlUnit(never, torch.zeros(1, 3, 64, 80), strength=0.0, stop=1.0)  # type: ignore[arg-type]
    assert ControlChain([unit], 0.25, sdxl_levels()).residuals(*INPUTS, 5.0, CALL.sides) is None


@pytest.mark.parametrize("size", [(64, 80), (100, 80), (64, 300), (33, 47)])
def test_a_hint_of_any_size_is_fitted(size: tuple[int, int]) -> None:
    hint: Tensor = torch.rand(1, 3, *size)
    assert fitted_hint(hint, 64, 80).shape == (1, 3, 64, 80)
    if size == (64, 80):
        assert fitted_hint(hint, 64, 80) is hint
