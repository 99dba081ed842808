"""What a variation and an upscale start from, and upscales that are not diffused (specification 05)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core.errors import Interrupted, MissingPicture
from fooocus_core.events import CancelToken, Event, ImageFinished, Progress
from fooocus_core.images.enlarging import enlarged_picture, enlarged_size
from fooocus_core.images.pixels import Picture, to_rgb
from fooocus_core.images.repaint import CutOut
from fooocus_core.images.resizing import lanczos
from fooocus_core.images.vary_upscale import Upscaled, upscaled, varied_start
from fooocus_core.metadata.record import EnlargedRecord
from fooocus_core.plan import Diffuse, Enlarging, StartPicture
from fooocus_core.presets.sizes import Size
from fooocus_core.stages.picture_latents import (
    RepaintLatents,
    encoded,
    encoded_in_tiles,
    encoding_noise,
    enlarged_latents,
    enlarging,
)

if TYPE_CHECKING:
    from fooocus_core.models.autoencoder import Autoencoder
    from fooocus_core.models.loaded import ModelStore

ENLARGING_SHARE = 0.95
"""The share of the progress at which an enlarged picture is done but for its saving."""

Pictures = Callable[[str], NDArray[np.uint8]]
"""Pictures that came with requests, by the name in the plan: ``[h, w, 3]`` or ``[h, w, 4]``.

Raises ``MissingPicture``."""


@dataclass(frozen=True)
class PassedLatents:
    """Un-scaled latents ``[1, 4, h / 8, w / 8]`` on their way from stage to stage.

    ``given``: those of the picture that the stage works on, where they are at hand. ``keep`` is handed those of every
    picture before the picture itself.
    """

    given: Tensor | None = None
    keep: Callable[[Tensor], None] = lambda latents: None


NO_LATENTS = PassedLatents()


@dataclass(frozen=True)
class Start:
    """Un-scaled latents ``[1, 4, h / 8, w / 8]``, and the name of the network or the means that enlarged the picture.

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
    latent: Tensor | None = None,
) -> Start:
    """What all pictures of a request start from. ``last_seed``: that of its last picture.

    ``shown_at``: the size at which a model with an area of its own sees what it varies, or to which the picture is
    brought as it is. ``latent``: that of the picture, where it is at hand. What ``before_tile`` raises ends the
    enlarging.
    """
    picture, draw, upscaler = to_rgb(picture), encoding_noise(last_seed), ""
    if start.enlarging is not None:
        if start.enlarging.is_latent:
            size = Size(picture.shape[1], picture.shape[0])
            latent = encoded_in_tiles(picture, autoencoder, draw) if latent is None else latent
            return Start(enlarged_latents(latent, start.enlarging, size, autoencoder.factor), start.method)
        picture, network = _enlarged(start.enlarging, picture, models, before_tile)
        return Start(encoded_in_tiles(picture, autoencoder, draw), network or start.method)
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
    if stage.start is None or native_area_px is None or not is_enlarged(stage.start):
        return False
    return native_area_px < stage.width_px * stage.height_px


def run_enlarging(stage: Diffuse, pictures: Pictures, models: ModelStore, cancel: CancelToken) -> Iterator[Event]:
    """An upscale without a diffusion: one picture; what Fooocus enlarges has no record.

    Raises ``CoreError``, ``Interrupted``.
    """
    start = stage.start
    if start is None or not is_enlarged(start):
        raise ValueError("only upscales can go without a diffusion")

    def stop_if_asked() -> None:
        if cancel():
            raise Interrupted("stopped on request")

    yield Progress(0.0, "Upscaling image from the input ...")
    picture, record = to_rgb(kept_picture(start.picture, pictures)), None
    if start.enlarging is not None:
        enlarged, network = _enlarged(start.enlarging, picture, models, stop_if_asked)
        height, width = enlarged.shape[:2]
        record = EnlargedRecord(width, height, network or start.method, start.enlarging.stands_for)
    else:
        enlarged = _upscaled(start, start.factor or 1.0, picture, models, stop_if_asked)[0].picture
    yield Progress(ENLARGING_SHARE, "Saving image 1/1 to system ...")
    stop_if_asked()
    yield ImageFinished(0, stage.seed, enlarged, record)


def is_without_diffusion(stage: Diffuse) -> bool:
    """Whether an enlarged picture is the result, for which not even latents are needed."""
    start = stage.start
    if start is None or start.refine:
        return False
    return start.enlarging is None or not start.enlarging.is_latent


def at_result_size(stage: Diffuse, pictures: Pictures) -> Diffuse:
    """The stage with the size of its result, where that is decided by what is enlarged. Raises ``MissingPicture``."""
    start = stage.start
    if start is None or start.enlarging is None:
        return stage
    height, width = kept_picture(start.picture, pictures).shape[:2]
    return replace(stage, **enlarged_size(Size(width, height), start.enlarging)._asdict())


def is_enlarged(start: StartPicture) -> bool:
    """Whether a picture gets larger before it is diffused, if it is."""
    return start.factor is not None or start.enlarging is not None


def _enlarged(
    asked: Enlarging, picture: Picture, models: ModelStore, before_tile: Callable[[], None]
) -> tuple[Picture, str]:
    """The picture in pixels, and the name of the network that was asked, if one was.

    In place of latents that cannot be enlarged a network does it.
    """
    network = ""

    def enlarge(small: Picture) -> Picture:
        nonlocal network
        network, upscaler = models.picture_upscaler(asked.network)
        return enlarging(upscaler, before_tile)(small)

    before_tile()
    return enlarged_picture(picture, asked, enlarge), network


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
