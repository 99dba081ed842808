"""What made one picture: the record that is written into files and logs (specification 08, section 6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from fooocus_core.plan import MetadataScheme, Performance

VERSION: Final = "Fooocus v2.5.5"
"""The version text that readers of the original program's files know."""

DEFAULT_VAE: Final = "Default (model)"
"""How the autoencoder inside the checkpoint is called."""

DEFAULT_ADAPTIVE_SCALE: Final = 7.0
"""The adaptive guidance scale that is not worth a row."""

EXPANSION_STYLE: Final = "Fooocus V2"
"""The style name that asks for the prompt expansion."""


LABELS: Final = MappingProxyType(
    {
        "prompt": "Prompt",
        "negative_prompt": "Negative Prompt",
        "prompt_expansion": "Fooocus V2 Expansion",
        "styles": "Styles",
        "performance": "Performance",
        "steps": "Steps",
        "resolution": "Resolution",
        "guidance_scale": "Guidance Scale",
        "sharpness": "Sharpness",
        "adm_guidance": "ADM Guidance",
        "base_model": "Base Model",
        "refiner_model": "Refiner Model",
        "refiner_switch": "Refiner Switch",
        "overwrite_switch": "Overwrite Switch",
        "refiner_swap_method": "Refiner Swap Method",
        "adaptive_cfg": "CFG Mimicking from TSNR",
        "clip_skip": "CLIP Skip",
        "sampler": "Sampler",
        "scheduler": "Scheduler",
        "vae": "VAE",
        "seed": "Seed",
        "freeu": "FreeU",
        "upscaler": "Upscaler",
        "upscaler_fallback": "Upscaler fallback for",
        "metadata_scheme": "Metadata Scheme",
        "version": "Version",
    }
)
"""Key -> label of the table's rows, in its order."""

LORA_KEY: Final = "lora_combined_"
LORA_LABEL: Final = "LoRA "
"""Key and label of an applied LoRA, each followed by its place in the list, from 1."""


@dataclass(frozen=True)
class RecordedLora:
    """One applied LoRA: its file name as the library lists it, its weight, and its hash (section 7; may be empty)."""

    name: str
    weight: float
    file_hash: str = ""


@dataclass(frozen=True)
class ImageRecord:
    """Everything that is told about one picture. The texts are the resolved ones, the seed is the picture's own."""

    seed: int
    width_px: int
    height_px: int
    checkpoint: str
    prompt: str = ""
    """The main line and the extra lines after wildcards and arrays, joined by newlines."""
    negative_prompt: str = ""
    prompt_expansion: str = ""
    """What the prompt expansion wrote; empty when it did not run."""
    full_prompt: tuple[str, ...] = ()
    """The positive texts as they were encoded, expansion included."""
    full_negative_prompt: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    """In request order, drawn styles by their real names; the expansion's own name first if it ran."""
    performance: Performance = "Speed"
    steps: int = 30
    guidance_scale: float = 4.0
    sharpness: float = 2.0
    adm_positive: float = 1.5
    adm_negative: float = 0.8
    adm_end: float = 0.3
    checkpoint_hash: str = ""
    refiner: str | None = None
    refiner_hash: str = ""
    refiner_switch: float = 0.5
    overwrite_switch: float = -1
    refiner_swap_method: str = "joint"
    adaptive_scale: float = DEFAULT_ADAPTIVE_SCALE
    clip_skip: int = 2
    sampler: str = "dpmpp_2m_sde_gpu"
    scheduler: str = "karras"
    vae: str | None = None
    freeu: tuple[float, float, float, float] | None = None
    """b1, b2, s1, s2; ``None``: off."""
    upscaler: str = ""
    """What enlarged the picture that the last pass started from, or that pass's own; empty: nothing did."""
    upscaler_fallback: str = ""
    """The upscaler that was asked for, in whose place ``upscaler`` stands; empty: it stands for itself."""
    loras: tuple[RecordedLora | None, ...] = ()
    """All that were merged, in that order; an empty slot writes nothing but keeps its number."""
    created_by: str = ""


