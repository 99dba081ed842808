"""Trains the UNet and both text encoders on cached latents of composed scenes."""

from __future__ import annotations

import copy
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from tools.pocket.captions import Scene, caption, compose, draw_scene, empty_caption, plain_scene
from tools.pocket.networks import (
    LATENT_SCALE,
    SIZE_FREQUENCIES,
    PocketShape,
    TextEncoderG,
    TextEncoderL,
    UNet,
    Vae,
    sinusoids,
)
from tools.pocket.parallel import agree, average_gradients, launch, same_start
from tools.pocket.render_pictures import Picture, PictureSet
from tools.pocket.tokenizer import Encoder, Vocabulary
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


ASPECTS: Final = (
    (1.0, 0.34), (9 / 7, 0.3), (7 / 9, 0.12), (1.5, 0.06), (2 / 3, 0.06), (16 / 9, 0.06), (9 / 16, 0.06)
)
"""Width over height, and the share of the training pictures."""


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
    for ratio, share in ASPECTS:
        width = round(side_px * ratio**0.5 / 8) * 8
        height = round(side_px / ratio**0.5 / 8) * 8
        sizes.append((height, width, share))
    return sizes


@torch.no_grad()
def encode_scenes(
    vae: Vae, picture_set: PictureSet, height_px: int, width_px: int, scenes: list[Scene], rng: random.Random
) -> Bucket:
    """Composes and encodes scenes; latents are scaled to unit deviation."""
    latents = []
    for start in range(0, len(scenes), 16):
        batch = torch.stack([compose(s, picture_set, height_px, width_px, rng) for s in scenes[start : start + 16]])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mean, _ = vae.encode(batch.contiguous(memory_format=torch.channels_last))
        latents.append(mean.float() * LATENT_SCALE)
    return Bucket(height_px, width_px, torch.cat(latents), scenes)


def held_out(pictures: tuple[Picture, ...], count: int = 20) -> set[int]:
    """Pictures that the denoiser never sees: one style of ``count`` names whose other styles it does see."""
    by_name: dict[str, list[int]] = {}
    for index, picture in enumerate(pictures):
        by_name.setdefault(picture.name, []).append(index)
    rng = random.Random(4)
    names = rng.sample(sorted(name for name, indices in by_name.items() if len(indices) > 1), count)
    return {rng.choice(by_name[name]) for name in names}


def encode_buckets(
    vae: Vae, picture_set: PictureSet, side_px: int, rng: random.Random, others: int = 2
) -> list[Bucket]:
    """Every picture plainly in both commonest sizes, and in ``others`` random scenes of random sizes."""
    sizes = canvas_sizes(side_px)
    scenes: list[list[Scene]] = [[] for _ in sizes]
    hidden = held_out(picture_set.pictures)
    for picture in range(len(picture_set.pictures)):
        if picture in hidden:
            continue
        for plain in scenes[:2]:
            plain.append(plain_scene(picture))
        for chosen in rng.choices(range(len(sizes)), [share for _, _, share in sizes], k=others):
            scenes[chosen].append(draw_scene(picture, rng))
    return [
        encode_scenes(vae, picture_set, height, width, listed, rng)
        for (height, width, _), listed in zip(sizes, scenes, strict=True)
        if listed
    ]


def noise_levels() -> Tensor:
    """Cumulative alpha of the 1000 timesteps (specification 03, section 1)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


@dataclass(frozen=True)
class DenoiserPlan:
    """``seconds`` of wall time; every worker draws ``scenes`` a step, each noised ``draws`` times."""

    side_px: int
    seconds: float
    scenes: int = 16
    draws: int = 2
    device: str = "cpu"
    peak_rate: float = 1.3e-3
    decay: float = 0.998


def train_denoiser(
    shape: PocketShape, work_dir: Path, pictures: Path, plan: DenoiserPlan, workers: int, start_from: Path | None
) -> Denoiser:
    """Trains by ``work_dir``'s finished autoencoder and vocabulary; returns the averaged weights of denoiser.pt."""
    launch(_train_worker, workers, work_dir, shape, work_dir, pictures, plan, start_from)
    average = Denoiser(shape)
    average.load_state_dict(torch.load(work_dir / "denoiser.pt", weights_only=True))
    return average.eval()


