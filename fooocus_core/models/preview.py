"""Quick pictures of latents while they are sampled (specification 03, section 12).

Every preview takes *scaled* latents and shows the first of the batch, at twice the latent's size. Nobody waits for one:
a graphics card makes it beside the steps, and it is shown as soon as it is there.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fooocus_core.errors import ModelError, UnsupportedModel
from fooocus_core.models.autoencoder import Autoencoder
from fooocus_core.models.checkpoint import assign_weights, open_checkpoint
from fooocus_core.models.sidecar import PreviewColours
from fooocus_core.sampling.transfer import SideStream

log = logging.getLogger(__name__)

_PADDING = 11
"""What the eight valid convolutions take away on each side."""
_SAMPLES = 4
_SAMPLE_SIZE = 12
_SAMPLE_SEED = 0
UNDER_WAY_AT_MOST = 2
"""Previews of a run that are begun and not yet there: one is copied while the next is calculated."""


class PendingPreview:
    """A picture that is being made, uint8 ``[2 h, 2 w, 3]``."""

    def __init__(self, values: Tensor, arrival: torch.cuda.Event | None = None) -> None:
        """``values``: in the computer's memory, there from ``arrival`` on; ``None``: they are there."""
        self._values = values
        self._arrival = arrival

    def is_ready(self) -> bool:
        """Whether ``picture`` would not wait."""
        return self._arrival is None or bool(self._arrival.query())  # type: ignore[no-untyped-call]

    def picture(self) -> NDArray[np.uint8]:
        """In memory of its own: what a device writes into is scarce and goes to the next one."""
        if self._arrival is not None:
            self._arrival.synchronize()
        picture: NDArray[np.uint8] = self._values.numpy().copy()
        return picture


class Preview(ABC):
    """What makes small pictures of latents."""

    def __init__(self) -> None:
        self._beside = SideStream()

    @abstractmethod
    def shown(self, latents: Tensor) -> Tensor:
        """Scaled latents ``[batch, 4, h, w]`` as a picture on their device, uint8 ``[2 h, 2 w, 3]``."""

    def begin(self, latents: Tensor) -> PendingPreview:
        """The picture of scaled latents ``[batch, 4, h, w]``; on the CPU it is ready at once."""
        return PendingPreview(*self._beside.fetch(self.shown, latents))


class RunPreviews:
    """The previews of one run, each shown with the first step at which it is there.

    On the CPU that is its own step. A graphics card is usually at the step before the one that it is told, so that one
    is shown; what is not there when the run ends is not shown at all.
    """

    def __init__(self) -> None:
        self._under_way: deque[PendingPreview] = deque()

    def next(self, preview: Preview, latents: Tensor) -> NDArray[np.uint8] | None:
        """Begins the next step's; returns the newest that is there and was not shown yet.

        A step is left out while as many as may be are under way: a device so far behind has enough to show, and each
        would take memory that has to be asked of the system.
        """
        before = self._newest()
        if len(self._under_way) < UNDER_WAY_AT_MOST:
            self._under_way.append(preview.begin(latents))
        newest = self._newest() or before
        return None if newest is None else newest.picture()

    def _newest(self) -> PendingPreview | None:
        """Of those that have arrived; they arrive in the order in which they were begun."""
        newest = None
        while self._under_way and self._under_way[0].is_ready():
            newest = self._under_way.popleft()
        return newest


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


class PreviewNetwork(Preview):
    """The small network of ``xlvaeapp.pth`` and its like."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    @torch.no_grad()
    def raw(self, latents: Tensor) -> Tensor:
        """About -1 ... 1, ``[1, 3, 2 h, 2 w]`` float32."""
        weight = next(self._network.parameters())
        output: Tensor = self._network(latents[:1].to(device=weight.device, dtype=weight.dtype))
        return output.float()

    def shown(self, latents: Tensor) -> Tensor:
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


class LinearPreview(Preview):
    """Four latent channels to three colours by one matrix, for models without a preview network on disk."""

    def __init__(self, colours: PreviewColours, *, device: torch.device) -> None:
        super().__init__()
        self._matrix = torch.tensor(colours.matrix).to(device)
        self._bias = torch.tensor(colours.bias).to(device)

    def shown(self, latents: Tensor) -> Tensor:
        cells = latents[0].to(self._matrix.device).float().movedim(0, 2)
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


def _as_picture(values: Tensor) -> Tensor:
    """``[3, h, w]`` around 0 ... 255 to uint8 ``[h, w, 3]``, truncated."""
    return values.clamp(0, 255).to(torch.uint8).movedim(0, 2)
