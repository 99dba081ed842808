"""Enhancing pictures part by part: find a mask, paint it anew, go on with the result (specification 07, section 1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fooocus_core.events import CancelToken, Event, ImageFinished, Progress
from fooocus_core.images.masks import eroded_or_dilated, repaints
from fooocus_core.images.methods import upscaled_size, varied_size
from fooocus_core.images.parts import part_masks
from fooocus_core.images.pixels import Mask, Picture, to_rgb
from fooocus_core.metadata.record import ImageRecord, joined
from fooocus_core.plan import (
    Detail,
    DetailPass,
    DetailStart,
    Diffuse,
    PartSearch,
    PartsPass,
    Prompts,
    Repaint,
    StartPicture,
)
from fooocus_core.presets.sizes import GRID_PX, Size
from fooocus_core.prompts.lines import split_lines
from fooocus_core.stages.following import PICTURE, Source, with_pictures
from fooocus_core.stages.networks import stop_if
from fooocus_core.stages.start import Pictures

if TYPE_CHECKING:
    from fooocus_core.masks.generate import FoundMask
    from fooocus_core.masks.options import MaskOptions

log = logging.getLogger(__name__)

MASK = "mask"
"""Under which name a pass finds its mask."""

Paint = Callable[[Diffuse, Pictures], Iterator[Event]]
"""Runs a stage of one picture on the pictures that it names."""
FindMask = Callable[[Picture, "MaskOptions"], "FoundMask"]
FindParts = Callable[[Picture, PartSearch], Sequence[Mask]]


def no_parts(picture: Picture, search: PartSearch) -> Sequence[Mask]:
    """For those who look for none."""
    return ()


@dataclass(frozen=True)
class Means:
    """What an enhancement works with."""

    paint: Paint
    find_mask: FindMask
    cancel: CancelToken
    find_parts: FindParts = no_parts


class _Result(NamedTuple):
    """``is_step``: whether it is a picture to go on with, not the mask that led to it."""

    image: ImageFinished
    is_step: bool


def run_detail(stage: Detail, sources: Sequence[Source], means: Means) -> Iterator[Event]:
    """The results of every source, in their order. Raises ``CoreError``, ``Interrupted`` when cancelled.

    Their indices are their places among all steps, kept or not: clients know pictures by them.
    """
    for number, source in enumerate(sources):
        results = _counted(_enhanced(stage, source, means), stage, number, len(sources))
        last: ImageFinished | None = None
        index = source.first_index
        for event in results:
            if isinstance(event, Progress):
                yield event
                continue
            image = replace(event.image, index=index)
            index += 1
            if stage.only_last and event.is_step:
                last = image
            else:
                yield image
        if stage.only_last and stage.picture is None and last is None:
            last = source.unchanged(stage.base.seed, index)
        if last is not None:
            yield last


def _counted(
    events: Iterator[Progress | _Result], stage: Detail, number: int, sources: int
) -> Iterator[Progress | _Result]:
    """The same with the progress of all sources in place of one step's."""
    steps = max(1, len(stage.passes) + (stage.start is not None))
    for event in events:
        if isinstance(event, Progress):
            yield replace(event, fraction=(number + event.fraction / steps) / sources)
        else:
            yield event


def _enhanced(stage: Detail, source: Source, means: Means) -> Iterator[Progress | _Result]:
    """All steps of one picture. The progress counts steps: 1.5 is the middle of the second.

    A pass that is skipped on request is left out; with a first variation or upscale all that would follow it is.
    """
    done = 0
    picture, prompts = to_rgb(source.pixels), stage.base.prompts
    if stage.start is not None and not stage.start.comes_last:
        varied = yield from _painted(start_stage(stage, stage.start, picture, prompts), picture, None, done, means)
        if varied is None:
            return
        picture = varied
        done += 1
    for one in stage.passes:
        if isinstance(one, PartsPass):
            picture = yield from _with_parts(stage, one, source, picture, done, means)
            done += 1
            continue
        asked = prompts_of(one, stage.base.prompts)
        painted = yield from _passed(stage, one, asked, picture, done, means)
        done += 1
        if painted is not None:
            picture = painted
            if stage.start is not None and stage.start.uses_last_prompts:
                prompts = prompts_of(one, prompts)
    if stage.start is not None and stage.start.comes_last:
        yield from _painted(start_stage(stage, stage.start, picture, prompts), picture, None, done, means)


def _passed(
    stage: Detail, one: DetailPass, prompts: Prompts, picture: Picture, done: int, means: Means
) -> Generator[Progress | _Result, None, Picture | None]:
    """The picture after a pass; ``None`` where the pass has nothing to paint, or was skipped."""
    stop_if(means.cancel)
    yield Progress(done, "Detecting ..." if one.mask.model == "sam" else "Finding a mask ...")
    found = means.find_mask(picture, one.mask)
    mask = finished_mask(found.mask, one)
    if stage.show_masks:
        shown = np.repeat(mask[:, :, None], 3, axis=2)
        yield _Result(ImageFinished(0, stage.base.seed, shown, None), is_step=False)
    if is_skipped(found, one) or not repaints(mask):
        log.info("nothing found for %r, pass left out", one.mask.detection_prompt or one.mask.model)
        return None
    return (yield from _painted(pass_stage(stage, one, picture, prompts), picture, mask, done, means))


