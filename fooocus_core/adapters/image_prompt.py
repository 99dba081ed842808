"""IP-Adapter: pictures as further tokens of every cross-attention (specification 06, section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.plan import ImagePromptWeighting
from fooocus_core.sampling.network import NetworkCall

if TYPE_CHECKING:
    from fooocus_core.models.unet import DiffusionNetwork, UNetShape

CLIP_PX = 224
"""The side of the pictures that the image encoder looks at."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
FULL_WEIGHT_CHANNELS = 1280
"""A layer of so many channels takes an image at its weight, a narrower one at less."""


# --- from a picture to tokens -------------------------------------------------------------------------------------


def clip_pixels(pixels: Tensor) -> Tensor:
    """Pixels ``[1, h, w, 3]`` in ``[0, 1]`` as the image encoder wants them, ``[1, 3, h, w]``."""
    mean, deviation = (torch.tensor(values, device=pixels.device) for values in (CLIP_MEAN, CLIP_DEVIATION))
    return ((pixels.float() - mean) / deviation).movedim(-1, 1)


def projected(weights: Mapping[str, Tensor], embedding: Tensor) -> Tensor:
    """Tokens ``[batch, n, width]`` of a plain adapter from image embeddings ``[batch, m]``: linear, then normalised."""
    width = weights["norm.weight"].shape[0]
    tokens = linear(embedding, weights["proj.weight"], weights["proj.bias"]).reshape(len(embedding), -1, width)
    return layer_norm(tokens, (width,), weights["norm.weight"], weights["norm.bias"])


def resampled(weights: Mapping[str, Tensor], features: Tensor, head_width: int = 64) -> Tensor:
    """Tokens ``[batch, n, width]`` of a *plus* adapter from image features ``[batch, patches, m]``."""
    latents = weights["latents"].repeat(len(features), 1, 1)
    features = _linear(weights, "proj_in", features)
    depth = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("layers."))
    for layer in range(depth):
        latents = latents + _attended(weights, f"layers.{layer}.0", features, latents, head_width)
        widened = _linear(weights, f"layers.{layer}.1.1", _normed(weights, f"layers.{layer}.1.0", latents))
        latents = latents + _linear(weights, f"layers.{layer}.1.3", gelu(widened))
    return _normed(weights, "norm_out", _linear(weights, "proj_out", latents))


