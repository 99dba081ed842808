"""Several pictures painted at once: each is sampled on its own, only the network's calls are joined.

Every picture keeps its sampler, its noise, its guidance and its count of steps, so its numbers are those of a picture
that is painted alone, up to the rounding of sums that a call of more rows adds up in another order. A sampler goes on
until it calls a network; when all have come that far, the calls that fit each other are made as one, and each is given
its own rows. Networks, controls and the hand-over to a refiner are called by the one who drives, never by a sampler's
own strand.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.sampling.network import Control, ControlResiduals, NetworkCall, NetworkWrapper, NoisePredictor
from fooocus_core.sampling.samplers.contract import SamplerStep, Steps
from fooocus_core.stages.networks import Called
from fooocus_core.stages.strand import Suspend, strand

JOINED_AT_MOST = 8
"""So many joined texts and added conditions are kept, as a network keeps its latest (``models/forward_pass.py``)."""

Begin = Callable[[Called], Steps]
"""Begins a picture's run, which calls what it is given."""
Walk = Generator[tuple[int, SamplerStep], None, list[Tensor]]
"""The steps of all pictures, each with its picture's number from 0; returns every picture's latents."""


def sample_together(pictures: Sequence[Begin], called: Called) -> Walk:
    """Samples all pictures; one alone is walked without a detour. Closing ends them all.

    Raises what one of them raises, or what a call raises; the others end with it.
    """
    return _alone(pictures[0], called) if len(pictures) == 1 else _together(pictures, called)


def _alone(picture: Begin, called: Called) -> Walk:
    with closing(picture(called)) as steps:
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                return [finished.value]
            yield 0, step


def _together(pictures: Sequence[Begin], called: Called) -> Walk:
    latents: dict[int, Tensor] = {}
    joining = _Joining()
    with ExitStack() as running:
        runs = [running.enter_context(closing(strand(partial(_walked, begin, called)))) for begin in pictures]
        answers: Mapping[int, Tensor | None] = dict.fromkeys(range(len(runs)))
        waiting: dict[int, _Question] = {}
        while answers:
            for number in sorted(answers):
                told = yield from _up_to_a_call(number, runs[number], answers[number])
                if isinstance(told, _Question):
                    waiting[number] = told
                else:
                    latents[number] = told
            answers = joining.answers(_furthest_behind(waiting))
            for number in answers:
                del waiting[number]
    return [latents[number] for number in range(len(pictures))]


def _up_to_a_call(
    number: int, run: Generator[Any, Any, Tensor], answer: Tensor | None
) -> Generator[tuple[int, SamplerStep], None, _Question | Tensor]:
    """Lets a picture go on with ``answer``, running its errands, until it calls a network or has its latents."""
    told: Any = answer
    while True:
        try:
            told = run.send(told)
        except StopIteration as finished:
            latents: Tensor = finished.value
            return latents
        match told:
            case _Question():
                return told
            case SamplerStep():
                yield number, told
                told = None
            case _:
                told = told()


def _furthest_behind(waiting: Mapping[int, _Question]) -> dict[int, _Question]:
    """The calls of the pictures that the others wait for: one may need more calls for a step, and would fall behind."""
    progress = min((question.call.progress for question in waiting.values()), default=0.0)
    return {number: question for number, question in waiting.items() if question.call.progress == progress}


# --- on a picture's own strand ------------------------------------------------------------------------------------


def _walked(begin: Begin, called: Called, suspend: Suspend) -> Tensor:
    """Walks one picture, handing over its steps and what it calls."""
    with closing(begin(_elsewhere(called, suspend))) as steps:
        while True:
            try:
                suspend(next(steps))
            except StopIteration as finished:
                latents: Tensor = finished.value
                return latents


