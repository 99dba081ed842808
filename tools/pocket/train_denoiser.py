"""Trains the UNet and both text encoders on cached latents of composed scenes."""

from __future__ import annotations

import copy
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tools.pocket.captions import Scene, caption, compose, draw_scene, empty_caption
from tools.pocket.networks import LATENT_SCALE, PocketShape, TextEncoderG, TextEncoderL, UNet, Vae, sinusoids
from tools.pocket.render_pictures import PictureSet
from tools.pocket.tokenizer import Encoder
from tools.pocket.train_autoencoder import learning_rate

logger = logging.getLogger(__name__)


class Denoiser(nn.Module):
    """The trained part: UNet and both text encoders."""

    def __init__(self, shape: PocketShape) -> None:
        super().__init__()
        self.unet = UNet(shape)
        self.text_l = TextEncoderL(shape.vocabulary, shape.text_l_width, shape.text_l_layers)
        self.text_g = TextEncoderG(shape.vocabulary, shape.text_g_width, shape.text_g_layers)

    def encode(self, ids: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Context [n, 77, width] and pooled [n, width] of two id tables."""
        context_l = self.text_l(ids[0])
        context_g, pooled = self.text_g(ids[1])
        return torch.cat([context_l, context_g], dim=-1), pooled

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: tuple[Tensor, Tensor], sizes: Tensor) -> Tensor:
        """Predicted noise; ``sizes`` [n, 6] are height, width, 0, 0, target height, target width."""
        context, pooled = self.encode(ids)
        size_vector = sinusoids(sizes.flatten(), 256).unflatten(0, (len(sizes), 6)).flatten(1)
        out: Tensor = self.unet(noisy, timesteps, context, torch.cat([pooled, size_vector], dim=1))
        return out


@dataclass(frozen=True)
class Bucket:
    """Latents of one canvas size and the scenes they show."""

    height_px: int
    width_px: int
    latents: Tensor
    scenes: list[Scene]


def canvas_sizes(side_px: int) -> list[tuple[int, int, float]]:
    """(height, width, share of the training pictures) of about equal area, multiples of 8."""
    sizes = []
    for ratio, share in ((1.0, 0.34), (9 / 7, 0.3), (7 / 9, 0.12), (1.5, 0.06), (2 / 3, 0.06), (16 / 9, 0.06), (9 / 16, 0.06)):
        width = round(side_px * ratio**0.5 / 8) * 8
        height = round(side_px / ratio**0.5 / 8) * 8
        sizes.append((height, width, share))
    return sizes


@torch.no_grad()
def encode_bucket(vae: Vae, picture_set: PictureSet, height_px: int, width_px: int, count: int, rng: random.Random) -> Bucket:
    """Composes and encodes ``count`` scenes; latents are scaled to unit deviation."""
    scenes = [draw_scene(len(picture_set.pictures), rng) for _ in range(count)]
    latents = []
    for start in range(0, count, 16):
        batch = torch.stack([compose(s, picture_set, height_px, width_px, rng) for s in scenes[start : start + 16]])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents.append(vae.encode(batch.contiguous(memory_format=torch.channels_last))[0].float() * LATENT_SCALE)
    return Bucket(height_px, width_px, torch.cat(latents), scenes)


def noise_levels() -> Tensor:
    """Cumulative alpha of the 1000 timesteps (specification 03, section 1)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def train_denoiser(
    model: Denoiser, vae: Vae, picture_set: PictureSet, encoder: Encoder, side_px: int, seconds: float, checkpoint: Path,
    scenes_each: int = 6,
) -> Denoiser:
    """Trains for ``seconds`` of wall time and returns the averaged (EMA) weights, also saved to ``checkpoint``."""
    rng = random.Random(1)
    total = scenes_each * len(picture_set.pictures)
    vae.eval()
    buckets = [encode_bucket(vae, picture_set, h, w, round(total * share), rng) for h, w, share in canvas_sizes(side_px)]
    logger.info("encoded %d scenes, deviation %.3f", total, torch.cat([b.latents.flatten() for b in buckets]).std())
    model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    alphas, weights = noise_levels(), [len(b.scenes) for b in buckets]
    started, step, shown, losses = time.monotonic(), 0, 0.0, []
    while (elapsed := time.monotonic() - started) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(elapsed / seconds, 1.2e-3, 0.02)
        loss = _loss(model, rng.choices(buckets, weights)[0], picture_set, encoder, alphas, 64, rng)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        losses.append(float(loss))
        _average(average, model, min(0.998, (1 + step) / (10 + step)))
        if elapsed - shown > 60:
            shown = elapsed
            logger.info("denoiser step %d, %.0f s, loss %.4f", step, elapsed, sum(losses) / len(losses))
            losses = []
            torch.save(average.state_dict(), checkpoint)
    torch.save(average.state_dict(), checkpoint)
    logger.info("denoiser done: %d steps of 64", step)
    return average


def _loss(
    model: Denoiser, bucket: Bucket, picture_set: PictureSet, encoder: Encoder, alphas: Tensor, batch: int,
    rng: random.Random,
) -> Tensor:
    """Noise prediction error, weighted by min(SNR, 5) / SNR (min-SNR, arXiv 2303.09556)."""
    chosen = [rng.randrange(len(bucket.scenes)) for _ in range(batch)]
    latents = bucket.latents[chosen]
    captions = [
        empty_caption(rng) if rng.random() < 0.1 else caption(bucket.scenes[i], picture_set.pictures[bucket.scenes[i].picture], rng)
        for i in chosen
    ]
    timesteps = torch.randint(1000, (batch,))
    alpha = alphas[timesteps][:, None, None, None]
    noise = torch.randn_like(latents)
    noisy = (alpha.sqrt() * latents + (1 - alpha).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predicted = model(noisy, timesteps.float(), encoder(captions), _sizes(bucket, batch))
    ratio = alpha / (1 - alpha)
    return ((predicted.float() - noise).pow(2) * (ratio.clamp(max=5) / ratio)).mean()


def _sizes(bucket: Bucket, batch: int) -> Tensor:
    """Size conditioning, jittered so that the engine's emphasised sizes are nothing new."""
    jitter = 0.5 + 1.5 * torch.rand(batch, 1)
    size = torch.tensor([[bucket.height_px, bucket.width_px]], dtype=torch.float32)
    target = (64 * torch.round(size / 64)).clamp(min=64).expand(batch, 2)
    return torch.cat([torch.round(size * jitter), torch.zeros(batch, 2), target], dim=1)


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - decay)
