"""LoRA files for tests: the same change of a weight, spelt in every layout that files come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor


class Change(NamedTuple):
    """A change of rank 1, ``column`` ``[n, 1]`` times ``row`` ``[1, m]``, both of powers of two: exact in any order."""

    column: Tensor
    row: Tensor

    @property
    def whole(self) -> Tensor:
        return self.column @ self.row


class Place(NamedTuple):
    """The names of one weight: in original names, in diffusers' own, in full."""

    flat: str
    flat_diffusers: str
    dotted: str
    full: str


PLACES = {
    "unet": Place(
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q",
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q",
        "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight",
    ),
    "l": Place(
        "lora_te1_text_model_encoder_layers_0_self_attn_v_proj",
        "lora_te_text_model_encoder_layers_0_self_attn_v_proj",
        "text_encoder.text_model.encoder.layers.0.self_attn.v_proj",
        "clip_l.transformer.text_model.encoder.layers.0.self_attn.v_proj.weight",
    ),
    "g": Place(
        "lora_te2_text_model_encoder_layers_0_self_attn_v_proj",
        "lora_te2_text_model_encoder_layers_0_self_attn_v_proj",
        "text_encoder_2.text_model.encoder.layers.0.self_attn.v_proj",
        "clip_g.transformer.text_model.encoder.layers.0.self_attn.v_proj.weight",
    ),
}
"""One weight of each network that every model has, square in all three."""

Layout = Callable[[Place, Change], dict[str, Tensor]]


def _ones(length: int, axis: int) -> Tensor:
    return torch.ones(length).unsqueeze(axis)


def kohya(place: Place, change: Change) -> dict[str, Tensor]:
    module = place.flat
    return {f"{module}.lora_up.weight": change.column, f"{module}.lora_down.weight": change.row}


def kohya_scaled(place: Place, change: Change) -> dict[str, Tensor]:
    """Of rank 2 with alpha 1, which halves it; the second rank repeats the first."""
    module = place.flat_diffusers
    up, down = torch.cat([change.column] * 2, dim=1), torch.cat([change.row] * 2)
    return {
        f"{module}.lora_up.weight": up,
        f"{module}.lora_down.weight": down,
        f"{module}.alpha": torch.tensor(1.0),
    }


def diffusers(place: Place, change: Change) -> dict[str, Tensor]:
    return {f"{place.dotted}_lora.up.weight": change.column, f"{place.dotted}_lora.down.weight": change.row}


def linear_layer(place: Place, change: Change) -> dict[str, Tensor]:
    module = f"{place.dotted}.lora_linear_layer"
    return {f"{module}.up.weight": change.column, f"{module}.down.weight": change.row}


def loha(place: Place, change: Change) -> dict[str, Tensor]:
    rows, columns = change.whole.shape
    return {
        f"{place.flat}.hada_w1_a": change.column,
        f"{place.flat}.hada_w1_b": change.row,
        f"{place.flat}.hada_w2_a": _ones(rows, 1),
        f"{place.flat}.hada_w2_b": _ones(columns, 0),
    }


def lokr(place: Place, change: Change) -> dict[str, Tensor]:
    return {f"{place.flat}.lokr_w1": torch.ones(1, 1), f"{place.flat}.lokr_w2": change.whole}


def glora(place: Place, change: Change) -> dict[str, Tensor]:
    return {
        f"{place.flat}.a1.weight": torch.zeros_like(change.row),
        f"{place.flat}.a2.weight": torch.zeros(change.row.shape[1], 1),
        f"{place.flat}.b1.weight": change.row,
        f"{place.flat}.b2.weight": change.column,
    }


def full_difference(place: Place, change: Change) -> dict[str, Tensor]:
    return {f"{place.flat}.diff": change.whole}


def direct(place: Place, change: Change) -> dict[str, Tensor]:
    return {f"{place.full}.lora_up.weight": change.column, f"{place.full}.lora_down.weight": change.row}


LAYOUTS: dict[str, Layout] = {
    layout.__name__: layout
    for layout in (kohya, kohya_scaled, diffusers, linear_layer, loha, lokr, glora, full_difference, direct)
}


def some_change(width: int, seed: int = 1, size: float = 0.25) -> Change:
    """Entries of plus or minus one half or one on both sides, times ``size``, itself a power of two."""
    generator = torch.Generator().manual_seed(seed)

    def side(*shape: int) -> Tensor:
        signs = torch.randint(0, 2, shape, generator=generator) * 2.0 - 1.0
        return signs / 2 ** torch.randint(0, 2, shape, generator=generator)

    return Change(side(width, 1) * size, side(1, width))


def lora_tensors(
    widths: Mapping[str, int], layout: Layout = kohya, *, seed: int = 1, size: float = 0.25
) -> dict[str, Tensor]:
    """A file's tensors that change one weight of each network of ``widths`` (``unet``, ``l``, ``g``)."""
    tensors: dict[str, Tensor] = {}
    for network, width in widths.items():
        tensors |= layout(PLACES[network], some_change(width, seed, size))
    return tensors


def write_lora(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """The file on disk; answers with its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path.name


def foreign_tensors(keys: int = 13) -> dict[str, Tensor]:
    """A file for some other network: ``keys`` keys that mean nothing here."""
    return {f"lora_unet_double_blocks_{index}_attn.lora_up.weight": torch.ones(2, 2) for index in range(keys)}