def _train_worker(
    rank: int, workers: int, shape: PocketShape, work_dir: Path, pictures: Path, plan: DenoiserPlan, start: Path | None
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rng = random.Random(1 + rank)
    picture_set, encoder = PictureSet.load(pictures), Encoder(Vocabulary.load(work_dir / "vocabulary.json"))
    vae, model = Vae(shape).eval(), Denoiser(shape)
    vae.load_state_dict(torch.load(work_dir / "vae-finished.pt", weights_only=True))
    if start:
        model.load_state_dict(torch.load(start, weights_only=True))
    buckets = encode_buckets(vae, picture_set, plan.side_px, rng)
    deviation = float(torch.cat([bucket.latents.flatten() for bucket in buckets]).std())
    logger.info("worker %d encoded %d scenes, deviation %.3f", rank, sum(len(b.scenes) for b in buckets), deviation)
    model.to(plan.device, memory_format=torch.channels_last)
    same_start(model)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    alphas, weights = noise_levels().to(plan.device), [len(bucket.scenes) for bucket in buckets]
    started, step, shown, losses = time.monotonic(), 0, 0.0, []
    while (elapsed := agree(time.monotonic() - started, workers)) < plan.seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(elapsed / plan.seconds, plan.peak_rate, 0.02)
        loss = _loss(model, rng.choices(buckets, weights)[0], picture_set, encoder, alphas, plan, rng)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(parameters, workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        losses.append(float(loss.detach()))
        if rank == 0:
            _average(average, model, min(plan.decay, (1 + step) / (10 + step)))
        if rank == 0 and elapsed - shown > 60:
            shown = elapsed
            logger.info("denoiser step %d, %.0f s, loss %.4f", step, elapsed, sum(losses) / len(losses))
            losses = []
            _save(average, work_dir / "denoiser.pt")
    if rank == 0:
        _save(average, work_dir / "denoiser.pt")
        logger.info("denoiser done: %d steps of %d", step, plan.scenes * plan.draws * workers)


def _save(average: Denoiser, path: Path) -> None:
    torch.save({name: tensor.cpu() for name, tensor in average.state_dict().items()}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def random_timesteps(count: int) -> Tensor:
    """Timesteps [count]: half of them anywhere, half where the shape of a small picture is decided."""
    anywhere = torch.rand(count)
    deciding = torch.sigmoid(0.5 + 0.8 * torch.randn(count))
    return (1000 * torch.where(torch.rand(count) < 0.5, anywhere, deciding)).long().clamp(max=999)


def _loss(
    model: Denoiser, bucket: Bucket, picture_set: PictureSet, encoder: Encoder, alphas: Tensor, plan: DenoiserPlan,
    rng: random.Random,
) -> Tensor:
    """Noise prediction error, weighted so that every noise level counts about the same.

    The error falls about as SNR ** 0.75 towards pure noise. Without the weight the levels where the thing is chosen and
    its outline drawn would hardly be heard.
    """
    chosen = [rng.randrange(len(bucket.scenes)) for _ in range(plan.scenes)]
    captions = [
        empty_caption(rng)
        if rng.random() < 0.1
        else caption(bucket.scenes[i], picture_set.pictures[bucket.scenes[i].picture], rng)
        for i in chosen
    ]
    latents = bucket.latents[chosen].repeat(plan.draws, 1, 1, 1).to(plan.device)
    timesteps = random_timesteps(len(latents)).to(plan.device)
    alpha = alphas[timesteps][:, None, None, None]
    noise = torch.randn_like(latents)
    noisy = (alpha.sqrt() * latents + (1 - alpha).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast(plan.device, dtype=torch.bfloat16):
        context, pooled = model.encode(encoder(captions, plan.device))
        if rng.random() < 0.15:  # long prompts come as several chunks: add one that says nothing more
            more, _ = model.encode(encoder([empty_caption(rng) for _ in chosen], plan.device))
            context = torch.cat([context, more], dim=1)
        sizes = _sizes(bucket, len(latents)).to(plan.device)
        waves = sinusoids(sizes.flatten(), SIZE_FREQUENCIES).view(len(latents), -1)
        vector = torch.cat([pooled.repeat(plan.draws, 1), waves], dim=1)
        predicted = model.unet(noisy, timesteps.float(), context.repeat(plan.draws, 1, 1), vector)
    weight = (alpha / (1 - alpha)).pow(-0.75)
    return ((predicted.float() - noise).pow(2) * weight).mean()


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
