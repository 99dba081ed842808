"""Stages that work on every picture of the stage before (TAMS contract, section 13.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core.events import Event, ImageFinished, Progress
from fooocus_core.metadata.record import AnyRecord, joined
from fooocus_core.plan import Diffuse, Plan
from fooocus_core.stages.start import Pictures, no_pictures

PICTURE = "picture"
"""Under which name a stage finds what it works on."""


@dataclass(frozen=True)
class Source:
    """A picture that a stage works on, and the index of its first result.

    ``seed`` and ``record`` are its own; ``None`` where they are not known. ``latent``: what it was decoded from, where
    the stage that follows can go on with that.
    """

    pixels: NDArray[np.uint8]
    first_index: int
    seed: int | None = None
    record: AnyRecord | None = None
    latent: Tensor | None = None

    def unchanged(self, seed: int, index: int) -> ImageFinished:
        """The picture as a result of a stage that has nothing to do. ``seed``: where it has none of its own."""
        return ImageFinished(index, seed if self.seed is None else self.seed, self.pixels, self.record)


class PaintStage(Protocol):
    """Runs a stage on the pictures that it names; ``latent`` is that of the one it starts from, where it is at hand."""

    def __call__(self, stage: Diffuse, pictures: Pictures, latent: Tensor | None = None, /) -> Iterator[Event]: ...


def run_following(stage: Diffuse, sources: Sequence[Source], pictures: Pictures, paint: PaintStage) -> Iterator[Event]:
    """The stage on every source, each with its own seed. ``pictures``: the kept ones, among which its mask may be."""
    for number, source in enumerate(sources):
        named = with_pictures({PICTURE: source.pixels}, pictures)
        for event in paint(on_source(stage, source), named, source.latent):
            match event:
                case Progress(fraction=fraction):
                    yield replace(event, fraction=(number + fraction) / len(sources))
                case ImageFinished():
                    yield replace(event, index=source.first_index, record=joined(event.record, source.record))
                case _:
                    yield event


def on_source(stage: Diffuse, source: Source) -> Diffuse:
    """The stage for one picture of the stage before."""
    seed = stage.seed if source.seed is None else source.seed
    one = replace(stage, seed=seed, image_number=1, seed_increment=False)
    if one.repaint is not None:
        return replace(one, repaint=replace(one.repaint, picture=PICTURE))
    if one.start is not None:
        return replace(one, start=replace(one.start, picture=PICTURE))
    return one


def with_pictures(made: Mapping[str, NDArray[np.uint8]], others: Pictures = no_pictures) -> Pictures:
    """Pictures by their names: those just made, then the others."""
    return lambda name: made[name] if name in made else others(name)


def goes_on_with_latents(plan: Plan, number: int) -> bool:
    """Whether the latents of stage ``number`` are what the one behind it enlarges.

    They have to be those of text to image, and of the same autoencoder (TAMS contract, section 13.5).
    """
    if number + 1 >= len(plan.stages):
        return False
    stage, following = plan.stages[number : number + 2]
    if not isinstance(stage, Diffuse) or not isinstance(following, Diffuse):
        return False
    if stage.start is not None or stage.repaint is not None or following.start is None:
        return False
    enlarging, own, other = following.start.enlarging, stage.models, following.models
    same = own.refiner is None and (own.checkpoint, own.vae) == (other.checkpoint, other.vae)
    return same and enlarging is not None and enlarging.is_latent
