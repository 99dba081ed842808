"""The two texts that describe a picture inside its file (specification 08, sections 6.3 and 6.4)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final

from fooocus_core.metadata.record import (
    DEFAULT_VAE,
    LORA_KEY,
    AnyRecord,
    EnlargedRecord,
    ImageRecord,
    RecordedLora,
    rows,
)
from fooocus_core.plan import MetadataScheme

SAMPLER_TITLES: Final = MappingProxyType(
    {
        "euler": "Euler",
        "euler_ancestral": "Euler a",
        "heun": "Heun",
        "dpm_2": "DPM2",
        "dpm_2_ancestral": "DPM2 a",
        "lms": "LMS",
        "dpm_fast": "DPM fast",
        "dpm_adaptive": "DPM adaptive",
        "dpmpp_2s_ancestral": "DPM++ 2S a",
        "dpmpp_sde": "DPM++ SDE",
        "dpmpp_sde_gpu": "DPM++ SDE",
        "dpmpp_2m": "DPM++ 2M",
        "dpmpp_2m_sde": "DPM++ 2M SDE",
        "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
        "lcm": "LCM",
        "tcd": "TCD",
        "restart": "Restart",
        "ddim": "DDIM",
        "uni_pc": "UniPC",
    }
)
"""How the other program's users know the samplers; names without a title stay as they are."""

KARRAS_SUFFIX: Final = " Karras"
NEGATIVE_PREFIX: Final = "Negative prompt: "

A1111_LABELS: Final = MappingProxyType(
    {
        "steps": "Steps",
        "sampler": "Sampler",
        "seed": "Seed",
        "resolution": "Size",
        "guidance_scale": "CFG scale",
        "sharpness": "Sharpness",
        "adm_guidance": "ADM Guidance",
        "base_model": "Model",
        "base_model_hash": "Model hash",
        "performance": "Performance",
        "scheduler": "Scheduler",
        "vae": "VAE",
        "raw_prompt": "Raw prompt",
        "raw_negative_prompt": "Raw negative prompt",
        "refiner_model": "Refiner",
        "refiner_model_hash": "Refiner hash",
        "adaptive_cfg": "Adaptive CFG",
        "clip_skip": "Clip skip",
        "overwrite_switch": "Overwrite Switch",
        "refiner_swap_method": "Refiner Swap Method",
        "freeu": "FreeU",
        "upscaler": "Upscaler",
        "upscaler_fallback": "Upscaler fallback for",
        "lora_hashes": "Lora hashes",
        "lora_weights": "Lora weights",
        "version": "Version",
        "created_by": "User",
    }
)
"""Key -> label of the scheme ``a1111``, in the order of its last line."""


def metadata_text(record: AnyRecord, scheme: MetadataScheme) -> str:
    """The text that is saved with the picture."""
    return fooocus_text(record) if scheme == "fooocus" else a1111_text(record)


def fooocus_text(record: AnyRecord) -> str:
    """One JSON object with sorted keys, ASCII only."""
    values: dict[str, Any] = {row.key: row.value for row in rows(record, "fooocus")}
    if isinstance(record, EnlargedRecord):
        return json.dumps(values, sort_keys=True)
    values |= {f"{LORA_KEY}{number}": f"{stem(lora.name)} : {lora.weight}" for number, lora in _loras(record)}
    values |= {
        "full_prompt": list(record.full_prompt),
        "full_negative_prompt": list(record.full_negative_prompt),
        "base_model": stem(record.checkpoint),
        "base_model_hash": record.checkpoint_hash,
        "vae": _vae_stem(record),
        "loras": [[stem(lora.name), lora.weight, lora.file_hash] for _, lora in _loras(record)],
    }
    if record.refiner is not None:
        values |= {"refiner_model": stem(record.refiner), "refiner_model_hash": record.refiner_hash}
    if record.created_by:
        values["created_by"] = record.created_by
    return json.dumps(values, sort_keys=True)


def a1111_text(record: AnyRecord) -> str:
    """The positive texts, the negative texts if there are any, and one line of parameters."""
    parameters = ", ".join(f"{A1111_LABELS[key]}: {_quoted(value)}" for key, value in _a1111_values(record))
    if isinstance(record, EnlargedRecord):
        return parameters
    negative = ", ".join(record.full_negative_prompt)
    parts = [", ".join(record.full_prompt)]
    if negative:
        parts.append(NEGATIVE_PREFIX + negative)
    return "\n".join([*parts, parameters])


def stem(name: str) -> str:
    """A weight file's name without folder and last extension."""
    return PurePosixPath(name).stem


def sampler_title(sampler: str, scheduler: str) -> str:
    """The sampler as the scheme ``a1111`` names it."""
    title = SAMPLER_TITLES.get(sampler)
    if title is None:
        return sampler
    return title + KARRAS_SUFFIX if scheduler == "karras" else title


def _a1111_values(record: AnyRecord) -> Iterator[tuple[str, object]]:
    values: dict[str, object] = {row.key: row.value for row in rows(record, "a1111")}
    values["resolution"] = f"{record.width_px}x{record.height_px}"
    if isinstance(record, ImageRecord):
        del values["refiner_model"]  # this scheme is silent where there is none
        values |= _painted_values(record)
    return ((key, values[key]) for key in A1111_LABELS if key in values)


def _painted_values(record: ImageRecord) -> dict[str, object]:
    """What this scheme says in other words than the table, or beside it."""
    values: dict[str, object] = {
        "sampler": sampler_title(record.sampler, record.scheduler),
        "base_model": stem(record.checkpoint),
        "base_model_hash": record.checkpoint_hash,
        "vae": _vae_stem(record),
        "raw_prompt": record.prompt,
        "raw_negative_prompt": record.negative_prompt,
    }
    if record.refiner is not None:
        values |= {"refiner_model": stem(record.refiner), "refiner_model_hash": record.refiner_hash}
    loras = [lora for _, lora in _loras(record)]
    if loras:
        values["lora_hashes"] = ", ".join(f"{stem(lora.name)}: {lora.file_hash}" for lora in loras)
        values["lora_weights"] = ", ".join(f"{stem(lora.name)}: {lora.weight}" for lora in loras)
    if record.created_by:
        values["created_by"] = record.created_by
    return values


def _quoted(value: object) -> str:
    """As JSON text where a reader could not tell otherwise where the value ends."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ",\n:") else text


def _vae_stem(record: ImageRecord) -> str:
    return DEFAULT_VAE if record.vae is None else stem(record.vae)


def _loras(record: ImageRecord) -> list[tuple[int, RecordedLora]]:
    """The applied LoRAs with their place in the list, from 1."""
    return [(number, lora) for number, lora in enumerate(record.loras, start=1) if lora is not None]
