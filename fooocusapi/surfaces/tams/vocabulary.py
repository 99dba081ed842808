"""The web UI's names for samplers, upscalers, autoencoders and detectors in the core's words (13.2 to 13.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fooocus_core.plan import EnlargingMethod
from fooocus_core.sampling.names import SAMPLER_NAMES

DEFAULT_SAMPLER: Final = "DPM++ 2M Karras"

_SUFFIXES: Final = ("karras", "exponential")
_DEFAULT_SCHEDULE: Final = "normal"

_SAMPLERS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "euler a": ("euler_ancestral", "normal"),
        "euler": ("euler", "normal"),
        "lms": ("lms", "normal"),
        "heun": ("heun", "normal"),
        "dpm2": ("dpm_2", "normal"),
        "dpm2 a": ("dpm_2_ancestral", "normal"),
        "dpm++ 2s a": ("dpmpp_2s_ancestral", "normal"),
        "dpm++ 2m": ("dpmpp_2m", "normal"),
        "dpm++ sde": ("dpmpp_sde", "normal"),
        "dpm++ 2m sde": ("dpmpp_2m_sde", "normal"),
        "dpm++ 3m sde": ("dpmpp_3m_sde", "normal"),
        "dpm fast": ("dpm_fast", "normal"),
        "dpm adaptive": ("dpm_adaptive", "normal"),
        "ddim": ("ddim", "ddim_uniform"),
        "unipc": ("uni_pc", "normal"),
        "lcm": ("lcm", "sgm_uniform"),
    }
)


@dataclass(frozen=True)
class NamedSampler:
    """A sampler and the schedule that its name carries, by the core's names."""

    sampler: str
    schedule: str


def find_sampler(name: str) -> NamedSampler | None:
    """What a name means, in any case and with ``_`` for blanks; the core's own names are known too."""
    spelt = _spelt(name)
    base, _, suffix = spelt.rpartition(" ")
    schedule = suffix if suffix in _SUFFIXES and base else None
    known = _SAMPLERS.get(base if schedule else spelt) or _raw(base if schedule else spelt)
    return None if known is None else NamedSampler(known[0], schedule or known[1])


def _raw(spelt: str) -> tuple[str, str] | None:
    return next(((name, _DEFAULT_SCHEDULE) for name in SAMPLER_NAMES if _spelt(name) == spelt), None)


def _spelt(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


PLAIN_ENLARGING: Final[Mapping[str, EnlargingMethod]] = MappingProxyType(
    {
        "latent": "latent",
        "latent (antialiased)": "latent antialiased",
        "latent (bicubic)": "latent bicubic",
        "latent (bicubic antialiased)": "latent bicubic antialiased",
        "latent (nearest)": "latent nearest",
        "latent (nearest-exact)": "latent nearest-exact",
        "none": "lanczos",
        "lanczos": "lanczos",
        "nearest": "nearest",
    }
)
"""Upscalers without a network."""

NETWORKS: Final = frozenset(
    name.lower()
    for name in (
        "4x-UltraSharp",
        "4x-AnimeSharp",
        "4x_foolhardy_Remacri",
        "4x_NMKD-Siax_200k",
        "4x_NMKD-Superscale-SP_178000_G",
        "8x_NMKD-Superscale_150000_G",
        "ESRGAN_4x",
        "R-ESRGAN 4x+",
        "R-ESRGAN 4x+ Anime6B",
        "SwinIR_4x",
    )
)
"""Upscalers with one; which file that is, the table of models says."""

AUTOMATIC_VAE, NO_VAE = "automatic", "none"
OLDER_VAES: Final = frozenset(
    name.lower()
    for name in (
        "vae-ft-mse-840000-ema-pruned.ckpt",
        "kl-f8-anime.ckpt",
        "kl-f8-anime2.ckpt",
        "YOZORA.vae.pt",
        "orangemix.vae.pt",
        "blessed2.vae.pt",
        "animevae.pt",
        "ClearVAE.safetensors",
        "pastel-waifu-diffusion.vae.pt",
    )
)
"""Files for SD 1.5, which are of no use to SDXL."""
