"""Shortcuts leave out what they say they leave out, and nothing where nobody asks for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fooocus_core.sampling.network import NetworkCall, StepMemory
from fooocus_core.sampling.sample import PromptedNetwork, SampleSettings, sample_latents
from fooocus_core.sampling.shortcuts import NO_SHORTCUTS, Shortcuts
from tests.fooocus_core.sampling.closed_form import run_to_end
from tests.fooocus_core.sampling.test_sample import GUIDANCE, RecordingNetwork, side

STEPS = 10


class RememberingNetwork(RecordingNetwork):
    """Also notes which of its calls may reuse an earlier one's depths, and which memories they bring."""

    def __init__(self) -> None:
        super().__init__()
        self.reused: list[bool] = []
        self.memories: list[StepMemory | None] = []

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        self.memories.append(call.memory)
        deep = None if call.memory is None else call.memory.recalled(call.sides)
        self.reused.append(deep is not None)
        if call.memory is not None and deep is None:
            call.memory.keep(call.sides, latents)
        return super().__call__(latents, timesteps, context, adm, call)


def sampled(shortcuts: Shortcuts, seed: int = 1) -> tuple[RememberingNetwork, Tensor]:
    network = RememberingNetwork()
    _, latents = run_to_end(
        sample_latents(
            base=PromptedNetwork(network, "eps", side(0.1), side(-0.1)),
            guidance=GUIDANCE,
            settings=SampleSettings("euler", "karras", STEPS, seed),
            latent=torch.zeros(1, 4, 8, 8),
            shortcuts=shortcuts,
        )
    )
    return network, latents


def test_without_any_every_call_is_whole_and_guided() -> None:
    network, latents = sampled(NO_SHORTCUTS)
    assert [call.sides for call in network.calls] == [("negative", "positive")] * STEPS
    assert network.memories == [None] * STEPS
    assert torch.equal(sampled(Shortcuts(1.0, 1))[1], latents)


@pytest.mark.parametrize("until", [0.0, 0.5])
def test_past_its_end_guidance_asks_the_positive_side_alone(until: float) -> None:
    network, latents = sampled(Shortcuts(guidance_until=until))
    progress = [1 - call.timesteps[0].item() / 999 for call in network.calls]
    expected = [("negative", "positive") if share < until else ("positive",) for share in progress]
    assert [call.sides for call in network.calls] == expected
    assert len(set(expected)) == (1 if until == 0 else 2)
    assert [call.context[:, 0, 0].tolist() for call in network.calls[-1:]] == [[pytest.approx(0.1)]]
    assert not torch.allclose(latents, sampled(NO_SHORTCUTS)[1])


@pytest.mark.parametrize("every", [2, 3])
def test_of_so_many_calls_one_is_whole(every: int) -> None:
    network, _ = sampled(Shortcuts(whole_pass_every=every))
    assert network.reused == [number % every != 0 for number in range(STEPS)]
    assert len({id(memory) for memory in network.memories}) == 1


def test_every_run_remembers_by_itself() -> None:
    first, second = (sampled(Shortcuts(whole_pass_every=2), seed)[0].memories[0] for seed in (1, 2))
    assert first is not second


def test_both_together_begin_anew_where_the_rows_change() -> None:
    network, _ = sampled(Shortcuts(0.5, 3))
    change = [len(call.sides) for call in network.calls].index(1)
    assert network.reused == [number % 3 != 0 for number in [*range(change), *range(STEPS - change)]]
