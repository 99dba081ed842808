"""What the classic dialect reads and writes (contract sections 3 to 6 and 10 to 12).

Requests hold what was asked, ``None`` where nothing was; the defaults in their published schema are the contract's,
and ``openapi`` replaces those that the configured preset sets. Answers list every key, nulls included, in order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from fooocus_core.presets.sizes import ASPECT_RATIOS
from fooocus_core.resolve import MAX_IMAGES, MAX_SEED
from fooocus_core.sampling.names import SAMPLER_NAMES, SCHEDULER_NAMES
from fooocusapi.images.names import MAX_SAVE_NAME_CHARS
from fooocusapi.surfaces.lenient import LenientEnum, LenientModel, Text, asked

MAX_STYLES = 1000
MAX_NAME_CHARS = 500
"""Names of files, samplers and the like; nothing that exists is longer, and refusals repeat them."""
MAX_URL_CHARS = 4000
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


class TaskType(LenientEnum):
    """Kinds of jobs."""

    TEXT_TO_IMAGE = "Text to Image"
    UPSCALE_OR_VARY = "Image Upscale or Variation"
    INPAINT_OR_OUTPAINT = "Image Inpaint or Outpaint"
    IMAGE_PROMPT = "Image Prompt"
    IMAGE_ENHANCEMENT = "Image Enhancement"
    NOT_FOUND = "Not Found"


class AsyncJobStage(LenientEnum):
    """Where a job stands; clients compare these words."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"


class GenerationFinishReason(LenientEnum):
    """How a picture, or the wish for one, ended."""

    SUCCESS = "SUCCESS"
    QUEUE_IS_FULL = "QUEUE_IS_FULL"
    USER_CANCEL = "USER_CANCEL"
    ERROR = "ERROR"


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
    value = _read_json_text(value)
    return [_read_lora(entry) for entry in value[:MAX_LORA_SLOTS]] if isinstance(value, list) else value


def _read_styles(value: Any) -> Any:
    """The list, also as JSON text or as names with commas between."""
    value = _read_json_text(value)
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return value
    named = (entry.strip() if isinstance(entry, str) else entry for entry in value if entry not in (None, ""))
    return list(islice(named, MAX_STYLES + 1))  # One too many is enough to be refused.


def _read_advanced(value: Any) -> Any:
    """The object, also as JSON text. An empty list is the empty object of clients whose language has only one."""
    value = _read_json_text(value)
    return {} if value == [] else value