@dataclass(frozen=True)
class EnlargedRecord:
    """What is told about a picture that was sent and only enlarged. ``upscaler_fallback`` as above."""

    width_px: int
    height_px: int
    upscaler: str
    upscaler_fallback: str = ""


AnyRecord = ImageRecord | EnlargedRecord


def joined(latest: AnyRecord | None, earlier: AnyRecord | None) -> AnyRecord | None:
    """What is told of a picture that was made of another one: how it was painted last, and what enlarged it last."""
    if latest is None or earlier is None:
        return latest or earlier
    if isinstance(latest, EnlargedRecord):
        return replace(earlier, **vars(latest))
    if latest.upscaler:
        return latest
    return replace(latest, upscaler=earlier.upscaler, upscaler_fallback=earlier.upscaler_fallback)


RowValue = str | int | float | bool


class Row(NamedTuple):
    """One line of the table: what programs read, and the value."""

    key: str
    value: RowValue

    @property
    def label(self) -> str:
        """What people read."""
        return LABELS.get(self.key) or self.key.replace(LORA_KEY, LORA_LABEL)


def rows(record: AnyRecord, scheme: MetadataScheme | None) -> list[Row]:
    """The table of section 6.2 in its order; ``scheme`` is ``None`` where no metadata is saved."""
    if isinstance(record, EnlargedRecord):
        size = Row("resolution", str((record.width_px, record.height_px)))
        return [size, *_upscaler_rows(record), Row("version", VERSION)]
    return [
        *_prompt_rows(record),
        *_model_rows(record),
        *_sampling_rows(record),
        *_lora_rows(record),
        Row("metadata_scheme", scheme or False),
        Row("version", VERSION),
    ]


def _prompt_rows(record: ImageRecord) -> Iterator[Row]:
    yield Row("prompt", record.prompt)
    yield Row("negative_prompt", record.negative_prompt)
    yield Row("prompt_expansion", record.prompt_expansion)
    yield Row("styles", str(list(record.styles)))
    yield Row("performance", record.performance)
    yield Row("steps", record.steps)
    yield Row("resolution", str((record.width_px, record.height_px)))
    yield Row("guidance_scale", record.guidance_scale)
    yield Row("sharpness", record.sharpness)
    yield Row("adm_guidance", str((record.adm_positive, record.adm_negative, record.adm_end)))


def _model_rows(record: ImageRecord) -> Iterator[Row]:
    yield Row("base_model", record.checkpoint)
    yield Row("refiner_model", record.refiner or "None")
    yield Row("refiner_switch", record.refiner_switch)
    if record.refiner is None:
        return
    if record.overwrite_switch > 0:
        yield Row("overwrite_switch", record.overwrite_switch)
    if record.refiner_swap_method != "joint":
        yield Row("refiner_swap_method", record.refiner_swap_method)


def _sampling_rows(record: ImageRecord) -> Iterator[Row]:
    if record.adaptive_scale != DEFAULT_ADAPTIVE_SCALE:
        yield Row("adaptive_cfg", record.adaptive_scale)
    if record.clip_skip > 1:
        yield Row("clip_skip", record.clip_skip)
    yield Row("sampler", record.sampler)
    yield Row("scheduler", record.scheduler)
    yield Row("vae", record.vae or DEFAULT_VAE)
    yield Row("seed", str(record.seed))
    if record.freeu is not None:
        yield Row("freeu", str(record.freeu))
    yield from _upscaler_rows(record)


def _upscaler_rows(record: AnyRecord) -> Iterator[Row]:
    if record.upscaler:
        yield Row("upscaler", record.upscaler)
    if record.upscaler_fallback:
        yield Row("upscaler_fallback", record.upscaler_fallback)


def _lora_rows(record: ImageRecord) -> Iterator[Row]:
    for number, lora in enumerate(record.loras, start=1):
        if lora is not None:
            yield Row(f"{LORA_KEY}{number}", f"{lora.name} : {lora.weight}")
