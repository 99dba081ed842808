"""Between two steps the host never waits for the device: it tells it all there is to do and goes on.

Noise levels are scalars on the CPU, whose arithmetic costs nothing; latents are on the device and stay there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.models.unet import DiffusionNetwork
from fooocus_core.sampling.blend import InpaintTask
from fooocus_core.sampling.network import NetworkCall
from fooocus_core.sampling.prediction import SDXL_LATENTS
from fooocus_core.sampling.sample import PromptedNetwork, SampleSettings, sample_latents
from fooocus_core.sampling.samplers.registry import SAMPLERS
from tests.fooocus_core.models.test_forward_pass import SHAPES, inputs, network
from tests.fooocus_core.sampling.closed_form import run_to_end
from tests.fooocus_core.sampling.far_device import FAR, Far, FarDevice, Waits, bring
from tests.fooocus_core.sampling.test_sample import GUIDANCE, RecordingNetwork, side

STEPS = 4
ADAPTIVE = {"dpm_adaptive"}
"""Their next level follows from the latents, which somebody has to look at."""
DISTILLED = {"lcm", "tcd"}


class FarNetwork(RecordingNetwork):
    """A network on the far device."""

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        assert all(isinstance(part, Far) for part in (latents, timesteps, context, adm))
        return super().__call__(latents, timesteps, context, adm, call)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FarDevice]:
    with FarDevice(monkeypatch) as device:
        SDXL_LATENTS.process_out(torch.ones(1, 4, 1, 1).to(FAR))  # its constants stay on the device
        yield device


def run(device: FarDevice, network: RecordingNetwork, sampler: str, inpaint: InpaintTask | None = None) -> Tensor:
    """From the first step on nobody may wait."""
    steps = sample_latents(
        base=PromptedNetwork(network, "eps", side(0.1), side(-0.1)),
        guidance=GUIDANCE,
        settings=SampleSettings(sampler, sampler if sampler in DISTILLED else "karras", STEPS, seed=1),
        latent=torch.zeros(1, 4, 8, 8),
        inpaint=inpaint,
    )
    next(steps)
    device.is_strict = True
    _, latents = run_to_end(steps)
    device.is_strict = False
    return latents


@pytest.mark.parametrize("sampler", sorted(SAMPLERS.keys() - ADAPTIVE))
def test_a_run_never_waits(device: FarDevice, sampler: str) -> None:
    latents = run(device, FarNetwork(device=FAR), sampler)
    assert isinstance(latents, Far)
    assert latents.near.isfinite().all()


@pytest.mark.parametrize("sampler", sorted(ADAPTIVE))
def test_adaptive_samplers_wait(device: FarDevice, sampler: str) -> None:
    with pytest.raises(Waits, match="asks for values"):
        run(device, FarNetwork(device=FAR), sampler)


def test_the_far_device_gives_the_same_latents(device: FarDevice) -> None:
    far = run(device, FarNetwork(device=FAR), "dpmpp_2m_sde_gpu")
    assert isinstance(far, Far)
    assert torch.equal(far.near, run(device, RecordingNetwork(), "dpmpp_2m_sde_gpu"))


def test_repainting_never_waits(device: FarDevice) -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    run(device, FarNetwork(device=FAR), "euler", InpaintTask(mask, torch.ones(1, 4, 8, 8)))


@pytest.mark.parametrize("kind", ["sdxl", "inpaint"])
def test_a_network_s_call_never_waits(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    shape = SHAPES[kind]
    unet, given = network(shape), inputs(replace(shape, in_channels=4))
    expected = DiffusionNetwork(unet, shape, {}, {})(*given)
    bring(unet)
    called = DiffusionNetwork(unet, shape, {}, {})
    with FarDevice(monkeypatch) as device:
        far = [part.to(FAR) for part in given]
        called(*far)
        device.is_strict = True
        answer = called(*far)
    assert isinstance(answer, Far)
    torch.testing.assert_close(answer.near, expected)  # attention takes another way for another device


ASKING: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool(x[0] > 0),
    "cpu": lambda x: x.cpu(),
    "equal": lambda x: torch.equal(x, x + 1),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "to the device": lambda x: torch.ones(3).to(x.device),
    "into the device": lambda x: x.copy_(torch.ones(3)),
    "values": lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device),
    "new tensor": lambda x: x + x.new_tensor([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("how", ASKING)
def test_waiting_is_seen(device: FarDevice, how: str) -> None:
    x = torch.ones(3).to(FAR)
    device.is_strict = True
    with pytest.raises(Waits):
        ASKING[how](x)
