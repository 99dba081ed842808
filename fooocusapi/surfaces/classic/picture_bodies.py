"""Bodies of the endpoints that take pictures (contract sections 5, 7 to 9).

Those named ``...Form`` are read from forms under ``/v1/``; everything else is read as under ``/v2/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from fooocus_core.resolve import MAX_GUIDES
from fooocusapi.errors import Location
from fooocusapi.images.inputs import SentImage, SentPicture, holds_image
from fooocusapi.surfaces.classic.schemas import CommonRequest
from fooocusapi.surfaces.fields import (
    ControlNetType,
    OutpaintExpansion,
    PictureText,
    UpscaleOrVaryMethod,
    read_json_text,
    read_names,
)
from fooocusapi.surfaces.lenient import LenientModel, Text, asked

INPUT_IMAGE: Location = ("body", "input_image")
INPUT_MASK: Location = ("body", "input_mask")

MAX_PROMPT_ENTRIES = 100
"""As many image prompts are looked at; the first four that have a picture count."""
MAX_SIDES = 100
"""As many sides may be named, each as often as one likes."""
MAX_DISTANCE_PX = 100_000
"""No picture that can be made is so long."""


PictureFile = Annotated[PictureText, WithJsonSchema({"type": "string", "format": "binary"})]
"""The same, published as a file."""

A_PICTURE = "base64 with or without `data:image/...;base64,`, or an address"
AN_ADDRESS = "http://127.0.0.1:8888/files/2025-02-23/764af3ec-f0f7-45c6-9951-722e24c67134-0.png"


# -------------------------------------------------------------------------------------------------------- image prompts


@dataclass(frozen=True)
class Slot:
    """One image prompt, wherever in a body it stood. ``None``: the default of its kind."""

    loc: Location
    picture: SentImage
    kind: ControlNetType
    stop: float | None
    weight: float | None


class PictureBody(CommonRequest):
    """A body that may bring pictures."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    def slots(self) -> Sequence[Slot]:
        """The image prompts in their order, those without a picture included."""
        return ()

    def used_slots(self) -> Sequence[Slot]:
        """Those that count."""
        return [slot for slot in self.slots() if holds_image(slot.picture)][:MAX_GUIDES]

    def inputs(self) -> Sequence[SentPicture]:
        """The fields for pictures beside the image prompts."""
        return ()

    def pictures(self) -> Sequence[SentPicture]:
        """All fields for pictures that are to be read."""
        return [*self.inputs(), *(SentPicture(slot.loc, slot.picture) for slot in self.used_slots())]


class ImagePromptJson(LenientModel):
    """A picture that steers the painting. Without a picture it is left out."""

    cn_img: PictureText = asked("", f"The picture: {A_PICTURE}.", example=AN_ADDRESS)
    cn_stop: float | None = asked(
        0,
        "Share of the steps after which it steers no more, 0 to 1. 0 is the kind's default: FaceSwap 0.9, others 0.5.",
        ge=0,
        le=1,
    )
    cn_weight: float | None = asked(
        0,
        "How strongly it steers, 0 to 2. 0 is the kind's default: ImagePrompt 0.6, FaceSwap 0.75, others 1.",
        ge=0,
        le=2,
    )
    cn_type: ControlNetType = Field(
        default=ControlNetType.IMAGE_PROMPT, description="What it steers by.", examples=["PyraCanny"]
    )


def _read_prompts(value: Any) -> Any:
    """The list, also as JSON text; words for nothing are none, or an entry without a picture."""
    value = read_json_text(value)
    if isinstance(value, str) and not holds_image(value):
        return []
    if not isinstance(value, list):
        return value
    return [{} if entry in (None, "") else entry for entry in value[:MAX_PROMPT_ENTRIES]]


class WithImagePrompts(PictureBody):
    """A body with image prompts."""

    image_prompts: Annotated[list[ImagePromptJson], BeforeValidator(_read_prompts)] = Field(
        default=[],
        description="Pictures that steer the painting; the first four that are there count.",
        examples=[[]],
    )

    def slots(self) -> Sequence[Slot]:
        """One for each entry of the list."""
        return [
            Slot(
                ("body", "image_prompts", index, "cn_img"), entry.cn_img, entry.cn_type, entry.cn_stop, entry.cn_weight
            )
            for index, entry in enumerate(self.image_prompts)
        ]


