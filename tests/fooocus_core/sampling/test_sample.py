"""The guided denoiser and a whole run, with a network that writes down how it was called."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling.denoiser import GuidedDenoiser, progress_of
from fooocus_core.sampling.guidance import GuidanceSettings
from fooocus_core.sampling.network import NetworkCall
from fooocus_core.sampling.prediction import Prediction, base_prediction, lcm_prediction
from fooocus_core.sampling.sample import PromptedNetwork, SampleSettings, resolve_scheduler, sample_latents
from fooocus_core.sampling.samplers.contract import Steps
from tests.fooocus_core.sampling.closed_form import run_to_end

ADM_WIDTH = 5
GUIDANCE = GuidanceSettings(scale=4.0, sharpness=2.0, adaptive_scale=7.0, adm_end=0.3)
SETTINGS = SampleSettings("euler", "karras", steps=4, seed=1)


@dataclass
class Call:
    latents: Tensor
    timesteps: Tensor
    context: Tensor
    adm: Tensor | None
    sides: tuple[str, ...]


@dataclass
class RecordingNetwork:
    """Answers with a tenth of its input plus the mean of each row's context."""

    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    adm_width: int = ADM_WIDTH
    calls: list[Call] = field(default_factory=list)

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        self.calls.append(Call(latents, timesteps, context, adm, call.sides))
        return 0.1 * latents.float() + context.float().mean((1, 2)).view(-1, 1, 1, 1)


def side(value: float, tokens: int = 77) -> Conditioning:
    halves = [torch.full((1, ADM_WIDTH), value), torch.full((1, ADM_WIDTH), value + 0.5)]
    return Conditioning(torch.full((1, tokens, 3), value), torch.cat(halves, dim=1))


def denoise(network: RecordingNetwork, tokens: tuple[int, int] = (77, 77), scale: float = 4.0) -> Tensor:
    """One guided evaluation near the top of the noise; positive and negative text of these lengths."""
    settings = replace(GUIDANCE, scale=scale)
    denoiser = GuidedDenoiser(network, base_prediction("eps"), side(1, tokens[0]), side(-1, tokens[1]), settings)
    return denoiser(torch.ones(1, 4, 8, 8), torch.tensor(14.0))


def sample(network: RecordingNetwork, settings: SampleSettings = SETTINGS) -> Steps:
    return sample_latents(
        base=PromptedNetwork(network, "eps", side(0.1), side(-0.1)),
        guidance=GUIDANCE,
        settings=settings,
        latent=torch.zeros(1, 4, 8, 8),
    )


def test_a_network_is_shown_the_same_two_sizes_again() -> None:
    """It knows them by where they lie."""
    network = RecordingNetwork()
    run_to_end(sample(network, replace(SETTINGS, steps=8)))
    shown = [call.adm for call in network.calls]
    assert len({id(adm) for adm in shown}) == 2
    assert not torch.equal(shown[0], shown[-1])  # type: ignore[arg-type]


def test_negative_comes_first() -> None:
    network = RecordingNetwork()
    denoise(network)
    [call] = network.calls
    assert call.context[:, 0, 0].tolist() == [-1.0, 1.0]
    assert call.sides == ("negative", "positive")
    assert call.latents.shape == (2, 4, 8, 8)
    assert call.timesteps.tolist() == [call.timesteps[0].item()] * 2


@pytest.mark.parametrize(
    ("tokens", "batches"),
    [((154, 77), [(2, 154)]), ((231, 154), [(2, 462)]), ((14, 70), [(1, 70), (1, 14)]), ((77, 50), [(1, 50), (1, 77)])],
)
def test_texts_of_unequal_length(tokens: tuple[int, int], batches: list[tuple[int, int]]) -> None:
    network = RecordingNetwork()
    denoise(network, tokens)
    assert [tuple(call.context.shape[:2]) for call in network.calls] == batches


def test_one_call_or_two_is_the_same() -> None:
    torch.testing.assert_close(denoise(RecordingNetwork(), (77, 77)), denoise(RecordingNetwork(), (77, 50)))


def test_scale_one_asks_for_the_positive_only() -> None:
    network = RecordingNetwork()
    denoise(network, scale=1.0)
    [call] = network.calls
    assert call.context[:, 0, 0].tolist() == [1.0]


def test_sizes_are_emphasised_only_at_first() -> None:
    network = RecordingNetwork()
    run_to_end(sample(network))
    for call in network.calls:
        assert call.adm is not None
        emphasised = bool(call.timesteps[0] > 999 * 0.7)
        torch.testing.assert_close(call.adm[1, 0].item(), 0.1 if emphasised else 0.6)
    assert {bool(call.timesteps[0] > 999 * 0.7) for call in network.calls} == {True, False}


