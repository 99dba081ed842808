"""Plans that are painted together: which are, that each tells and makes what it does alone, and what ends one alone."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from threading import Thread
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fooocus_core.engine import GOING_ON_ALONE, TRYING_AGAIN
from fooocus_core.errors import UnreadableModel
from fooocus_core.events import (
    Cancelled,
    Ending,
    Event,
    Failed,
    Finished,
    ImageFinished,
    PlanRun,
    Progress,
    Started,
    never,
)
from fooocus_core.models.autoencoder import Autoencoder
from fooocus_core.models.sparing import RowByRow
from fooocus_core.models.unet import DiffusionNetwork
from fooocus_core.plan import (
    Detail,
    Diffuse,
    FreeU,
    Guidance,
    Guide,
    Guides,
    Lora,
    Models,
    Output,
    Plan,
    Prompts,
    Repaint,
    Sampling,
    StartPicture,
)
from fooocus_core.sampling.network import NoisePredictor
from fooocus_core.stages.joint import fit_together
from tests.fooocus_core.stages.rendering import Studio
from tests.fooocus_core.stages.watched import in_time, strands_alive

STAGE = Diffuse(Models("some.safetensors"), Prompts("a red apple"), 64, 64, seed=1)
PLAN = Plan((STAGE,))
LORA = Lora("one.safetensors", 0.5)

# --- which fit ----------------------------------------------------------------------------------------------------

OTHERWISE: dict[str, Any] = {
    "models": Models("some.safetensors", loras=(LORA,)),
    "prompts": Prompts("a green pear", "ugly", ("Fooocus V2",), read_wildcards_in_order=True, syntax="web_ui"),
    "width_px": 72,
    "height_px": 72,
    "seed": 2,
    "image_number": 3,
    "seed_increment": False,
    "seed_count": 2**32,
    "performance": "Quality",
    "guidance": Guidance(scale=5.0),
    "sampling": Sampling(steps=31),
    "refiner_switch": 0.6,
    "refiner_swap": "vae",
    "switch_step": 3,
    "overwrite_switch": 3,
    "freeu": FreeU(),
    "start": StartPicture("scene", "Vary (Subtle)", 0.5),
    "repaint": Repaint("scene", engine="None"),
    "guides": Guides((Guide("scene", "PyraCanny", 0.5, 1.0),)),
}
"""Another value of every field of a stage."""

A_PLANS_OWN = {"prompts", "seed", "image_number", "seed_increment", "seed_count"}
"""What may differ in plans that fit each other."""


def test_no_field_of_a_stage_is_forgotten() -> None:
    assert OTHERWISE.keys() == {field.name for field in fields(Diffuse)} - {"kind"}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_is_not_a_plans_own_must_be_the_same(name: str) -> None:
    other = Plan((replace(STAGE, **{name: OTHERWISE[name]}),))
    assert fit_together([PLAN, other]) is fit_together([other, PLAN]) is (name in A_PLANS_OWN)
    assert not fit_together([PLAN, PLAN, other]) or name in A_PLANS_OWN


@pytest.mark.parametrize(
    "models",
    [
        Models("other.safetensors"),
        Models("some.safetensors", vae="vae.safetensors"),
        Models("some.safetensors", loras=(LORA,)),
        Models("some.safetensors", performance_lora=LORA),
        Models("some.safetensors", clip_skip=1),
    ],
)
def test_models_must_be_the_same(models: Models) -> None:
    other = Plan((replace(STAGE, models=models),))
    assert not fit_together([PLAN, other])
    assert fit_together([other, other])


TAGGED = "a red apple <lora:one:0.5>"


@pytest.mark.parametrize(
    ("first", "second", "fit"),
    [
        (Prompts(TAGGED), Prompts("<lora:one:0.5> a pear"), True),
        (Prompts(TAGGED), Prompts("a pear"), False),
        (Prompts(TAGGED), Prompts("a pear <lora:one:0.6>"), False),
        (Prompts(TAGGED), Prompts("a pear <lora:two:0.5>"), False),
        (Prompts(TAGGED), Prompts(TAGGED, max_loras=1), False),
        (Prompts(TAGGED), Prompts(TAGGED, syntax="web_ui"), False),
        (Prompts("a pear"), Prompts(TAGGED, syntax="web_ui"), True),
        (Prompts("a pear"), Prompts(f"a pear\n{TAGGED}"), True),  # tags count in the first line alone
    ],
)
def test_loras_that_a_prompt_names_must_be_the_same(first: Prompts, second: Prompts, fit: bool) -> None:
    assert fit_together([Plan((replace(STAGE, prompts=prompts),)) for prompts in (first, second)]) is fit


@pytest.mark.parametrize(
    "plan",
    [
        Plan((STAGE, Detail(STAGE, 30, 18))),
        Plan((Detail(STAGE, 30, 18, picture="scene"),)),
        Plan((replace(STAGE, models=Models("some.safetensors", refiner="refiner.safetensors")),)),
        *[Plan((replace(STAGE, **{name: OTHERWISE[name]}),)) for name in ("start", "repaint", "guides")],
    ],
)
def test_whatever_starts_from_more_than_noise_is_always_painted_alone(plan: Plan) -> None:
    assert not fit_together([plan])
    assert not fit_together([plan, plan])


def test_what_becomes_of_finished_pictures_is_every_plans_own() -> None:
    others = Output("webp", True, "a1111", "name", False, "somebody", True, True)
    assert fit_together([PLAN, replace(PLAN, output=others), replace(PLAN, only_last_stage=True)])


# --- painted together ---------------------------------------------------------------------------------------------

STEPS = 3
AT_ONCE = 4
LONG = "a green pear " * 40
"""A text of more tokens than the others have."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    studio = Studio(tmp_path_factory.mktemp("joint"))
    studio.engine.pictures_at_once = AT_ONCE
    return studio


