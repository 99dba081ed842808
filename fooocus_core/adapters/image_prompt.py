"""IP-Adapter: pictures as further tokens of every cross-attention (specification 06, section 4)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.plan import ImagePromptWeighting
from fooocus_core.sampling.network import Attended, KeysValues

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


@dataclass(frozen=True)
class ImagePrompt:
    """One picture: its tokens ``[1, tokens, channels]`` and the negative side's, in the order of ``attention_layers``.

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
    text: KeysValues, prompts: Sequence[ImagePrompt], layer: int, sides: Sequence[PromptSide], progress: float
) -> Sequence[Attended]:
    """The text, and every image still seen at its weight, each with a softmax of its own.

    Ye et al., IP-Adapter, 2023, equation 5. The weight is the same in every layer.
    """
    images = [
        Attended(prompt.weight, KeysValues(*(part.to(text.keys) for part in _rows(prompt, layer, sides))))
        for prompt in prompts
        if progress < prompt.stop
    ]
    return [Attended(1.0, text), *images]


def _rows(prompt: ImagePrompt, layer: int, sides: Sequence[PromptSide]) -> KeysValues:
    """An image's keys and values in one layer, a row for each of ``sides``."""
    rows = [(prompt.positive if side == "positive" else prompt.negative)[layer] for side in sides]
    return KeysValues(*(torch.cat(part) for part in zip(*rows, strict=True)))


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


@dataclass(frozen=True)
class PicturesBeside:
    """The image prompts of one call; a ``SeenPictures``. ``sides``: which side of the guidance each row is.

    ``order``: of every layer in the order in which a call comes by, its number among ``attention_layers``.
    """

    prompts: Sequence[ImagePrompt]
    weighting: ImagePromptWeighting
    sides: Sequence[PromptSide]
    progress: float
    order: Sequence[int]

    @property
    def key(self) -> Hashable:
        seen = tuple(id(prompt) for prompt in self.prompts if self.progress < prompt.stop)
        return seen, self.weighting, tuple(self.sides)

    def beside(self, layer: int, text: KeysValues) -> Sequence[Attended]:
        seen = (self.prompts, self.order[layer], self.sides, self.progress)
        return decoupled(text, *seen) if self.weighting == "standard" else [Attended(1.0, injected(text, *seen))]


def pass_order(shape: UNetShape) -> tuple[int, ...]:
    """The numbers of ``attention_layers`` in the order in which a call comes by: the middle lies between the halves."""
    layers = attention_layers(shape)
    return tuple(
        number for place in ("input", "middle", "output") for number, layer in enumerate(layers) if layer.place == place
    )


def attention_widths(network: DiffusionNetwork) -> tuple[int, ...]:
    """The channels of every layer, by the order of ``attention_layers``."""
    return tuple(module.to_k.weight.shape[0] for module in _cross_attentions(network))


def _cross_attentions(network: DiffusionNetwork) -> Iterator[Any]:
    for place, block, transformer in attention_layers(network.shape):
        part = "middle_block.1" if place == "middle" else f"{place}_blocks.{block}.1"
        name = network.part_names[part]
        yield network.unet.get_submodule(f"{name}.transformer_blocks.{transformer}.attn2")