def _read_json_text(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > MAX_JSON_TEXT_CHARS or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


class AdvancedParams(LenientModel):
    """The finer controls. Fields about input images have no effect on text to image."""

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
        default=False, description="Return what the control images become.", examples=[False]
    )
    skipping_cn_preprocessor: bool = Field(
        default=False, description="Take control images as they are.", examples=[False]
    )
    canny_low_threshold: int | None = asked(64, "Lower threshold of the edge finder, 1 to 255.", ge=1, le=255)
    canny_high_threshold: int | None = asked(128, "Upper threshold of the edge finder, 1 to 255.", ge=1, le=255)
    refiner_swap_method: Text | None = asked(
        "joint",
        "How the refiner takes over: joint, separate or vae; anything else means joint.",
        max_length=MAX_NAME_CHARS,
    )
    controlnet_softness: float | None = asked(0.25, "How softly control images steer, 0 to 1.", ge=0.0, le=1.0)
    freeu_enabled: bool = Field(
        default=False, description="FreeU: a stronger backbone, weaker low frequencies of the skips.", examples=[False]
    )
    freeu_b1: float | None = asked(1.01, "FreeU, first backbone factor (usually 0 to 2).")
    freeu_b2: float | None = asked(1.02, "FreeU, second backbone factor (usually 0 to 2).")
    freeu_s1: float | None = asked(0.99, "FreeU, first skip factor (usually 0 to 4).")
    freeu_s2: float | None = asked(0.95, "FreeU, second skip factor (usually 0 to 4).")
    debugging_inpaint_preprocessor: bool = Field(
        default=False, description="Return what the input of an inpainting becomes.", examples=[False]
    )
    inpaint_disable_initial_latent: bool = Field(
        default=False, description="Start an inpainting from nothing.", examples=[False]
    )
    inpaint_engine: Text | None = asked(
        "v2.6", "Inpainting patch: None, v1, v2.5 or v2.6; anything else means v2.6.", max_length=MAX_NAME_CHARS
    )
    inpaint_strength: float | None = asked(1.0, "How much an inpainting may change, 0 to 1.", ge=0.0, le=1.0)
    inpaint_respective_field: float | None = asked(
        1.0, "How much around the mask an inpainting sees: 0 the mask's box, 1 the whole picture.", ge=0.0, le=1.0
    )
    inpaint_advanced_masking_checkbox: bool = Field(
        default=True, description="Use the mask that is sent with an input image.", examples=[True]
    )
    invert_mask_checkbox: bool = Field(default=False, description="Swap black and white of the mask.", examples=[False])
    inpaint_erode_or_dilate: int | None = asked(
        0, "Pixels by which the mask grows, or shrinks where negative, -64 to 64.", ge=-64, le=64
    )
    black_out_nsfw: bool = Field(
        default=False,
        description="Paint unsafe pictures black. Not available yet: `true` is refused.",
        examples=[False],
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


class CommonRequest(LenientModel):
    """The fields of every generation endpoint; text to image has no others. `{}` is a valid body.

    Fields that are left out, null, or empty text where a number, a truth value or a choice is expected take their
    default. Numbers and truth values may be sent as text, choices in any case. Unknown fields are ignored.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "a red apple on a wooden table",
                    "negative_prompt": "blurry",
                    "style_selections": ["Fooocus V2", "Fooocus Sharp"],
                    "performance_selection": "Speed",
                    "aspect_ratios_selection": "1152*896",
                    "image_number": 1,
                    "image_seed": 12345,
                    "async_process": True,
                }
            ]
        }
    )
    keeps_empty: ClassVar[frozenset[str]] = frozenset({"prompt", "negative_prompt", "style_selections"})
    misspellings: ClassVar[Mapping[str, str]] = {
        "negative_promit": "negative_prompt",
        "styles": "style_selections",
        "performance": "performance_selection",
        "seed": "image_seed",
        "steps": "advanced_params.overwrite_step",
        "cfg_scale": "guidance_scale",
        "output_format": "save_extension",
        "width": "aspect_ratios_selection",
        "height": "aspect_ratios_selection",
    }

    prompt: Text | None = asked(
        "",
        "What the picture shows. The first line is the main prompt, further lines add to it. Understands "
        "`(emphasis:1.2)`, `<lora:name:weight>`, `embedding:name`, `__wildcard__` and `[[one,two]]`.",
        example="a red apple on a wooden table",
    )
    negative_prompt: Text | None = asked("", "What the picture should not show.", example="blurry")
    style_selections: Annotated[list[Text] | None, BeforeValidator(_read_styles)] = asked(
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
    advanced_params: Annotated[AdvancedParams, BeforeValidator(_read_advanced)] = Field(
        default_factory=AdvancedParams,
        description="The finer controls.",
        examples=[{"overwrite_step": 20}],
        json_schema_extra={"default": {}},
    )
    save_meta: bool = Field(default=True, description="Write the settings into the picture file.", examples=[True])
    meta_scheme: Text | None = asked(
        "fooocus",
        "How the settings are written: `fooocus` (JSON), `a1111` or `a111` (text); anything else: fooocus.",
        max_length=MAX_NAME_CHARS,
    )
    save_extension: SaveExtension | None = asked("png", "Kind of picture file.")
    save_name: Text | None = asked(
        "",
        f"Name of the files in place of the job's, at most {MAX_SAVE_NAME_CHARS} characters; `/` makes sub-folders. "
        "The same name on the same day overwrites.",
        example="apple",
    )
    read_wildcards_in_order: bool = Field(
        default=False, description="Take the lines of wildcard files in order, one a picture.", examples=[False]
    )
    require_base64: bool = Field(
        default=False, description="Put the pictures into the answer as well.", examples=[False]
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
    image_prompts: SkipJsonSchema[Any] = None
    """No field of text to image: read only to refuse what could not be honoured."""


class UpscaleOrVaryMethod(LenientEnum):
    """What becomes of a picture."""

    DISABLED = "Disabled"
    VARY_SUBTLE = "Vary (Subtle)"
    VARY_STRONG = "Vary (Strong)"
    UPSCALE_15 = "Upscale (1.5x)"
    UPSCALE_2 = "Upscale (2x)"
    UPSCALE_FAST = "Upscale (Fast 2x)"
    UPSCALE_CUSTOM = "Upscale (Custom)"


class ImgUpscaleOrVaryRequestJson(CommonRequest):
    """The fields of a variation or an upscale beside the common ones; the size is the picture's."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    input_image: Annotated[Any, WithJsonSchema({"type": "string"})] = Field(
        description="The picture: base64 with or without `data:image/...;base64,`, or an address.",
        examples=["http://127.0.0.1:8888/files/2025-02-23/764af3ec-f0f7-45c6-9951-722e24c67134-0.png"],
    )
    uov_method: UpscaleOrVaryMethod = Field(
        default=UpscaleOrVaryMethod.UPSCALE_2, description="What becomes of it.", examples=["Vary (Subtle)"]
    )
    upscale_value: float | None = asked(
        2.0, "How much larger `Upscale (Custom)` makes the picture, 1 to 5.", ge=1.0, le=5.0
    )


class ImgUpscaleOrVaryForm(ImgUpscaleOrVaryRequestJson):
    """The same as a form. Objects and lists are JSON text."""

    input_image: Annotated[Any, WithJsonSchema({"type": "string", "format": "binary"})] = Field(
        description="The picture, as a file.", examples=["picture.png"]
    )
    uov_method: UpscaleOrVaryMethod = Field(description="What becomes of it.", examples=["Vary (Subtle)"])
    save_meta: bool = Field(default=False, description="Write the settings into the picture file.", examples=[True])