@pytest.fixture(scope="module")
def single(studio: Studio) -> Callable[[Plan], list[Event]]:
    """What a plan tells that is run by itself."""
    return cache(lambda plan: list(studio.engine.run(plan, never)))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not strands_alive()


@dataclass
class Calls:
    """Rows of every call of a network, and what happens before one."""

    rows: list[int] = field(default_factory=list)
    before: Callable[[Tensor], None] = lambda latents: None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    plain = DiffusionNetwork.__call__

    def noted(self: DiffusionNetwork, latents: Tensor, *inputs: Any) -> Tensor:
        calls.before(latents)
        calls.rows.append(len(latents))
        return plain(self, latents, *inputs)

    monkeypatch.setattr(DiffusionNetwork, "__call__", noted)
    return calls


def plan(studio: Studio, prompt: str = "a red apple", seed: int = 7, **fields: Any) -> Plan:
    (stage,) = studio.plan(prompt).stages
    return Plan((replace(stage, **{"seed": seed, "sampling": Sampling("euler", "karras", STEPS), **fields}),))


def three(studio: Studio) -> list[Plan]:
    return [plan(studio), plan(studio, "a pear", 8, image_number=2), plan(studio, "a plum", 9)]


def told(studio: Studio, runs: Sequence[Plan | PlanRun]) -> list[list[Event]]:
    """Every run's events, which it tells from the first to one ending."""
    events: list[list[Event]] = [[] for _ in runs]
    asked = [run if isinstance(run, PlanRun) else PlanRun(run, never) for run in runs]
    assert studio.engine.takes_together([run.plan for run in asked])
    for number, event in studio.engine.run_together(asked):
        events[number].append(event)
    for own in events:
        assert [type(event) for event in own if isinstance(event, Started)] == [Started]
        assert isinstance(own[0], Started)
        assert [event for event in own if isinstance(event, Ending)] == own[-1:]
    return events


def pictures_of(events: Sequence[Event]) -> list[ImageFinished]:
    return [event for event in events if isinstance(event, ImageFinished)]


def assert_same(events: Sequence[Event], expected: Sequence[Event]) -> None:
    """The same in all but the last bit of pixels."""
    assert events[-1] == expected[-1]
    assert len(pictures_of(events)) == len(pictures_of(expected))
    for one, other in zip(pictures_of(events), pictures_of(expected), strict=True):
        assert (one.index, one.seed, one.record) == (other.index, other.seed, other.record)
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1


def progress_of(events: Sequence[Event]) -> list[tuple[float, str]]:
    return [(event.fraction, event.text) for event in events if isinstance(event, Progress)]


@in_time
def test_each_tells_and_makes_what_it_does_alone(studio: Studio, single: Callable[[Plan], list[Event]]) -> None:
    plans = three(studio)
    for own, asked in zip(told(studio, plans), plans, strict=True):
        assert_same(own, single(asked))
        assert progress_of(own) == progress_of(single(asked))
        previews = [event.preview is not None for event in own if isinstance(event, Progress)]
        assert previews == [event.preview is not None for event in single(asked) if isinstance(event, Progress)]


@in_time
def test_the_network_is_called_as_often_as_for_one(studio: Studio, calls: Calls) -> None:
    told(studio, three(studio))
    assert calls.rows == [2 * AT_ONCE] * STEPS


