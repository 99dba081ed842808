"""The web UI's names, whole: what each of them means, and that the pipeline has it (contract sections 13.2 to 13.6)."""

from __future__ import annotations

from typing import get_args

import pytest

from fooocus_core.plan import EnlargingMethod
from fooocus_core.sampling.names import SAMPLER_NAMES, SCHEDULER_NAMES
from fooocusapi.surfaces.tams.model_table import BUNDLED, read_table
from fooocusapi.surfaces.tams.vocabulary import NETWORKS, PLAIN_ENLARGING, NamedSampler, find_sampler

NORMAL = {
    "Euler a": "euler_ancestral",
    "Euler": "euler",
    "LMS": "lms",
    "Heun": "heun",
    "DPM2": "dpm_2",
    "DPM2 a": "dpm_2_ancestral",
    "DPM++ 2S a": "dpmpp_2s_ancestral",
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ SDE": "dpmpp_sde",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ 3M SDE": "dpmpp_3m_sde",
    "DPM fast": "dpm_fast",
    "DPM adaptive": "dpm_adaptive",
    "UniPC": "uni_pc",
}
KARRAS = ("LMS", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 3M SDE")
OTHERS = {
    "DPM++ 2M SDE Exponential": ("dpmpp_2m_sde", "exponential"),
    "DPM++ 3M SDE Exponential": ("dpmpp_3m_sde", "exponential"),
    "DDIM": ("ddim", "ddim_uniform"),
    "LCM": ("lcm", "sgm_uniform"),
}
SAMPLERS = {
    **{name: (sampler, "normal") for name, sampler in NORMAL.items()},
    **{f"{name} Karras": (NORMAL[name], "karras") for name in KARRAS},
    **OTHERS,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_of_the_web_ui(name: str) -> None:
    expected = NamedSampler(*SAMPLERS[name])
    for spelt in (name, name.upper(), name.replace(" ", "_"), name.replace(" ", "  ")):
        assert find_sampler(spelt) == expected
    assert expected.sampler in SAMPLER_NAMES
    assert expected.schedule in SCHEDULER_NAMES


def test_samplers_by_the_pipelines_own_names() -> None:
    for name in SAMPLER_NAMES:
        found = find_sampler(name)
        assert found is not None
        assert found.sampler == name or name in ("ddim", "lcm"), name
    for name in ("", "Euler b", "karras", "DPM++"):
        assert find_sampler(name) is None


def test_every_upscaler() -> None:
    """Those without a network are all that the pipeline has; the bundled table has a file for each of the others."""
    assert set(PLAIN_ENLARGING.values()) == set(get_args(EnlargingMethod)) - {"network"}
    assert set(read_table(BUNDLED).files["upscalers"]) == NETWORKS
    assert len(NETWORKS) + len(PLAIN_ENLARGING) == 19
