"""The engine: holds the models and runs plans. It knows nothing of HTTP, jobs or databases."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

import torch
from torch import Tensor

from fooocus_core.errors import OUT_OF_MEMORY, CoreError, OutOfMemory
from fooocus_core.events import (
    Cancelled,
    CancelToken,
    Ending,
    Event,
    ImageFinished,
    PlanRun,
    Progress,
    SkipToken,
    Started,
    never,
)
from fooocus_core.filter.content_filter import ContentFilter
from fooocus_core.images.pixels import Mask, Picture
from fooocus_core.masks.generate import FoundMask, generate_mask
from fooocus_core.masks.models import MaskModels
from fooocus_core.masks.options import MaskOptions
from fooocus_core.masks.parts import find_parts
from fooocus_core.model_files.supply import Supply
from fooocus_core.models.device import is_out_of_memory
from fooocus_core.models.loaded import ModelStore
from fooocus_core.plan import Detail, Diffuse, Output, PartSearch, Plan, Stage
from fooocus_core.prompts.expansion import PromptExpansion
from fooocus_core.prompts.styles import StyleBook
from fooocus_core.prompts.wildcards import Wildcards
from fooocus_core.sampling.shortcuts import NO_SHORTCUTS, Shortcuts
from fooocus_core.stages.detail import Means, run_detail
from fooocus_core.stages.diffuse import Manner, run_diffuse
from fooocus_core.stages.endings import numbered, to_an_ending, untold, with_room
from fooocus_core.stages.following import PaintStage, Source, goes_on_with_latents, run_following
from fooocus_core.stages.joint import Apart, Company, fit_together
from fooocus_core.stages.networks import DIRECT, Access
from fooocus_core.stages.skipping import skippable
from fooocus_core.stages.start import (
    NO_LATENTS,
    PassedLatents,
    Pictures,
    at_result_size,
    is_without_diffusion,
    no_pictures,
    run_enlarging,
)
from fooocus_core.stages.strand import Suspend, strand_thread_ids
from fooocus_core.stages.together import drive, fitting_the_first

logger = logging.getLogger(__name__)

TRYING_AGAIN = "No room on the device, trying again in less ..."
GOING_ON_ALONE = "Beginning again alone ..."


@dataclass
class Engine:
    """Runs one plan at a time, in the thread that calls it. Models stay loaded between plans."""

    models: ModelStore
    styles: StyleBook
    wildcards: Wildcards
    expansion: PromptExpansion | None = None
    """``None``: prompts are never expanded."""
    supply: Supply = field(default_factory=Supply)
    """What becomes of files that are not on disk."""
    pictures: Pictures = no_pictures
    """Where the pictures are that plans start from."""
    content_filter: ContentFilter | None = None
    """``None``: plans whose pictures are to be judged fail."""
    masks: MaskModels | None = None
    """``None``: plans in which something is to be found in a picture fail."""
    pictures_at_once: int = 1
    """How many pictures, of one stage or of several plans, are painted together, where there is room for more than a
    row at a time."""
    shortcuts: Shortcuts = NO_SHORTCUTS
    """What all pictures trade for time."""
    _crowd_px: float = field(default=inf, init=False)
    """How large plans were in all for which there was no room together; forgotten with the models."""

    def run(self, plan: Plan, cancel: CancelToken, skip: SkipToken = never) -> Iterator[Event]:
        """The events of ``plan``, the last of which is its ending; nothing inside a plan makes this raise.

        ``cancel`` is asked before every network call. Closing the iterator ends the plan as well. ``skip`` is asked
        with it while a picture is made; true leaves that picture out.
        """
        yield Started(images=plan.images)
        yield from to_an_ending(self._twice(PlanRun(plan, cancel, skip)))

    def takes_together(self, plans: Sequence[Plan]) -> bool:
        """Whether ``run_together`` paints their pictures together; of one plan: whether others may be found that fit.

        Nothing is loaded for the answer.
        """
        at_once = self._at_once
        if not 1 < at_once >= sum(plan.images for plan in plans) or not fit_together(plans):
            return False
        if _pixels_of(plans) >= self._crowd_px:
            return False
        # A whole pass would come at other steps of a plan than alone, once another has left.
        if self.shortcuts.whole_pass_every > 1:
            return False
        # The others would wait for what one of them fetches.
        return not any(self.supply.named_by(stage) for plan in plans for stage in plan.stages)

    def run_together(self, runs: Sequence[PlanRun]) -> Iterator[tuple[int, Event]]:
        """The events of every run, each with the number of its run from 0; those of a run are what ``run`` tells.

        Nothing inside a plan makes this raise, and what ends one ends no other. Closing the iterator ends all of them.
        Plans that fit each other are painted together; what cannot go on like that is run anew alone, after the others,
        and tells no picture twice.
        """
        if len(runs) == 1 or not self.takes_together([run.plan for run in runs]):
            for number, run in enumerate(runs):
                yield from numbered(number, self.run(run.plan, run.cancel, run.skip))
            return
        for number, run in enumerate(runs):
            yield number, Started(images=run.plan.images)
        told: list[Counter[int]] = [Counter() for _ in runs]
        ended = yield from self._in_company(runs, told)
        waiting = [number for number in range(len(runs)) if number not in ended]
        if waiting:
            _free()
        while waiting:
            yield from self._alone(waiting.pop(0), waiting, runs, told)

    @property
    def thread_ids(self) -> Sequence[int]:
        """Of those beside the caller's that are at plans, as ``sys._current_frames`` knows them; for any thread."""
        return strand_thread_ids()

    def _in_company(
        self, runs: Sequence[PlanRun], told: Sequence[Counter[int]]
    ) -> Generator[tuple[int, Event], None, set[int]]:
        """The events of plans that are painted together; returns the numbers of those that have ended.

        Others are left where there was no room, or where a call of several failed: nobody knows whose fault that is.
        """
        company, ended = Company(), set[int]()
        works = [partial(self._accompanied, run, company, mine) for run, mine in zip(runs, told, strict=True)]
        try:
            with closing(drive(works, fitting_the_first, torch.get_num_threads())) as events:
                for number, event in events:
                    if isinstance(event, Ending):
                        ended.add(number)
                    yield number, event
        except Exception as error:
            logger.warning("plans that were painted together go on alone", exc_info=not is_out_of_memory(error))
            if is_out_of_memory(error):
                self._crowd_px = _pixels_of([run.plan for run in runs])
        return ended

    def _accompanied(self, run: PlanRun, company: Company, told: Counter[int], suspend: Suspend) -> None:
        """One of several plans, on its strand: hands over its events, of which the last is no ending where it left."""
        with suppress(Apart), closing(to_an_ending(self._once(run, company.access(suspend), told))) as events:
            for event in events:
                suspend(event)

    def _once(self, run: PlanRun, access: Access, told: Counter[int]) -> Generator[Event, None, None]:
        """The stages' events in company. Raises what the stages raise, ``Apart`` where there is no room."""
        if not (yield from with_room(self._stages(run, access), told)):
            raise Apart

    def _alone(
        self, number: int, waiting: list[int], runs: Sequence[PlanRun], told: Sequence[Counter[int]]
    ) -> Iterator[tuple[int, Event]]:
        """Runs a plan anew; of those ``waiting`` behind it, which are stopped meanwhile are told so and left out."""
        yield number, Progress(0.0, GOING_ON_ALONE)
        with closing(to_an_ending(untold(self._twice(runs[number]), told[number]))) as events:
            for event in events:
                yield number, event
                for stopped in [other for other in waiting if runs[other].cancel()]:
                    waiting.remove(stopped)
                    yield stopped, Cancelled()

    @property
    def _at_once(self) -> int:
        """How many pictures are painted together as things are."""
        return 1 if self.models.placement.residence.row_by_row else self.pictures_at_once

    def _twice(self, run: PlanRun) -> Generator[Event, None, None]:
        """The stages' events; where there is no room, those of a second try from the start that takes less of it.

        No picture is told twice. Raises what the stages raise, ``OutOfMemory`` when both tries have failed.
        """
        told: Counter[int] = Counter()
        if not (yield from with_room(self._stages(run), told)):
            logger.warning("no room on the device: everything is forgotten, and the plan begins again in less")
            self._make_room()
            yield Progress(0.0, TRYING_AGAIN)
            if not (yield from with_room(untold(self._stages(run), told), Counter())):
                self._make_room()
                raise OutOfMemory(OUT_OF_MEMORY)

    def _make_room(self) -> None:
        self.unload()
        self.models.save_room()
        _free()

    def _stages(self, run: PlanRun, access: Access = DIRECT) -> Generator[Event, None, None]:
        """All stages' events: what a stage makes is what the one behind it enhances, each result behind its source."""
        plan = run.plan
        made: list[Source] = []
        for number, stage in enumerate(plan.stages):
            following = plan.stages[number + 1] if number + 1 < len(plan.stages) else None
            sources, made = made, []
            latents: list[Tensor] = []
            paint = partial(self._painted, run, access)
            if goes_on_with_latents(plan, number):
                paint = partial(paint, keep=latents.append)
            if plan.only_last_stage:
                stage = self._with_source(stage, sources)
            for event in self._stage_events(stage, plan.output, sources, paint, run.cancel):
                match event:
                    case Progress(fraction=fraction):
                        yield replace(event, fraction=(number + fraction) / len(plan.stages))
                    case ImageFinished() if plan.only_last_stage:
                        if following is None:
                            yield replace(event, index=len(made))
                        latent = latents.pop() if latents else None
                        made.append(Source(event.pixels, len(made), event.seed, event.record, latent))
                    case ImageFinished() if isinstance(following, Detail):
                        first = event.index * (1 + following.most_results)
                        made.append(Source(event.pixels, first + 1, event.seed, event.record))
                        if not following.only_last:
                            yield replace(event, index=first)
                    case _:
                        yield event

    def _with_source(self, stage: Stage, sources: list[Source]) -> Stage:
        """A kept picture that is enhanced as if a stage before had made it: it is then a result at least unchanged."""
        if not isinstance(stage, Detail) or stage.picture is None:
            return stage
        sources.append(Source(self.pictures(stage.picture), 0, stage.base.seed))
        return replace(stage, picture=None)

    def _stage_events(
        self, stage: Stage, output: Output, sources: Sequence[Source], paint: PaintStage, cancel: CancelToken
    ) -> Iterator[Event]:
        play = partial(self._play, stage, sources, paint, cancel)
        events = self.supply.supplied(stage, play, cancel)
        return self._filtered(events) if output.black_out_nsfw else events

    def _filtered(self, events: Generator[Event, None, None]) -> Iterator[Event]:
        """The events, with no picture in them that nobody has judged: previews, being many, are left out."""
        if self.content_filter is None:
            raise CoreError("pictures cannot be judged: this engine has no content filter")
        with closing(events):
            for event in events:
                match event:
                    case ImageFinished():
                        yield replace(event, pixels=self.content_filter.blacked_out(event.pixels))
                    case Progress():
                        yield replace(event, preview=None)
                    case _:
                        yield event

    def _play(self, stage: Stage, sources: Sequence[Source], paint: PaintStage, cancel: CancelToken) -> Iterator[Event]:
        if isinstance(stage, Diffuse):
            return run_following(stage, sources, self.pictures, paint) if stage.follows else paint(stage, self.pictures)
        if stage.picture is not None:
            sources = [Source(self.pictures(stage.picture), 0)]
        return run_detail(stage, sources, Means(paint, self._mask_of, cancel, self._parts_of))

    def _painted(
        self,
        run: PlanRun,
        access: Access,
        stage: Diffuse,
        pictures: Pictures,
        latent: Tensor | None = None,
        *,
        keep: Callable[[Tensor], None] = NO_LATENTS.keep,
    ) -> Iterator[Event]:
        stage, models = at_result_size(stage, pictures), self.models
        if is_without_diffusion(stage):
            return skippable(partial(run_enlarging, stage, pictures, models), run.cancel, run.skip)
        return run_diffuse(
            stage,
            run.plan.output,
            models,
            self.styles,
            self.wildcards,
            run.cancel,
            self.expansion,
            pictures,
            run.skip,
            PassedLatents(latent, keep),
            Manner(self._at_once, self.shortcuts, access),
        )

    def _mask_of(self, picture: Picture, options: MaskOptions) -> FoundMask:
        if self.masks is None:
            raise CoreError("nothing can be found in pictures: this engine has no networks for masks")
        return generate_mask(picture, options, self.masks)

    def _parts_of(self, picture: Picture, search: PartSearch) -> Sequence[Mask]:
        return find_parts(picture, search, self.masks, self.models.guides.faces)

    def unload(self) -> None:
        """Forgets every loaded model and gives the device's memory back."""
        if self.expansion is not None:
            self.expansion.unload()
        if self.content_filter is not None:
            self.content_filter.unload()
        self.models.unload()
        self._crowd_px = inf


def _pixels_of(plans: Sequence[Plan]) -> int:
    """Of all pictures of plans that paint no others."""
    return sum(plan.images * plan.main.width_px * plan.main.height_px for plan in plans)


def _free() -> None:
    """Gives back to the device what nothing holds on to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
