"""The steps of a stage with their previews: nobody waits for a graphics card, and each picture has its own."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fooocus_core.events import Progress
from fooocus_core.models.preview import Preview
from fooocus_core.plan import Diffuse, Models, Output, Prompts, Sampling
from fooocus_core.sampling.sample import SampleSettings, sample_latents
from fooocus_core.sampling.samplers.contract import SamplerStep, Steps
from fooocus_core.stages.diffuse import _told
from fooocus_core.stages.networks import Called
from fooocus_core.stages.together import Walk, sample_together
from tests.fooocus_core.models.test_preview import CPU, latents_of_step, made, told
from tests.fooocus_core.sampling.far_device import FAR, FarDevice
from tests.fooocus_core.sampling.test_no_sync import FarNetwork, far_side
from tests.fooocus_core.sampling.test_sample import GUIDANCE

STEPS, PICTURES = 4, 2
STAGE = Diffuse(
    Models("some.safetensors"),
    Prompts("a red apple"),
    64,
    64,
    seed=1,
    image_number=PICTURES,
    sampling=Sampling("dpmpp_2m_sde_gpu", "karras", STEPS),
)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FarDevice]:
    with FarDevice(monkeypatch) as device:
        yield device


def shown(walk: Walk, preview: Preview, device: FarDevice) -> Iterator[np.ndarray | None]:
    """The previews of all steps; behind the first nobody may wait. The device has done its part before the next one."""
    networks: Any = SimpleNamespace(base=SimpleNamespace(preview=preview), refiner=None)
    for event in _told(walk, STAGE, Output(), networks, 0):
        assert isinstance(event, Progress)
        yield event.preview
        device.is_strict = True
        device.catch_up()


def sampled(called: Called) -> Steps:
    sampling = STAGE.sampling
    assert isinstance(called.base, FarNetwork)
    return sample_latents(
        base=far_side(called.base, 0.1),
        guidance=GUIDANCE,
        settings=SampleSettings(sampling.sampler, sampling.scheduler, sampling.steps, seed=1),
        latent=torch.zeros(1, 4, 8, 8),
    )


def test_a_run_with_previews_never_waits(device: FarDevice) -> None:
    walk = sample_together([sampled], Called(FarNetwork(device=FAR)))
    first, *others = shown(walk, made("network", FAR), device)
    assert first is None
    assert len(others) == STEPS - 1
    assert all(picture is not None and picture.shape == (16, 16, 3) for picture in others)


def interleaved() -> Walk:
    """Pictures that are painted together."""
    for step in range(STEPS):
        for number in range(PICTURES):
            latents = told(PICTURES * step + number)
            yield number, SamplerStep(step, latents, latents)
    return []


def test_a_picture_is_shown_with_its_own_steps(device: FarDevice) -> None:
    pictures = list(shown(interleaved(), made("linear", FAR), device))
    assert pictures[:PICTURES] == [None] * PICTURES
    near = made("linear", CPU)
    for place, picture in enumerate(pictures[PICTURES:]):
        assert picture is not None
        assert np.array_equal(picture, near.begin(latents_of_step(place)).picture())
