"""What the schemas of several dialects have in common: sub-objects, enums, and the fields of every generation.

Requests hold what was asked, ``None`` where nothing was. A dialect inherits the fields that it names alike and adds its
own; what they mean is read off by ``fooocusapi.surfaces.meanings``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.datastructures import UploadFile

from fooocus_core.presets.sizes import ASPECT_RATIOS
from fooocus_core.resolve import MAX_IMAGES, MAX_SEED
from fooocus_core.sampling.names import SAMPLER_NAMES, SCHEDULER_NAMES
from fooocusapi.surfaces.lenient import LenientEnum, LenientModel, Text, asked

MAX_STYLES = 1000
MAX_NAME_CHARS = 500
"""Names of files, samplers and the like; nothing that exists is longer, and refusals repeat them."""
MAX_URL_CHARS = 4000
MAX_DETECTION_PROMPT_CHARS = 2000
"""Twice what the detector reads of ordinary words."""
MAX_JSON_TEXT_CHARS = 2**20
"""JSON within a text is read as a whole; the longest list of styles stays far below."""
MAX_LORA_SLOTS = 100
"""As many as a preset can allow; how many of them count is the preset's word, five where it says nothing."""


class PerformanceSelection(LenientEnum):
    """How many steps, and whether a distilled LoRA shortens them."""

    SPEED = "Speed"
    QUALITY = "Quality"
    EXTREME_SPEED = "Extreme Speed"
    LIGHTNING = "Lightning"
    HYPER_SD = "Hyper-SD"


class SaveExtension(LenientEnum):
    """Kinds of picture files; ``jpg`` is ``jpeg`` with the other suffix."""

    PNG = "png"
    JPG = "jpg"
    JPEG = "jpeg"
    WEBP = "webp"


class UpscaleOrVaryMethod(LenientEnum):
    """What becomes of a picture."""

    DISABLED = "Disabled"
    VARY_SUBTLE = "Vary (Subtle)"
    VARY_STRONG = "Vary (Strong)"
    UPSCALE_15 = "Upscale (1.5x)"
    UPSCALE_2 = "Upscale (2x)"
    UPSCALE_FAST = "Upscale (Fast 2x)"
    UPSCALE_CUSTOM = "Upscale (Custom)"


class OutpaintExpansion(LenientEnum):
    """A side at which a picture grows."""

    LEFT = "Left"
    RIGHT = "Right"
    TOP = "Top"
    BOTTOM = "Bottom"


class ControlNetType(LenientEnum):
    """What an image prompt steers by: its content, a face, its edges, its structure."""

    IMAGE_PROMPT = "ImagePrompt"
    FACE_SWAP = "FaceSwap"
    PYRA_CANNY = "PyraCanny"
    CPDS = "CPDS"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """Also with blanks between the words."""
        return super()._missing_("".join(value.split()) if isinstance(value, str) else value)


class MaskModel(LenientEnum):
    """Networks that find what is masked."""

    U2NET = "u2net"
    U2NETP = "u2netp"
    U2NET_HUMAN_SEG = "u2net_human_seg"
    U2NET_CLOTH_SEG = "u2net_cloth_seg"
    SILUETA = "silueta"
    ISNET_GENERAL_USE = "isnet-general-use"
    ISNET_ANIME = "isnet-anime"
    SAM = "sam"


class ClothCategory(LenientEnum):
    """Which clothes ``u2net_cloth_seg`` finds."""

    FULL = "full"
    UPPER = "upper"
    LOWER = "lower"


class SamModel(LenientEnum):
    """Sizes of the network that cuts out what was found."""

    VIT_B = "vit_b"
    VIT_L = "vit_l"
    VIT_H = "vit_h"


def _check_picture(value: Any) -> Any:
    if value is None or isinstance(value, (str, UploadFile)):
        return value
    raise PydanticCustomError("picture_type", "Input should be a file, base64 or an address")


PictureText = Annotated[Any, AfterValidator(_check_picture), WithJsonSchema({"type": "string"})]
"""A field for a picture, for ``fooocusapi.images.inputs``: published as text, but a file will do as well."""


# ------------------------------------------------------------------------------------------------------------ requests


