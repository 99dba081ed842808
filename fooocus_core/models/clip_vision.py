"""CLIP's image encoder, which image prompts are read with (specification 06, section 4).

Weights stay as the file stores them where that is the CPU, and are raised to the dtype of the arithmetic layer by
layer: a mapped file is never copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from transformers import CLIPVisionConfig, CLIPVisionModel

from fooocus_core.adapters.image_prompt import CLIP_PX
from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import Checkpoint, assign_weights
from fooocus_core.models.text_encoders import Activation, open_clip_renamed, run_in

HEADS = 16
"""Of the attention in every CLIP image encoder of this size (ViT-L, H, bigG); not visible in the weights."""
OPEN_CLIP_PREFIX = "visual."
TRANSFORMERS_PREFIX = "vision_model."
PROJECTION = "visual_projection.weight"
_OPEN_CLIP_ROOTS = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}


@dataclass(frozen=True)
class VisionShape:
    """An encoder's sizes, read off its weights. ``positions`` are those of the patches and one more."""

    width: int
    inner_width: int
    layers: int
    patch_px: int
    positions: int


class ClipVisionEncoder:
    """Pictures are ``[batch, 3, 224, 224]``, normalised as CLIP wants them.

    ``projection``: ``[width, projected width]``. ``dtype`` is that of the arithmetic and of what is returned.
    """

    def __init__(self, model: nn.Module, projection: Tensor, shape: VisionShape, dtype: torch.dtype) -> None:
        self.model = model
        self.projection = projection
        self.shape = shape
        self.dtype = dtype

    @property
    def projected_width(self) -> int:
        return self.projection.shape[1]

    @property
    def device(self) -> torch.device:
        return self.projection.device

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """What the layer before the last gives, ``[batch, positions, width]``."""
        return self._hidden(pixels, self.shape.layers - 1)

    @torch.no_grad()
    def embedding(self, pixels: Tensor) -> Tensor:
        """The whole picture as one vector, ``[batch, projected width]``."""
        whole = self._hidden(pixels, self.shape.layers)[:, 0]
        return self._run("post_layernorm", whole) @ self.projection.to(self.dtype)

    def _hidden(self, pixels: Tensor, layers: int) -> Tensor:
        """The raw output of so many layers."""
        hidden = self._run("pre_layrnorm", self._embedded(pixels.to(self.device, self.dtype)))
        for index in range(layers):
            hidden = self._run(f"encoder.layers.{index}", hidden, None)
        return hidden

    def _embedded(self, pixels: Tensor) -> Tensor:
        """The patches behind the token of the whole picture, each with its place."""
        patches = conv2d(pixels, self._weight("patch_embedding.weight"), stride=self.shape.patch_px)
        whole = self._weight("class_embedding").expand(len(pixels), 1, -1)
        places = self._weight("position_embedding.weight")
        return torch.cat([whole, patches.flatten(2).transpose(1, 2)], 1) + places

    def _weight(self, name: str) -> Tensor:
        return self.model.get_parameter(f"embeddings.{name}").to(self.dtype)

    def _run(self, name: str, *inputs: Tensor | None) -> Tensor:
        return run_in(self.dtype, self.model.get_submodule(name), *inputs)


def load_clip_vision(
    file: Checkpoint, *, device: torch.device, dtype: torch.dtype, activation: Activation = "gelu"
) -> ClipVisionEncoder:
    """The image encoder of a file in open_clip's names, whose text tower is left alone, or in transformers'.

    ``activation`` is not visible in the weights: OpenAI's own encoders have ``quick_gelu``. Raises
    ``UnsupportedModel`` for any other file, and if a weight is missing or misshapen.
    """
    weights = _transformers_names(file)
    shape = _shape(weights, file.name)
    projection = weights.pop(PROJECTION, None)
    if projection is None or projection.ndim != 2 or projection.shape[1] != shape.width:
        raise UnsupportedModel(file.name, "its image encoder has no projection of its own width")
    stored = weights["embeddings.patch_embedding.weight"].dtype if device.type == "cpu" else dtype
    model = _built(shape, activation, file.name)
    assign_weights(model, weights, file.name, device=device, dtype=stored, skipped=("embeddings.position_ids",))
    return ClipVisionEncoder(model, projection.t().to(device, stored), shape, dtype)


def _transformers_names(file: Checkpoint) -> dict[str, Tensor]:
    if file.holds(TRANSFORMERS_PREFIX):
        projection = {key: tensor for key, tensor in file.tensors.items() if key == PROJECTION}
        return {**file.under(TRANSFORMERS_PREFIX), **projection}
    weights = file.under(OPEN_CLIP_PREFIX)
    renamed = open_clip_renamed({_OPEN_CLIP_ROOTS.get(key, key): tensor for key, tensor in weights.items()})
    if "proj" in renamed and renamed["proj"].ndim == 2:
        renamed[PROJECTION] = renamed.pop("proj").t()
    return renamed


def _shape(weights: Mapping[str, Tensor], name: str) -> VisionShape:
    try:
        width, _, patch_px, _ = weights["embeddings.patch_embedding.weight"].shape
        return VisionShape(
            width=width,
            inner_width=weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
            layers=1 + max(int(key.split(".")[2]) for key in weights if key.startswith("encoder.layers.")),
            patch_px=patch_px,
            positions=weights["embeddings.position_embedding.weight"].shape[0],
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UnsupportedModel(name, f"this is no CLIP image encoder ({error})") from error


def _built(shape: VisionShape, activation: Activation, name: str) -> nn.Module:
    if shape.width % HEADS:
        raise UnsupportedModel(name, f"an image encoder {shape.width} wide does not divide into {HEADS} heads")
    if shape.patch_px**2 * (shape.positions - 1) != CLIP_PX**2:
        raise UnsupportedModel(name, f"an image encoder for pictures of another size than {CLIP_PX} pixels")
    config = CLIPVisionConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=HEADS,
        image_size=CLIP_PX,
        patch_size=shape.patch_px,
        hidden_act=activation,
        layer_norm_eps=1e-5,
    )
    with torch.device("meta"):
        return cast(nn.Module, CLIPVisionModel(config))