def _with_parts(
    stage: Detail, one: PartsPass, source: Source, picture: Picture, done: int, means: Means
) -> Generator[Progress | _Result, None, Picture]:
    """The picture with every part of a kind painted anew, all of which is one result; as it is where there is none."""
    stop_if(means.cancel)
    yield Progress(done, "Detecting ...")
    masks = part_masks(means.find_parts(picture, one.find), one.dilate_px, one.merge)
    if not masks:
        log.info("no parts found by %s, pass left out", one.find.detector)
    last: ImageFinished | None = None
    seed = stage.base.seed if source.seed is None else source.seed
    for index, mask in enumerate(masks):
        named = with_pictures({PICTURE: picture, MASK: mask})
        for event in means.paint(part_stage(stage, one, seed, index), named):
            match event:
                case Progress(fraction=fraction):
                    yield replace(event, fraction=done + (index + fraction) / len(masks))
                case ImageFinished():
                    last, picture = event, event.pixels
                case _:
                    pass
    if last is not None:
        record = source.record if isinstance(source.record, ImageRecord) else joined(last.record, source.record)
        yield _Result(replace(last, seed=seed, record=record), is_step=True)
    return picture


def part_stage(stage: Detail, one: PartsPass, seed: int, index: int) -> Diffuse:
    """The repainting of the part of this index in a picture of this seed."""
    base = one.base or stage.base
    repaint = Repaint(PICTURE, MASK, denoise=one.denoise, engine="None", area=replace(one.area, keeps_size=True))
    return replace(
        base,
        prompts=replace(
            base.prompts,
            prompt=_text_of(one.prompts, index) or base.prompts.prompt,
            negative_prompt=_text_of(one.negative_prompts, index) or base.prompts.negative_prompt,
        ),
        seed=(seed + index) % base.seed_count,
        image_number=1,
        seed_increment=False,
        start=None,
        repaint=repaint,
        guides=None,
    )


def _text_of(texts: Sequence[str], index: int) -> str:
    return texts[min(index, len(texts) - 1)] if texts else ""


def _painted(
    stage: Diffuse, picture: Picture, mask: Mask | None, done: int, means: Means
) -> Generator[Progress | _Result, None, Picture | None]:
    """What a stage of one picture makes of it; ``None`` where it was skipped on request."""
    made: Picture | None = None
    kept = {PICTURE: picture} if mask is None else {PICTURE: picture, MASK: mask}
    for event in means.paint(stage, with_pictures(kept)):
        match event:
            case Progress(fraction=fraction):
                yield replace(event, fraction=done + fraction)
            case ImageFinished(pixels=pixels):
                yield _Result(event, is_step=True)
                made = pixels
            case _:
                pass
    return made


def finished_mask(found: NDArray[np.uint8], one: DetailPass) -> Mask:
    """What is painted anew of what was found, ``[h, w]``."""
    mask = found if found.ndim == 2 else found[:, :, 0]
    mask = eroded_or_dilated(np.ascontiguousarray(mask), one.erode_or_dilate)
    return np.subtract(255, mask, dtype=np.uint8) if one.invert else mask


def is_skipped(found: FoundMask, one: DetailPass) -> bool:
    """Whether a text was looked for and nothing found, or nothing in the boxes that were."""
    if one.mask.model != "sam":
        return False
    return not found.boxes or (not one.mask.dino_debug and not found.segments)


def prompts_of(one: DetailPass, prompts: Prompts) -> Prompts:
    """The pass's own texts, and the request's where it has none."""
    return replace(
        prompts,
        prompt=prompts.prompt if _is_blank(one.prompt) else one.prompt,
        negative_prompt=prompts.negative_prompt if _is_blank(one.negative_prompt) else one.negative_prompt,
    )


def _is_blank(text: str) -> bool:
    main, extra = split_lines(text)
    return not main and not extra


def pass_stage(stage: Detail, one: DetailPass, picture: Picture, prompts: Prompts) -> Diffuse:
    """A pass as a repainting: with the request's seed for every picture, and nothing of the request's own pictures."""
    repaint = Repaint(
        PICTURE,
        MASK,
        denoise=one.denoise,
        respective_field=one.respective_field,
        engine=one.engine,
        use_initial_latent=one.use_initial_latent,
        refines_itself=stage.refines_itself,
    )
    return _with_prompts(stage, prompts, stage.steps, Size(picture.shape[1], picture.shape[0]), repaint=repaint)


def start_stage(stage: Detail, start: DetailStart, picture: Picture, prompts: Prompts) -> Diffuse:
    """The variation or the upscale of a picture."""
    height, width = picture.shape[:2]
    if start.factor is None:
        height, width = varied_size(height, width)
        asked, steps = StartPicture(PICTURE, start.method, start.denoise), stage.steps
    else:
        height, width, refine = upscaled_size(height, width, start.factor, fast=start.fast)
        asked = StartPicture(PICTURE, start.method, start.denoise, start.factor, refine)
        steps = stage.upscale_steps
    size = Size(width - width % GRID_PX, height - height % GRID_PX) if asked.refine else Size(width, height)
    return _with_prompts(stage, prompts, steps, size, start=asked)


def _with_prompts(
    stage: Detail,
    prompts: Prompts,
    steps: int,
    size: Size,
    *,
    repaint: Repaint | None = None,
    start: StartPicture | None = None,
) -> Diffuse:
    return replace(
        stage.base,
        prompts=prompts,
        sampling=replace(stage.base.sampling, steps=steps),
        width_px=size.width_px,
        height_px=size.height_px,
        image_number=1,
        seed_increment=False,
        start=start,
        repaint=repaint,
        guides=None,
    )