class Text2ImgRequestWithPrompt(WithImagePrompts):
    """The fields of text to image with image prompts beside the common ones."""


# ----------------------------------------------------------------------------------------------------- vary and upscale


class ImgUpscaleOrVaryBody(PictureBody):
    """What both forms of a variation or an upscale have; the size is the picture's."""

    input_image: PictureText = Field(description=f"The picture: {A_PICTURE}.", examples=[AN_ADDRESS])
    uov_method: UpscaleOrVaryMethod = Field(
        default=UpscaleOrVaryMethod.UPSCALE_2, description="What becomes of it.", examples=["Vary (Subtle)"]
    )
    upscale_value: float | None = asked(
        2.0, "How much larger `Upscale (Custom)` makes the picture, 1 to 5.", ge=1.0, le=5.0
    )

    def inputs(self) -> Sequence[SentPicture]:
        """The picture, which there must be."""
        return [SentPicture(INPUT_IMAGE, self.input_image, is_required=True)]


class ImgUpscaleOrVaryRequestJson(ImgUpscaleOrVaryBody, WithImagePrompts):
    """The fields of a variation or an upscale beside the common ones; the size is the picture's."""


class ImgUpscaleOrVaryForm(ImgUpscaleOrVaryBody):
    """The same as a form. Objects and lists are JSON text."""

    input_image: PictureFile = Field(description="The picture, as a file.", examples=["picture.png"])
    uov_method: UpscaleOrVaryMethod = Field(description="What becomes of it.", examples=["Vary (Subtle)"])
    save_meta: bool = Field(default=False, description="Write the settings into the picture file.", examples=[True])


# ------------------------------------------------------------------------------------------------ inpaint and outpaint


def _distance(side: str) -> Any:
    return asked(
        -1,
        f"Pixels by which the picture grows if `{side}` is selected; 0 and less: three tenths of its length.",
        example=64,
        le=MAX_DISTANCE_PX,
    )


class ImgInpaintOrOutpaintBody(PictureBody):
    """What all bodies of an inpainting or an outpainting have."""

    needs_picture: ClassVar[bool] = False

    input_image: PictureText = asked(
        "",
        f"The picture: {A_PICTURE}. Without one, and without anything to repaint, the prompt alone is painted.",
        example=AN_ADDRESS,
    )
    input_mask: PictureText = asked(
        "", f"White where to repaint, of any size: {A_PICTURE}. Without one nothing is masked.", example=AN_ADDRESS
    )
    inpaint_additional_prompt: Text | None = asked(
        "", "What the repainted part shows; stands before the prompt, on a line of its own.", example="a green apple"
    )
    outpaint_selections: Annotated[list[OutpaintExpansion] | None, BeforeValidator(read_names)] = asked(
        [], "The sides at which the picture grows.", example=["Left", "Right"], max_length=MAX_SIDES
    )
    outpaint_distance_left: int | None = _distance("Left")
    outpaint_distance_right: int | None = _distance("Right")
    outpaint_distance_top: int | None = _distance("Top")
    outpaint_distance_bottom: int | None = _distance("Bottom")

    def inputs(self) -> Sequence[SentPicture]:
        """The picture and its mask."""
        return [
            SentPicture(INPUT_IMAGE, self.input_image, is_required=self.needs_picture),
            SentPicture(INPUT_MASK, self.input_mask),
        ]

    def sides(self) -> dict[OutpaintExpansion, int | None]:
        """The selected sides, each once, with the pixels that were asked for."""
        return {side: getattr(self, distance_field(side)) for side in self.outpaint_selections or ()}


def distance_field(side: OutpaintExpansion) -> str:
    """The field that says how far a picture grows at ``side``."""
    return f"outpaint_distance_{side.value.lower()}"


class ImgInpaintOrOutpaintRequestJson(ImgInpaintOrOutpaintBody, WithImagePrompts):
    """The fields of an inpainting or an outpainting beside the common ones; the size is the picture's."""


class ImgInpaintOrOutpaintForm(ImgInpaintOrOutpaintBody):
    """The same as a form. Objects and lists are JSON text."""

    needs_picture: ClassVar[bool] = True

    input_image: PictureFile = Field(description="The picture, as a file.", examples=["picture.png"])
    input_mask: PictureFile = asked(
        "", "White where to repaint, as a file of any size. Without one nothing is masked.", example="mask.png"
    )
    save_meta: bool = Field(default=False, description="Write the settings into the picture file.", examples=[True])


