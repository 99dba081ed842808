"""SDXL's two CLIP text encoders, built from a checkpoint's tensors (specification 02, sections 1 and 4).

Weights are held in float16, as the reference holds them on every device, and raised to float32 layer by layer for the
arithmetic. A float16 file on a CPU thus stays mapped and is never copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CLIPTextConfig, CLIPTextModel

from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import assign_weights

HEAD_WIDTH = 64
Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class TextShape:
    """An encoder's sizes, read off its weights."""

    vocabulary: int
    width: int
    inner_width: int
    layers: int
    positions: int


@dataclass(frozen=True)
class EncodedTokens:
    """``hidden``: ``[rows, 77, width]`` of the chosen layer; ``pooled``: ``[rows, projection width]`` or ``None``."""

    hidden: Tensor
    pooled: Tensor | None


class ClipTextEncoder:
    """One encoder. ``projection`` is used as ``pooled @ projection``; L has none.

    ``originals`` are the file's tensors under the names of the model's parameters; bigG's ``text_projection`` is a
    parameter among them, so that it can be patched like any other. ``weights_version`` tells one state of the weights
    from another: whoever changes them says so by ``weights_changed``.
    """

    def __init__(self, model: nn.Module, shape: TextShape, originals: Mapping[str, Tensor]) -> None:
        self.model = model
        self.shape = shape
        self.originals = originals
        self.weights_version = 0

    def weights_changed(self) -> None:
        """What was encoded before no longer holds."""
        self.weights_version += 1

    @property
    def projection(self) -> Tensor | None:
        return dict(self.model.named_parameters(recurse=False)).get("text_projection")

    @property
    def width(self) -> int:
        return self.shape.width

    @property
    def pooled_width(self) -> int:
        """Width of the pooled vector; 0 for an encoder without projection."""
        return 0 if self.projection is None else self.projection.shape[1]

    @property
    def device(self) -> torch.device:
        return self._token_table.device

    @property
    def _token_table(self) -> Tensor:
        return cast(Tensor, self.model.get_parameter("embeddings.token_embedding.weight"))

    @torch.no_grad()
    def embed(self, ids: Tensor) -> Tensor:
        """Token ids ``[...]`` to their vectors ``[..., width]``, float32."""
        return self._token_table[ids.to(self.device)].float()

    @torch.no_grad()
    def encode(self, embedded: Tensor, ends: Tensor, clip_skip: int) -> EncodedTokens:
        """Run the stack over token vectors.

        ``embedded``: ``[rows, 77, width]`` float32. ``ends``: ``[rows]``, where each row's first end mark is; pooling
        happens there. ``clip_skip`` 1 picks the raw output of the last layer, 2 the one before it, and so on; beyond
        the number of layers the last output with the final norm is taken.
        """
        positions = self.model.get_parameter("embeddings.position_embedding.weight").float()
        hidden = embedded.to(self.device) + positions[: embedded.shape[1]]
        states = [hidden]
        mask = _causal_mask(embedded.shape[1], self.device)
        for layer in cast(nn.ModuleList, self.model.get_submodule("encoder.layers")):
            hidden = _in_float32(layer, hidden, mask)
            states.append(hidden)
        normed = _in_float32(self.model.get_submodule("final_layer_norm"), hidden)
        chosen = normed if clip_skip > self.shape.layers else states[-clip_skip]
        return EncodedTokens(chosen, self._pooled(normed, ends))

    @torch.no_grad()
    def normed(self, hidden: Tensor) -> Tensor:
        """Hidden states ``[..., width]`` through the stack's final layer norm, float32."""
        return _in_float32(self.model.get_submodule("final_layer_norm"), hidden.to(self.device).float())

    def _pooled(self, normed: Tensor, ends: Tensor) -> Tensor | None:
        projection = self.projection
        if projection is None:
            return None
        rows = torch.arange(len(normed), device=normed.device)
        return normed[rows, ends.to(normed.device)] @ projection.float()


def _in_float32(module: nn.Module, hidden: Tensor, *others: Tensor) -> Tensor:
    return run_in(torch.float32, module, hidden, *others)


