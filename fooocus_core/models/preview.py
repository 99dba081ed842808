"""Quick pictures of latents while they are sampled (specification 03, section 12).

Every preview takes *scaled* latents and shows the first of the batch, at twice the latent's size.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fooocus_core.errors import ModelError, UnsupportedModel
from fooocus_core.models.autoencoder import Autoencoder
from fooocus_core.models.checkpoint import assign_weights, open_checkpoint
from fooocus_core.models.sidecar import PreviewColours

log = logging.getLogger(__name__)

_PADDING = 11
"""What the eight valid convolutions take away on each side."""
_SAMPLES = 4
_SAMPLE_SIZE = 12
_SAMPLE_SEED = 0


class Preview(Protocol):
    """Scaled latents ``[batch, 4, h, w]`` to one picture, uint8 ``[2 h, 2 w, 3]``."""

    def __call__(self, latents: Tensor) -> NDArray[np.uint8]: ...


class _Convolutions(nn.Module):
    """Nearest doubling, padding by zeros, eight convolutions with leaky ReLU after each, the last included."""

    def __init__(self) -> None:
        super().__init__()
        widths, kernels = (4, 8, 16, 32, 64, 32, 16, 8, 3), (7, 5, 3, 3, 3, 3, 3, 3)
        for index, kernel in enumerate(kernels):
            self.add_module(f"conv{index + 1}", nn.Conv2d(widths[index], widths[index + 1], kernel))

    def forward(self, latents: Tensor) -> Tensor:
        x = functional.interpolate(latents, scale_factor=2)
        x = functional.pad(x, (_PADDING,) * 4)
        for convolution in self.children():
            x = functional.leaky_relu(convolution(x), 0.1)
        return x


class PreviewNetwork:
    """The small network of ``xlvaeapp.pth`` and its like."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @torch.no_grad()
    def raw(self, latents: Tensor) -> Tensor:
        """About -1 ... 1, ``[1, 3, 2 h, 2 w]`` float32."""
        weight = next(self._network.parameters())
        output: Tensor = self._network(latents[:1].to(device=weight.device, dtype=weight.dtype))
        return output.float()

    def __call__(self, latents: Tensor) -> NDArray[np.uint8]:
        return _as_picture(self.raw(latents)[0] * 127.5 + 127.5)


def load_preview(
    weights: Mapping[str, Tensor], name: str, *, device: torch.device, dtype: torch.dtype
) -> PreviewNetwork:
    """From the tensors ``conv1.weight`` ... ``conv8.bias``. Raises ``UnsupportedModel`` for anything else."""
    with torch.device("meta"):
        network = _Convolutions()
    assign_weights(network, weights, name, device=device, dtype=dtype)
    return PreviewNetwork(network)


def preview_of_file(path: Path | None, *, device: torch.device, dtype: torch.dtype) -> PreviewNetwork | None:
    """The network of a file if there is one and it is sound; a preview is not worth failing a job for."""
    if path is None:
        return None
    try:
        file = open_checkpoint(path)
        return load_preview(file.tensors, file.name, device=device, dtype=dtype)
    except ModelError as error:
        log.warning("preview network not used: %s", error)
        return None


class LinearPreview:
    """Four latent channels to three colours by one matrix, for models without a preview network on disk."""

    def __init__(self, colours: PreviewColours) -> None:
        self._matrix = torch.tensor(colours.matrix)
        self._bias = torch.tensor(colours.bias)

    def __call__(self, latents: Tensor) -> NDArray[np.uint8]:
        cells = latents[0].float().cpu().movedim(0, 2)
        colours = (cells @ self._matrix + self._bias).movedim(2, 0)
        doubled = functional.interpolate(colours[None], scale_factor=2, mode="bilinear", align_corners=False)
        return _as_picture(doubled[0] * 255.0)


def fitted_colours(autoencoder: Autoencoder, latent_scale: float) -> PreviewColours:
    """The linear map that comes nearest to a model's own decoder, by least squares on smooth random latents.

    ``latent_scale`` turns un-scaled latents into scaled ones. Raises ``UnsupportedModel`` for other than 4 channels.
    """
    if autoencoder.shape.latent_channels != 4:
        raise UnsupportedModel("preview", "only latents of 4 channels can be shown")
    latents = _smooth_latents()
    pictures = autoencoder.decode(latents / latent_scale).cpu()
    colours = functional.avg_pool2d(pictures, autoencoder.factor).movedim(1, 3).reshape(-1, 3)
    cells = latents.movedim(1, 3).reshape(-1, 4)
    solution = torch.linalg.lstsq(torch.cat([cells, torch.ones(len(cells), 1)], dim=1), colours).solution
    return PreviewColours(tuple(tuple(row) for row in solution[:4].tolist()), tuple(solution[4].tolist()))


def _smooth_latents() -> Tensor:
    """Scaled latents of slowly varying colour, always the same; the global generators are left alone."""
    generator = torch.Generator().manual_seed(_SAMPLE_SEED)
    coarse = torch.randn(_SAMPLES, 4, 3, 3, generator=generator)
    return functional.interpolate(coarse, size=_SAMPLE_SIZE, mode="bicubic", align_corners=False)


def _as_picture(values: Tensor) -> NDArray[np.uint8]:
    """``[3, h, w]`` around 0 ... 255 to uint8 ``[h, w, 3]``, truncated."""
    picture: NDArray[np.uint8] = values.clamp(0, 255).to(torch.uint8).movedim(0, 2).cpu().numpy()
    return picture
