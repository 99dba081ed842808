"""The latents that a variation, an upscale and a repainting start from (specification 04, section 6; 05).

They are made once for all pictures of a request, and are un-scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from fooocus_core.images.enlarging import covering_size, enlarged_size
from fooocus_core.images.pixels import Mask, Picture, as_floats
from fooocus_core.images.repaint import CutOut
from fooocus_core.images.resizing import Enlarge
from fooocus_core.models.autoencoder import Autoencoder
from fooocus_core.models.upscaler import Upscaler, as_picture
from fooocus_core.plan import Enlarging, EnlargingMethod, MaskedContent
from fooocus_core.presets.sizes import Size

ENCODING_SEEDS = 2**32
MASKED_GRAY = 0.5
"""What an inpaint head sees where something is to be repainted."""

LATENT_MODES: Final[Mapping[EnlargingMethod, tuple[str, bool]]] = MappingProxyType(
    {
        "latent": ("bilinear", False),
        "latent antialiased": ("bilinear", True),
        "latent bicubic": ("bicubic", False),
        "latent bicubic antialiased": ("bicubic", True),
        "latent nearest": ("nearest", False),
        "latent nearest-exact": ("nearest-exact", False),
    }
)
"""How torch calls them (TAMS contract, section 13.5), and whether they are antialiased."""

Draw = Callable[[torch.Size], Tensor]
"""Standard normals of a shape, other ones at every call."""


@dataclass(frozen=True)
class RepaintLatents:
    """``mask``: ``[1, 1, h, w]``, 1 where to repaint; the others ``[1, 4, h, w]``.

    ``masked`` is for the inpaint head, ``None`` without one; ``fill`` is what is started from and kept outside the
    mask. ``swapped_fill`` is the fill as a refiner's own autoencoder encodes it.
    """

    masked: Tensor | None
    mask: Tensor
    fill: Tensor
    swapped_fill: Tensor | None = None


def encoding_noise(last_seed: int) -> Draw:
    """The autoencoder's noise for a request, by the seed of its last picture, always drawn on the CPU."""
    generator = torch.Generator().manual_seed(last_seed % ENCODING_SEEDS)
    return lambda shape: torch.randn(shape, generator=generator)


def encoded(picture: Picture, autoencoder: Autoencoder, draw: Draw) -> Tensor:
    """A picture as the start of a variation: ``[1, 4, h / 8, w / 8]``."""
    return _encoded_pixels(as_pixels(picture), autoencoder, draw)


def encoded_in_tiles(picture: Picture, autoencoder: Autoencoder, draw: Draw) -> Tensor:
    """As ``encoded``, for the start of an upscale, whose pictures are large."""
    return autoencoder.encode_tiled(as_pixels(picture), draw)


def enlarged_latents(latents: Tensor, asked: Enlarging, size: Size, factor: int) -> Tensor:
    """Latents ``[1, 4, h, w]`` as those of the enlarged picture.

    ``size``: that of their picture, whose sides need not be multiples of ``factor``, the pixels along a side of a cell.
    """
    width, height = (math.ceil(side / factor) for side in covering_size(size, asked))
    mode, antialias = LATENT_MODES[asked.method]
    larger = functional.interpolate(latents.float(), (height, width), mode=mode, antialias=antialias)
    columns, rows = (side // factor for side in enlarged_size(size, asked))
    top, left = (height - rows) // 2, (width - columns) // 2
    return larger[:, :, top : top + rows, left : left + columns]


def repaint_latents(
    cut_out: CutOut, autoencoder: Autoencoder, draw: Draw, swapped_autoencoder: Autoencoder | None = None
) -> RepaintLatents:
    """All that a repainting needs of its pictures; ``swapped_autoencoder`` is a refiner's own, which takes over later.

    The order matters, because every encoding draws from one noise.
    """
    mask = mask_weights(cut_out.mask)
    masked = _encoded_pixels(masked_pixels(as_pixels(cut_out.picture), mask), autoencoder, draw)
    swapped = None if swapped_autoencoder is None else encoded(cut_out.fill, swapped_autoencoder, draw)
    fill = encoded(cut_out.fill, autoencoder, draw)
    return RepaintLatents(masked, latent_mask(mask, fill, autoencoder.factor), fill, swapped)


def area_latents(cut_out: CutOut, autoencoder: Autoencoder, draw: Draw) -> RepaintLatents:
    """All that a repainting behind a soft mask needs of its pictures (TAMS contract, section 13.11).

    A cell is painted where more than half of it is masked. A fill of another size than the cut-out is resized as
    latents.
    """
    height, width = (side // autoencoder.factor for side in cut_out.picture.shape[:2])
    fill = encoded(cut_out.fill, autoencoder, draw)
    if fill.shape[2:] != (height, width):
        fill = functional.interpolate(fill, (height, width), mode="bilinear")
    cells = functional.interpolate(mask_weights(cut_out.mask), (height, width), mode="area")
    return RepaintLatents(None, cells.round(), fill)


def with_content(latents: RepaintLatents, content: MaskedContent, noise: Tensor) -> Tensor:
    """What a repainting behind a soft mask starts from; ``noise``: un-scaled as the latents are."""
    mask = latents.mask.to(latents.fill)
    match content:
        case "noise":
            return latents.fill * (1 - mask) + noise.to(latents.fill) * mask
        case "nothing":
            return latents.fill * (1 - mask)
        case _:
            return latents.fill


def as_pixels(picture: Picture) -> Tensor:
    """Bytes ``[h, w, 3]`` as float32 ``[1, 3, h, w]`` in ``[0, 1]``."""
    return torch.from_numpy(as_floats(picture)).movedim(3, 1)


def mask_weights(mask: Mask) -> Tensor:
    """Bytes ``[h, w]`` as float32 ``[1, 1, h, w]`` in ``[0, 1]``."""
    return torch.from_numpy(as_floats(mask))[None]


def masked_pixels(pixels: Tensor, mask: Tensor) -> Tensor:
    """Pixels ``[1, 3, h, w]`` with gray in place of what is masked. ``mask``: ``[1, 1, h, w]``."""
    hidden = mask.round()
    return pixels * (1.0 - hidden) + MASKED_GRAY * hidden


def latent_mask(mask: Tensor, latents: Tensor, factor: int) -> Tensor:
    """A mask ``[1, 1, h, w]`` of pixels as one of latent cells: any masked pixel marks its whole cell."""
    height, width = latents.shape[2:]
    aligned = functional.interpolate(mask, (factor * height, factor * width), mode="bilinear").round()
    return functional.max_pool2d(aligned, factor).round()


def enlarging(upscaler: Upscaler, before_tile: Callable[[], None] = lambda: None) -> Enlarge:
    """The network as a function of pictures; what ``before_tile`` raises ends it."""
    return lambda picture: as_picture(upscaler.enlarge(as_pixels(picture), before_tile))


def _encoded_pixels(pixels: Tensor, autoencoder: Autoencoder, draw: Draw) -> Tensor:
    height, width = (side // autoencoder.factor for side in pixels.shape[2:])
    noise = draw(torch.Size((1, autoencoder.shape.latent_channels, height, width)))
    return autoencoder.encode(pixels, noise)
