"""Which models take part, and what a whole run with two of them asks of each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fooocus_core.sampling.blend import InpaintTask
from fooocus_core.sampling.sample import PromptedNetwork, SampleSettings, sample_latents
from fooocus_core.sampling.swap import Swap, SwapPlan, resolve_swap
from tests.cases import check_all
from tests.fooocus_core.sampling.closed_form import run_to_end
from tests.fooocus_core.sampling.test_sample import GUIDANCE, RecordingNetwork, side

SETTINGS = SampleSettings("euler", "karras", steps=6, seed=1)
LATENT = torch.zeros(1, 4, 8, 8)


@pytest.mark.parametrize(
    ("swap", "has_refiner", "expected"),
    [
        (Swap("joint", 4), True, "joint"),
        (Swap("joint", 4), False, "base"),
        (Swap("separate", 4), True, "separate"),
        (Swap("separate", 4), False, "separate"),
        (Swap("vae", 4), False, "vae"),
        (Swap("joint", 0), True, "joint"),
        (Swap("separate", 0), True, "refiner"),
        (Swap("vae", 0), True, "refiner"),
        (Swap("vae", 0), False, "base"),
        (Swap("joint", None), True, "base"),
    ],
)
def test_latents_of_one_kind(swap: Swap, has_refiner: bool, expected: SwapPlan) -> None:
    plan = resolve_swap(swap, has_refiner=has_refiner, refiner_owns_vae=False, steps=10, denoise=1.0)
    assert plan == expected


@pytest.mark.parametrize(
    ("denoise", "step", "expected"),
    [
        (1.0, 4, "vae"),
        (0.91, 4, "vae"),
        (0.9, 4, "base"),  # 0.6 ** 0.834 is 0.653
        (0.66, 4, "base"),
        (0.65, 4, "refiner"),
        (0.5, 10, "base"),
        (0.5, 12, "base"),
        (1.0, 0, "refiner"),
    ],
)
@pytest.mark.parametrize("method", ["joint", "separate", "vae"])
def test_latents_of_two_kinds(denoise: float, step: int, expected: SwapPlan, method: str) -> None:
    """A refiner with its own autoencoder decides the method itself."""
    swap = Swap(method, step)  # type: ignore[arg-type]
    assert resolve_swap(swap, has_refiner=True, refiner_owns_vae=True, steps=10, denoise=denoise) == expected


def calls(method: str, switch: int, *, sampler: str = "euler", scheduler: str = "karras") -> tuple[int, int]:
    """How often the base and the refiner are asked in a run of six steps; the steps are told in order."""
    base, refiner = RecordingNetwork(), RecordingNetwork()
    settings = replace(SETTINGS, sampler=sampler, scheduler=scheduler, swap=Swap(method, switch))  # type: ignore[arg-type]
    steps, final = run_to_end(
        sample_latents(
            base=PromptedNetwork(base, "eps", side(0.1), side(-0.1)),
            refiner=PromptedNetwork(refiner, "eps", side(0.2), side(-0.2)),
            guidance=GUIDANCE,
            settings=settings,
            latent=LATENT,
        )
    )
    assert final.isfinite().all()
    told = [step.index for step in steps]
    assert told == sorted(set(told))  # dpm_fast takes fewer steps than it is given, and so leaves numbers out
    return len(base.calls), len(refiner.calls)


def test_who_is_asked_how_often() -> None:
    expected = {
        ("joint", 0): (1, 5),  # the base answers the step of the switch itself
        ("joint", 4): (5, 1),
        ("joint", 6): (6, 0),
        ("separate", 0): (0, 6),
        ("separate", 4): (4, 2),
        ("separate", 6): (6, 0),
        ("separate", 200): (6, 0),
        ("vae", 0): (0, 6),
        ("vae", 4): (4, 2),
        ("vae", 6): (6, 0),
        ("vae", 200): (6, 0),
    }

    def check(case: tuple[str, int]) -> None:
        assert calls(*case) == expected[case]

    check_all({str(case): case for case in expected}, check)


@pytest.mark.parametrize("method", ["joint", "separate", "vae"])
def test_every_sampler_and_scheduler_can_be_handed_over(method: str) -> None:
    samplers = ("uni_pc", "dpm_2", "dpm_fast", "dpmpp_3m_sde", "lms", "restart", "heunpp2", "lcm", "ddpm")
    schedulers = ("turbo", "ddim_uniform", "lcm", "edm_playground_v2.5")

    def check(case: tuple[str, str, int]) -> None:
        sampler, scheduler, switch = case
        calls(method, switch, sampler=sampler, scheduler=scheduler)

    cases = [(sampler, "karras", switch) for sampler in samplers for switch in (1, 3, 5)]
    cases += [("euler", scheduler, switch) for scheduler in schedulers for switch in (1, 5)]
    check_all({str(case): case for case in cases}, check)


def test_texts_are_not_repeated_for_a_refiner_that_joins() -> None:
    """Two lengths are two calls there, where the base would share one."""
    base, refiner = RecordingNetwork(), RecordingNetwork()
    run_to_end(
        sample_latents(
            base=PromptedNetwork(base, "eps", side(0.1, 154), side(-0.1)),
            refiner=PromptedNetwork(refiner, "eps", side(0.2, 154), side(-0.2)),
            guidance=GUIDANCE,
            settings=replace(SETTINGS, swap=Swap("joint", 4)),
            latent=LATENT,
        )
    )
    assert [len(call.context) for call in base.calls] == [2] * 5
    assert [call.sides for call in refiner.calls] == [("negative",), ("positive",)]


def test_a_translator_is_asked_only_between_two_kinds() -> None:
    asked: list[torch.Size] = []

    def translate(latents: torch.Tensor) -> torch.Tensor:
        asked.append(latents.shape)
        return latents

    for owns_vae in (False, True):
        refiner = PromptedNetwork(RecordingNetwork(), "eps", side(0.2), side(-0.2), owns_vae=owns_vae)
        run_to_end(
            sample_latents(
                base=PromptedNetwork(RecordingNetwork(), "eps", side(0.1), side(-0.1)),
                refiner=refiner,
                guidance=GUIDANCE,
                settings=replace(SETTINGS, swap=Swap("vae", 3)),
                latent=LATENT,
                translate=translate,
            )
        )
    assert asked == [LATENT.shape]


def test_outside_the_mask_the_picture_stays() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    kept = torch.randn(1, 4, 8, 8)
    _, final = run_to_end(
        sample_latents(
            base=PromptedNetwork(RecordingNetwork(), "eps", side(0.1), side(-0.1)),
            guidance=GUIDANCE,
            settings=SETTINGS,
            latent=LATENT,
            inpaint=InpaintTask(mask, kept),
        )
    )
    torch.testing.assert_close(final[..., 4:], kept[..., 4:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(final[..., :4], kept[..., :4], atol=0.1)
