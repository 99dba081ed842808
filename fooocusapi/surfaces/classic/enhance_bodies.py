"""Bodies of an enhancement (contract sections 5, 7.6 and 8): a list of controllers, or a field for each of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

from fooocusapi.errors import Location
from fooocusapi.images.inputs import SentPicture
from fooocusapi.surfaces.classic.picture_bodies import A_PICTURE, AN_ADDRESS, PictureBody, PictureFile
from fooocusapi.surfaces.classic.schemas import CommonRequest
from fooocusapi.surfaces.enhancements import (
    DETECTION_PROMPT,
    MAX_CONTROLLERS,
    Controller,
    EnhanceCtrlNets,
    ProcessingOrder,
    PromptType,
)
from fooocusapi.surfaces.fields import MAX_DETECTION_PROMPT_CHARS, PictureText, UpscaleOrVaryMethod, read_entries
from fooocusapi.surfaces.lenient import Text, asked, default_of

ENHANCE_IMAGE: Location = ("body", "enhance_input_image")

_NUMBERS = range(1, MAX_CONTROLLERS + 1)


class EnhanceCtrlNetsJson(EnhanceCtrlNets):
    """One step of an enhancement: what is found, a face where nothing else is said, and how it is repainted."""

    enhance_mask_dino_prompt: Text = Field(
        default="face",
        description="What `sam` looks for, several things with full stops between; it needs a word.",
        examples=["face"],
        max_length=MAX_DETECTION_PROMPT_CHARS,
    )


class ImageEnhanceRequestJson(PictureBody):
    """The fields of an enhancement beside the common ones; the size is the picture's."""

    keeps_empty: ClassVar[frozenset[str]] = CommonRequest.keeps_empty | {
        f"{DETECTION_PROMPT}_{number}" for number in _NUMBERS
    }
    second_names: ClassVar[Mapping[str, str]] = {"enhance_ctrls": "enhance_ctrlnets"}
    unsaid: ClassVar[EnhanceCtrlNets] = EnhanceCtrlNetsJson()
    """A controller of which nothing was said."""

    enhance_input_image: PictureText = Field(description=f"The picture: {A_PICTURE}.", examples=[AN_ADDRESS])
    enhance_checkbox: bool = Field(
        default=True, description="Accepted; what is sent here is always enhanced.", examples=[True]
    )
    enhance_uov_method: UpscaleOrVaryMethod = Field(
        default=UpscaleOrVaryMethod.VARY_STRONG,
        description="A variation or an upscale beside the controllers; the factor of `Upscale (Custom)` is 1 here.",
        examples=["Disabled"],
    )
    enhance_uov_processing_order: ProcessingOrder = Field(
        default=ProcessingOrder.BEFORE, description="When that is done.", examples=["After Last Enhancement"]
    )
    enhance_uov_prompt_type: PromptType = Field(
        default=PromptType.ORIGINAL,
        description="Whose prompts that has, where it comes last.",
        examples=["Last Filled Enhancement Prompts"],
    )
    save_final_enhanced_image_only: bool = Field(
        default=True, description="Accepted; only the last step's picture is kept.", examples=[True]
    )
    enhance_ctrlnets: Annotated[list[EnhanceCtrlNetsJson], read_entries(MAX_CONTROLLERS)] = Field(
        default=[],
        description=f"What is found and painted anew, one after the other; the first {MAX_CONTROLLERS} count.",
        examples=[[{"enhance_enabled": True, "enhance_mask_model": "u2netp", "enhance_prompt": "a green apple"}]],
    )

    def inputs(self) -> Sequence[SentPicture]:
        """The picture, which there must be."""
        return [SentPicture(ENHANCE_IMAGE, self.enhance_input_image, is_required=True)]

    def controllers(self) -> Sequence[Controller]:
        """Those that take part: the fields of their own before the entry of the list."""
        every = [self._controller(number) for number in _NUMBERS]
        return [controller for controller in every if controller.step.enhance_enabled]

    def _controller(self, number: int) -> Controller:
        own = {name: value for name in EnhanceCtrlNets.model_fields if (value := self._own(name, number)) is not None}
        is_listed = number <= len(self.enhance_ctrlnets)
        listed = self.enhance_ctrlnets[number - 1] if is_listed else self.unsaid

        def place(name: str) -> Location:
            return (f"{name}_{number}",) if name in own or not is_listed else ("enhance_ctrlnets", number - 1, name)

        return Controller(listed.model_copy(update=own), place)

    def _own(self, name: str, number: int) -> Any:
        """What the field of a controller's own says; bodies that are published without such have none."""
        return getattr(self, f"{name}_{number}", None)


class _FormOfThose(ImageEnhanceRequestJson):
    """The same as a form. Objects and lists are JSON text."""

    unsaid: ClassVar[EnhanceCtrlNets] = EnhanceCtrlNets()

    enhance_input_image: PictureFile = Field(description="The picture, as a file.", examples=["picture.png"])
    enhance_ctrlnets: SkipJsonSchema[Annotated[list[EnhanceCtrlNetsJson], read_entries(MAX_CONTROLLERS)]] = []  # noqa: RUF012
    save_final_enhanced_image_only: SkipJsonSchema[bool] = True
    save_meta: bool = Field(default=False, description="Write the settings into the picture file.", examples=[True])


def _own_fields(unsaid: type[EnhanceCtrlNets]) -> dict[str, Any]:
    """A field for each one of every controller, such as ``enhance_prompt_2``; ``None`` where nothing was said."""
    return {
        f"{name}_{number}": _own_field(number, field)
        for number in _NUMBERS
        for name, field in unsaid.model_fields.items()
    }


def _own_field(number: int, field: FieldInfo) -> tuple[Any, Any]:
    (example,) = field.examples or [None]
    kind: Any = Annotated[(field.annotation, field.description, *field.metadata)]
    return kind | None, asked(default_of(field), f"Controller {number}: {field.description}", example=example)


ImageEnhanceFlatRequest = create_model(
    "ImageEnhanceFlatRequest", __base__=ImageEnhanceRequestJson, **_own_fields(EnhanceCtrlNetsJson)
)
"""The same, read with the names of the form's fields too."""

ImageEnhanceForm = create_model(
    "ImageEnhanceForm", __base__=_FormOfThose, __doc__=_FormOfThose.__doc__, **_own_fields(EnhanceCtrlNets)
)
"""The same as a form."""
