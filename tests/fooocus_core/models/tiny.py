"""A whole SDXL checkpoint in miniature: the public key layout, random weights, written without the loaders' help."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

CHANNELS = (32, 64)
TEXT_L, TEXT_G = 32, 48
CONTEXT = TEXT_L + TEXT_G
ADM = TEXT_G + 6 * 256
VOCABULARY = {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab</w>": 4, "<|startoftext|>": 5, "<|endoftext|>": 6}
SIDECAR = {
    "format": 1,
    "name": "tiny",
    "native_area_px": 4096,
    "sizes": "native_then_upscale",
    "tokenizer": {"vocab": VOCABULARY, "merges": ["a b</w>"]},
}

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def linear(name: str, width_in: int, width_out: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (width_out, width_in)
    if bias:
        yield f"{name}.bias", (width_out,)


def convolution(name: str, width_in: int, width_out: int, kernel: int = 3) -> Shapes:
    yield f"{name}.weight", (width_out, width_in, kernel, kernel)
    yield f"{name}.bias", (width_out,)


def norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def res_block(name: str, width_in: int, width_out: int) -> Shapes:
    yield from norm(f"{name}.in_layers.0", width_in)
    yield from convolution(f"{name}.in_layers.2", width_in, width_out)
    yield from linear(f"{name}.emb_layers.1", 4 * CHANNELS[0], width_out)
    yield from norm(f"{name}.out_layers.0", width_out)
    yield from convolution(f"{name}.out_layers.3", width_out, width_out)
    if width_in != width_out:
        yield from convolution(f"{name}.skip_connection", width_in, width_out, 1)


def transformer(name: str, width: int, depth: int) -> Shapes:
    yield from norm(f"{name}.norm", width)
    yield from linear(f"{name}.proj_in", width, width)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, source in (("attn1", width), ("attn2", CONTEXT)):
            yield from linear(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from linear(f"{block}.{attention}.to_k", source, width, bias=False)
            yield from linear(f"{block}.{attention}.to_v", source, width, bias=False)
            yield from linear(f"{block}.{attention}.to_out.0", width, width)
        yield from linear(f"{block}.ff.net.0.proj", width, 8 * width)
        yield from linear(f"{block}.ff.net.2", 4 * width, width)
        for number in (1, 2, 3):
            yield from norm(f"{block}.norm{number}", width)
    yield from linear(f"{name}.proj_out", width, width)


def unet_shapes(middle_depth: int | None) -> Shapes:
    small, wide = CHANNELS
    yield from linear("time_embed.0", small, 4 * small)
    yield from linear("time_embed.2", 4 * small, 4 * small)
    yield from linear("label_emb.0.0", ADM, 4 * small)
    yield from linear("label_emb.0.2", 4 * small, 4 * small)
    yield from convolution("input_blocks.0.0", 4, small)
    yield from res_block("input_blocks.1.0", small, small)
    yield from convolution("input_blocks.2.0.op", small, small)
    yield from res_block("input_blocks.3.0", small, wide)
    yield from transformer("input_blocks.3.1", wide, 2)
    yield from res_block("middle_block.0", wide, wide)
    if middle_depth is not None:
        yield from transformer("middle_block.1", wide, middle_depth)
        yield from res_block("middle_block.2", wide, wide)
    yield from res_block("output_blocks.0.0", 2 * wide, wide)
    yield from transformer("output_blocks.0.1", wide, 2)
    yield from res_block("output_blocks.1.0", wide + small, wide)
    yield from transformer("output_blocks.1.1", wide, 1)
    yield from convolution("output_blocks.1.2.conv", wide, wide)
    yield from res_block("output_blocks.2.0", wide + small, small)
    yield from res_block("output_blocks.3.0", 2 * small, small)
    yield from norm("out.0", small)
    yield from convolution("out.2", small, 4)


def vae_block(name: str, width_in: int, width_out: int) -> Shapes:
    yield from norm(f"{name}.norm1", width_in)
    yield from convolution(f"{name}.conv1", width_in, width_out)
    yield from norm(f"{name}.norm2", width_out)
    yield from convolution(f"{name}.conv2", width_out, width_out)


def vae_shapes() -> Shapes:
    for side, width_in, width_out in (("encoder", 3, 8), ("decoder", 4, 3)):
        yield from convolution(f"{side}.conv_in", width_in, 32)
        for name in ("block_1", "block_2"):
            yield from vae_block(f"{side}.mid.{name}", 32, 32)
        yield from norm(f"{side}.mid.attn_1.norm", 32)
        for name in ("q", "k", "v", "proj_out"):
            yield from convolution(f"{side}.mid.attn_1.{name}", 32, 32, 1)
        yield from norm(f"{side}.norm_out", 32)
        yield from convolution(f"{side}.conv_out", 32, width_out)
    for level in range(4):
        yield from vae_block(f"encoder.down.{level}.block.0", 32, 32)
        yield from vae_block(f"decoder.up.{level}.block.0", 32, 32)
        yield from vae_block(f"decoder.up.{level}.block.1", 32, 32)
        if level < 3:
            yield from convolution(f"encoder.down.{level}.downsample.conv", 32, 32)
        if level > 0:
            yield from convolution(f"decoder.up.{level}.upsample.conv", 32, 32)
    yield from convolution("quant_conv", 8, 8, 1)
    yield from convolution("post_quant_conv", 4, 4, 1)


def text_l_shapes() -> Shapes:
    yield "embeddings.token_embedding.weight", (len(VOCABULARY), TEXT_L)
    yield "embeddings.position_embedding.weight", (77, TEXT_L)
    for index in range(2):
        layer = f"encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from linear(f"{layer}.self_attn.{name}", TEXT_L, TEXT_L)
        yield from norm(f"{layer}.layer_norm1", TEXT_L)
        yield from norm(f"{layer}.layer_norm2", TEXT_L)
        yield from linear(f"{layer}.mlp.fc1", TEXT_L, 4 * TEXT_L)
        yield from linear(f"{layer}.mlp.fc2", 4 * TEXT_L, TEXT_L)
    yield from norm("final_layer_norm", TEXT_L)


def text_g_shapes() -> Shapes:
    yield "token_embedding.weight", (len(VOCABULARY), TEXT_G)
    yield "positional_embedding", (77, TEXT_G)
    yield "text_projection", (TEXT_G, TEXT_G)
    yield "logit_scale", ()
    for index in range(2):
        block = f"transformer.resblocks.{index}"
        yield f"{block}.attn.in_proj_weight", (3 * TEXT_G, TEXT_G)
        yield f"{block}.attn.in_proj_bias", (3 * TEXT_G,)
        yield from linear(f"{block}.attn.out_proj", TEXT_G, TEXT_G)
        yield from norm(f"{block}.ln_1", TEXT_G)
        yield from norm(f"{block}.ln_2", TEXT_G)
        yield from linear(f"{block}.mlp.c_fc", TEXT_G, 4 * TEXT_G)
        yield from linear(f"{block}.mlp.c_proj", 4 * TEXT_G, TEXT_G)
    yield from norm("ln_final", TEXT_G)


def tiny_checkpoint(middle_depth: int | None = 1, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Every tensor of the file, by its public key; the same numbers each time."""
    parts = {
        "model.diffusion_model.": unet_shapes(middle_depth),
        "first_stage_model.": vae_shapes(),
        "conditioner.embedders.0.transformer.text_model.": text_l_shapes(),
        "conditioner.embedders.1.model.": text_g_shapes(),
    }
    generator = torch.Generator().manual_seed(1)
    return {
        prefix + key: (torch.randn(shape, generator=generator) * 0.05).to(dtype)
        for prefix, shapes in parts.items()
        for key, shape in shapes
    }


def write_checkpoint(
    path: Path, tensors: dict[str, Tensor] | None = None, sidecar: dict[str, object] | None = SIDECAR
) -> Path:
    """The file on disk, by default with a sidecar that brings the seven-word tokenizer."""
    metadata = None if sidecar is None else {"fooocusapi.sidecar": json.dumps(sidecar)}
    save_file(tiny_checkpoint() if tensors is None else tensors, path, metadata=metadata)
    return path
