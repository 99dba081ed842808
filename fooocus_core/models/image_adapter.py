"""IP-Adapter files: what makes tokens of a picture, and keys and values of tokens (specification 06, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from fooocus_core.adapters.image_prompt import projected, resampled
from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.clip_vision import ClipVisionEncoder
from fooocus_core.sampling.network import KeysValues

PROJECTION, ATTENTION = "image_proj", "ip_adapter"
NEGATIVE_KEY = "data"
_KEYS, _VALUES = ".to_k_ip.weight", ".to_v_ip.weight"
_META = torch.device("meta")


@dataclass(frozen=True)
class ImageAdapter:
    """One adapter file.

    ``projection``: the network that makes tokens, on its device and in its dtype. ``layers``: the projections to keys
    and to values of every cross-attention, each ``[channels, token width]``, as the file stores them: they are three
    quarters of it, and are needed one by one for a moment.
    """

    name: str
    projection: Mapping[str, Tensor]
    layers: Sequence[tuple[Tensor, Tensor]]

    @property
    def is_plus(self) -> bool:
        """Whether it looks at every patch of a picture, and not at one vector of the whole."""
        return "latents" in self.projection

    @property
    def image_width(self) -> int:
        """The width of the image features it takes."""
        return self.projection["proj_in.weight" if self.is_plus else "proj.weight"].shape[1]

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of every layer."""
        return tuple(len(to_keys) for to_keys, _ in self.layers)

    @torch.no_grad()
    def tokens(self, features: Tensor) -> Tensor:
        """``[1, tokens, token width]`` of ``[1, patches, image width]``; without patches where it is not plus."""
        make = resampled if self.is_plus else projected
        return make(self.projection, features.to(next(iter(self.projection.values()))))

    @torch.no_grad()
    def keys_values(self, tokens: Tensor) -> tuple[KeysValues, ...]:
        """Every layer's, each ``[1, tokens, channels]``."""
        return tuple(KeysValues(*(linear(tokens, weight.to(tokens)) for weight in pair)) for pair in self.layers)


def load_image_adapter(content: Any, name: str, *, device: torch.device, dtype: torch.dtype) -> ImageAdapter:
    """An adapter from what its file holds: two dictionaries, or one with the keys of both behind their names.

    ``name`` is the file's. Raises ``UnsupportedModel`` for any other content.
    """
    projection = {key: tensor.to(device, dtype) for key, tensor in _part(content, PROJECTION, name).items()}
    adapter = ImageAdapter(name, projection, _layers(_part(content, ATTENTION, name), name))
    _require_sound(adapter)
    return adapter


def _part(content: Any, part: str, name: str) -> dict[str, Tensor]:
    entries = content if isinstance(content, Mapping) else {}
    nested = entries.get(part)
    if not isinstance(nested, Mapping):
        prefix = f"{part}."
        nested = {key[len(prefix) :]: value for key, value in entries.items() if str(key).startswith(prefix)}
    tensors = {str(key): value for key, value in nested.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UnsupportedModel(name, f"this is no IP-Adapter: it has no {part}")
    return tensors


def _layers(tensors: Mapping[str, Tensor], name: str) -> list[tuple[Tensor, Tensor]]:
    """The pairs by their numbers, which are every other one: plain self-attention takes the rest."""
    try:
        numbers = sorted(int(key.removesuffix(_KEYS)) for key in tensors if key.endswith(_KEYS))
        pairs = [(tensors[f"{number}{_KEYS}"], tensors[f"{number}{_VALUES}"]) for number in numbers]
    except (KeyError, ValueError) as error:
        raise UnsupportedModel(name, f"its {ATTENTION} is incomplete ({error})") from error
    return pairs


def _require_sound(adapter: ImageAdapter) -> None:
    """Its parts must fit each other: it is run without numbers."""
    projection = {key: tensor.to(_META) for key, tensor in adapter.projection.items()}
    layers = [(keys.to(_META), values.to(_META)) for keys, values in adapter.layers]
    try:
        features = torch.empty((1, 2, adapter.image_width) if adapter.is_plus else (1, adapter.image_width))
        empty = ImageAdapter(adapter.name, projection, layers)
        found = empty.keys_values(empty.tokens(features))
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise UnsupportedModel(adapter.name, f"the parts of this IP-Adapter do not fit each other ({error})") from error
    if not found or any(keys.shape != values.shape for keys, values in found):
        raise UnsupportedModel(adapter.name, "an IP-Adapter without layers, or with keys unlike its values")


def require_fitting(adapter: ImageAdapter, encoder: ClipVisionEncoder, encoder_name: str) -> None:
    """Raises ``UnsupportedModel`` for an adapter that was made for another image encoder."""
    width = encoder.shape.width if adapter.is_plus else encoder.projected_width
    if adapter.image_width != width:
        raise UnsupportedModel(
            adapter.name, f"it reads image features {adapter.image_width} wide, {encoder_name} gives {width}"
        )


def negative_tokens(file: Mapping[str, Tensor], name: str, adapter: ImageAdapter) -> Tensor:
    """What stands on the negative side in place of a picture, ``[1, tokens, token width]``.

    For a *plus* adapter the tensor of the file ``name``; for a plain one, which has fewer tokens, those of no picture
    at all, as its authors have it. Raises ``UnsupportedModel`` for a file that holds no such tensor.
    """
    nothing = next(iter(adapter.projection.values())).new_zeros(1, adapter.image_width)
    if not adapter.is_plus:
        return adapter.tokens(nothing)
    count, width = adapter.projection["latents"].shape[1], adapter.layers[0][0].shape[1]
    tokens = file.get(NEGATIVE_KEY)
    if tokens is None or tokens.numel() != count * width or tokens.shape[-1] != width:
        raise UnsupportedModel(name, f"it holds no negative of {count} tokens {width} wide for {adapter.name}")
    return tokens.to(nothing).reshape(1, count, width)