def _elsewhere(called: Called, suspend: Suspend) -> Called:
    """The same, called by the one who drives."""
    refiner, control, translate = called.refiner, called.control, called.translate
    return Called(
        _AskingNetwork(called.base, suspend),
        None if refiner is None else _AskingNetwork(refiner, suspend),
        None if control is None else _AskingControl(control, suspend),
        None if translate is None else lambda latents: suspend(partial(translate, latents)),
    )


@dataclass(frozen=True)
class _AskingNetwork(NetworkWrapper):
    suspend: Suspend

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        output: Tensor = self.suspend(_Question(self.network, latents, timesteps, context, adm, call))
        return output


@dataclass(frozen=True)
class _AskingControl:
    control: Control
    suspend: Suspend

    def residuals(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        adm: Tensor | None,
        sigma: float,
        sides: Sequence[PromptSide],
    ) -> ControlResiduals | None:
        found: ControlResiduals | None = self.suspend(
            partial(self.control.residuals, latents, timesteps, context, adm, sigma, sides)
        )
        return found


# --- joined calls -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Question:
    """A call of a network that waits for its answer."""

    network: NoisePredictor
    latents: Tensor
    timesteps: Tensor
    context: Tensor
    adm: Tensor | None
    call: NetworkCall

    @property
    def kind(self) -> Hashable:
        """Equal for calls at one point of the run that can be made as one: of one network, with rows of one shape."""
        residuals = self.call.residuals
        tensors = [self.latents, self.timesteps, self.context, *([] if self.adm is None else [self.adm])]
        if residuals is not None:
            tensors += [*residuals.skips, residuals.middle]
        rows = tuple((tensor.shape[1:], tensor.dtype, tensor.device) for tensor in tensors)
        return id(self.network), self.adm is None, residuals is None, rows


class _Joining:
    """Makes calls of several pictures as one where they fit each other."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], tuple[list[Tensor], Tensor]] = {}

    def answers(self, questions: Mapping[int, _Question]) -> dict[int, Tensor]:
        """The answer to every question, by the same numbers; all are asked at one point of the run."""
        alike: dict[Hashable, list[int]] = {}
        for number, question in questions.items():
            alike.setdefault(question.kind, []).append(number)
        answers: dict[int, Tensor] = {}
        for numbers in alike.values():
            asked = [questions[number] for number in numbers]
            answers |= zip(numbers, self._answered(asked), strict=True)
        return answers

    def _answered(self, asked: Sequence[_Question]) -> Sequence[Tensor]:
        one = asked[0] if len(asked) == 1 else self._joined(asked)
        output = one.network(one.latents, one.timesteps, one.context, one.adm, one.call)
        return torch.split(output, [len(question.latents) for question in asked])

    def _joined(self, asked: Sequence[_Question]) -> _Question:
        first = asked[0]
        sides = tuple(side for question in asked for side in question.call.sides)
        residuals = [question.call.residuals for question in asked if question.call.residuals is not None]
        return _Question(
            first.network,
            torch.cat([question.latents for question in asked]),
            torch.cat([question.timesteps for question in asked]),
            self._lasting([question.context for question in asked]),
            self._lasting([question.adm for question in asked if question.adm is not None])
            if first.adm is not None
            else None,
            replace(first.call, sides=sides, residuals=_joined_residuals(residuals) if residuals else None),
        )

    def _lasting(self, parts: list[Tensor]) -> Tensor:
        """What lasts through a run, of several pictures; the same tensor as long as its parts are the same.

        A network knows it again by that.
        """
        key = tuple(id(part) for part in parts)
        if key not in self._kept:
            while len(self._kept) >= JOINED_AT_MOST:
                del self._kept[next(iter(self._kept))]
            # What is kept holds on to its parts: nothing else can come to have their identities.
            self._kept[key] = parts, torch.cat(parts)
        return self._kept[key][1]


def _joined_residuals(residuals: Sequence[ControlResiduals]) -> ControlResiduals:
    skips = zip(*(one.skips for one in residuals), strict=True)
    return ControlResiduals(tuple(torch.cat(skip) for skip in skips), torch.cat([one.middle for one in residuals]))
