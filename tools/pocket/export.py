"""Writes one single-file checkpoint in the public SDXL key layout, with the sidecar in its header."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tools.pocket.networks import LATENT_SCALE, Vae
from tools.pocket.tokenizer import Vocabulary
from tools.pocket.train_denoiser import Denoiser

SIZE_LIMIT_BYTES = 25 * 2**20


def checkpoint_tensors(model: Denoiser, vae: Vae) -> dict[str, Tensor]:
    """All weights in float16 under their public keys."""
    parts = {
        "model.diffusion_model.": model.unet,
        "first_stage_model.": vae,
        "conditioner.embedders.0.transformer.text_model.": model.text_l,
        "conditioner.embedders.1.model.": model.text_g,
    }
    return {
        prefix + name: tensor.detach().to(torch.float16).contiguous()
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }


@torch.no_grad()
def preview_map(vae: Vae, latents: Tensor) -> dict[str, list[object]]:
    """Least-squares map from scaled latents to RGB in 0..1: matrix [4][3] and bias [3]."""
    pictures = torch.cat([vae.decode(batch / LATENT_SCALE) for batch in latents.split(8)])
    colours = torch.nn.functional.avg_pool2d((pictures.clamp(-1, 1) + 1) / 2, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, 4)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, colours).solution
    return {"matrix": solution[:4].tolist(), "bias": solution[4].tolist()}


def export_checkpoint(
    path: Path, model: Denoiser, vae: Vae, vocabulary: Vocabulary, native_area_px: int, latents: Tensor
) -> int:
    """Writes the file by a temporary name and returns its size in bytes; raises ``ValueError`` over 25 MiB."""
    sidecar = {
        "format": 1, "name": "pocket", "native_area_px": native_area_px, "sizes": "native_then_upscale",
        "tokenizer": {"vocab": vocabulary.vocab, "merges": vocabulary.merges}, "preview_rgb": preview_map(vae, latents),
    }
    header = {"fooocusapi.sidecar": json.dumps(sidecar, ensure_ascii=False, separators=(",", ":"))}
    temporary = path.with_suffix(".part")
    save_file(checkpoint_tensors(model, vae), temporary, metadata=header)
    size = temporary.stat().st_size
    if size > SIZE_LIMIT_BYTES:
        raise ValueError(f"{size} bytes are more than {SIZE_LIMIT_BYTES}")
    temporary.replace(path)
    return size
