"""All samplers by the name a request gives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling.samplers.contract import Sampler
from fooocus_core.sampling.samplers.distilled import ddpm, lcm, tcd
from fooocus_core.sampling.samplers.dpm_2 import dpm_2, dpm_2_ancestral
from fooocus_core.sampling.samplers.dpm_solver import dpm_adaptive, dpm_fast
from fooocus_core.sampling.samplers.dpmpp import dpmpp_2m, dpmpp_2s_ancestral
from fooocus_core.sampling.samplers.dpmpp_sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from fooocus_core.sampling.samplers.euler import ddim, euler, euler_ancestral
from fooocus_core.sampling.samplers.heun import heun, heunpp2
from fooocus_core.sampling.samplers.lms import lms
from fooocus_core.sampling.samplers.restart import restart
from fooocus_core.sampling.samplers.uni_pc import uni_pc, uni_pc_bh2

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "euler": euler,
        "euler_ancestral": euler_ancestral,
        "heun": heun,
        "heunpp2": heunpp2,
        "dpm_2": dpm_2,
        "dpm_2_ancestral": dpm_2_ancestral,
        "lms": lms,
        "dpm_fast": dpm_fast,
        "dpm_adaptive": dpm_adaptive,
        "dpmpp_2s_ancestral": dpmpp_2s_ancestral,
        "dpmpp_sde": dpmpp_sde,
        "dpmpp_sde_gpu": dpmpp_sde,
        "dpmpp_2m": dpmpp_2m,
        "dpmpp_2m_sde": dpmpp_2m_sde,
        "dpmpp_2m_sde_gpu": dpmpp_2m_sde,
        "dpmpp_3m_sde": dpmpp_3m_sde,
        "dpmpp_3m_sde_gpu": dpmpp_3m_sde,
        "ddpm": ddpm,
        "lcm": lcm,
        "tcd": tcd,
        "restart": restart,
        "ddim": ddim,
        "uni_pc": uni_pc,
        "uni_pc_bh2": uni_pc_bh2,
    }
)


def sampler_by_name(name: str) -> Sampler:
    """The sampler of a name; raises ``InvalidRequest`` with the list of names for an unknown one."""
    if name not in SAMPLERS:
        raise InvalidRequest.unknown_name("sampler", name, SAMPLERS)
    return SAMPLERS[name]