class Lora(LenientModel):
    """One slot of the LoRA list. Also read: `["name", weight]`, `[enabled, "name", weight]`, `weights` for `weight`."""

    model_config = ConfigDict(json_schema_extra={"required": ["model_name"]})
    keeps_empty: ClassVar[frozenset[str]] = frozenset({"model_name"})
    second_names: ClassVar[Mapping[str, str]] = {"weights": "weight"}

    enabled: bool = Field(default=True, description="`false` leaves the slot empty.", examples=[True])
    model_name: Text = Field(
        default="None",
        description="File name as `all-models` lists it, with or without its extension. `None`, an empty or an "
        "unknown name leaves the slot empty.",
        examples=["sd_xl_offset_example-lora_1.0.safetensors"],
        max_length=MAX_NAME_CHARS,
        json_schema_extra={"default": None},
    )
    weight: float = Field(default=0.5, ge=-2, le=2, description="Strength, -2 to 2.", examples=[0.1])


def _read_lora(entry: Any) -> Any:
    """A slot in any of its forms as an object."""
    match entry:
        case str():
            return {"model_name": entry}
        case [name, weight]:
            return {"model_name": name, "weight": weight}
        case [enabled, name, weight]:
            return {"enabled": enabled, "model_name": name, "weight": weight}
        case None:
            return {"enabled": False}
        case _:
            return entry


def _read_loras(value: Any) -> Any:
    """The list, also as JSON text; what lies beyond the slots that are used is not looked at."""
    value = read_json_text(value)
    return [_read_lora(entry) for entry in value[:MAX_LORA_SLOTS]] if isinstance(value, list) else value


def read_names(value: Any) -> Any:
    """A list of names, also as JSON text or with commas between. A text longer than any such list is left as it is."""
    value = read_json_text(value)
    if isinstance(value, str) and len(value) <= MAX_JSON_TEXT_CHARS:
        value = value.split(",")
    if not isinstance(value, list):
        return value
    named = (entry.strip() if isinstance(entry, str) else entry for entry in value if entry not in (None, ""))
    return list(islice(named, MAX_STYLES + 1))  # One too many is enough to be refused.


def read_entries(count: int) -> BeforeValidator:
    """A list of objects, also as JSON text, of which the first ``count`` are looked at; null is an empty object."""

    def read(value: Any) -> Any:
        value = read_json_text(value)
        return [{} if entry is None else entry for entry in value[:count]] if isinstance(value, list) else value

    return BeforeValidator(read)


def read_json_text(value: Any) -> Any:
    """The value that a text holds, where it holds a list or an object; anything else is left as it is."""
    if not isinstance(value, str) or len(value) > MAX_JSON_TEXT_CHARS or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