def _attended(weights: Mapping[str, Tensor], name: str, features: Tensor, latents: Tensor, head_width: int) -> Tensor:
    """The latents look at the image and at themselves."""
    features, latents = _normed(weights, f"{name}.norm1", features), _normed(weights, f"{name}.norm2", latents)
    query = _linear(weights, f"{name}.to_q", latents)
    key, value = _linear(weights, f"{name}.to_kv", torch.cat([features, latents], 1)).chunk(2, -1)
    query, key, value = (_heads(part, part.shape[-1] // head_width) for part in (query, key, value))
    scale = head_width**-0.25  # on either factor: their product would overflow half precision
    weight = (query * scale) @ (key * scale).transpose(-2, -1)
    weight = weight.float().softmax(-1).to(value.dtype)
    return _linear(weights, f"{name}.to_out", (weight @ value).transpose(1, 2).flatten(2))


def _linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _normed(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


# --- the tokens in the network's attention ------------------------------------------------------------------------


class Layer(NamedTuple):
    """One cross-attention, by its place in the file's own layout."""

    place: Literal["input", "output", "middle"]
    block: int
    transformer: int


class KeysValues(NamedTuple):
    """Projected image tokens of one layer, each ``[1, tokens, channels]``."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class ImagePrompt:
    """One picture: its tokens and the negative side's in every layer, by the order of ``attention_layers``.

    ``weight``: 0 ... 2; ``stop``: the share of the run (0 ... 1) after which it is no longer seen.
    """

    positive: Sequence[KeysValues]
    negative: Sequence[KeysValues]
    weight: float
    stop: float


def attention_layers(shape: UNetShape) -> tuple[Layer, ...]:
    """All cross-attentions as an adapter file counts them: input blocks, output blocks, middle."""
    return (*_input_layers(shape), *_output_layers(shape), *_layers("middle", 0, shape.middle_depth or 0))


def _input_layers(shape: UNetShape) -> Iterator[Layer]:
    index = 1
    for depths in shape.down_depths:
        for depth in depths:
            yield from _layers("input", index, depth)
            index += 1
        index += 1  # the downsampler


def _output_layers(shape: UNetShape) -> Iterator[Layer]:
    depths = [depth for level in shape.up_depths for depth in level]
    for index, depth in enumerate(depths):
        yield from _layers("output", index, depth)


def _layers(place: Literal["input", "output", "middle"], block: int, depth: int) -> Iterator[Layer]:
    for transformer in range(depth):
        yield Layer(place, block, transformer)


def injected(
    text: KeysValues, prompts: Sequence[ImagePrompt], layer: int, sides: Sequence[PromptSide], progress: float
) -> KeysValues:
    """The text's keys and values, ``[batch, tokens, channels]``, with those of every image still seen appended.

    ``sides`` says which side each row is. Only the mean of an image's values follows its weight, their spread does not.
    """
    keys, values = [text.keys], [text.values]
    for prompt in prompts:
        if progress < prompt.stop:
            image = _rows(prompt, layer, sides)
            weight = prompt.weight * text.keys.shape[-1] / FULL_WEIGHT_CHANNELS
            mean = image.values.mean(1, keepdim=True)
            keys.append(image.keys.to(text.keys) * weight)
            values.append(((image.values - mean) + mean * weight).to(text.values))
    return KeysValues(torch.cat(keys, 1), torch.cat(values, 1))


def decoupled(
    query: Tensor,
    text: KeysValues,
    prompts: Sequence[ImagePrompt],
    layer: int,
    sides: Sequence[PromptSide],
    progress: float,
    heads: int,
) -> Tensor:
    """As ``attention`` of the text alone, plus that of every image still seen, at its weight.

    Each has a softmax of its own (Ye et al., IP-Adapter, 2023, equation 5). The weight is the same in every layer.
    """
    out = attention(query, text, heads)
    for prompt in prompts:
        if progress < prompt.stop:
            image = KeysValues(*(part.to(query) for part in _rows(prompt, layer, sides)))
            out = out + prompt.weight * attention(query, image, heads)
    return out


def _rows(prompt: ImagePrompt, layer: int, sides: Sequence[PromptSide]) -> KeysValues:
    """An image's keys and values in one layer, a row for each of ``sides``."""
    rows = [(prompt.positive if side == "positive" else prompt.negative)[layer] for side in sides]
    return KeysValues(*(torch.cat(part) for part in zip(*rows, strict=True)))


def attention(query: Tensor, text: KeysValues, heads: int) -> Tensor:
    """Softmax attention of a projected ``query`` ``[batch, n, channels]``, before the output projection."""
    keys, values = _heads(text.keys, heads), _heads(text.values, heads)
    return scaled_dot_product_attention(_heads(query, heads), keys, values).transpose(1, 2).flatten(2)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


class PromptedByImages:
    """A network whose text is joined by pictures; a ``NoisePredictor``. Made by ``image_prompts``."""

    def __init__(
        self, network: DiffusionNetwork, prompts: Sequence[ImagePrompt], weighting: ImagePromptWeighting
    ) -> None:
        self._network = network
        self.prompts = prompts
        self.weighting = weighting
        self.call: NetworkCall | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self._network.dtype

    @property
    def device(self) -> torch.device:
        return self._network.device

    @property
    def adm_width(self) -> int:
        return self._network.adm_width

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        self.call = call
        try:
            return self._network(latents, timesteps, context, adm, call)
        finally:
            self.call = None


@contextmanager
def image_prompts(
    network: DiffusionNetwork, prompts: Sequence[ImagePrompt], weighting: ImagePromptWeighting = "fooocus"
) -> Iterator[PromptedByImages]:
    """The network as it answers with ``prompts`` (image prompts first, faces after them), inside ``with`` only.

    ``network`` itself answers without them all the time.
    """
    prompted = PromptedByImages(network, prompts, weighting)
    before: list[tuple[Any, Any]] = []
    try:
        for index, module in enumerate(_cross_attentions(network)):
            before.append((module, module.processor))
            module.set_processor(_Processor(prompted, index, module.processor))
        yield prompted
    finally:
        for module, processor in before:
            module.set_processor(processor)


def attention_widths(network: DiffusionNetwork) -> tuple[int, ...]:
    """The channels of every layer, by the order of ``attention_layers``."""
    return tuple(module.to_k.weight.shape[0] for module in _cross_attentions(network))


def _cross_attentions(network: DiffusionNetwork) -> Iterator[Any]:
    for place, block, transformer in attention_layers(network.shape):
        part = "middle_block.1" if place == "middle" else f"{place}_blocks.{block}.1"
        name = network.part_names[part]
        yield network.unet.get_submodule(f"{name}.transformer_blocks.{transformer}.attn2")


class _Processor:
    """What diffusers calls in place of its own attention, for one layer. ``before``: what it calls otherwise."""

    def __init__(self, prompted: PromptedByImages, layer: int, before: Any) -> None:
        self._prompted = prompted
        self._layer = layer
        self._before = before

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        prompted, call = self._prompted, self._prompted.call
        if call is None or encoder_hidden_states is None:
            plain: Tensor = self._before(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return plain
        query = attn.to_q(hidden_states)
        text = KeysValues(attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        seen = (prompted.prompts, self._layer, call.sides, call.progress)
        if prompted.weighting == "standard":
            mixed = decoupled(query, text, *seen, attn.heads)
        else:
            mixed = attention(query, injected(text, *seen), attn.heads)
        out: Tensor = attn.to_out[0](mixed)
        return out
