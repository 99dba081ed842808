"""Trains the autoencoder on composed scenes, then fixes its latents to the public scale."""

from __future__ import annotations

import logging
import math
import random
import time
from pathlib import Path

import torch
from torch import Tensor

from tools.pocket.captions import compose, draw_scene
from tools.pocket.networks import LATENT_SCALE, Vae
from tools.pocket.render_pictures import PictureSet

logger = logging.getLogger(__name__)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Absolute and squared error, edges, and the mean colour of 8 x 8 patches (what washes out first)."""
    difference = output - target
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    colour = torch.nn.functional.avg_pool2d(difference, 8).abs().mean()
    return difference.abs().mean() + 2 * difference.pow(2).mean() + 0.5 * edges + colour


def learning_rate(progress: float, peak: float, warm_up: float) -> float:
    """Linear warm-up, then cosine to 3 % of the peak; ``progress`` in [0, 1]."""
    return peak * min(1.0, progress / warm_up) * (0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))) + 0.03)


def scene_pool(picture_set: PictureSet, side_px: int, count: int, rng: random.Random) -> Tensor:
    """Square scenes to cut crops from, uint8-exact floats in -1..1, [count, 3, side, side]."""
    scenes = (draw_scene(rng.randrange(len(picture_set.pictures)), rng) for _ in range(count))
    return torch.stack([compose(scene, picture_set, side_px, side_px, rng) for scene in scenes])


def random_crops(pool: Tensor, count: int, crop_px: int) -> Tensor:
    """``count`` crops of the pool at multiples of a pixel, [count, 3, crop, crop]."""
    room = pool.shape[-1] - crop_px + 1
    rows, columns = torch.randint(room, (count,)).tolist(), torch.randint(room, (count,)).tolist()
    chosen = torch.randint(len(pool), (count,)).tolist()
    return torch.stack(
        [pool[i, :, r : r + crop_px, c : c + crop_px] for i, r, c in zip(chosen, rows, columns, strict=True)]
    )


def train_autoencoder(
    vae: Vae, picture_set: PictureSet, side_px: int, seconds: float, checkpoint: Path, device: str = "cpu"
) -> None:
    """Trains in place for ``seconds`` of wall time: crops first, whole pictures in the last quarter."""
    rng = random.Random(0)
    pool = scene_pool(picture_set, side_px, min(3000, 4 * len(picture_set.pictures)), rng).to(device)
    vae.to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        assert vae.quant_conv.bias is not None
        vae.quant_conv.bias[4:] = -5
        vae.quant_conv.weight[4:] *= 0.1
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0, fused=True)
    started, step, shown = time.monotonic(), 0, 0.0
    while (elapsed := time.monotonic() - started) < seconds:
        progress = elapsed / seconds
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, 1e-3, 0.02)
        batch = random_crops(pool, 3, side_px) if progress > 0.75 else random_crops(pool, 10, 48)
        loss = _step(vae, batch.contiguous(memory_format=torch.channels_last), device)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if elapsed - shown > 45:
            shown = elapsed
            quality = decibels(vae, pool[:24])
            logger.info("autoencoder step %d, %.0f s, loss %.4f, %.2f dB", step, elapsed, float(loss.detach()), quality)
            torch.save(vae.state_dict(), checkpoint)
    normalise_latents(vae, pool[:400])
    logger.info("autoencoder done: %d steps, %.2f dB", step, decibels(vae, pool[:64]))
    vae.to("cpu")


def refine_decoder(
    vae: Vae, picture_set: PictureSet, side_px: int, seconds: float, checkpoint: Path, device: str = "cpu"
) -> None:
    """Trains the decoding half alone for ``seconds``: the latents, on which a denoiser stands, stay as they are.

    The latents are disturbed a little, as a denoiser's are.
    """
    rng = random.Random(1)
    pool = scene_pool(picture_set, side_px, min(1800, 2 * len(picture_set.pictures)), rng).to(device)
    vae.to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        latents = torch.cat([vae.encode(batch)[0] for batch in pool.split(16)])
    deviation = 0.04 / LATENT_SCALE
    parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=6e-4, betas=(0.9, 0.99), weight_decay=0, fused=True)
    started, step, shown = time.monotonic(), 0, 0.0
    while (elapsed := time.monotonic() - started) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(elapsed / seconds, 6e-4, 0.03)
        chosen = torch.randint(len(pool), (4,))
        noisy = latents[chosen] + deviation * torch.rand(4, 1, 1, 1, device=device) * torch.randn_like(latents[chosen])
        with torch.autocast(device, dtype=torch.bfloat16):
            output = vae.decode(noisy.contiguous(memory_format=torch.channels_last))
        loss = reconstruction_loss(output.float(), pool[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if elapsed - shown > 60:
            shown = elapsed
            quality = decibels(vae, pool[:24])
            logger.info("decoder step %d, %.0f s, loss %.4f, %.2f dB", step, elapsed, float(loss.detach()), quality)
            torch.save(vae.state_dict(), checkpoint)
    logger.info("decoder done: %d steps, %.2f dB", step, decibels(vae, pool[:64]))
    vae.to("cpu")


def _step(vae: Vae, batch: Tensor, device: str) -> Tensor:
    with torch.autocast(device, dtype=torch.bfloat16):
        mean, log_variance = vae.encode(batch)
        noise = torch.randn_like(mean) * torch.exp(0.5 * log_variance.clamp(-20, 10))
        output = vae.decode(mean + noise)
    mean, log_variance = mean.float(), log_variance.float().clamp(-20, 10)
    divergence = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
    return reconstruction_loss(output.float(), batch) + 5e-5 * divergence


@torch.no_grad()
def decibels(vae: Vae, pictures: Tensor) -> float:
    """Mean peak signal-to-noise ratio of reconstructions of pictures in -1..1."""
    errors = []
    for batch in pictures.split(8):
        output = vae.decode(vae.encode(batch.contiguous(memory_format=torch.channels_last))[0])
        errors.append((output.clamp(-1, 1) - batch).pow(2).mean((1, 2, 3)))
    return float((10 * torch.log10(4 / torch.cat(errors))).mean())


@torch.no_grad()
def normalise_latents(vae: Vae, pictures: Tensor) -> None:
    """Folds a per-channel mean and deviation into the 1x1 convolutions around the latent.

    Afterwards ``LATENT_SCALE`` times the encoder's mean has mean 0 and deviation 1 in every channel, so the noise
    table and the public scale hold as they are.
    """
    latents = torch.cat([vae.encode(batch)[0] for batch in pictures.split(8)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * LATENT_SCALE
    after, before = vae.post_quant_conv, vae.quant_conv
    assert after.bias is not None
    assert before.bias is not None
    after.bias += (after.weight.flatten(1) * mean).sum(1)
    after.weight *= deviation[None, :, None, None]
    before.weight[:4] /= deviation[:, None, None, None]
    before.bias[:4] = (before.bias[:4] - mean) / deviation
    before.bias[4:] -= 2 * torch.log(deviation)