class FinerControls(LenientModel):
    """The finer controls, by the names that every dialect gives them."""

    disable_preview: bool = Field(default=False, description="Make no previews while the job runs.", examples=[False])
    disable_intermediate_results: bool = Field(
        default=False, description="Accepted; finished pictures are always kept.", examples=[False]
    )
    disable_seed_increment: bool = Field(
        default=False, description="Give every picture of the job the same seed.", examples=[False]
    )
    adm_scaler_positive: float | None = asked(
        1.5, "Factor on the size vector of the positive side, 0.1 to 3.", ge=0.1, le=3.0
    )
    adm_scaler_negative: float | None = asked(
        0.8, "Factor on the size vector of the negative side, 0.1 to 3.", ge=0.1, le=3.0
    )
    adm_scaler_end: float | None = asked(
        0.3, "Share of the steps after which the size vectors are plain again, 0 to 1.", ge=0.0, le=1.0
    )
    adaptive_cfg: float | None = asked(7.0, "Guidance scale from which guidance is tamed, 1 to 30.", ge=1.0, le=30.0)
    clip_skip: int | None = asked(2, "Which layer of the text encoders is read, from the end, 1 to 12.", ge=1, le=12)
    sampler_name: Text | None = asked(
        "dpmpp_2m_sde_gpu",
        f"Solver, in any case. One of: {', '.join(SAMPLER_NAMES)}.",
        example="euler",
        max_length=MAX_NAME_CHARS,
    )
    scheduler_name: Text | None = asked(
        "karras",
        f"Noise levels, in any case. One of: {', '.join(SCHEDULER_NAMES)}.",
        example="karras",
        max_length=MAX_NAME_CHARS,
    )
    overwrite_step: int | None = asked(
        -1, "Number of steps in place of the performance mode's, up to 200; -1 and 0: off.", example=20, ge=-1, le=200
    )
    overwrite_switch: float | None = asked(
        -1,
        "Where the refiner takes over: a share of the steps below 1, a step number from 1 to 200; 0 and less: off.",
        ge=-1,
        le=200,
    )
    overwrite_width: int | None = asked(
        -1, "Width in pixels in place of the aspect ratio's, 64 to 2048; -1 and 0: off.", ge=-1, le=2048
    )
    overwrite_height: int | None = asked(
        -1, "Height in pixels in place of the aspect ratio's, 64 to 2048; -1 and 0: off.", ge=-1, le=2048
    )
    overwrite_vary_strength: float | None = asked(
        -1, "Strength of a variation in place of its method's, up to 1; -1: off.", ge=-1, le=1.0
    )
    overwrite_upscale_strength: float | None = asked(
        -1, "Strength of an upscale in place of its method's, up to 1; -1: off.", ge=-1, le=1.0
    )
    mixing_image_prompt_and_vary_upscale: bool = Field(
        default=False, description="Image prompts also steer a variation or an upscale.", examples=[False]
    )
    mixing_image_prompt_and_inpaint: bool = Field(
        default=False, description="Image prompts also steer an inpainting.", examples=[False]
    )
    debugging_cn_preprocessor: bool = Field(
        default=False, description="Return the image prompts as the networks would see them.", examples=[False]
    )
    skipping_cn_preprocessor: bool = Field(
        default=False,
        description="Take image prompts for what they would become: edges, structure, a cut-out face.",
        examples=[False],
    )
    canny_low_threshold: int | None = asked(64, "PyraCanny: lower threshold of the edges, 1 to 255.", ge=1, le=255)
    canny_high_threshold: int | None = asked(128, "PyraCanny: upper threshold of the edges, 1 to 255.", ge=1, le=255)
    refiner_swap_method: Text | None = asked(
        "joint",
        "How the refiner takes over: joint, separate or vae; anything else means joint.",
        max_length=MAX_NAME_CHARS,
    )
    controlnet_softness: float | None = asked(
        0.25, "PyraCanny and CPDS: how much less the shallow layers are steered, 0 to 1.", ge=0.0, le=1.0
    )
    freeu_enabled: bool = Field(
        default=False, description="FreeU: a stronger backbone, weaker low frequencies of the skips.", examples=[False]
    )
    freeu_b1: float | None = asked(1.01, "FreeU, first backbone factor (usually 0 to 2).")
    freeu_b2: float | None = asked(1.02, "FreeU, second backbone factor (usually 0 to 2).")
    freeu_s1: float | None = asked(0.99, "FreeU, first skip factor (usually 0 to 4).")
    freeu_s2: float | None = asked(0.95, "FreeU, second skip factor (usually 0 to 4).")
    debugging_inpaint_preprocessor: bool = Field(
        default=False,
        description="Return what an inpainting would start from: the fill, the mask, the area.",
        examples=[False],
    )
    inpaint_disable_initial_latent: bool = Field(
        default=False, description="Start an inpainting from nothing but noise.", examples=[False]
    )
    inpaint_engine: Text | None = asked(
        "v2.6",
        "Patch that makes the checkpoint one that inpaints: v1, v2.5, v2.6, or None; anything else means v2.6.",
        max_length=MAX_NAME_CHARS,
    )
    inpaint_strength: float | None = asked(1.0, "How much an inpainting may change, 0 to 1.", ge=0.0, le=1.0)
    inpaint_respective_field: float | None = asked(
        1.0, "How much around the mask an inpainting sees: 0 the mask's box, 1 the whole picture.", ge=0.0, le=1.0
    )
    inpaint_advanced_masking_checkbox: bool = Field(
        default=True, description="Use the mask that is sent.", examples=[True]
    )
    invert_mask_checkbox: bool = Field(default=False, description="Swap black and white of the mask.", examples=[False])
    inpaint_erode_or_dilate: int | None = asked(
        0, "Pixels by which the mask grows, or shrinks below 0, before it is swapped; -64 to 64.", ge=-64, le=64
    )
    black_out_nsfw: bool = Field(
        default=False, description="Paint unsafe pictures black; no previews then.", examples=[False]
    )
    vae_name: Text | None = asked(
        "Default (model)",
        "File of another autoencoder; `Default (model)` is the checkpoint's own.",
        max_length=MAX_NAME_CHARS,
    )
    debugging_dino: bool = Field(default=False, description="Return the found boxes as mask.", examples=[False])
    dino_erode_or_dilate: int | None = asked(
        0, "Pixels by which the found boxes grow, or shrink where negative, -64 to 64.", ge=-64, le=64
    )
    debugging_enhance_masks_checkbox: bool = Field(
        default=False, description="Return the masks of an enhancement as well.", examples=[False]
    )

    misspellings: ClassVar[Mapping[str, str]] = {"steps": "overwrite_step", "sampler": "sampler_name"}


