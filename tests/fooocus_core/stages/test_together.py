"""Pictures painted together: the same pictures as alone, fewer calls of the network, and whatever ends one ends all."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.engine import TRYING_AGAIN
from fooocus_core.errors import Interrupted, InvalidRequest
from fooocus_core.events import Cancelled, CancelToken, Event, Failed, Finished, ImageFinished, Progress, never
from fooocus_core.models.unet import DiffusionNetwork
from fooocus_core.plan import FreeU, Guidance, Output, Plan, Prompts, Sampling, StartPicture
from fooocus_core.sampling.guidance import GuidanceSettings
from fooocus_core.sampling.network import ControlResiduals, NetworkCall
from fooocus_core.sampling.sample import PromptedNetwork, SampleSettings, sample_latents
from fooocus_core.sampling.samplers.contract import SamplerStep, Steps
from fooocus_core.sampling.samplers.registry import SAMPLERS
from fooocus_core.sampling.swap import Swap
from fooocus_core.stages.networks import Called
from fooocus_core.stages.strand import Suspend
from fooocus_core.stages.together import (
    AskingNetwork,
    Begin,
    Question,
    _Joining,
    drive,
    fitting_the_first,
    furthest_behind,
    sample_together,
)
from tests.fooocus_core.stages.rendering import Studio, assert_alike_together
from tests.fooocus_core.stages.watched import in_time, strands_alive

STEPS = 4
OWN_STEPS = ("dpm_adaptive",)
"""Every picture takes as many steps as it needs."""


# --- samplers on a network that answers each row by itself --------------------------------------------------------


@dataclass
class RowByRow:
    """A network whose answer to a row has to do with that row alone, to the last bit; knows how it was called."""

    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    adm_width: int = 0
    asked: list[tuple[int, float, tuple[PromptSide, ...], Tensor]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    before: Callable[[], None] = lambda: None

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        self.before()
        self.threads.add(threading.current_thread().name)
        assert len(latents) == len(timesteps) == len(context) == len(call.sides)
        assert len(set(timesteps.tolist())) == 1
        self.asked.append((len(latents), call.progress, call.sides, context))
        looked = 0 if call.residuals is None else call.residuals.middle
        return 0.1 * latents + 1e-4 * timesteps.view(-1, 1, 1, 1) + context[:, :1, :1, None] + looked


class Looking:
    """A control whose residuals follow the row's own latents; knows on which threads it was asked."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def residuals(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        adm: Tensor | None,
        sigma: float,
        sides: Sequence[PromptSide],
    ) -> ControlResiduals | None:
        self.threads.add(threading.current_thread().name)
        return ControlResiduals((latents * 0.01,), latents * 0.01) if sigma > 1 else None


def text(value: float, tokens: int = 77) -> Conditioning:
    return Conditioning(torch.full((1, tokens, 3), value), None)


def begin(
    seed: int, called: Called, *, settings: SampleSettings, scale: float = 4.0, tokens: int = 77, owns_vae: bool = False
) -> Steps:
    """A picture of its own: seed and text differ from the others'."""
    refiner = called.refiner and PromptedNetwork(called.refiner, "eps", text(0.2), text(-0.2), owns_vae=owns_vae)
    return sample_latents(
        base=PromptedNetwork(called.base, "eps", text(0.01 * seed, tokens), text(-0.1), control=called.control),
        refiner=refiner,
        guidance=GuidanceSettings(scale, sharpness=2.0, adaptive_scale=7.0, adm_end=0.3),
        settings=replace(settings, seed=seed),
        latent=torch.zeros(1, 4, 8, 8),
        translate=called.translate,
    )


def walked(pictures: Sequence[Begin], called: Called) -> tuple[list[tuple[int, int]], list[Tensor]]:
    """Which picture told which step, and all latents."""
    walk = sample_together(pictures, called)
    told: list[tuple[int, int]] = []
    while True:
        try:
            number, step = next(walk)
        except StopIteration as finished:
            return told, finished.value
        told.append((number, step.index))


