"""What a variation and an upscale start from, and upscales that are not diffused (specification 05)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core.errors import Interrupted, MissingPicture
from fooocus_core.events import CancelToken, Event, ImageFinished, Progress
from fooocus_core.images.pixels import to_rgb
from fooocus_core.images.repaint import CutOut
from fooocus_core.images.resizing import lanczos
from fooocus_core.images.vary_upscale import Upscaled, upscaled, varied_start
from fooocus_core.plan import Diffuse, StartPicture
from fooocus_core.presets.sizes import Size
from fooocus_core.stages.picture_latents import RepaintLatents, encoded, encoded_in_tiles, encoding_noise, enlarging

if TYPE_CHECKING:
    from fooocus_core.models.autoencoder import Autoencoder
    from fooocus_core.models.loaded import ModelStore

ENLARGING_SHARE = 0.95
"""The share of the progress at which an enlarged picture is done but for its saving."""

Pictures = Callable[[str], NDArray[np.uint8]]
"""Pictures that came with requests, by the name in the plan: ``[h, w, 3]`` or ``[h, w, 4]``.

Raises ``MissingPicture``."""


@dataclass(frozen=True)
class Start:
    """Un-scaled latents ``[1, 4, h / 8, w / 8]``, and the name of the network that enlarged the picture, if one did.

    A repainting has its cut-out and all that was encoded of it.
    """

    latent: Tensor
    upscaler: str = ""
    cut_out: CutOut | None = None
    repaint: RepaintLatents | None = None


def no_pictures(name: str) -> NDArray[np.uint8]:
    """For an engine to which none are given."""
    raise MissingPicture


def kept_picture(name: str | None, pictures: Pictures) -> NDArray[np.uint8]:
    """A picture that a plan names. One without a name is given one before its stage runs; raises ``MissingPicture``."""
    if name is None:
        raise MissingPicture
    return pictures(name)


def start_of(
    start: StartPicture,
    picture: NDArray[np.uint8],
    autoencoder: Autoencoder,
    models: ModelStore,
    *,
    shown_at: Size | None,
    last_seed: int,
    before_tile: Callable[[], None],
) -> Start:
    """What all pictures of a request start from. ``last_seed``: that of its last picture.

    ``shown_at``: the size at which a model with an area of its own sees what it varies. What ``before_tile`` raises
    ends the enlarging.
    """
    picture, draw, upscaler = to_rgb(picture), encoding_noise(last_seed), ""
    if shown_at is not None:
        picture = lanczos(picture, *shown_at)
    elif start.factor is None:
        picture = varied_start(picture)
    else:
        enlarged, upscaler = _upscaled(start, start.factor, picture, models, before_tile)
        picture = enlarged.picture
    encode = encoded if start.factor is None else encoded_in_tiles
    return Start(encode(picture, autoencoder, draw), upscaler)


def is_only_enlarged(stage: Diffuse, native_area_px: int | None) -> bool:
    """Whether an upscale ends before a diffusion that it asks for.

    A model with an area of its own would see the picture at a fraction of its size: it would blur all detail and could
    add none.
    """
    if stage.start is None or stage.start.factor is None or native_area_px is None:
        return False
    return native_area_px < stage.width_px * stage.height_px


def run_enlarging(stage: Diffuse, pictures: Pictures, models: ModelStore, cancel: CancelToken) -> Iterator[Event]:
    """An upscale without a diffusion: one picture without a record. Raises ``CoreError``, ``Interrupted``."""
    start = stage.start
    if start is None or start.factor is None:
        raise ValueError("only upscales can go without a diffusion")

    def stop_if_asked() -> None:
        if cancel():
            raise Interrupted("stopped on request")

    yield Progress(0.0, "Upscaling image from the input ...")
    enlarged, _ = _upscaled(start, start.factor, to_rgb(kept_picture(start.picture, pictures)), models, stop_if_asked)
    yield Progress(ENLARGING_SHARE, "Saving image 1/1 to system ...")
    stop_if_asked()
    yield ImageFinished(0, stage.seed, enlarged.picture, None)


def _upscaled(
    start: StartPicture,
    factor: float,
    picture: NDArray[np.uint8],
    models: ModelStore,
    before_tile: Callable[[], None],
) -> tuple[Upscaled, str]:
    """The enlarged picture and the name of the network that did it."""
    name, upscaler = models.picture_upscaler()
    return upscaled(picture, factor, enlarging(upscaler, before_tile), fast=not start.refine), name
