"""GroundingDINO's published weights under the names by which transformers reads them.

The file ``groundingdino_swint_ogc.pth`` names its tensors after the original program; transformers reads the same
network under names of its own (those of the hub's ``IDEA-Research/grounding-dino-tiny``) and keeps apart the three
projections of an attention which the file holds as one tensor. The text encoder's weights are in the file as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from torch import Tensor

_WRAPPER: Final = "module."
"""What training on several cards puts before every name."""

_NO_WEIGHTS: Final = re.compile(
    r"label_enc\.|.*\.relative_position_index$|bert\.pooler\.|bert\.embeddings\.position_ids$"
)
"""Only used in training, or numbers that follow from the network's shape."""

_SWIN: Final = "model.backbone.conv_encoder.model."
_NAMES: Final = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^backbone\.0\.patch_embed\.proj\.", rf"{_SWIN}embeddings.patch_embeddings.projection."),
        (r"^backbone\.0\.patch_embed\.norm\.", rf"{_SWIN}embeddings.norm."),
        (r"^backbone\.0\.norm1\.", rf"{_SWIN}hidden_states_norms.stage2."),
        (r"^backbone\.0\.norm2\.", rf"{_SWIN}hidden_states_norms.stage3."),
        (r"^backbone\.0\.norm3\.", rf"{_SWIN}hidden_states_norms.stage4."),
        (r"^backbone\.0\.(layers\.\d+\.blocks\.\d+\.)norm1\.", rf"{_SWIN}encoder.\1layernorm_before."),
        (r"^backbone\.0\.(layers\.\d+\.blocks\.\d+\.)norm2\.", rf"{_SWIN}encoder.\1layernorm_after."),
        (r"^backbone\.0\.(layers\.\d+\.blocks\.\d+\.)attn\.proj\.", rf"{_SWIN}encoder.\1attention.output.dense."),
        (r"^backbone\.0\.(layers\.\d+\.blocks\.\d+\.)attn\.", rf"{_SWIN}encoder.\1attention.self."),
        (r"^backbone\.0\.(layers\.\d+\.blocks\.\d+\.)mlp\.fc1\.", rf"{_SWIN}encoder.\1intermediate.dense."),
        (r"^backbone\.0\.(layers\.\d+\.blocks\.\d+\.)mlp\.fc2\.", rf"{_SWIN}encoder.\1output.dense."),
        (r"^backbone\.0\.layers\.", rf"{_SWIN}encoder.layers."),
        (r"^bert\.", "model.text_backbone."),
        (r"^feat_map\.", "model.text_projection."),
        (r"^input_proj\.", "model.input_proj_vision."),
        (r"^transformer\.level_embed$", "model.level_embed"),
        (r"^transformer\.tgt_embed\.", "model.query_position_embeddings."),
        (r"^transformer\.enc_output", "model.enc_output"),
        (r"^transformer\.enc_out_bbox_embed\.", "model.encoder_output_bbox_embed."),
        (r"^transformer\.encoder\.layers\.(\d+)\.", r"model.encoder.layers.\1.deformable_layer."),
        (r"^transformer\.encoder\.text_layers\.(\d+)\.", r"model.encoder.layers.\1.text_enhancer_layer."),
        (r"^transformer\.encoder\.fusion_layers\.(\d+)\.", r"model.encoder.layers.\1.fusion_layer."),
        (r"^transformer\.decoder\.norm\.", "model.decoder.layer_norm."),
        (r"^transformer\.decoder\.ref_point_head\.", "model.decoder.reference_points_head."),
        (r"^transformer\.decoder\.", "model.decoder."),
        # Then the parts of a layer, whatever it belongs to.
        (r"(layers\.\d+\.deformable_layer\.)norm1\.", r"\1self_attn_layer_norm."),
        (r"(layers\.\d+\.deformable_layer\.)norm2\.", r"\1final_layer_norm."),
        (r"(layers\.\d+\.text_enhancer_layer\.)norm1\.", r"\1layer_norm_before."),
        (r"(layers\.\d+\.text_enhancer_layer\.)norm2\.", r"\1layer_norm_after."),
        (r"(layers\.\d+\.(?:deformable_layer|text_enhancer_layer)\.)linear([12])\.", r"\1fc\2."),
        (r"(\.fusion_layer\.)gamma_v$", r"\1vision_param"),
        (r"(\.fusion_layer\.)gamma_l$", r"\1text_param"),
        (r"(\.fusion_layer\.)layer_norm_v\.", r"\1layer_norm_vision."),
        (r"(\.fusion_layer\.)layer_norm_l\.", r"\1layer_norm_text."),
        (r"(\.fusion_layer\.attn\.(?:values_|out_)?)v_proj\.", r"\1vision_proj."),
        (r"(\.fusion_layer\.attn\.(?:values_|out_)?)l_proj\.", r"\1text_proj."),
        (r"(model\.decoder\.layers\.\d+\.)cross_attn\.", r"\1encoder_attn."),
        (r"(model\.decoder\.layers\.\d+\.)ca_text\.", r"\1encoder_attn_text."),
        (r"(model\.decoder\.layers\.\d+\.)catext_norm\.", r"\1encoder_attn_text_layer_norm."),
        (r"(model\.decoder\.layers\.\d+\.)norm1\.", r"\1encoder_attn_layer_norm."),
        (r"(model\.decoder\.layers\.\d+\.)norm2\.", r"\1self_attn_layer_norm."),
        (r"(model\.decoder\.layers\.\d+\.)norm3\.", r"\1final_layer_norm."),
        (r"(model\.decoder\.layers\.\d+\.)linear([12])\.", r"\1fc\2."),
    )
]
_FUSED: Final = re.compile(r"^(.*\.)(?:qkv\.|in_proj_)(weight|bias)$")
"""Query, key and value of an attention in one tensor, one below the other."""


def transformers_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the published file by their names in transformers; nothing is copied.

    Names that are not known are passed on as they are: whoever loads them sees that they do not fit.
    """
    return dict(entry for name, tensor in published.items() for entry in _renamed(name.removeprefix(_WRAPPER), tensor))


def _renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if _NO_WEIGHTS.match(name):
        return
    for pattern, replacement in _NAMES:
        name = pattern.sub(replacement, name)
    fused = _FUSED.match(name)
    if fused is None:
        yield name, tensor
        return
    for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
        yield f"{fused[1]}{part}.{fused[2]}", piece