class QueryJobRequest(LenientModel):
    """Which job to look up."""

    second_names: ClassVar[Mapping[str, str]] = {"require_step_preivew": "require_step_preview"}
    """The parameter's name in releases 0.3.14 to 0.3.29."""

    job_id: Text = Field(description="The job's identifier.", examples=["764af3ec-f0f7-45c6-9951-722e24c67134"])
    require_step_preview: bool = Field(
        default=False, description="Also send the picture as it stands.", examples=[True]
    )


# ------------------------------------------------------------------------------------------------------------- answers


class GeneratedImageResult(BaseModel):
    """One picture of an answer, or why there is none."""

    base64: str | None = Field(
        description="The picture as `data:image/<ext>;base64,...`; null unless `require_base64` was set."
    )
    url: str | None = Field(
        description="Where the picture can be fetched; null when there is none.",
        examples=["http://127.0.0.1:8888/files/2025-02-23/764af3ec-f0f7-45c6-9951-722e24c67134-0.png"],
    )
    seed: str = Field(description="The picture's seed, a text of up to 19 digits.", examples=["1937746674716894768"])
    finish_reason: GenerationFinishReason = Field(description="`SUCCESS`, or why there is no picture.")


class AsyncJobResponse(BaseModel):
    """A job as clients see it."""

    job_id: str = Field(description="Identifier (UUID); empty for a job that was refused or is not known.")
    job_type: TaskType = Field(description="Kind of job.")
    job_stage: AsyncJobStage = Field(description="Where the job stands.")
    job_progress: int = Field(ge=0, le=100, description="Per cent, never falling; 100 only after success.")
    job_status: str | None = Field(
        default=None, description="What is happening; `Finished` at the end, the reason after a failure."
    )
    job_step_preview: str | None = Field(
        default=None, description="The picture as it stands, bare base64 of a PNG; only when it was asked for."
    )
    job_result: list[GeneratedImageResult] | None = Field(
        default=None, description="The pictures, once the job has succeeded."
    )


class JobQueueInfo(BaseModel):
    """The queue in numbers."""

    running_size: int = Field(description="Jobs that wait or run.", examples=[1])
    finished_size: int = Field(description="Finished jobs that are remembered.", examples=[12])
    last_job_id: str | None = Field(description="The job that was submitted last; null before the first one.")


class JobHistoryInfo(BaseModel):
    """A job in the lists of the history. Times are milliseconds since the epoch, 0 = not yet."""

    job_id: str = Field(description="The job's identifier.")
    in_queue_mills: int = Field(default=0, description="When it was submitted.", examples=[1740312345678])
    start_mills: int = Field(default=0, description="When it began.", examples=[1740312345700])
    finish_mills: int = Field(default=0, description="When it ended.", examples=[1740312365700])
    is_finished: bool = Field(default=False, description="Whether it has ended, however it did.")


class RecordedJob(BaseModel):
    """A finished job of the durable history (`--persistent`)."""

    params: dict[str, Any] = Field(description="What was asked, resolved.")
    task_info: dict[str, Any] = Field(description="Identifier, times, addresses of the pictures, ending.")


class JobHistoryResponse(BaseModel):
    """Waiting and running jobs, and finished ones: oldest first, with `--persistent` newest first."""

    queue: list[JobHistoryInfo] = Field(default_factory=list, description="The running job, then the waiting ones.")
    history: list[JobHistoryInfo] | list[RecordedJob] = Field(default_factory=list, description="Finished jobs.")


class DeletedResponse(BaseModel):
    """What became of a job that was to be deleted."""

    message: str = Field(description="`Deleted` or `Not found`.", examples=["Deleted"])
    queue: list[JobHistoryInfo] = Field(default_factory=list, description="Always empty.")
    history: list[JobHistoryInfo] = Field(default_factory=list, description="Always empty.")


class AllModelNamesResponse(BaseModel):
    """The model files on disk, by names relative to their folders."""

    model_filenames: list[str] = Field(
        description="Checkpoints.", examples=[["juggernautXL_v8Rundiffusion.safetensors"]]
    )
    lora_filenames: list[str] = Field(description="LoRAs.", examples=[["sd_xl_offset_example-lora_1.0.safetensors"]])


class StopResponse(BaseModel):
    """The same whether a job was running or not."""

    msg: str = Field(description="Always `success`.", examples=["success"])


class MessageResponse(BaseModel):
    """A word in answer."""

    message: str = Field(description="Always `ok`.", examples=["ok"])


class FieldError(BaseModel):
    """One field that was not taken."""

    type: str = Field(description="Kind of the fault.", examples=["less_than_equal"])
    loc: list[str | int] = Field(description="Where the field is.", examples=[["body", "image_number"]])
    msg: str = Field(description="What is wrong.", examples=["Input should be less than or equal to 32"])
    input: Any = Field(default=None, description="What was sent; long texts are shortened.", examples=[99])
    ctx: Any = Field(default=None, description="Details, where there are any.", examples=[{"le": 32}])


class ValidationAnswer(BaseModel):
    """What a request with wrong fields is answered with."""

    detail: list[FieldError] = Field(description="Every field that was not taken.")
    body: Any = Field(default=None, description="The request as it was understood; long texts are shortened.")
