"""GroundingDINO in the published layout at a small part of its width, with numbers that follow from the names.

``recorded_detector.npz`` holds what the original program, groundingdino-py 0.4.0, makes of these very weights.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, GroundingDinoConfig, SwinConfig

from tools.synthetic import published_shapes

MANIFEST = "groundingdino_swint_ogc"
QUERIES = 50
_LEFT_OUT = re.compile(
    r"bert\.encoder\.layer\.(?:[2-9]|1\d)\.|\.encoder\.\w*layers\.[1-5]\.|\.decoder\.layers\.[2-5]\.|bbox_embed\.[2-5]\."
)
"""Two layers are left of BERT and of the decoder, one of the encoder."""


def thin_config() -> GroundingDinoConfig:
    return GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=24, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, out_indices=[2, 3, 4]
        ),
        text_config=BertConfig(hidden_size=96, num_hidden_layers=2, num_attention_heads=12, intermediate_size=384),
        num_queries=QUERIES,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
    )


def thin_weights() -> dict[str, Tensor]:
    """By the names of the published file, ``module.`` in front included."""
    return {
        key: _values(key, _thin(key, shape), stored)
        for key, (shape, stored) in published_shapes(MANIFEST).items()
        if not _LEFT_OUT.search(key)
    }


def _thin(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if "tgt_embed" in key:
        return QUERIES, *shape[1:]
    if "relative_position" in key:
        return shape
    if ".bert." in key or "feat_map" in key:
        return tuple(size // 8 if size in (768, 3072) else size for size in shape)
    if ".backbone." in key or "input_proj" in key:
        return tuple(size // 4 if size % 96 == 0 else size for size in shape)
    return tuple(size // 8 if size in (1024, 2048) else size for size in shape)


def _values(key: str, shape: tuple[int, ...], stored: str) -> Tensor:
    drawn = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if stored == "I64":
        return torch.zeros(shape, dtype=torch.int64)
    if "bbox_embed" in key:  # one network under several names
        drawn = np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)
    if "gamma" in key:
        return torch.from_numpy(0.3 + 0.1 * drawn)
    if "decoder.norm" in key:  # small, or every place of the text would be certain
        return torch.from_numpy(0.08 + 0.02 * drawn)
    if len(shape) == 1:
        return torch.from_numpy(0.1 * drawn + (1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0))
    return torch.from_numpy(drawn / np.sqrt(np.prod(shape[1:]), dtype=np.float32))