class PictureRequest(LenientModel):
    """The fields of every generation that all dialects name alike."""

    keeps_empty: ClassVar[frozenset[str]] = frozenset({"prompt", "negative_prompt", "style_selections"})

    prompt: Text | None = asked(
        "",
        "What the picture shows. The first line is the main prompt, further lines add to it. Understands "
        "`(emphasis:1.2)`, `<lora:name:weight>`, `embedding:name`, `__wildcard__` and `[[one,two]]`.",
        example="a red apple on a wooden table",
    )
    negative_prompt: Text | None = asked("", "What the picture should not show.", example="blurry")
    style_selections: Annotated[list[Text] | None, BeforeValidator(read_names)] = asked(
        ["Fooocus V2", "Fooocus Enhance", "Fooocus Sharp"],
        f"Styles by name, in order, at most {MAX_STYLES}; `[]` is none. Unknown names are left out.",
        max_length=MAX_STYLES,
    )
    performance_selection: PerformanceSelection | None = asked(
        "Speed",
        "How many steps: Quality 60, Speed 30, Extreme Speed 8, Lightning 4, Hyper-SD 4. The last three put a LoRA of "
        "their own on the checkpoint and set the sampler and the guidance that fit it.",
    )
    aspect_ratios_selection: Text | None = asked(
        "1152*896",
        "Size as `width*height` in pixels; `x`, a multiplication sign and a label behind it are understood. Any size "
        f"will do; the usual ones are {', '.join(ASPECT_RATIOS)}.",
        max_length=MAX_NAME_CHARS,
    )
    image_number: int | None = asked(
        1, f"How many pictures, 1 to {MAX_IMAGES}, one after the other.", ge=1, le=MAX_IMAGES
    )
    image_seed: int | None = asked(
        -1, f"Seed of the first picture, 0 to {MAX_SEED}; any other number means a random one.", example=12345
    )
    sharpness: float | None = asked(2.0, "How much detail is sharpened while painting, 0 to 30.", ge=0, le=30)
    guidance_scale: float | None = asked(4.0, "How strictly the prompt is followed, 1 to 30.", ge=1, le=30)
    base_model_name: Text | None = asked(
        "juggernautXL_v8Rundiffusion.safetensors",
        "Checkpoint as `all-models` lists it; an unknown name means the default.",
        max_length=MAX_NAME_CHARS,
    )
    refiner_model_name: Text | None = asked(
        "None",
        "Second checkpoint for the last steps, of SDXL or Stable Diffusion 1.5; an unknown name means none. The "
        "distilled performance modes leave it out.",
        max_length=MAX_NAME_CHARS,
    )
    refiner_switch: float | None = asked(
        0.5, "Share of the steps after which the refiner takes over, 0.1 to 1.", ge=0.1, le=1
    )
    loras: Annotated[list[Lora] | None, BeforeValidator(_read_loras)] = asked(
        [{"enabled": True, "model_name": "sd_xl_offset_example-lora_1.0.safetensors", "weight": 0.1}],
        "LoRA slots; the first five count, or as many as the preset says. `[]` is none.",
        example=[{"enabled": True, "model_name": "sd_xl_offset_example-lora_1.0.safetensors", "weight": 0.1}],
    )
    read_wildcards_in_order: bool = Field(
        default=False, description="Take the lines of wildcard files in order, one a picture.", examples=[False]
    )
    async_process: bool = Field(
        default=False, description="Answer at once with a job to ask for with `query-job`.", examples=[True]
    )
    webhook_url: Text | None = asked(
        "",
        "Where the end of the job is told, in place of the server's own address.",
        example="http://127.0.0.1:9000/done",
        max_length=MAX_URL_CHARS,
    )


# ------------------------------------------------------------------------------------------------------------- answers


class FieldError(BaseModel):
    """One field that was not taken."""

    type: str = Field(description="Kind of the fault.", examples=["less_than_equal"])
    loc: list[str | int] = Field(description="Where the field is.", examples=[["body", "image_number"]])
    msg: str = Field(description="What is wrong.", examples=["Input should be less than or equal to 32"])
    input: Any = Field(default=None, description="What was sent; long texts are shortened.", examples=[99])
    ctx: Any = Field(default=None, description="Details, where there are any.", examples=[{"le": 32}])
