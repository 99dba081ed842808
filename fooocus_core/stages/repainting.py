"""Repainting and outpainting: from the picture that came to what is sampled, and back (specification 04)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fooocus_core.events import Event, ImageFinished, Progress
from fooocus_core.images.masked_area import area_cut_out, grey_mask, soft_area_mask
from fooocus_core.images.masks import binary
from fooocus_core.images.outpaint import extended
from fooocus_core.images.pixels import Mask, Picture, to_rgb
from fooocus_core.images.repaint import DIFFUSION_CLASS, CutOut, Sized, at_diffusion_size, cut_out
from fooocus_core.images.resizing import lanczos
from fooocus_core.models.loaded import LATENT_SCALE
from fooocus_core.models.upscaler import as_picture
from fooocus_core.plan import Diffuse, Repaint
from fooocus_core.presets.sizes import Size
from fooocus_core.sampling.blend import InpaintTask
from fooocus_core.stages.native_size import sampled_size
from fooocus_core.stages.networks import Networks, encoding_autoencoders
from fooocus_core.stages.picture_latents import (
    RepaintLatents,
    area_latents,
    encoding_noise,
    enlarging,
    repaint_latents,
    with_content,
)
from fooocus_core.stages.start import Pictures, Start, kept_picture

if TYPE_CHECKING:
    from torch import Tensor

    from fooocus_core.models.loaded import LoadedModel, ModelStore

log = logging.getLogger(__name__)

FILLED_FROM_STRENGTH = 0.99
"""Above it the hole is filled from its surroundings before it is encoded (04, section 5)."""


def without_foreign_engine(stage: Diffuse, model: LoadedModel) -> Diffuse:
    """A model with an area of its own repaints without an engine: those fit SDXL's network alone."""
    if stage.repaint is None or model.native_area_px is None or stage.repaint.engine == "None":
        return stage
    log.info("repainting without engine %s, which is not made for %s", stage.repaint.engine, model.name)
    return replace(stage, repaint=replace(stage.repaint, engine="None"))


def cut_out_of(
    repaint: Repaint,
    pictures: Pictures,
    models: ModelStore,
    native_area_px: int | None,
    size: Size,
    before_tile: Callable[[], None],
) -> CutOut:
    """What is looked at, at the size at which it is sampled; a model with an area of its own samples at that.

    ``size``: the stage's. Raises ``MissingPicture``; what ``before_tile`` raises ends an enlarging.
    """
    if repaint.area is not None:
        picture, mask = _picture_and_soft_mask(repaint, pictures)
        return area_cut_out(picture, mask, repaint.area, size, sampled_size(size, native_area_px))
    picture, mask = _picture_and_mask(repaint, pictures)
    sized = _sized(models, native_area_px, before_tile)
    return cut_out(picture, mask, repaint.respective_field, sized, fill=repaint.denoise > FILLED_FROM_STRENGTH)


def _picture_and_mask(repaint: Repaint, pictures: Pictures) -> tuple[Picture, Mask]:
    """Both as they are repainted: with what an outpainting adds."""
    picture = to_rgb(kept_picture(repaint.picture, pictures))
    black = np.zeros(picture.shape[:2], np.uint8)
    mask = black if repaint.mask is None else pictures(repaint.mask)
    return extended(picture, mask, dict(repaint.outpaint))


def _picture_and_soft_mask(repaint: Repaint, pictures: Pictures) -> tuple[Picture, Mask]:
    """Both as they are kept; the mask at the picture's size, and one that is not there black."""
    picture = to_rgb(kept_picture(repaint.picture, pictures))
    height, width = picture.shape[:2]
    if repaint.mask is None:
        return picture, np.zeros((height, width), np.uint8)
    mask = grey_mask(pictures(repaint.mask))
    if mask.shape != (height, width):
        log.info("a mask of %d x %d pixels for a picture of %d x %d", *mask.shape[::-1], width, height)
    return picture, lanczos(mask, width, height)


def is_unchanged(stage: Diffuse, pictures: Pictures) -> bool:
    """Whether only what is masked is to be painted, and nothing is. Raises ``MissingPicture``."""
    repaint = stage.repaint
    if repaint is None or repaint.area is None or not repaint.area.only_masked:
        return False
    return not soft_area_mask(_picture_and_soft_mask(repaint, pictures)[1], repaint.area).any()


def run_unchanged(stage: Diffuse, repaint: Repaint, pictures: Pictures) -> Iterator[Event]:
    """The picture itself in place of every one that the stage makes."""
    picture = to_rgb(kept_picture(repaint.picture, pictures))
    for index in range(stage.image_number):
        seed = (stage.seed + index * stage.seed_increment) % stage.seed_count
        yield ImageFinished(index, seed, picture, None)


def _sized(models: ModelStore, native_area_px: int | None, before_tile: Callable[[], None]) -> Sized:
    if native_area_px is None:
        return at_diffusion_size(
            lambda small: enlarging(models.picture_upscaler()[1], before_tile)(small), DIFFUSION_CLASS
        )

    def at_native_size(picture: Picture) -> Picture:
        return lanczos(picture, *sampled_size(Size(picture.shape[1], picture.shape[0]), native_area_px))

    return at_native_size


def latents_of(stage: Diffuse, what: CutOut, networks: Networks, last_seed: int) -> RepaintLatents:
    """All that is encoded for a repainting, once for all pictures of the stage. ``last_seed``: of its last one."""
    first, second = encoding_autoencoders(stage, networks)
    if stage.repaint is not None and stage.repaint.area is not None:
        return area_latents(what, first, encoding_noise(last_seed))
    return repaint_latents(what, first, encoding_noise(last_seed), second)


def inpaint_task(latents: RepaintLatents) -> InpaintTask:
    """What the sampler puts back outside the mask."""
    return InpaintTask(latents.mask, latents.fill, latents.swapped_fill)


def initial_latent(repaint: Repaint, latents: RepaintLatents) -> Tensor:
    """What is sampled from: the fill, or nothing. What depends on a picture's seed comes later (``seeded``)."""
    return latents.fill if repaint.use_initial_latent else torch.zeros_like(latents.fill)


def seeded(stage: Diffuse, start: Start, seed: int) -> Start:
    """The start of one picture, where that has to do with its seed."""
    if stage.repaint is None or stage.repaint.area is None or start.repaint is None:
        return start
    noise = torch.randn(start.latent.shape, generator=torch.Generator().manual_seed(seed)) / LATENT_SCALE
    return replace(start, latent=with_content(start.repaint, stage.repaint.area.content, noise))


def put_back(what: CutOut, pixels: Tensor, model: LoadedModel) -> Picture:
    """The whole picture with the decoded ``pixels`` ``[1, 3, h, w]`` in it."""
    if model.native_area_px is None:
        return what.composited(as_picture(pixels))
    return what.composited(model.enlarged(pixels, *what.fitting_size(pixels.shape[3], pixels.shape[2])))


def run_preparing(stage: Diffuse, what: CutOut) -> Iterator[Event]:
    """The fill, the mask and the cut-out as pictures, in place of a diffusion (04, section 8)."""
    mask = np.repeat(binary(what.mask)[:, :, None], 3, axis=2)
    yield Progress(0.95, "Saving images to system ...")
    for index, picture in enumerate((what.fill, mask, what.picture)):
        yield ImageFinished(index, stage.seed, picture, None)
