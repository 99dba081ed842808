"""SDXL of the published size with random weights, made on the device, and how much arithmetic it does.

Values are of the size training starts from, so that all numbers stay finite in half precision. ``tiny`` has the same
parts in a size that a CPU calculates in no time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.models.autoencoder import Autoencoder, load_autoencoder
from fooocus_core.models.checkpoint import UNET_PREFIX, VAE_PREFIX, assign_weights
from fooocus_core.models.device import Placement
from fooocus_core.models.unet import HEAD_WIDTH, DiffusionNetwork, UNetShape, build_unet, unet_shape
from tools.synthetic import BASE, published_shapes, thin_checkpoint

NAME = "random"
META = torch.device("meta")
TOKENS = 77
TIMESTEP = 621.0
"""At which the networks are compared: in the middle of a run."""
_WEIGHT_SEED, _TEXT_SEED, _QUESTION_SEED = 1, 2, 3

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Scale:
    """Sizes of the networks and of what they are shown: ``side`` is a latent's, in cells."""

    unet: UNetShape
    head_width: int
    autoencoder: Shapes
    side: int

    @property
    def pixels(self) -> int:
        return 8 * self.side


def published() -> Scale:
    """SDXL at 1024 x 1024."""
    tensors = {key: torch.empty(shape, device=META) for key, (shape, _) in published_shapes(BASE).items()}
    return Scale(unet_shape(_under(tensors, UNET_PREFIX), BASE), HEAD_WIDTH, _shapes(tensors), 128)


def tiny() -> Scale:
    """The same parts, in no time."""
    unet = UNetShape(
        in_channels=4,
        out_channels=4,
        channels=(32, 64),
        down_depths=((0,), (1,)),
        middle_depth=1,
        up_depths=((1, 1), (0, 0)),
        context_width=48,
        adm_width=40,
        linear_projections=True,
    )
    return Scale(unet, 32, _shapes(thin_checkpoint(BASE, keep=lambda key: key.startswith(VAE_PREFIX))), 8)


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {key: tensor.shape for key, tensor in _under(tensors, VAE_PREFIX).items()}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class Question:
    """The input of one network call, in the network's dtype and on its device."""

    latents: Tensor
    timesteps: Tensor
    context: Tensor
    adm: Tensor


