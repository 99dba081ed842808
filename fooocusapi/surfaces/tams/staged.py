"""A job whose stages have been judged: every value is there, and every name is that of a file or of the core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fooocus_core.plan import Enlarging, Guides, Lora, MaskedArea, MaskMerge, PartSearch
from fooocus_core.presets.sizes import Size

SMALLEST_AREA_PX, LARGEST_UPSCALED_PX = 262_144, 8_294_400


def is_allowed_once_enlarged(size: Size) -> bool:
    """Whether an upscaler may make a picture of this size (5.7)."""
    return SMALLEST_AREA_PX <= size.width_px * size.height_px <= LARGEST_UPSCALED_PX


@dataclass(frozen=True)
class Painting:
    """A ``diffusion`` block."""

    size: Size
    prompt: str
    negative_prompt: str
    checkpoint: str
    vae: str | None
    loras: tuple[Lora, ...]
    sampler: str
    schedule: str
    steps: int
    cfg_scale: float
    strength: float
    """Of what starts from a picture."""
    eta_noise_seed_delta: int = 0


@dataclass(frozen=True)
class DiffusionStage:
    """Text to image, or image to image where the job has a picture."""

    painting: Painting
    guides: Guides | None = None
    kind: Literal["diffusion"] = "diffusion"


@dataclass(frozen=True)
class UpscalerStage:
    """Enlarges, and paints once more. ``strength`` 0: it only enlarges."""

    painting: Painting
    enlarging: Enlarging
    upscaler: str
    """As the client names it."""
    size: Size
    """Of the result, as far as that of the picture is known."""
    steps: int
    strength: float
    guides: Guides | None = None
    kind: Literal["upscaler"] = "upscaler"


@dataclass(frozen=True)
class PartsArg:
    """One entry of ``args``: what is found and how it is painted anew."""

    search: PartSearch | None
    """``None``: the files that it would take are not there, and nothing is found."""
    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    dilate_px: int
    merge: MaskMerge
    strength: float
    area: MaskedArea
    painting: Painting
    noise_multiplier: float
    priced_steps: int


@dataclass(frozen=True)
class AdetailerStage:
    """Parts that are found and painted anew, entry by entry."""

    painting: Painting
    args: tuple[PartsArg, ...]
    size: Size
    """What it is priced by: that of the stage before, else of its own block."""
    kind: Literal["adetailer"] = "adetailer"


@dataclass(frozen=True)
class InpaintStage:
    """A masked part that is painted anew."""

    painting: Painting
    mask: str
    """The identifier of the resource."""
    area: MaskedArea
    size: Size
    """What it is priced by, as above."""
    priced_steps: int
    guides: Guides | None = None
    kind: Literal["inpaint"] = "inpaint"


StagedStep = DiffusionStage | UpscalerStage | AdetailerStage | InpaintStage


@dataclass(frozen=True)
class StagedJob:
    """All of it. ``seed``: of the first picture. ``picture``: the resource that the job starts from."""

    seed: int
    count: int
    picture: str | None
    steps: tuple[StagedStep, ...]
