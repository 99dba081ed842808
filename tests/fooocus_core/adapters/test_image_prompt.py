"""Both ways in which image prompts enter the attention."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fooocus_core.adapters.adapted import Adaptations, AdaptedNetwork
from fooocus_core.adapters.image_prompt import ImagePrompt, attention_layers, decoupled
from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.models.checkpoint import UNET_PREFIX
from fooocus_core.models.forward_pass import all_in_heads, attended, in_heads
from fooocus_core.models.unet import DiffusionNetwork, load_unet
from fooocus_core.plan import ImagePromptWeighting
from fooocus_core.sampling.network import KeysValues, NetworkCall
from tests.fooocus_core.models.tiny import ADM, CHANNELS, CONTEXT, tiny_checkpoint

SIDES: tuple[PromptSide, ...] = ("negative", "positive")
HEADS, WIDTH = 2, 6


def tokens(count: int, seed: int, width: int = WIDTH) -> KeysValues:
    generator = torch.Generator().manual_seed(seed)
    return KeysValues(*torch.randn(2, 1, count, width, generator=generator))


def paper_attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One row, head by head: softmax(Q K' / sqrt(d)) V."""
    width = WIDTH // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        scores = query[:, part] @ keys[:, part].T / math.sqrt(width)
        heads.append(scores.softmax(-1) @ values[:, part])
    return torch.cat(heads, 1)


def test_standard_weighting_is_the_papers() -> None:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, 5, WIDTH, generator=generator)
    text = KeysValues(*torch.randn(2, 2, 7, WIDTH, generator=generator))
    first = ImagePrompt([tokens(4, 2)], [tokens(4, 3)], weight=0.6, stop=0.5)
    second = ImagePrompt([tokens(3, 4)], [tokens(3, 5)], weight=1.5, stop=0.9)
    over = ImagePrompt([tokens(3, 6)], [tokens(3, 7)], weight=2.0, stop=0.4)
    known = decoupled(text, [first, second, over], 0, SIDES, 0.4)
    out = attended(in_heads(query, HEADS), all_in_heads(known, HEADS))
    for row, side in enumerate(SIDES):
        expected = paper_attention(query[row], text.keys[row], text.values[row])
        for prompt in (first, second):
            image = getattr(prompt, side)[0]
            expected = expected + prompt.weight * paper_attention(query[row], image.keys[0], image.values[0])
        torch.testing.assert_close(out[row], expected)


@pytest.fixture(scope="module")
def network() -> DiffusionNetwork:
    weights = {k.removeprefix(UNET_PREFIX): t for k, t in tiny_checkpoint().items() if k.startswith(UNET_PREFIX)}
    return load_unet(weights, "tiny", device=torch.device("cpu"), dtype=torch.float32)


def answer(network: DiffusionNetwork, weight: float, weighting: ImagePromptWeighting) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    inputs = (
        torch.randn(2, 4, 8, 10, generator=generator),
        torch.tensor([500.0, 500.0]),
        torch.randn(2, 77, CONTEXT, generator=generator),
        torch.randn(2, ADM, generator=generator),
    )
    layers = [tokens(4, number, CHANNELS[1]) for number in range(len(attention_layers(network.shape)))]
    if weight < 0:
        return network(*inputs)
    asked = Adaptations(prompts=[ImagePrompt(layers, layers, weight, stop=0.5)], weighting=weighting)
    return AdaptedNetwork(network, asked)(*inputs, NetworkCall(SIDES, progress=0.2))


def test_without_weight_only_standard_prompts_are_off(network: DiffusionNetwork) -> None:
    """Fooocus's keys of zero and values without their mean still take part in the softmax."""
    plain = answer(network, -1.0, "standard")
    torch.testing.assert_close(answer(network, 0.0, "standard"), plain)
    assert not torch.allclose(answer(network, 0.0, "fooocus"), plain)


@pytest.mark.parametrize("weighting", ["fooocus", "standard"])
def test_the_weight_counts(network: DiffusionNetwork, weighting: ImagePromptWeighting) -> None:
    some, more = answer(network, 0.5, weighting), answer(network, 1.0, weighting)
    assert some.isfinite().all()
    assert not torch.allclose(some, more)
    assert torch.equal(some, answer(network, 0.5, weighting))


def test_the_two_weightings_differ(network: DiffusionNetwork) -> None:
    assert not torch.allclose(answer(network, 1.0, "fooocus"), answer(network, 1.0, "standard"))
