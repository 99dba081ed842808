"""Golden family A: noise tables, conversions, sigma lists."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.sampling import prediction as predictions
from fooocus_core.sampling.prediction import DiscreteLevels, NoiseLevels, Prediction
from fooocus_core.sampling.schedules import effective_sigmas, range_sigmas, raw_sigmas
from tests.cases import check_all, grouped
from tests.golden.vectors import golden_json, golden_tensors

RELATIVE = 1e-5
CONTINUOUS_TIME_RELATIVE = 1e-6

PREDICTIONS: dict[str, Callable[[], Prediction]] = {
    "eps": predictions.eps_prediction,
    "v_prediction": predictions.v_prediction,
    "lcm": predictions.lcm_prediction,
    "tcd": predictions.tcd_prediction,
    "edm_playground_v2.5": predictions.edm_prediction,
}
LATENT_FORMATS = {"sdxl": predictions.SDXL_LATENTS, "playground_v2.5": predictions.PLAYGROUND_LATENTS}

# These must be equal to the last bit on every processor: the SDE samplers feel one (section 4). Longer lists (only
# partial denoise makes them) hold entries that the reference's seventh power rounded the other way, by 0.53 of the
# last place.
BIT_EXACT_LIST = "karras"
BIT_EXACT_LENGTH = 50

INDEX: dict[str, Any] = golden_json("A_schedulers/index.json")
SIGMAS = golden_tensors("A_schedulers/sigmas.safetensors")
TABLES = golden_tensors("A_schedulers/model_sampling.safetensors")
RAW = grouped((key for key in SIGMAS if key.startswith("raw/")), name=str, group=lambda key: key.rpartition("/")[0])
RUNS = grouped(
    INDEX["cases"], name=lambda case: case["key"], group=lambda case: f"{case['sampling']}/{case['scheduler']}"
)


@cache
def levels_of(sampling: str) -> NoiseLevels:
    return PREDICTIONS[sampling]().levels


def assert_list(actual: Tensor, expected: Tensor, list_name: str, built: int) -> None:
    assert actual.dtype == torch.float32
    if list_name == BIT_EXACT_LIST and built <= BIT_EXACT_LENGTH:
        assert torch.equal(actual, expected)
    torch.testing.assert_close(actual, expected, rtol=RELATIVE, atol=0)


def check_raw_list(key: str) -> None:
    _, sampling, name, steps = key.split("/")
    assert_list(raw_sigmas(name, int(steps), levels_of(sampling)), SIGMAS[key], name, int(steps))


@pytest.mark.parametrize("group", RAW)
def test_raw_lists(group: str) -> None:
    check_all(RAW[group], check_raw_list)


@pytest.mark.parametrize("group", RUNS)
@pytest.mark.parametrize(("kind", "make"), [("effective", effective_sigmas), ("range", range_sigmas)])
def test_lists_of_runs(group: str, kind: str, make: Callable[..., Tensor]) -> None:
    def check(case: dict[str, Any]) -> None:
        name, steps, denoise = case["scheduler"], case["steps"], case["denoise"]
        actual = make(name, steps, denoise, case["sampler_class"], levels_of(case["sampling"]))
        assert_list(actual, SIGMAS[f"{kind}/{case['key']}"], name, int(steps / denoise))

    check_all(RUNS[group], check)


def test_every_stored_list_is_compared() -> None:
    raw = sum(len(members) for members in RAW.values())
    runs = sum(len(members) for members in RUNS.values())
    assert raw + 2 * runs == len(SIGMAS)


@pytest.mark.parametrize("sampling", PREDICTIONS)
def test_noise_table(sampling: str) -> None:
    levels = PREDICTIONS[sampling]().levels
    torch.testing.assert_close(levels.sigmas, TABLES[f"{sampling}/sigmas"], rtol=RELATIVE, atol=0)
    if isinstance(levels, DiscreteLevels):
        assert torch.equal(levels.sigmas, TABLES[f"{sampling}/sigmas"])
        torch.testing.assert_close(levels.log_sigmas, TABLES[f"{sampling}/log_sigmas"], rtol=RELATIVE, atol=1e-7)


@pytest.mark.parametrize("key", [key for key in TABLES if key.endswith("/alphas_cumprod")])
def test_signal_share(key: str) -> None:
    torch.testing.assert_close(predictions.alpha_bars().float(), TABLES[key], rtol=RELATIVE, atol=0)


@pytest.mark.parametrize("sampling", PREDICTIONS)
def test_conversions(sampling: str) -> None:
    levels = PREDICTIONS[sampling]().levels
    timestep = levels.timestep_of_sigma(TABLES[f"{sampling}/query_sigma"])
    tolerance = 0.0 if isinstance(levels, DiscreteLevels) else CONTINUOUS_TIME_RELATIVE
    torch.testing.assert_close(timestep, TABLES[f"{sampling}/timestep_of_sigma"], rtol=tolerance, atol=0)
    sigma = levels.sigma_of_timestep(TABLES[f"{sampling}/query_t"])
    torch.testing.assert_close(sigma, TABLES[f"{sampling}/sigma_of_timestep"], rtol=RELATIVE, atol=0)


@pytest.mark.parametrize(("sampling", "pairs"), golden_json("A_schedulers/percent_to_sigma.json").items())
def test_percent_to_sigma(sampling: str, pairs: list[list[float]]) -> None:
    levels = PREDICTIONS[sampling]().levels
    for percent, sigma in pairs:
        assert levels.percent_to_sigma(percent) == pytest.approx(sigma, rel=RELATIVE)


@pytest.mark.parametrize("sampling", PREDICTIONS)
def test_network_input_and_output(sampling: str) -> None:
    prediction = PREDICTIONS[sampling]()
    x, sigma, output = (TABLES[f"denoise/{name}"] for name in ("model_input", "sigma", "model_output"))
    scaled, denoised = (TABLES[f"denoise/{sampling}/{name}"] for name in ("scaled_input", "denoised"))
    torch.testing.assert_close(prediction.scale_input(x, sigma), scaled, rtol=RELATIVE, atol=RELATIVE)
    torch.testing.assert_close(prediction.denoised(output, x, sigma), denoised, rtol=RELATIVE, atol=RELATIVE)


@pytest.mark.parametrize("name", LATENT_FORMATS)
def test_latent_scaling(name: str) -> None:
    latents = TABLES["denoise/model_input"]
    inward, outward = LATENT_FORMATS[name].process_in(latents), LATENT_FORMATS[name].process_out(latents)
    torch.testing.assert_close(inward, TABLES[f"latent_format/{name}/process_in"], rtol=RELATIVE, atol=1e-7)
    torch.testing.assert_close(outward, TABLES[f"latent_format/{name}/process_out"], rtol=RELATIVE, atol=1e-7)