def test_network_without_added_condition() -> None:
    network, bare = RecordingNetwork(adm_width=0), Conditioning(torch.ones(1, 77, 3), None)
    GuidedDenoiser(network, base_prediction("v"), bare, bare, GUIDANCE)(torch.ones(1, 4, 8, 8), torch.tensor(1.0))
    assert network.calls[0].adm is None


def test_conditioning_is_cast_once_to_the_network_s_dtype() -> None:
    network = RecordingNetwork(dtype=torch.float16)
    assert denoise(network).dtype == torch.float32
    assert network.calls[0].context.dtype == torch.float16


def test_progress_rounds_like_the_network() -> None:
    exact, half = (progress_of(torch.tensor(333.0), dtype) for dtype in (torch.float32, torch.float16))
    assert exact == pytest.approx(666 / 999)
    assert half == float(1 - torch.tensor(333.0).half() / 999) != exact


def test_nothing_tracks_gradients() -> None:
    network = RecordingNetwork()
    positive = Conditioning(torch.ones(1, 77, 3, requires_grad=True), None)
    denoiser = GuidedDenoiser(network, base_prediction("eps"), positive, positive, GUIDANCE)
    assert not denoiser(torch.ones(1, 4, 8, 8), torch.tensor(1.0)).requires_grad


def test_the_boundary_of_the_consistency_form() -> None:
    """At time 0 the input itself is the answer, whatever the network says."""

    class AtTimeZero(type(lcm_prediction().levels)):  # type: ignore[misc]
        def timestep_of_sigma(self, sigma: Tensor) -> Tensor:
            return torch.zeros_like(sigma)

    prediction: Prediction = lcm_prediction()
    prediction.levels = AtTimeZero(prediction.levels.sigmas)
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(prediction.denoised(torch.full_like(x, 9.0), x, torch.tensor(3.0)), x)


def test_a_run_yields_each_step_and_returns_un_scaled_latents() -> None:
    seen, final = run_to_end(sample(RecordingNetwork()))
    assert [step.index for step in seen] == [0, 1, 2, 3]
    # The last step lands on its estimate, which is still in the network's space.
    torch.testing.assert_close(final * 0.13025, seen[-1].denoised, rtol=1e-4, atol=1e-5)


def test_stopping_after_one_step_leaves_the_rest_undone() -> None:
    network = RecordingNetwork()
    steps = sample(network)
    next(steps)
    steps.close()
    assert len(network.calls) == 1


def test_unknown_names_are_refused_at_once() -> None:
    with pytest.raises(InvalidRequest, match="sampler"):
        sample(RecordingNetwork(), replace(SETTINGS, sampler="edm_playground_v2.5"))
    with pytest.raises(InvalidRequest, match="scheduler"):
        sample(RecordingNetwork(), replace(SETTINGS, scheduler="polyexponential"))


def test_patched_schedulers_replace_the_checkpoint_s_prediction() -> None:
    for name in ("lcm", "tcd"):
        resolved = resolve_scheduler(name, "v")
        assert (resolved.list_name, len(resolved.prediction.levels.sigmas)) == ("sgm_uniform", 50)
    assert resolve_scheduler("edm_playground_v2.5", "eps").prediction.latent_format.name == "playground_v2.5"
    assert type(resolve_scheduler("karras", "v").prediction) is type(base_prediction("v"))


@pytest.mark.parametrize(("sampler", "differs"), [("euler_ancestral", True), ("euler", False), ("dpmpp_sde", False)])
def test_only_ancestral_samplers_have_a_seed_for_their_steps(sampler: str, differs: bool) -> None:
    plain = SampleSettings(sampler, "normal", steps=2, seed=2**32 - 1)
    one, other = (sample(RecordingNetwork(), replace(plain, step_seed_delta=delta)) for delta in (0, 31337))
    assert torch.equal(run_to_end(one)[1], run_to_end(other)[1]) is not differs


def test_the_noise_of_the_start_is_multiplied() -> None:
    networks = [RecordingNetwork(), RecordingNetwork()]
    for network, factor in zip(networks, (1.0, 1.5), strict=True):
        run_to_end(sample(network, replace(SETTINGS, noise_multiplier=factor)))
    torch.testing.assert_close(networks[1].calls[0].latents, 1.5 * networks[0].calls[0].latents)