@pytest.mark.parametrize(
    "fields",
    [
        {"freeu": FreeU()},
        {"guidance": Guidance(scale=1.0)},
        {"guidance": Guidance(sharpness=10.0)},
        {"sampling": Sampling("dpmpp_2m_sde_gpu", "karras", STEPS)},
    ],
    ids=["FreeU", "not guided", "sharp", "noise inside the steps"],
)
@in_time
def test_whatever_is_said_of_the_network(
    studio: Studio, single: Callable[[Plan], list[Event]], calls: Calls, fields: dict[str, Any]
) -> None:
    plans = [plan(studio, **fields), plan(studio, "a pear", 8, **fields)]
    events = told(studio, plans)
    assert len(calls.rows) == STEPS
    for own, asked in zip(events, plans, strict=True):
        assert_same(own, single(asked))


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde_gpu", "heun"])
@in_time
def test_where_rows_are_calculated_one_by_one_pictures_are_the_same_to_the_last_bit(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    plain = DiffusionNetwork.__call__
    monkeypatch.setattr(
        DiffusionNetwork,
        "__call__",
        lambda self, *inputs: RowByRow(cast(NoisePredictor, partial(plain, self)))(*inputs),
    )
    sampling = Sampling(sampler, "karras", STEPS)
    plans = [plan(studio, sampling=sampling), plan(studio, "a pear", 8, image_number=2, sampling=sampling)]
    for own, asked in zip(told(studio, plans), plans, strict=True):
        alone = pictures_of(list(studio.engine.run(asked, never)))
        assert [picture.pixels.tobytes() for picture in pictures_of(own)] == [one.pixels.tobytes() for one in alone]


@in_time
def test_a_text_that_fits_nobodys_waits_for_those_before_it(
    studio: Studio, single: Callable[[Plan], list[Event]], calls: Calls
) -> None:
    plans = [plan(studio), plan(studio, LONG, 8), plan(studio, "a plum", 9)]
    wanted = [single(asked) for asked in plans]
    calls.rows.clear()
    events = told(studio, plans)
    assert calls.rows == [4] * STEPS + [2] * STEPS
    for own, expected in zip(events, wanted, strict=True):
        assert_same(own, expected)


# --- what ends one ------------------------------------------------------------------------------------------------


def after(calls: Calls, count: int) -> Callable[[], bool]:
    return lambda: len(calls.rows) >= count


@pytest.mark.parametrize("number", [0, 1])
@in_time
def test_a_stopped_one_leaves_and_the_others_go_on(
    studio: Studio, single: Callable[[Plan], list[Event]], calls: Calls, number: int
) -> None:
    plans = three(studio)
    wanted = [single(asked) for asked in plans]
    calls.rows.clear()
    runs = [PlanRun(asked, after(calls, 2) if index == number else never) for index, asked in enumerate(plans)]
    events = told(studio, runs)
    left = 2 * (AT_ONCE - plans[number].images)
    assert calls.rows == [2 * AT_ONCE, 2 * AT_ONCE, left]
    assert events[number][-1] == Cancelled()
    assert not pictures_of(events[number])
    for index, own in enumerate(events):
        if index != number:
            assert_same(own, wanted[index])


@in_time
def test_one_that_waits_for_others_is_stopped_within_a_call(studio: Studio, calls: Calls) -> None:
    ended: list[int] = []
    runs = [PlanRun(plan(studio), never), PlanRun(plan(studio, LONG), after(calls, 1))]
    for number, event in studio.engine.run_together(runs):
        if isinstance(event, Ending):
            ended.append(number)
            assert number == 0 or (event, len(calls.rows)) == (Cancelled(), 1)
    assert ended == [1, 0]


@in_time
def test_a_wish_leaves_out_the_pictures_of_one(
    studio: Studio, single: Callable[[Plan], list[Event]], calls: Calls
) -> None:
    first, second = plan(studio), plan(studio, "a plum", 9)
    wanted = single(second)
    calls.rows.clear()
    wishes = ["one"]
    skipped = PlanRun(first, never, lambda: len(calls.rows) == 1 and bool(wishes) and wishes.pop() == "one")
    events = told(studio, [skipped, second])
    assert not pictures_of(events[0])
    assert events[0][-1] == Finished()
    assert_same(events[1], wanted)


class Faulty:
    """Stands in for the prompt expansion: raises what is given for one prompt, as often as it is given."""

    def __init__(self, prompt: str, *errors: Exception) -> None:
        self.prompt = prompt
        self.errors = list(errors)

    def __call__(self, prompt: str, seed: int) -> str | None:
        if prompt == self.prompt and self.errors:
            raise self.errors.pop()
        return None


def expanded(studio: Studio, prompt: str, seed: int) -> Plan:
    return plan(studio, seed=seed, prompts=Prompts(prompt, styles=("Fooocus V2",)))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnreadableModel("some.bin", "cut"), "some.bin: cut"),
        (RuntimeError("a bug"), "internal error, see the server's log"),
    ],
)
@in_time
def test_what_is_wrong_with_one_ends_that_alone(
    studio: Studio,
    single: Callable[[Plan], list[Event]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    plans = [expanded(studio, "a pear", 8), expanded(studio, "a red apple", 7)]
    wanted = single(plans[1])
    monkeypatch.setattr(studio.engine, "expansion", Faulty("a pear", error))
    events = told(studio, plans)
    assert events[0][-1] == Failed(reason)
    assert_same(events[1], wanted)


@in_time
def test_pictures_that_cannot_be_judged_are_one_plans_matter(studio: Studio) -> None:
    judged = replace(plan(studio), output=Output(black_out_nsfw=True))
    events = told(studio, [judged, plan(studio)])
    assert [type(own[-1]) for own in events] == [Failed, Finished]


# --- what cannot go on in company ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, ValueError])
@in_time
def test_where_a_call_of_several_fails_they_go_on_alone(
    studio: Studio, single: Callable[[Plan], list[Event]], calls: Calls, error: type[Exception]
) -> None:
    plans = three(studio)
    wanted = [single(asked) for asked in plans]
    lost: list[weakref.ref[Tensor]] = []
    held: list[bool] = []

    def narrow(latents: Tensor) -> None:
        held.extend(ref() is not None for ref in lost)
        if len(latents) > 4:
            lost.append(weakref.ref(latents))
            raise error

    calls.before = narrow
    calls.rows.clear()
    events = told(studio, plans)
    assert studio.engine.takes_together(plans) is (error is ValueError), "so many find no room another time either"
    assert studio.engine.takes_together(plans[:2])
    studio.engine.unload()
    assert studio.engine.takes_together(plans)
    assert len(lost) == 1
    assert error is ValueError or not any(held), "what is in the log with its trace is held on to by the test's own log"
    assert calls.rows == [2] * STEPS + [4] * STEPS + [2] * STEPS
    for own, expected in zip(events, wanted, strict=True):
        assert_same(own, expected)
        assert [text for _, text in progress_of(own)].count(GOING_ON_ALONE) == 1
        assert TRYING_AGAIN not in [text for _, text in progress_of(own)]


@in_time
def test_one_without_room_for_its_own_part_goes_on_alone_behind_the_others(
    studio: Studio, single: Callable[[Plan], list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [expanded(studio, "a pear", 8), expanded(studio, "a red apple", 7)]
    wanted = [single(asked) for asked in plans]
    model = studio.engine.models.checkpoint(plans[0].main.models)
    monkeypatch.setattr(studio.engine, "expansion", Faulty("a pear", MemoryError()))
    events = told(studio, plans)
    assert [GOING_ON_ALONE in [text for _, text in progress_of(own)] for own in events] == [True, False]
    assert studio.engine.models.checkpoint(plans[0].main.models) is model, "what the others use is not forgotten"
    for own, expected in zip(events, wanted, strict=True):
        assert_same(own, expected)


@in_time
def test_no_picture_is_told_twice(
    studio: Studio, single: Callable[[Plan], list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second picture of a plan cannot be decoded while the first one is told already."""
    first, second = plan(studio), plan(studio, "a pear", 8, image_number=2)
    wanted = [single(first), single(second)]
    plain, lacking = Autoencoder.decode_or_tiled, iter([False, False, True])

    def decoded(self: Autoencoder, latents: Tensor) -> Tensor:
        if next(lacking, False):
            raise MemoryError
        return plain(self, latents)

    monkeypatch.setattr(Autoencoder, "decode_or_tiled", decoded)
    events = told(studio, [first, second])
    assert GOING_ON_ALONE in [text for _, text in progress_of(events[1])]
    assert [picture.index for picture in pictures_of(events[1])] == [0, 1]
    for own, expected in zip(events, wanted, strict=True):
        assert_same(own, expected)


@in_time
def test_where_no_thread_can_be_had_they_go_on_alone(
    studio: Studio, single: Callable[[Plan], list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, begun = Thread.start, itertools.count()

    def start(self: Thread) -> None:
        if next(begun) == 1:
            raise RuntimeError("can't start new thread")
        plain(self)

    monkeypatch.setattr(Thread, "start", start)
    plans = [plan(studio), plan(studio, "a pear", 8)]
    for own, asked in zip(told(studio, plans), plans, strict=True):
        assert_same(own, single(asked))


@in_time
def test_what_waits_to_go_on_alone_is_stopped_within_a_step(studio: Studio, calls: Calls) -> None:
    def narrow(latents: Tensor) -> None:
        if len(latents) > 2:
            raise MemoryError

    calls.before = narrow
    plans = [plan(studio), plan(studio, "a pear", 8), plan(studio, "a plum", 9)]
    events = studio.engine.run_together(
        [PlanRun(asked, cancel) for asked, cancel in zip(plans, [never, after(calls, 1), never], strict=True)]
    )
    endings = [(number, event, len(calls.rows)) for number, event in events if isinstance(event, Ending)]
    assert endings == [(1, Cancelled(), 1), (0, Finished(), STEPS), (2, Finished(), 2 * STEPS)]
    studio.engine.unload()  # it forgets as well that there was no room


# --- weights ------------------------------------------------------------------------------------------------------


def write_lora(studio: Studio, name: str) -> Lora:
    """A change of one weight of the network."""
    network = studio.engine.models.checkpoint(studio.plan().main.models).network
    key = next(key for key in network.parameter_names if key.endswith("attn1.to_q.weight"))
    weight = network.originals[network.parameter_names[key]].float()
    folder = studio.root / "loras"
    folder.mkdir(exist_ok=True)
    module = key.removesuffix(".weight").replace(".", "_")
    save_file({f"lora_unet_{module}.diff": 0.5 * weight}, folder / f"{name}.safetensors")
    return Lora(f"{name}.safetensors", 1.0)


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[DiffusionNetwork]:
    """The networks whose weights are changed, whenever one is."""
    changed: list[DiffusionNetwork] = []
    plain = DiffusionNetwork.weights_changed

    def noted(self: DiffusionNetwork) -> None:
        changed.append(self)
        plain(self)

    monkeypatch.setattr(DiffusionNetwork, "weights_changed", noted)
    return changed


@in_time
def test_weights_are_merged_once_and_the_next_plans_touch_none(
    studio: Studio, single: Callable[[Plan], list[Event]], changes: list[DiffusionNetwork]
) -> None:
    """The first has ended before the second begins to paint, whose weights it leaves as they are."""
    write_lora(studio, "merged")
    tag = "<lora:merged:1.0>"
    plans = [plan(studio, f"a red apple {tag}"), plan(studio, f"{LONG} {tag}", 8)]
    events = told(studio, plans)
    assert len(changes) == 1
    again = told(studio, plans)
    for both in zip(events, again, map(single, plans), strict=True):
        assert_same(both[1], both[0])
        assert_same(both[1], both[2])
    assert len(changes) == 1
    told(studio, [plan(studio), plan(studio, "a pear", 8)])
    assert len(changes) == 2, "taken off"


@in_time
def test_a_lora_that_comes_meanwhile_is_merged_when_the_others_have_ended(
    studio: Studio, single: Callable[[Plan], list[Event]], changes: list[DiffusionNetwork]
) -> None:
    """Both name it. The first one begins without it, the second finds it."""
    prompts = [f"{what} <lora:coming:1.0>" for what in ("a red apple", "a pear")]
    first, second = (plan(studio, prompt) for prompt in prompts)
    without = list(studio.engine.run(plan(studio, "a red apple"), never))
    changes.clear()
    events: list[list[Event]] = [[], []]
    for number, event in studio.engine.run_together([PlanRun(first, never), PlanRun(second, never)]):
        events[number].append(event)
        if (number, event) == (1, Progress(0.0, "Loading models ...")):
            write_lora(studio, "coming")
        assert not changes or isinstance(events[0][-1], Finished)
    assert np.abs(pictures_of(events[0])[0].pixels.astype(int) - pictures_of(without)[0].pixels).max() <= 1
    assert_same(events[1], single(second))


@pytest.mark.parametrize("kind", [Progress, ImageFinished])
@in_time
def test_whoever_looks_away_leaves_nothing_behind(
    studio: Studio, single: Callable[[Plan], list[Event]], kind: type[Event]
) -> None:
    plans = three(studio)
    events = studio.engine.run_together([PlanRun(asked, never) for asked in plans])
    seen = 0
    while seen < (8 if kind is Progress else 2):
        seen += isinstance(next(events)[1], kind)
    assert strands_alive()
    cast(Generator[Any, None, None], events).close()
    assert not strands_alive()
    assert_same(told(studio, plans)[0], single(plans[0]))
