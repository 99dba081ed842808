"""Draws pictures with a pocket checkpoint, by the plainest sampler, for scores and contact sheets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from torch import Tensor

from tools.pocket.networks import LATENT_CHANNELS, LATENT_SCALE, SIZE_FREQUENCIES, PocketShape, Vae, sinusoids
from tools.pocket.tokenizer import Encoder, Vocabulary
from tools.pocket.train_denoiser import Denoiser, noise_levels

PREFIXES: Final = {
    "unet.": "model.diffusion_model.",
    "text_l.": "conditioner.embedders.0.transformer.text_model.",
    "text_g.": "conditioner.embedders.1.model.",
}
VAE_PREFIX: Final = "first_stage_model."


def shape_of(tensors: dict[str, Tensor]) -> PocketShape:
    """Reads all sizes from the tensors of a checkpoint with one residual block a level."""

    def count(pattern: str) -> int:
        return len({match[1] for key in tensors if (match := re.match(pattern, key))})

    unet, text_l, text_g = PREFIXES["unet."], PREFIXES["text_l."], PREFIXES["text_g."]
    levels = [index for index in range(1, 20) if f"{unet}input_blocks.{index}.0.in_layers.0.weight" in tensors]
    channels = (tensors[f"{unet}input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in levels)
    depths = (count(rf"{re.escape(unet)}input_blocks\.{i}\.1\.transformer_blocks\.(\d+)\.") for i in levels)
    vae_levels = count(rf"{re.escape(VAE_PREFIX)}encoder\.down\.(\d+)\.")
    embedding = tensors[f"{text_l}embeddings.token_embedding.weight"]
    return PocketShape(
        vocabulary=embedding.shape[0],
        text_l_width=embedding.shape[1],
        text_l_layers=count(rf"{re.escape(text_l)}encoder\.layers\.(\d+)\."),
        text_g_width=tensors[f"{text_g}token_embedding.weight"].shape[1],
        text_g_layers=count(rf"{re.escape(text_g)}transformer\.resblocks\.(\d+)\."),
        unet_channels=tuple(channels),
        unet_depths=tuple(depths),
        vae_channels=tuple(
            tensors[f"{VAE_PREFIX}encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(vae_levels)
        ),
    )


class PocketModel:
    """An exported checkpoint, ready to sample in float32."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            self.sidecar = json.loads(file.metadata()["fooocusapi.sidecar"])
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        tokenizer = self.sidecar["tokenizer"]
        vocabulary = Vocabulary(tokenizer["vocab"], tokenizer["merges"])
        shape = shape_of(tensors)
        self.encoder = Encoder(vocabulary)
        self.denoiser, self.vae = Denoiser(shape).eval(), Vae(shape).eval()
        self.denoiser.load_state_dict(
            {
                ours + key.removeprefix(theirs): tensor
                for ours, theirs in PREFIXES.items()
                for key, tensor in tensors.items()
                if key.startswith(theirs)
            }
        )
        self.vae.load_state_dict(
            {key.removeprefix(VAE_PREFIX): tensor for key, tensor in tensors.items() if key.startswith(VAE_PREFIX)}
        )

    @torch.inference_mode()
    def draw(
        self, prompts: list[str], seeds: list[int], height_px: int, width_px: int, steps: int = 30,
        guidance: float = 5.0, negative: str = "",
    ) -> Tensor:
        """Pictures [n, 3, height, width] in -1..1 by Euler steps over evenly spaced timesteps, one seed a prompt."""
        count = len(prompts)
        ids = self.encoder([negative] * count + prompts)
        context, pooled = self.denoiser.encode(ids)
        sizes = torch.tensor([height_px, width_px, 0, 0, height_px, width_px], dtype=torch.float32)
        vector = torch.cat([pooled, sinusoids(sizes, SIZE_FREQUENCIES).flatten().expand(2 * count, -1)], dim=1)
        alphas = noise_levels()
        table = ((1 - alphas) / alphas).sqrt()
        timesteps = torch.linspace(999, 0, steps).round().long()
        sigmas = torch.cat([table[timesteps], torch.zeros(1)])
        shape = (LATENT_CHANNELS, height_px // 8, width_px // 8)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        x = noise * (1 + sigmas[0] ** 2).sqrt()
        for index, timestep in enumerate(timesteps):
            scaled = (x / (1 + sigmas[index] ** 2).sqrt()).repeat(2, 1, 1, 1)
            times = timestep.float().expand(2 * count)
            without, with_prompt = self.denoiser.unet(scaled, times, context, vector).chunk(2)
            x = x + (without + guidance * (with_prompt - without)) * (sigmas[index + 1] - sigmas[index])
        return self.vae.decode(x / LATENT_SCALE).clamp(-1, 1)