class RandomModel:
    """Networks with random weights, made when they are first asked for, and what they are asked."""

    def __init__(self, scale: Scale, placement: Placement) -> None:
        self.scale = scale
        self.placement = placement

    @cached_property
    def unet(self) -> nn.Module:
        """diffusers' module; every variant of the calculation reads these tensors."""
        unet = build_unet(self.scale.unet, NAME, self.scale.head_width)
        shapes = {name: weight.shape for name, weight in unet.named_parameters()}
        device, dtype = self.placement.device, self.placement.network
        assign_weights(unet, random_tensors(shapes, device, dtype), NAME, device=device, dtype=dtype)
        return unet

    @cached_property
    def autoencoder(self) -> Autoencoder:
        device, dtype = self.placement.device, self.placement.autoencoder
        weights = random_tensors(self.scale.autoencoder, device, dtype)
        return load_autoencoder(weights, NAME, device=device, dtype=dtype)

    def network(self, unet: nn.Module | None = None) -> DiffusionNetwork:
        """The project's network over the common weights, or over others."""
        return DiffusionNetwork(unet or self.unet, self.scale.unet, {}, {})

    @cached_property
    def texts(self) -> tuple[Conditioning, Conditioning]:
        """Both sides of a prompt, positive first, with the vector of double width that the server makes."""
        shape, generator = self.scale.unet, self._generator(_TEXT_SEED)
        positive, negative = (
            Conditioning(
                self._normal((1, TOKENS, shape.context_width), generator),
                self._normal((1, 2 * (shape.adm_width or 0)), generator),
            )
            for _ in range(2)
        )
        return positive, negative

    def question(self, rows: int) -> Question:
        """Always the same two rows, as often as it takes."""
        shape, side, dtype = self.scale.unet, self.scale.side, self.placement.network
        generator, which = self._generator(_QUESTION_SEED), self._which(rows)
        made = [
            self._normal(sizes, generator).to(dtype)[which]
            for sizes in ((2, 4, side, side), (2, TOKENS, shape.context_width), (2, shape.adm_width or 0))
        ]
        return Question(made[0], torch.full((rows,), TIMESTEP, device=self.placement.device), made[1], made[2])

    def error_of(self, answer: Tensor) -> float:
        """How far an answer to ``question`` is from float32's: mean distance as a share of the mean size."""
        return relative_error(answer, self._exact_answer[self._which(len(answer))])

    @cached_property
    def _exact_answer(self) -> Tensor:
        """diffusers' answer of the same weights in float32, without the matrix units' shortened form of it."""
        question, unet = self.question(2), copy.deepcopy(self.unet).float()
        return called(unet, question.latents.float(), question.timesteps, question)

    def latents(self) -> Tensor:
        """Un-scaled latents of one picture."""
        side = self.scale.side
        return self._normal((1, 4, side, side), self._generator(_QUESTION_SEED)) / 0.13025

    def decoding_error(self, autoencoder: Autoencoder) -> float:
        """The same of what an autoencoder makes of ``latents``."""
        return relative_error(autoencoder.decode_raw(self.latents()), self._exact_pixels)

    @cached_property
    def _exact_pixels(self) -> Tensor:
        exact = Autoencoder(copy.deepcopy(self.autoencoder.network).float(), self.autoencoder.shape)
        return exact.decode_raw(self.latents())

    @cached_property
    def row_flop(self) -> float:
        """Floating-point operations of the denoising network for one row."""
        shape, side = self.scale.unet, self.scale.side
        unet = build_unet(shape, NAME, self.scale.head_width)
        question = Question(
            torch.empty(1, 4, side, side, device=META),
            torch.empty(1, device=META),
            torch.empty(1, TOKENS, shape.context_width, device=META),
            torch.empty(1, shape.adm_width or 0, device=META),
        )
        with FlopCounterMode(display=False) as counter:
            called(unet, question.latents, question.timesteps, question)
        return float(counter.get_total_flops())

    @cached_property
    def decoding_flop(self) -> float:
        """Those of decoding one picture."""
        network: Any = copy.deepcopy(self.autoencoder.network).to(META)
        latents = self.latents().to(META, self.autoencoder.dtype)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.decode(latents)
        return float(counter.get_total_flops())

    def _which(self, rows: int) -> list[int]:
        return [row % 2 for row in range(rows)]

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.placement.device).manual_seed(seed)

    def _normal(self, sizes: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(sizes, generator=generator, device=self.placement.device)


@torch.no_grad()
def called(unet: Any, latents: Tensor, timesteps: Tensor, question: Question) -> Tensor:
    """diffusers' answer; the text and the vector are the question's, in the latents' dtype."""
    answer: Tensor = unet(
        latents,
        timesteps,
        encoder_hidden_states=question.context.to(latents.dtype),
        class_labels=question.adm.to(latents.dtype),
        return_dict=False,
    )[0]
    return answer


def random_tensors(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Matrices by their fan-in, scales near 1, biases near 0; the same numbers each time."""
    generator = torch.Generator(device).manual_seed(_WEIGHT_SEED)
    return {name: _values(name, shape, generator, device).to(dtype) for name, shape in shapes.items()}


def _values(name: str, shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    noise = torch.randn(shape, generator=generator, device=device)
    if len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    return 0.02 * noise if name.endswith("bias") else 1 + 0.05 * noise


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Mean distance as a share of the mean size."""
    return float((found.float() - exact.float()).abs().mean() / exact.float().abs().mean())
