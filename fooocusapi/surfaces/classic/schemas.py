"""What the classic dialect reads and writes (contract sections 3 to 6 and 10 to 12).

Requests hold what was asked, ``None`` where nothing was; the defaults in their published schema are the contract's,
and ``openapi`` replaces those that the configured preset sets. Answers list every key, nulls included, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fooocusapi.images.names import MAX_SAVE_NAME_CHARS
from fooocusapi.surfaces.fields import (
    MAX_NAME_CHARS,
    FinerControls,
    PictureRequest,
    SaveExtension,
    read_json_text,
)
from fooocusapi.surfaces.lenient import LenientEnum, LenientModel, Text, asked


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


def _read_advanced(value: Any) -> Any:
    """The object, also as JSON text. An empty list is the empty object of clients whose language has only one."""
    value = read_json_text(value)
    return {} if value == [] else value


class AdvancedParams(FinerControls):
    """The finer controls. Those about pictures that are sent have no effect without such a picture."""

    mixing_image_prompt_and_vary_upscale: bool = Field(
        default=False,
        description="Accepted; image prompts that are sent always steer a variation or an upscale.",
        examples=[False],
    )
    mixing_image_prompt_and_inpaint: bool = Field(
        default=False, description="Accepted; image prompts that are sent always steer an inpainting.", examples=[False]
    )


class CommonRequest(PictureRequest):
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
    require_base64: bool = Field(
        default=False, description="Put the pictures into the answer as well.", examples=[False]
    )


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
