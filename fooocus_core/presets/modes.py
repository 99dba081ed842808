"""The performance modes: how many steps, and what the distilled ones force (specification 01, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fooocus_core.plan import Guidance, Lora, Performance, Sampling


@dataclass(frozen=True)
class Mode:
    """One performance mode.

    A distilled mode has a LoRA and a solver of its own, and runs without guidance: it replaces what the request says
    about sampler, scheduler, guidance and refiner.
    """

    steps: int
    upscale_steps: int
    """Steps of a re-diffused upscale."""
    lora: Lora | None = None
    forced_sampling: Sampling | None = None

    @property
    def is_distilled(self) -> bool:
        """Whether the mode forces its own values."""
        return self.forced_sampling is not None


def _distilled(steps: int, lora: Lora, sampler: str, scheduler: str) -> Mode:
    return Mode(steps, steps, lora, Sampling(sampler=sampler, scheduler=scheduler, steps=steps))


MODES: Final[Mapping[Performance, Mode]] = MappingProxyType(
    {
        "Quality": Mode(steps=60, upscale_steps=36),
        "Speed": Mode(steps=30, upscale_steps=18),
        "Extreme Speed": _distilled(8, Lora("sdxl_lcm_lora.safetensors", 1.0), "lcm", "lcm"),
        "Lightning": _distilled(4, Lora("sdxl_lightning_4step_lora.safetensors", 1.0), "euler", "sgm_uniform"),
        "Hyper-SD": _distilled(4, Lora("sdxl_hyper_sd_4step_lora.safetensors", 0.8), "dpmpp_sde_gpu", "karras"),
    }
)

DISTILLED_GUIDANCE: Final = Guidance(
    scale=1.0, sharpness=0.0, adaptive_scale=1.0, adm_positive=1.0, adm_negative=1.0, adm_end=0.0
)
DISTILLED_REFINER_SWITCH: Final = 1.0


def mode_of_steps(steps: int) -> Performance | None:
    """The first mode that takes ``steps`` steps: 4 is Lightning, never Hyper-SD."""
    return next((name for name, mode in MODES.items() if mode.steps == steps), None)
