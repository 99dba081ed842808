"""What the unified dialect reads and writes (contract ``engine-generate.md`` sections 3, 4, 10 and 11).

Requests hold what was asked, ``None`` where nothing was; the defaults in their published schema are the contract's,
and ``openapi`` replaces those that the configured preset sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fooocus_core.resolve import MAX_GUIDES
from fooocusapi.errors import Location
from fooocusapi.images.inputs import SentPicture
from fooocusapi.images.names import MAX_SAVE_NAME_CHARS
from fooocusapi.surfaces.enhancements import (
    MAX_CONTROLLERS,
    Controller,
    EnhanceCtrlNets,
    ProcessingOrder,
    PromptType,
)
from fooocusapi.surfaces.fields import (
    MAX_NAME_CHARS,
    ControlNetType,
    FinerControls,
    OutpaintExpansion,
    PictureRequest,
    PictureText,
    SaveExtension,
    UpscaleOrVaryMethod,
    read_entries,
    read_json_text,
    read_names,
)
from fooocusapi.surfaces.lenient import LenientEnum, LenientModel, Text, asked

MAX_DISTANCE_PX: Final = 100_000
"""No picture that can be made is so long."""
SIDES: Final = (OutpaintExpansion.LEFT, OutpaintExpansion.TOP, OutpaintExpansion.RIGHT, OutpaintExpansion.BOTTOM)
"""In the order of ``outpaint_distance``."""

UOV_IMAGE: Final[Location] = ("body", "uov_input_image")
INPAINT_IMAGE: Final[Location] = ("body", "inpaint_input_image")
INPAINT_MASK: Final[Location] = ("body", "inpaint_mask_image_upload")
ENHANCE_IMAGE: Final[Location] = ("body", "enhance_input_image")

A_PICTURE: Final = "base64 with or without `data:image/...;base64,`, or an address"
AN_ADDRESS: Final = "http://127.0.0.1:8888/outputs/2025-02-23/2025-02-23_14-05-09_1234.png"


class CurrentTab(LenientEnum):
    """What is done with the pictures of a request; worked out from those that are there."""

    UOV = "uov"
    INPAINT = "inpaint"
    IP = "ip"
    ENHANCE = "enhance"


class MetadataSchemeName(LenientEnum):
    """How the settings are written into a file; the guides also spell the second one ``a111``."""

    FOOOCUS = "fooocus"
    A1111 = "a1111"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return super()._missing_("a1111" if isinstance(value, str) and value.strip().lower() == "a111" else value)


# ------------------------------------------------------------------------------------------------------------ requests


class ImagePrompt(LenientModel):
    """A picture that steers the painting. Without a picture it is left out."""

    cn_img: PictureText = asked(None, f"The picture: {A_PICTURE}.", example=AN_ADDRESS)
    cn_stop: float | None = Field(
        default=0.6,
        description="Share of the steps after which it steers no more, 0 to 1; null: its kind's own share.",
        examples=[0.6],
        ge=0,
        le=1,
    )
    cn_weight: float | None = Field(
        default=0.6, description="How strongly it steers, 0 to 2; null: its kind's own.", examples=[0.6], ge=0, le=2
    )
    cn_type: ControlNetType = Field(
        default=ControlNetType.IMAGE_PROMPT, description="What it steers by.", examples=["PyraCanny"]
    )

    @classmethod
    def _says_something(cls, name: str, value: object) -> bool:
        """Here null is a word of its own: the default of the kind (contract section 16)."""
        return (value is None and name in ("cn_stop", "cn_weight")) or super()._says_something(name, value)


def _read_method(value: Any) -> Any:
    """The guides also call it ``disable`` and ``None``."""
    is_off = isinstance(value, str) and value.strip().lower() in ("disable", "none")
    return UpscaleOrVaryMethod.DISABLED if is_off else value


def _read_distances(value: Any) -> Any:
    """Four numbers, also as JSON text; null, and what is missing at the end, mean no number."""
    value = read_json_text(value)
    return [0 if entry is None else entry for entry in value] if isinstance(value, list) else value


Method = Annotated[UpscaleOrVaryMethod, BeforeValidator(_read_method)]


class GenerateRequest(FinerControls, PictureRequest):
    """Everything in one body, every field of it optional: what is done follows from the pictures that are there.

    Fields that are left out, null, or empty text where a number, a truth value or a choice is expected take their
    default. Numbers and truth values may be sent as text, choices in any case. Unknown fields are ignored.
    """

    model_config = ConfigDict(
        title="GenerateRequest",
        json_schema_extra={
            "examples": [
                {
                    "prompt": "a red apple on a wooden table",
                    "style_selections": ["Fooocus V2", "Fooocus Sharp"],
                    "aspect_ratios_selection": "1152*896",
                    "image_number": 1,
                    "async_process": True,
                }
            ]
        },
    )
    second_names: ClassVar[Mapping[str, str]] = {"enhance_ctrlnets": "enhance_ctrls"}
    misspellings: ClassVar[Mapping[str, str]] = {
        "negative_promit": "negative_prompt",
        "styles": "style_selections",
        "performance": "performance_selection",
        "seed": "image_seed",
        "steps": "overwrite_step",
        "sampler": "sampler_name",
        "cfg_scale": "guidance_scale",
        "save_extension": "output_format",
        "save_meta": "save_metadata_to_images",
        "meta_scheme": "metadata_scheme",
        "upscale_value": "upscale_multiple",
        "input_image": "uov_input_image",
        "input_mask": "inpaint_mask_image_upload",
        "image_prompts": "controlnet_image",
        "width": "aspect_ratios_selection",
        "height": "aspect_ratios_selection",
    }

    output_format: SaveExtension | None = asked("png", "Kind of picture file.")
    preset: Text | None = asked(
        "initial",
        "Whose defaults are used: a preset by its name in any case; `initial` and unknown names mean the server's own. "
        "What is sent counts, unless it is the server's own default.",
        example="initial",
        max_length=MAX_NAME_CHARS,
    )

    adm_scaler_positive: float | None = asked(
        1.5, "Factor on the size vector of the positive side, 0 to 3.", ge=0.0, le=3.0
    )
    adm_scaler_negative: float | None = asked(
        0.8, "Factor on the size vector of the negative side, 0 to 3.", ge=0.0, le=3.0
    )

    input_image_checkbox: bool = Field(
        default=False, description="Accepted; pictures that are sent always count.", examples=[True]
    )
    current_tab: CurrentTab | None = asked(
        "uov",
        "Accepted; what is done follows from the pictures: enhance, image prompts, vary or upscale, inpaint, the first "
        "of them that has one.",
    )

    uov_input_image: PictureText = asked("None", f"A picture to be varied or enlarged: {A_PICTURE}.", example="None")
    uov_method: Method = Field(
        default=UpscaleOrVaryMethod.DISABLED, description="What becomes of it.", examples=["Vary (Subtle)"]
    )
    upscale_multiple: float | None = asked(
        2.0, "How much larger `Upscale (Custom)` makes the picture, 1 to 5.", ge=1.0, le=5.0
    )

    inpaint_input_image: PictureText = asked("None", f"A picture to be repainted: {A_PICTURE}.", example="None")
    inpaint_mask_image_upload: PictureText = asked(
        "None", f"White where to repaint, of any size: {A_PICTURE}. Without one nothing is masked.", example="None"
    )
    inpaint_additional_prompt: Text | None = asked(
        "", "What the repainted part shows; stands before the prompt, on a line of its own.", example="a green apple"
    )
    outpaint_selections: Annotated[list[OutpaintExpansion] | None, BeforeValidator(read_names)] = asked(
        [], "The sides at which the picture grows.", example=[]
    )
    outpaint_distance: Annotated[
        list[Annotated[int, Field(le=MAX_DISTANCE_PX)]] | None, BeforeValidator(_read_distances)
    ] = asked(
        [0, 0, 0, 0],
        "Pixels for left, top, right and bottom, where selected; 0 and less: three tenths of the length.",
        max_length=len(SIDES),
    )
    inpaint_respective_field: float | None = asked(
        0.618, "How much around the mask an inpainting sees: 0 the mask's box, 1 the whole picture.", ge=0.0, le=1.0
    )
    inpaint_advanced_masking_checkbox: bool = Field(
        default=False, description="Accepted; a mask that is sent always counts.", examples=[True]
    )
    invert_mask_checkbox: bool = Field(
        default=False, description="Accepted; masks are never swapped here.", examples=[False]
    )

    controlnet_image: Annotated[list[ImagePrompt] | None, read_entries(MAX_GUIDES)] = asked(
        [{"cn_img": None, "cn_stop": 0.6, "cn_weight": 0.6, "cn_type": "ImagePrompt"}],
        f"Pictures that steer the painting; the first {MAX_GUIDES} entries count.",
    )

    enhance_input_image: PictureText = asked("None", f"A picture to be enhanced: {A_PICTURE}.", example="None")
    enhance_checkbox: bool = Field(
        default=False,
        description="Whether anything is enhanced: the picture that is sent for it, else every one that is made.",
        examples=[True],
    )
    enhance_uov_method: Method = Field(
        default=UpscaleOrVaryMethod.DISABLED,
        description="Vary or enlarge as well; the factor of `Upscale (Custom)` is 1 here.",
        examples=["Disabled"],
    )
    enhance_uov_processing_order: ProcessingOrder = Field(
        default=ProcessingOrder.BEFORE, description="When that is done.", examples=["Before First Enhancement"]
    )
    enhance_uov_prompt_type: PromptType = Field(
        default=PromptType.ORIGINAL, description="Whose prompts that has.", examples=["Original Prompts"]
    )
    enhance_ctrls: Annotated[list[EnhanceCtrlNets] | None, read_entries(MAX_CONTROLLERS)] = asked(
        [], f"Steps of an enhancement, the first {MAX_CONTROLLERS}; also read as `enhance_ctrlnets`."
    )
    save_final_enhanced_image_only: bool = Field(
        default=False, description="Keep only the last step of an enhancement.", examples=[False]
    )

    generate_image_grid: bool = Field(default=False, description="Accepted; grids are not kept.", examples=[False])
    save_metadata_to_images: bool = Field(
        default=True, description="Write the settings into the picture file.", examples=[True]
    )
    metadata_scheme: MetadataSchemeName | None = asked(
        "fooocus", "How the settings are written: `fooocus` (JSON), `a1111` (text)."
    )
    save_name: Text | None = asked(
        None,
        f"Name of the files in place of date and time, at most {MAX_SAVE_NAME_CHARS} characters, without folders. The "
        "same name on the same day overwrites.",
        example="apple",
    )
    require_base64: bool = Field(
        default=False, description="Accepted; pictures are answered as addresses.", examples=[False]
    )
    stream_output: bool = Field(
        default=False, description="Answer with a stream of events while the pictures are painted.", examples=[False]
    )
    async_process: bool = Field(
        default=False, description="Answer at once with a task to ask for at `/tasks/{task_id}`.", examples=[True]
    )

    def guides(self) -> Sequence[tuple[Location, ImagePrompt]]:
        """The image prompts with the places of their pictures, those without a picture included."""
        return [
            (("body", "controlnet_image", index, "cn_img"), prompt)
            for index, prompt in enumerate(self.controlnet_image or ())
        ]

    def controllers(self) -> Sequence[Controller]:
        """The steps of an enhancement that take part."""
        return [
            Controller(step, partial(_controller_field, index))
            for index, step in enumerate(self.enhance_ctrls or ())
            if step.enhance_enabled
        ]

    def pictures(self) -> Sequence[SentPicture]:
        """All fields for pictures."""
        return [
            SentPicture(UOV_IMAGE, self.uov_input_image),
            SentPicture(INPAINT_IMAGE, self.inpaint_input_image),
            SentPicture(INPAINT_MASK, self.inpaint_mask_image_upload),
            SentPicture(ENHANCE_IMAGE, self.enhance_input_image),
            *(SentPicture(loc, prompt.cn_img) for loc, prompt in self.guides()),
        ]

    def sides(self) -> dict[OutpaintExpansion, int]:
        """The selected sides, each once, with the pixels that were asked for; 0: none were."""
        distances = [*(self.outpaint_distance or ()), *[0] * len(SIDES)]
        return {side: distances[SIDES.index(side)] for side in self.outpaint_selections or ()}


def _controller_field(index: int, name: str) -> Location:
    return ("enhance_ctrls", index, name)


# ------------------------------------------------------------------------------------------------------------- answers


class TaskRecord(BaseModel):
    """A task as clients see it. Times are milliseconds since the epoch."""

    id: int = Field(description="Number in the journal; -1 while it runs.", examples=[12])
    task_id: str = Field(
        description="Identifier, 32 hexadecimal digits.", examples=["764af3ecf0f745c69951722e24c67134"]
    )
    req_params: dict[str, Any] = Field(description="What was asked, complete; pictures as addresses.")
    in_queue_mills: int = Field(description="When it was submitted.", examples=[1740312345678])
    start_mills: int | None = Field(description="When it began; null while it waits.", examples=[1740312345700])
    finish_mills: int | None = Field(
        description="When it ended; -1 while it runs, null while it waits.", examples=[1740312365700]
    )
    task_status: str | None = Field(
        description="`running`, `finished` or `stop`; null while it waits.", examples=["finished"]
    )
    progress: int | None = Field(description="Per cent; null while it waits.", examples=[100])
    preview: str | None = Field(
        default=None, description="Only while it runs: the picture as it stands, bare base64 of a PNG."
    )
    webhook_url: str = Field(description="As it was sent; empty while the task runs.", examples=[""])
    result: list[str] | None = Field(
        description="Addresses of the pictures; null while it waits.",
        examples=[["http://127.0.0.1:8888/outputs/2025-02-23/2025-02-23_14-05-09_1234.png"]],
    )


class TaskLists(BaseModel):
    """Tasks by where they stand."""

    history: list[TaskRecord] = Field(description="Ended, the newest first.")
    current: list[TaskRecord] = Field(description="The one that runs, if one does.")
    pending: list[TaskRecord] = Field(description="Those that wait, the next one first.")


class ControlAnswer(BaseModel):
    """What became of a word to the running task."""

    message: str = Field(
        description="`task stoped`, `task skiped`, `No task running` or `Invalid control action`.",
        examples=["task stoped"],
    )