# --------------------------------------------------------------------------------------------------------- image prompt


def _slot_picture(number: int) -> Any:
    return asked("", f"Picture of image prompt {number}, as a file.", example="prompt.png")


def _slot_stop(number: int) -> Any:
    return asked(
        0, f"Share of the steps after which image prompt {number} steers no more; 0: its kind's default.", ge=0, le=1
    )


def _slot_weight(number: int) -> Any:
    return asked(0, f"How strongly image prompt {number} steers, 0 to 2; 0: its kind's default.", ge=0, le=2)


def _slot_type(number: int) -> Any:
    return asked("ImagePrompt", f"What image prompt {number} steers by.")


class WithFlatSlots(WithImagePrompts):
    """A body whose image prompts have fields of their own; where they say nothing, the entry of the list counts."""

    cn_img1: PictureFile = _slot_picture(1)
    cn_stop1: float | None = _slot_stop(1)
    cn_weight1: float | None = _slot_weight(1)
    cn_type1: ControlNetType | None = _slot_type(1)
    cn_img2: PictureFile = _slot_picture(2)
    cn_stop2: float | None = _slot_stop(2)
    cn_weight2: float | None = _slot_weight(2)
    cn_type2: ControlNetType | None = _slot_type(2)
    cn_img3: PictureFile = _slot_picture(3)
    cn_stop3: float | None = _slot_stop(3)
    cn_weight3: float | None = _slot_weight(3)
    cn_type3: ControlNetType | None = _slot_type(3)
    cn_img4: PictureFile = _slot_picture(4)
    cn_stop4: float | None = _slot_stop(4)
    cn_weight4: float | None = _slot_weight(4)
    cn_type4: ControlNetType | None = _slot_type(4)

    def slots(self) -> Sequence[Slot]:
        """The four, then the rest of the list."""
        listed = list(super().slots())
        missing = [
            Slot(("body", "image_prompts", index, "cn_img"), None, ControlNetType.IMAGE_PROMPT, None, None)
            for index in range(len(listed), MAX_GUIDES)
        ]
        slots = [*listed, *missing]
        return [*(self._own(index + 1, slot) for index, slot in enumerate(slots[:MAX_GUIDES])), *slots[MAX_GUIDES:]]

    def _own(self, number: int, listed: Slot) -> Slot:
        picture = getattr(self, f"cn_img{number}")
        is_own = holds_image(picture)
        return Slot(
            loc=("body", f"cn_img{number}") if is_own else listed.loc,
            picture=picture if is_own else listed.picture,
            kind=getattr(self, f"cn_type{number}") or listed.kind,
            stop=getattr(self, f"cn_stop{number}") or listed.stop,
            weight=getattr(self, f"cn_weight{number}") or listed.weight,
        )


class ImgPromptRequestJson(ImgInpaintOrOutpaintBody, WithImagePrompts):
    """The fields of image prompts beside the common ones; with a picture it is repainted as well."""


class ImgPromptFlatRequest(ImgInpaintOrOutpaintBody, WithFlatSlots):
    """The same, read with the names of the form's fields too."""


def _read_settings(value: Any) -> list[dict[str, Any]]:
    """What a form's list says of its slots, but for pictures. What cannot be read says nothing.

    Older guides call the list required, so that clients send it in whatever way their language turns it into text.
    """
    entries = value[:MAX_PROMPT_ENTRIES] if isinstance(value, list) else []
    return [_settings_of(entry) for entry in entries]


def _settings_of(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        return {}
    settings = {name: value for name, value in entry.items() if name != "cn_img"}
    try:
        ImagePromptJson.model_validate(settings)
    except ValidationError:
        return {}
    return settings


class ImgPromptForm(ImgInpaintOrOutpaintBody, WithFlatSlots):
    """The same as a form. Objects and lists are JSON text."""

    input_image: PictureFile = asked("", "The picture to repaint, as a file.", example="picture.png")
    input_mask: PictureFile = asked(
        "", "White where to repaint, as a file of any size. Without one nothing is masked.", example="mask.png"
    )
    image_prompts: SkipJsonSchema[Annotated[list[ImagePromptJson], BeforeValidator(_read_settings)]] = []  # noqa: RUF012
    save_meta: bool = Field(default=False, description="Write the settings into the picture file.", examples=[True])
