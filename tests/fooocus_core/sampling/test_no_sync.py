"""Between two steps the host never waits for the device: it tells it all there is to do and goes on.

Noise levels are scalars on the CPU, whose arithmetic costs nothing; latents are on the device and stay there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.adapters.adapted import Adaptations, AdaptedNetwork
from fooocus_core.adapters.control import ControlChain, ControlNetwork, ControlUnit, _empty_network
from fooocus_core.adapters.image_prompt import ImagePrompt, attention_layers
from fooocus_core.models.sparing import RowByRow
from fooocus_core.models.unet import DiffusionNetwork, UNetShape
from fooocus_core.plan import FreeU, ImagePromptWeighting
from fooocus_core.sampling.blend import InpaintTask
from fooocus_core.sampling.names import SCHEDULER_NAMES, WEB_UI_SCHEDULER_NAMES
from fooocus_core.sampling.network import ControlResiduals, KeysValues, NetworkCall, StepMemory
from fooocus_core.sampling.prediction import SD15_LATENTS, SDXL_LATENTS, PredictionKind, sdxl_levels
from fooocus_core.sampling.sample import PromptedNetwork, SampleSettings, sample_latents
from fooocus_core.sampling.samplers.registry import SAMPLERS
from fooocus_core.sampling.shortcuts import Shortcuts
from fooocus_core.sampling.swap import Swap
from tests.fooocus_core.models.test_forward_pass import SHAPES, inputs, network
from tests.fooocus_core.sampling.closed_form import run_to_end
from tests.fooocus_core.sampling.far_device import FAR, Far, FarDevice, Races, Waits, bring
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


def far_side(network: FarNetwork, value: float, tokens: int = 77, **fields: Any) -> PromptedNetwork:
    return PromptedNetwork(network, "eps", side(value, tokens), side(-value), **fields)


def settings(sampler: str = "euler", scheduler: str = "karras", **fields: Any) -> SampleSettings:
    return SampleSettings(sampler, sampler if sampler in DISTILLED else scheduler, STEPS, seed=1, **fields)


def run(device: FarDevice, asked: SampleSettings, base: PromptedNetwork | None = None, **fields: Any) -> Tensor:
    """From the first step on nobody may wait."""
    arguments = {"guidance": GUIDANCE, "latent": torch.zeros(1, 4, 8, 8), **fields}
    steps = sample_latents(base=base or far_side(FarNetwork(device=FAR), 0.1), settings=asked, **arguments)
    next(steps)
    device.is_strict = True
    _, latents = run_to_end(steps)
    device.is_strict = False
    return latents


def assert_far(latents: Tensor) -> None:
    assert isinstance(latents, Far)
    assert latents.near.isfinite().all()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS.keys() - ADAPTIVE))
def test_a_run_never_waits(device: FarDevice, sampler: str) -> None:
    assert_far(run(device, settings(sampler)))


@pytest.mark.parametrize("scheduler", sorted({*SCHEDULER_NAMES, *WEB_UI_SCHEDULER_NAMES}))
def test_no_scheduler_waits(device: FarDevice, scheduler: str) -> None:
    """Those that sample from a Brownian path are told its range."""
    for sampler in ("euler", "dpmpp_3m_sde_gpu"):
        assert_far(run(device, settings(sampler, scheduler)))


@pytest.mark.parametrize("sampler", sorted(ADAPTIVE))
def test_adaptive_samplers_wait(device: FarDevice, sampler: str) -> None:
    with pytest.raises(Waits, match="asks for values"):
        run(device, settings(sampler))


def test_the_far_device_gives_the_same_latents(device: FarDevice) -> None:
    for fields in ({}, {"swap": Swap("vae", 2)}, {"swap": Swap("separate", 2)}):
        asked = settings("dpmpp_2m_sde_gpu", **fields)
        far = run(device, asked)
        assert isinstance(far, Far)
        near = run(device, asked, PromptedNetwork(RecordingNetwork(), "eps", side(0.1), side(-0.1)))
        assert torch.equal(far.near, near)


GUIDANCES = {
    "adaptive": replace(GUIDANCE, scale=9.0),
    "none": replace(GUIDANCE, scale=1.0),
    "not sharpened": replace(GUIDANCE, sharpness=0.0),
}


@pytest.mark.parametrize("guidance", GUIDANCES)
@pytest.mark.parametrize("tokens", [77, 154, 7 * 77])
def test_no_guidance_waits(device: FarDevice, guidance: str, tokens: int) -> None:
    """Of texts of one length, of lengths that share a call, and of such as do not."""
    base = far_side(FarNetwork(device=FAR), 0.1, tokens)
    assert_far(run(device, settings(), base, guidance=GUIDANCES[guidance]))


def test_guidance_that_ends_on_the_way_never_waits(device: FarDevice) -> None:
    assert_far(run(device, settings(), shortcuts=Shortcuts(guidance_until=0.5)))


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_no_prediction_waits(device: FarDevice, prediction: PredictionKind) -> None:
    base = replace(far_side(FarNetwork(device=FAR), 0.1), prediction=prediction)
    assert_far(run(device, settings(), base))


@pytest.mark.parametrize("step_noise_on_cpu", [False, True])
def test_noise_inside_the_steps_never_waits(device: FarDevice, step_noise_on_cpu: bool) -> None:
    for sampler in ("euler_ancestral", "dpmpp_2m_sde"):
        assert_far(run(device, settings(sampler, step_noise_on_cpu=step_noise_on_cpu)))


def repainting() -> InpaintTask:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    return InpaintTask(mask, torch.ones(1, 4, 8, 8), torch.full((1, 4, 8, 8), 0.5))


def test_repainting_never_waits(device: FarDevice) -> None:
    assert_far(run(device, settings(), inpaint=repainting()))


@pytest.mark.parametrize("method", ["joint", "separate", "vae", "own latents"])
@pytest.mark.parametrize("repaints", [False, True])
def test_a_hand_over_never_waits(device: FarDevice, method: str, repaints: bool) -> None:
    """Neither for the texts as the refiner reads them, which nobody has brought to the device before."""
    is_of_another_kind = method == "own latents"
    swap = Swap("vae" if is_of_another_kind else method, 2)  # type: ignore[arg-type]
    network = FarNetwork(device=FAR)
    fields = {"owns_vae": True, "latent_format": SD15_LATENTS} if is_of_another_kind else {}
    refiner = far_side(network, 0.2, **fields)
    assert_far(run(device, settings(swap=swap), refiner=refiner, inpaint=repainting() if repaints else None))
    assert network.calls


class Doubling:
    """In place of a control network."""

    def __call__(self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, hint: Tensor) -> Any:
        assert isinstance(hint, Far)
        return ControlResiduals((2 * latents,), 2 * latents + hint.mean())


@pytest.mark.parametrize("only_positive", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (96, 72)])
def test_controls_never_wait(device: FarDevice, only_positive: bool, size: tuple[int, int]) -> None:
    """Whether their pictures have the size of what is painted or not."""
    hint, mask = torch.ones(1, 3, *size).to(FAR), torch.ones(1, 1, *size).to(FAR)
    plain = ControlUnit(Doubling(), hint, strength=0.5, stop=0.9)  # type: ignore[arg-type]
    within = replace(plain, mask=mask, start=0.1, only_positive=only_positive)
    control = ControlChain([plain, within, replace(plain, only_positive=only_positive)], 0.3, sdxl_levels())
    assert_far(run(device, settings(), far_side(FarNetwork(device=FAR), 0.1, control=control)))


# --- the networks -------------------------------------------------------------------------------------------------

SIZE = (4, 6)


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


def pictures(shape: UNetShape, weighting: ImagePromptWeighting) -> Adaptations:
    """Of two pictures the second is seen in early calls alone."""
    tokens = KeysValues(*torch.randn(2, 1, 4, 64, generator=torch.Generator().manual_seed(4)))
    layers = [KeysValues(*(part.to(FAR) for part in tokens)) for _ in attention_layers(shape)]
    prompts = [ImagePrompt(layers, layers, 0.8, stop) for stop in (1.0, 0.5)]
    return Adaptations(prompts=prompts, weighting=weighting)


ADAPTATIONS: dict[str, Callable[[UNetShape], Adaptations]] = {
    "freeu": lambda shape: Adaptations(freeu=FreeU(1.3, 1.4, 0.9, 0.2)),
    "head": lambda shape: Adaptations(head_feature=torch.ones(1, shape.channels[0], *SIZE).to(FAR)),
    "pictures": lambda shape: pictures(shape, "fooocus"),
    "pictures apart": lambda shape: pictures(shape, "standard"),
}


@pytest.fixture(scope="module")
def far_network() -> DiffusionNetwork:
    unet = network(SHAPES["sdxl"])
    bring(unet)
    return DiffusionNetwork(unet, SHAPES["sdxl"], {}, {})


@pytest.mark.parametrize("kind", ADAPTATIONS)
@pytest.mark.parametrize("spared", [False, True])
def test_what_is_put_on_a_network_never_waits(
    device: FarDevice, far_network: DiffusionNetwork, kind: str, spared: bool
) -> None:
    """With the sides asked together or one after the other, in whole passes or in such that reuse the latest."""
    adapted = AdaptedNetwork(far_network, ADAPTATIONS[kind](far_network.shape))
    called = RowByRow(adapted) if spared else adapted
    far = [part.to(FAR) for part in inputs(far_network.shape, size=SIZE)]
    memory = StepMemory(2) if spared else None
    for progress in (0.2, 0.4, 0.6):
        assert_far(called(*far, NetworkCall(("negative", "positive"), progress, memory=memory)))
        device.is_strict = True


def test_weights_that_are_exchanged_on_the_device_are_not_waited_for(
    device: FarDevice, far_network: DiffusionNetwork
) -> None:
    far = [part.to(FAR) for part in inputs(far_network.shape, size=SIZE)]
    far_network(*far)
    device.is_strict = True
    far_network.weights_changed()
    assert_far(far_network(*far))


def test_a_control_network_never_waits(device: FarDevice) -> None:
    shape = SHAPES["sdxl"]
    control = _empty_network(DiffusionNetwork(network(shape), shape, {}, {}), "control").to_empty(device="cpu")
    for parameter in control.parameters():
        parameter.data.fill_(0.01)
    bring(control)
    latents, *others = inputs(shape, size=SIZE)
    far = [part.to(FAR) for part in (latents, *others, torch.ones(1, 3, 8 * SIZE[0], 8 * SIZE[1]))]
    for _ in range(2):
        assert_far(ControlNetwork(control)(*far).middle)
        device.is_strict = True


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
    "memory that may move": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "into memory that may move": lambda x: torch.ones(3).copy_(x, non_blocking=True),
    "all that was told": lambda x: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("how", ASKING)
def test_waiting_is_seen(device: FarDevice, how: str) -> None:
    x = torch.ones(3).to(FAR)
    device.is_strict = True
    with pytest.raises(Waits):
        ASKING[how](x)


def copied_twice(x: Tensor) -> None:
    target = torch.empty(3, pin_memory=True)
    for _ in range(2):
        target.copy_(x, non_blocking=True)


def read_beside(x: Tensor, *, waits: bool, keeps: bool) -> None:
    main, beside = torch.cuda.current_stream(x.device), torch.cuda.Stream(x.device)
    made = x + 1
    if waits:
        beside.wait_stream(main)
    if keeps:
        made.record_stream(beside)
    with torch.cuda.stream(beside):
        made * 2


RACING: dict[str, Callable[[Tensor], None]] = {
    "copied twice": copied_twice,
    "not waited for": partial(read_beside, waits=False, keeps=True),
    "not kept": partial(read_beside, waits=True, keeps=False),
}


@pytest.mark.parametrize("how", RACING)
def test_races_are_seen(device: FarDevice, how: str) -> None:
    x = torch.ones(3).to(FAR)
    device.is_strict = True
    read_beside(x, waits=True, keeps=True)
    with pytest.raises(Races):
        RACING[how](x)


def test_what_is_under_way_is_not_there(device: FarDevice) -> None:
    x = torch.ones(3).to(FAR)
    target = torch.empty(3, pin_memory=True)
    target.copy_(x, non_blocking=True)
    arrival = device.stream.record_event()
    assert not arrival.query()
    assert not torch.equal(target, x.near)
    device.catch_up()
    assert arrival.query()
    assert torch.equal(target, x.near)
