"""Previews: what they show, and that nobody waits for one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from fooocus_core.models.autoencoder import load_autoencoder
from fooocus_core.models.preview import (
    UNDER_WAY_AT_MOST,
    LinearPreview,
    Preview,
    PreviewNetwork,
    RunPreviews,
    _Convolutions,
    fitted_colours,
)
from fooocus_core.models.sidecar import PreviewColours
from tests.fooocus_core.models.tiny import tiny_checkpoint
from tests.fooocus_core.sampling.far_device import FAR, FarDevice, Waits, bring

CPU = torch.device("cpu")
COLOURS = PreviewColours(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), (0.0, 0.0, 0.2))
STEPS = 6


def convolutions() -> _Convolutions:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _Convolutions()


def made(kind: str, device: torch.device) -> Preview:
    if kind == "linear":
        return LinearPreview(COLOURS, device=device)
    network = convolutions()
    if device == FAR:
        bring(network)
    return PreviewNetwork(network)


def latents_of_step(step: int) -> Tensor:
    return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(step))


def test_linear_preview_maps_channels_to_colours() -> None:
    latents = torch.zeros(2, 4, 3, 5)
    latents[0, 0], latents[0, 1] = 0.4, 7.0
    picture = LinearPreview(COLOURS, device=CPU).begin(latents).picture()
    assert picture.shape == (6, 10, 3)
    assert (picture == np.array([102, 255, 51])).all()


def test_fitted_colours_follow_the_decoder_and_leave_the_generator_alone() -> None:
    prefix = "first_stage_model."
    weights = {key.removeprefix(prefix): t for key, t in tiny_checkpoint().items() if key.startswith(prefix)}
    autoencoder = load_autoencoder(weights, "vae", device=CPU, dtype=torch.float32)
    torch.manual_seed(5)
    colours = fitted_colours(autoencoder, 0.13025)
    assert torch.initial_seed() == 5
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    flat = torch.full((1, 4, 8, 8), 0.3)
    shown = LinearPreview(colours, device=CPU).begin(flat).picture()[8, 8] / 255
    decoded = autoencoder.decode(flat / 0.13025)[0, :, 32, 32].numpy()
    assert abs(shown - decoded).max() < 0.1


@pytest.mark.parametrize("kind", ["linear", "network"])
def test_on_the_cpu_every_step_shows_its_own(kind: str) -> None:
    preview, previews = made(kind, CPU), RunPreviews()
    for step in range(STEPS):
        pending = preview.begin(latents_of_step(step))
        assert pending.is_ready()
        shown = previews.next(preview, latents_of_step(step))
        assert shown is not None
        assert np.array_equal(shown, pending.picture())


# --- on a device that works apart ---------------------------------------------------------------------------------


@pytest.fixture(params=["linear", "network"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def expected(kind: str) -> list[np.ndarray]:
    """What the CPU makes of every step."""
    return [made(kind, CPU).begin(latents_of_step(step)).picture() for step in range(STEPS)]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FarDevice]:
    with FarDevice(monkeypatch) as device:
        yield device


@pytest.fixture
def far(device: FarDevice, kind: str) -> Preview:
    """Loaded; from now on nobody may wait for the device."""
    preview = made(kind, FAR)
    device.is_strict = True
    return preview


def told(step: int) -> Tensor:
    """Latents that the device has been told to make."""
    near = latents_of_step(step).pin_memory()
    return near.to(FAR, non_blocking=True) * 1


def test_nobody_waits_for_a_preview(device: FarDevice, far: Preview, expected: list[np.ndarray]) -> None:
    pending = far.begin(told(0))
    assert not pending.is_ready()
    device.catch_up()
    assert pending.is_ready()
    assert np.array_equal(pending.picture(), expected[0])


def test_whoever_wants_it_before_waits(device: FarDevice, far: Preview, expected: list[np.ndarray]) -> None:
    pending = far.begin(told(0))
    with pytest.raises(Waits):
        pending.picture()
    device.is_strict = False
    assert np.array_equal(pending.picture(), expected[0])


def test_a_step_shows_the_one_before(device: FarDevice, far: Preview, expected: list[np.ndarray]) -> None:
    previews, shown = RunPreviews(), []
    for step in range(STEPS):
        shown.append(previews.next(far, told(step)))
        device.catch_up()
    assert shown[0] is None
    assert all(map(np.array_equal, shown[1:], expected))


def test_pictures_of_a_device_far_behind_are_left_out(
    device: FarDevice, far: Preview, expected: list[np.ndarray]
) -> None:
    previews = RunPreviews()
    assert [previews.next(far, told(step)) for step in range(STEPS - 1)] == [None] * (STEPS - 1)
    assert len(device.under_way) == UNDER_WAY_AT_MOST
    device.catch_up()
    newest = previews.next(far, told(STEPS - 1))
    assert newest is not None
    assert np.array_equal(newest, expected[UNDER_WAY_AT_MOST - 1])
    device.catch_up()
    newest = previews.next(far, told(STEPS - 1))
    assert newest is not None
    assert np.array_equal(newest, expected[-1])


def test_a_picture_that_was_shown_stays_as_it_is(device: FarDevice, far: Preview, expected: list[np.ndarray]) -> None:
    first = far.begin(told(0))
    device.catch_up()
    shown = first.picture()
    first._values.fill_(0)
    assert np.array_equal(shown, expected[0])