def alone(pictures: Sequence[Begin], called: Called) -> tuple[list[tuple[int, int]], list[Tensor]]:
    runs = [walked([picture], called) for picture in pictures]
    steps = [(number, index) for number, (told, _) in enumerate(runs) for _, index in told]
    return steps, [latents for _, [latents] in runs]


def settings(sampler: str = "euler", scheduler: str = "karras", **more: Any) -> SampleSettings:
    return SampleSettings(sampler, scheduler, STEPS, seed=0, **more)


def pictures(count: int = 3, **more: Any) -> list[Begin]:
    return [partial(begin, seed, **{"settings": settings(), **more}) for seed in range(count)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@in_time
def test_every_sampler_keeps_its_numbers_to_the_last_bit(sampler: str) -> None:
    asked = pictures(settings=settings(sampler))
    single, joint = RowByRow(), RowByRow()
    steps, expected = alone(asked, Called(single))
    told, latents = walked(asked, Called(joint))
    assert sorted(told) == sorted(steps)
    assert all(torch.equal(one, other) for one, other in zip(latents, expected, strict=True))
    assert sum(rows for rows, *_ in joint.asked) == sum(rows for rows, *_ in single.asked)
    if sampler not in OWN_STEPS:
        assert [rows for rows, *_ in joint.asked] == [6] * (len(single.asked) // 3)
    assert not strands_alive()


@in_time
def test_steps_come_picture_by_picture_and_networks_are_called_by_the_one_who_drives() -> None:
    network, control = RowByRow(), Looking()
    told, _ = walked(pictures(), Called(network, control=control))
    assert told == [(number, index) for index in range(STEPS) for number in range(3)]
    assert network.threads == control.threads == {threading.current_thread().name}


@in_time
def test_a_control_looks_at_every_picture() -> None:
    expected, latents = (walk(pictures(), Called(RowByRow(), control=Looking()))[1] for walk in (alone, walked))
    assert all(torch.equal(one, other) for one, other in zip(latents, expected, strict=True))
    assert not torch.equal(latents[0], walked(pictures(), Called(RowByRow()))[1][0])


@pytest.mark.parametrize("method", ["joint", "separate", "vae"])
@in_time
def test_a_hand_over_to_a_refiner_and_its_translation(method: Any) -> None:
    translators: set[str] = set()

    def translate(latents: Tensor) -> Tensor:
        translators.add(threading.current_thread().name)
        return latents * 0.5

    asked = pictures(settings=settings(swap=Swap(method, 2)), owns_vae=method == "vae")
    base, refiner = RowByRow(), RowByRow()
    _, expected = alone(asked, Called(RowByRow(), RowByRow(), translate=translate))
    _, latents = walked(asked, Called(base, refiner, translate=translate))
    assert all(torch.equal(one, other) for one, other in zip(latents, expected, strict=True))
    assert [rows for rows, *_ in base.asked + refiner.asked] == [6] * STEPS
    assert translators <= {threading.current_thread().name}


@in_time
def test_without_guidance_each_picture_is_one_row() -> None:
    network = RowByRow()
    walked(pictures(scale=1.0), Called(network))
    assert [(rows, sides) for rows, _, sides, _ in network.asked] == [(3, ("positive",) * 3)] * STEPS


@in_time
def test_texts_of_other_lengths_are_asked_apart() -> None:
    """A text of 154 pieces shares the call of its negative; one of 5 * 77 does not: it takes two calls a step."""
    asked = [partial(begin, seed, settings=settings(), tokens=77 * n) for seed, n in enumerate([1, 5, 1, 2])]
    network = RowByRow()
    _, expected = alone(asked, Called(RowByRow()))
    _, latents = walked(asked, Called(network))
    assert all(torch.equal(one, other) for one, other in zip(latents, expected, strict=True))
    assert Counter((rows, context.shape[1]) for rows, _, _, context in network.asked) == {
        (5, 77): STEPS,
        (1, 5 * 77): STEPS,
        (2, 2 * 77): STEPS,
    }


@in_time
def test_the_joined_texts_are_the_same_tensor_in_every_step() -> None:
    """By which a network knows them again."""
    network = RowByRow()
    walked(pictures(), Called(network))
    assert len({id(context) for *_, context in network.asked}) == 1


@in_time
def test_what_a_call_raises_ends_all() -> None:
    network = RowByRow()
    failing = iter([False, False, True])

    def fail() -> None:
        if next(failing):
            raise torch.cuda.OutOfMemoryError

    network.before = fail
    with pytest.raises(torch.cuda.OutOfMemoryError):
        walked(pictures(), Called(network))
    assert not strands_alive()


@in_time
def test_what_one_picture_raises_ends_all() -> None:
    def failing(called: Called) -> Steps:
        steps = begin(1, called, settings=settings())
        yield next(steps)
        raise InvalidRequest("sharpness", "too much")

    with pytest.raises(InvalidRequest, match="too much"):
        walked([*pictures(2), failing, *pictures(1)], Called(RowByRow()))
    assert not strands_alive()


@pytest.mark.parametrize("events", range(8))
@in_time
def test_closing_ends_all(events: int) -> None:
    walk = sample_together(pictures(), Called(RowByRow()))
    for _ in range(events):
        assert isinstance(next(walk)[1], SamplerStep)
    walk.close()
    assert not strands_alive()


def question(progress: float, tokens: int = 77) -> Question:
    rows = torch.zeros(2, 4, 8, 8)
    call = NetworkCall(("negative", "positive"), progress)
    return Question(ANYBODY, rows, torch.zeros(2), torch.zeros(2, tokens, 3), None, call)


ANYBODY = RowByRow()


@pytest.mark.parametrize(
    ("waiting", "behind", "fitting"),
    [
        ({}, [], []),
        ({1: question(0.5)}, [1], [1]),
        ({0: question(0.5), 1: question(0.5), 2: question(0.7)}, [0, 1], [0, 1]),
        ({0: question(0.5), 1: question(0.2)}, [1], [1]),
        ({1: question(0.5), 2: question(0.2, 154), 3: question(0.5)}, [2], [1, 3]),
        ({1: question(0.5, 154), 2: question(0.2), 3: question(0.4, 154)}, [2], [3]),
    ],
)
def test_which_calls_are_made_next(waiting: dict[int, Question], behind: list[int], fitting: list[int]) -> None:
    assert list(furthest_behind(waiting)) == behind
    assert list(fitting_the_first(waiting)) == fitting


@pytest.mark.parametrize(("timesteps", "told"), [((7.0, 7.0), 7.0), ((7.0, 8.0), None), ((7.0, None), None)])
def test_a_joined_call_names_its_noise_level_only_if_it_is_everybodys(
    timesteps: tuple[float | None, ...], told: float | None
) -> None:
    named: list[float | None] = []

    class Listening(RowByRow):
        def __call__(self, latents: Tensor, *others: Any) -> Tensor:
            named.append(others[-1].timestep)
            return latents

    one = replace(question(0.5), network=Listening())
    asked = {number: replace(one, call=replace(one.call, timestep=each)) for number, each in enumerate(timesteps)}
    _Joining().answers(asked)
    assert named == [told]


@in_time
def test_whoever_waits_is_asked_in_every_round_whether_it_still_wants_to() -> None:
    """The second never fits the first, and gives up when the first has had three answers."""
    network, rounds = RowByRow(), itertools.count()

    def work(tokens: int, cancel: CancelToken, suspend: Suspend) -> int:
        asking = AskingNetwork(network, suspend, cancel)
        asked = question(0.0, tokens)
        for answers in range(5):
            try:
                asking(asked.latents, asked.timesteps, asked.context, asked.adm, asked.call)
            except Interrupted:
                return answers
            suspend("answered")
        return 5

    works = [partial(work, 77, never), partial(work, 154, lambda: next(rounds) == 3)]
    answers: list[int] = []

    def driven() -> Iterator[tuple[int, Any]]:
        answers.extend((yield from drive(works, fitting_the_first)))

    told = list(driven())
    assert answers == [5, 0]
    assert told == [(0, "answered")] * 5
    assert next(rounds) == 4, "asked once before each of three calls of another, and then no more"


# --- whole pictures -----------------------------------------------------------------------------------------------

PICTURES = 5
AT_ONCE = 2
"""The last picture is painted alone."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    studio = Studio(tmp_path_factory.mktemp("together"))
    studio.engine.pictures = {"scene": np.full((96, 96, 3), 120, np.uint8)}.__getitem__
    return studio


@pytest.fixture
def together(studio: Studio) -> Iterator[Studio]:
    studio.engine.pictures_at_once = AT_ONCE
    yield studio
    studio.engine.pictures_at_once = 1
    assert not strands_alive()


def plan(studio: Studio, **fields: Any) -> Plan:
    (stage,) = studio.plan().stages
    stage = replace(stage, **{"sampling": Sampling("euler", "karras", STEPS), "image_number": PICTURES, **fields})
    return Plan((stage,), Output(preview=True))


@pytest.fixture(scope="module")
def one_by_one(studio: Studio) -> list[Event]:
    return list(studio.engine.run(plan(studio), lambda: False))


def steps_of(told: Sequence[Event]) -> list[Progress]:
    return [event for event in told if isinstance(event, Progress) and event.text.startswith("Step ")]


def pictures_of(told: Sequence[Event]) -> list[ImageFinished]:
    return [event for event in told if isinstance(event, ImageFinished)]


@in_time
def test_the_same_is_told_as_one_by_one(together: Studio, one_by_one: list[Event]) -> None:
    told = list(together.engine.run(plan(together), lambda: False))
    assert [told[0], told[-1]] == [one_by_one[0], one_by_one[-1]]
    texts, expected = ([event.text for event in events if isinstance(event, Progress)] for events in (told, one_by_one))
    assert sorted(texts) == sorted(expected)
    for picture in range(1, PICTURES + 1):
        own = [text for text in texts if text.endswith(f"the {picture}-th Sampling")]
        assert own == [f"Step {step}/{STEPS} in the {picture}-th Sampling" for step in range(1, STEPS + 1)]
    assert all(step.preview is not None for step in steps_of(told))
    fractions = [event.fraction for event in told if isinstance(event, Progress)]
    assert all(before <= after for before, after in itertools.pairwise(fractions))
    assert fractions[-1] < 1
    for one, other in zip(pictures_of(told), pictures_of(one_by_one), strict=True):
        assert (one.index, one.seed, one.record) == (other.index, other.seed, other.record)
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1


@in_time
def test_calls_are_joined(together: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    call = DiffusionNetwork.__call__

    def counting(self: DiffusionNetwork, latents: Tensor, *inputs: Any) -> Tensor:
        rows.append(len(latents))
        return call(self, latents, *inputs)

    monkeypatch.setattr(DiffusionNetwork, "__call__", counting)
    list(together.engine.run(plan(together), lambda: False))
    assert rows == [4] * STEPS + [4] * STEPS + [2] * STEPS


SHORT, LONG = "a red apple", "a green pear " * 40
CASES: dict[str, dict[str, Any]] = {
    "guided": {},
    "sharp": {"guidance": Guidance(sharpness=10.0)},
    "noise inside the steps": {"sampling": Sampling("dpmpp_2m_sde_gpu", "karras", STEPS)},
    "not guided": {"guidance": Guidance(scale=1.0)},
    "texts of other lengths": {"prompts": Prompts(f"[[{SHORT}, {LONG}]]")},
    "FreeU": {"freeu": FreeU()},
    "distilled": {"sampling": Sampling("lcm", "lcm", 4), "guidance": Guidance(scale=1.0)},
    "a variation": {"start": StartPicture("scene", "Vary (Strong)", 0.85)},
}


@pytest.mark.parametrize("name", CASES)
@in_time
def test_pictures_are_those_painted_alone(studio: Studio, name: str) -> None:
    assert_alike_together(studio, plan(studio, **CASES[name]))


@pytest.mark.parametrize("last_step", [1, STEPS, 2 * STEPS])
@in_time
def test_a_stop_comes_within_a_step_and_keeps_what_is_finished(together: Studio, last_step: int) -> None:
    told: list[Event] = []
    wanted = 2 * STEPS + last_step  # in the second pair

    for event in together.engine.run(plan(together), lambda: len(steps_of(told)) >= wanted):
        told.append(event)
    assert told[-1] == Cancelled()
    assert wanted <= len(steps_of(told)) < wanted + AT_ONCE
    assert [picture.index for picture in pictures_of(told)] == [0, 1]


@in_time
def test_a_wish_leaves_out_all_that_are_painted_together(together: Studio, one_by_one: list[Event]) -> None:
    told: list[Event] = []
    wishes = ["one"]

    def skip() -> bool:
        return len(steps_of(told)) >= 2 * STEPS + 3 and bool(wishes) and wishes.pop() == "one"

    for event in together.engine.run(plan(together), lambda: False, skip):
        told.append(event)
    assert told[-1] == Finished()
    assert [picture.index for picture in pictures_of(told)] == [0, 1, 4]
    assert np.array_equal(pictures_of(told)[-1].pixels, pictures_of(one_by_one)[-1].pixels)


@in_time
def test_a_wish_while_pictures_are_finished_keeps_those_that_are(together: Studio) -> None:
    told: list[Event] = []
    wishes = ["one"]

    def skip() -> bool:
        return bool(pictures_of(told)) and bool(wishes) and wishes.pop() == "one"

    for event in together.engine.run(plan(together), lambda: False, skip):
        told.append(event)
    assert [picture.index for picture in pictures_of(told)] == [0, 2, 3, 4]


@pytest.mark.parametrize("kind", [Progress, ImageFinished])
@in_time
def test_whoever_looks_away_leaves_nothing_behind(together: Studio, kind: type[Event]) -> None:
    events = together.engine.run(plan(together), lambda: False)
    seen = 0
    while seen < 3:
        seen += isinstance(next(events), kind)
    events.close()
    assert not strands_alive()


@in_time
def test_where_there_is_no_room_for_several_they_are_painted_one_by_one(
    together: Studio, one_by_one: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = DiffusionNetwork.__call__

    def narrow(self: DiffusionNetwork, latents: Tensor, *inputs: Any) -> Tensor:
        if len(latents) > 2:
            raise torch.cuda.OutOfMemoryError
        return call(self, latents, *inputs)

    monkeypatch.setattr(DiffusionNetwork, "__call__", narrow)
    asked = plan(together, image_number=3)
    told = list(together.engine.run(asked, lambda: False))
    assert told[-1] == Finished()
    assert [event.text for event in told if isinstance(event, Progress)].count(TRYING_AGAIN) == 1
    for one, other in zip(pictures_of(told), pictures_of(one_by_one)[:3], strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1
    again = list(together.engine.run(asked, lambda: False))
    assert TRYING_AGAIN not in [event.text for event in again if isinstance(event, Progress)]
    together.engine.unload()


@in_time
def test_any_other_error_of_a_call_fails_the_job(together: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Tensor:
        raise RuntimeError("broken")

    monkeypatch.setattr(DiffusionNetwork, "__call__", broken)
    assert isinstance(list(together.engine.run(plan(together), lambda: False))[-1], Failed)