def run_in(dtype: torch.dtype, module: nn.Module, *inputs: Tensor | None) -> Tensor:
    """Call a module with its weights brought to ``dtype`` for this call only."""
    raised = {key: weight.to(dtype) for key, weight in module.named_parameters()}
    return cast(Tensor, functional_call(module, raised, inputs))


def _causal_mask(length: int, device: torch.device) -> Tensor:
    """Additive: ``-inf`` where a token would look ahead, ``[1, 1, length, length]``."""
    return torch.full((length, length), -torch.inf, device=device).triu(1)[None, None]


def load_text_l(
    weights: Mapping[str, Tensor],
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float16,
    head_width: int = HEAD_WIDTH,
) -> ClipTextEncoder:
    """CLIP-L from its tensors in transformers' names (``embeddings.…``, ``encoder.layers.…``).

    Raises ``UnsupportedModel`` if a weight is missing or misshapen.
    """
    shape = text_shape(weights, name)
    model = _built(shape, "quick_gelu", name, head_width)
    unused = ("embeddings.position_ids",)
    assign_weights(model, weights, name, device=device, dtype=dtype, skipped=unused)
    return ClipTextEncoder(model, shape, weights)


def load_text_g(
    weights: Mapping[str, Tensor],
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float16,
    head_width: int = HEAD_WIDTH,
) -> ClipTextEncoder:
    """OpenCLIP's text tower from its tensors in open_clip's names. Raises ``UnsupportedModel`` as ``load_text_l``."""
    if "text_projection" not in weights:
        raise UnsupportedModel(name, "the second text encoder's text_projection is missing")
    renamed = open_clip_renamed(weights)
    shape = text_shape(renamed, name)
    model = _built(shape, "gelu", name, head_width)
    unused = ("text_projection", "logit_scale", "attn_mask")
    assign_weights(model, renamed, name, device=device, dtype=dtype, skipped=unused)
    projection = nn.Parameter(renamed["text_projection"].to(device=device, dtype=dtype), requires_grad=False)
    model.register_parameter("text_projection", projection)
    return ClipTextEncoder(model, shape, renamed)


# --- names and sizes ----------------------------------------------------------------------------------------------

_OPEN_CLIP_ROOTS = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_BLOCKS = "transformer.resblocks."


def open_clip_renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's names to transformers'; the joint input projection becomes three views of itself."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        index, _, part = key.removeprefix(_BLOCKS).partition(".")
        if not key.startswith(_BLOCKS):
            renamed[_OPEN_CLIP_ROOTS.get(key, key)] = tensor
        elif part.startswith("attn.in_proj_") and tensor.ndim:
            leaf = part.removeprefix("attn.in_proj_")
            for projection, third in zip("qkv", tensor.chunk(3), strict=False):
                renamed[f"encoder.layers.{index}.self_attn.{projection}_proj.{leaf}"] = third
        else:
            inside, _, leaf = part.rpartition(".")
            renamed[f"encoder.layers.{index}.{_OPEN_CLIP_PARTS.get(inside, inside)}.{leaf}"] = tensor
    return renamed


def text_shape(weights: Mapping[str, Tensor], name: str) -> TextShape:
    """An encoder's sizes from its tensors in transformers' names. Raises ``UnsupportedModel`` if one is missing."""
    try:
        vocabulary, width = weights["embeddings.token_embedding.weight"].shape
        return TextShape(
            vocabulary=vocabulary,
            width=width,
            inner_width=weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
            layers=1 + max(int(key.split(".")[2]) for key in weights if key.startswith("encoder.layers.")),
            positions=weights["embeddings.position_embedding.weight"].shape[0],
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UnsupportedModel(name, f"a text encoder is incomplete ({error})") from error


def _built(shape: TextShape, activation: Activation, name: str, head_width: int) -> nn.Module:
    heads = max(1, shape.width // head_width)
    if shape.width % heads:
        raise UnsupportedModel(name, f"a text encoder {shape.width} wide does not divide into heads of {head_width}")
    config = CLIPTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=heads,
        max_position_embeddings=shape.positions,
        hidden_act=activation,
        layer_norm_eps=1e-5,
        bos_token_id=shape.vocabulary - 2,
        eos_token_id=shape.vocabulary - 1,
    )
    with torch.device("meta"):
        return CLIPTextModel(config)
