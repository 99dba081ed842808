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
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.events import CancelToken, never
from fooocus_core.sampling.network import Control, ControlResiduals, NetworkCall, NetworkWrapper, NoisePredictor
from fooocus_core.sampling.samplers.contract import SamplerStep, Steps
from fooocus_core.stages.networks import Called, stop_if
from fooocus_core.stages.strand import Suspend, strand

JOINED_AT_MOST = 8
"""So many joined texts and added conditions are kept, as a network keeps its latest (``models/forward_pass.py``)."""

Begin = Callable[[Called], Steps]
"""Begins a picture's run, which calls what it is given."""
Walk = Generator[tuple[int, SamplerStep], None, list[Tensor]]
"""The steps of all pictures, each with its picture's number from 0; returns every picture's latents."""
Result = TypeVar("Result")
Choose = Callable[[Mapping[int, "Question"]], Mapping[int, "Question"]]
"""Which of the calls that wait are made next, by the numbers of those who wait; at least one of them."""


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
    return (yield from drive([partial(_walked, begin, called) for begin in pictures], furthest_behind))


# --- whoever drives -----------------------------------------------------------------------------------------------


def drive(
    works: Sequence[Callable[[Suspend], Result]], choose: Choose, threads: int = 1
) -> Generator[tuple[int, Any], None, list[Result]]:
    """Runs all works, each on a strand of its own, until each waits for a call; then ``choose`` says which are made.

    Yields what a work tells, with its number from 0; returns what they return. Closing ends them all. Raises what one
    of them raises, or what a call raises; the others end with it. ``threads``: with how many torch calculates in each.
    """
    results: dict[int, Result] = {}
    joining = _Joining()
    with ExitStack() as running:
        runs = [running.enter_context(closing(strand(work, threads))) for work in works]
        answers: dict[int, Tensor | None] = dict.fromkeys(range(len(runs)))
        while answers:
            waiting: dict[int, Question] = {}
            for number in sorted(answers):
                told = yield from _up_to_a_call(number, runs[number], answers[number])
                if isinstance(told, Question):
                    waiting[number] = told
                else:
                    results[number] = told.value
            answers = {**dict.fromkeys(waiting), **joining.answers(choose(waiting))}
    return [results[number] for number in range(len(works))]


def _up_to_a_call(
    number: int, run: Generator[Any, Any, Result], answer: Tensor | None
) -> Generator[tuple[int, Any], None, Question | _Result[Result]]:
    """Lets a work go on with ``answer``, running its errands, until it calls a network or has its result."""
    told: Any = answer
    while True:
        try:
            told = run.send(told)
        except StopIteration as finished:
            return _Result(finished.value)
        match told:
            case Question():
                return told
            case partial():
                told = told()
            case _:
                yield number, told
                told = None


@dataclass(frozen=True)
class _Result(Generic[Result]):
    """What a work has come to."""

    value: Result


def furthest_behind(waiting: Mapping[int, Question]) -> Mapping[int, Question]:
    """The calls of those that the others wait for: one may need more calls for a step, and would fall behind."""
    progress = min((question.call.progress for question in waiting.values()), default=0.0)
    return {number: question for number, question in waiting.items() if question.call.progress == progress}


def fitting_the_first(waiting: Mapping[int, Question]) -> Mapping[int, Question]:
    """The calls that can be made as one with that of the first, so that it takes no longer than alone.

    Whoever fits nobody gains nothing by company: it waits until those before it have ended.
    """
    first = min(waiting, default=None)
    if first is None:
        return {}
    kind = waiting[first].kind
    return furthest_behind({number: question for number, question in waiting.items() if question.kind == kind})


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
        AskingNetwork(called.base, suspend),
        None if refiner is None else AskingNetwork(refiner, suspend),
        None if control is None else _AskingControl(control, suspend),
        None if translate is None else lambda latents: suspend(partial(translate, latents)),
    )


@dataclass(frozen=True)
class AskingNetwork(NetworkWrapper):
    """A network that the one who drives calls. ``cancel`` is asked whenever a call of anybody is to be made.

    Raises ``Interrupted``.
    """

    suspend: Suspend
    cancel: CancelToken = never

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        question = Question(self.network, latents, timesteps, context, adm, call)
        answer: Tensor | None = None
        while answer is None:
            stop_if(self.cancel)
            answer = self.suspend(question)
        return answer


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
class Question:
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

    def answers(self, questions: Mapping[int, Question]) -> dict[int, Tensor]:
        """The answer to every question, by the same numbers; all are asked at one point of the run."""
        alike: dict[Hashable, list[int]] = {}
        for number, question in questions.items():
            alike.setdefault(question.kind, []).append(number)
        answers: dict[int, Tensor] = {}
        for numbers in alike.values():
            asked = [questions[number] for number in numbers]
            answers |= zip(numbers, self._answered(asked), strict=True)
        return answers

    def _answered(self, asked: Sequence[Question]) -> Sequence[Tensor]:
        one = asked[0] if len(asked) == 1 else self._joined(asked)
        output = one.network(one.latents, one.timesteps, one.context, one.adm, one.call)
        return torch.split(output, [len(question.latents) for question in asked])

    def _joined(self, asked: Sequence[Question]) -> Question:
        first = asked[0]
        sides = tuple(side for question in asked for side in question.call.sides)
        residuals = [question.call.residuals for question in asked if question.call.residuals is not None]
        return Question(
            first.network,
            torch.cat([question.latents for question in asked]),
            torch.cat([question.timesteps for question in asked]),
            self._lasting([question.context for question in asked]),
            self._lasting([question.adm for question in asked if question.adm is not None])
            if first.adm is not None
            else None,
            replace(
                first.call,
                sides=sides,
                timestep=first.call.timestep if len({question.call.timestep for question in asked}) == 1 else None,
                residuals=_joined_residuals(residuals) if residuals else None,
            ),
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
