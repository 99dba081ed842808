"""What clients send: the messages of contract sections 5, 8, 10 and 12, every field by the vendor's name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from fooocusapi.surfaces.lenient import Text
from fooocusapi.surfaces.tams.messages import Identifier, Integer, Message, Number, Truth, choice

OFFERED_STAGES: Final = (
    "INPUT_INITIALIZE",
    "DIFFUSION",
    "IMAGE_TO_UPSCALER",
    "IMAGE_TO_ADETAILER",
    "IMAGE_TO_INPAINT",
)
VIDEO_STAGES: Final = ("IMAGE_TO_ANIMATE_DIFF", "VIDEO_DIFFUSION")

StageType = Annotated[str, choice("DEFAULT", *OFFERED_STAGES, *VIDEO_STAGES)]
ControlResize = Annotated[str, choice("DEFAULT", "JUST_RESIZE", "CROP_AND_RESIZE", "RESIZE_AND_FILL")]
ResizeMode = Annotated[
    str, choice("DEFAULT", "JUST_RESIZE", "CROP_AND_RESIZE", "RESIZE_AND_FILL", "JUST_RESIZE_LATENT_UPSCALE")
]
InpaintingFill = Annotated[str, choice("DEFAULT", "FILL", "ORIGINAL", "LATENT_NOISE", "LATENT_NOTHING")]
ControlMode = Annotated[
    str, choice("DEFAULT", "BALANCED", "MY_PROMPT_IS_MORE_IMPORTANT", "CONTROLNET_IS_MORE_IMPORTANT")
]


class Prompt(Message):
    """A piece of a prompt; the pieces are joined with commas before emphasis is read."""

    absent_at_zero: ClassVar[Collection[str]] = ("weight",)

    text: Text | None = Field(default=None, description="The piece itself; not said: empty.")
    weight: Number | None = Field(default=None, description="How much it counts; 0, 1 or not said: as it is.")


class LoraItem(Message):
    """A LoRA by its number."""

    lora_model: Identifier | None = Field(default=None, description="The number of a LoRA in the table of models.")
    weight: Number | None = Field(default=None, description="1 if not said.")
    block_weight: Text | None = Field(default=None, description="Ignored.")
    lora_access_key: Text | None = Field(default=None, description="Ignored.")


class Lora(Message):
    """All LoRAs of a stage."""

    items: list[LoraItem] | None = Field(default=None, description="Up to 32; none is fine.")


class ControlnetArg(Message):
    """A picture that steers, how it is read, and by which network."""

    absent_at_zero: ClassVar[Collection[str]] = ("weight", "guidance", "guidance_start", "guidance_end")

    input_image_resource_id: Text | None = Field(default=None, description="The picture that steers.")
    mask: Text | None = Field(default=None, description="Where it steers, as older clients name it.")
    mask_resource_id: Text | None = Field(default=None, description="Where it steers.")
    preprocessor: Text | None = Field(default=None, description="How the picture is read; `none`: as it is.")
    model: Identifier | None = Field(
        default=None, description="The name or number of a control network; `None`: the entry is off."
    )
    weight: Number | None = Field(default=None, description="1 if not said.")
    resize_mode: ControlResize | None = Field(default=None, description="How the picture gets the size.")
    guidance: Number | None = Field(default=None, description="Ignored.")
    guidance_start: Number | None = Field(default=None, description="Share of the steps from which it steers.")
    guidance_end: Number | None = Field(default=None, description="Share of the steps up to which it steers.")
    control_mode: ControlMode | None = Field(default=None, description="What counts more, prompt or picture.")
    pixel_perfect: Truth | None = Field(
        default=None, description="Ignored: the picture is always read at the size of the result."
    )
    preprocessor_params: dict[str, Any] | None = Field(default=None, description="Ignored.")


class Controlnet(Message):
    """All steering pictures of a stage."""

    args: list[ControlnetArg] | None = Field(
        default=None, description="None is fine; those for edges and for light and dark are offered."
    )


class AnimateDiffArg(Message):
    """A video, which is not offered."""

    video_length: Integer | None = Field(default=None, description="Not offered.")
    fps: Integer | None = Field(default=None, description="Not offered.")


class AnimateDiff(Message):
    """Videos, which are not offered."""

    args: list[AnimateDiffArg] | None = Field(default=None, description="None is fine; any is answered with 501.")


class Diffusion(Message):
    """What is painted, with which models and how."""

    other_names: ClassVar[Mapping[str, str]] = {"controlNet": "controlnet", "control_net": "controlnet"}
    absent_at_zero: ClassVar[Collection[str]] = (
        "width",
        "height",
        "steps",
        "cfg_scale",
        "guidance",
        "clip_skip",
        "denoising_strength",
        "eta_noise_seed_delta",
    )

    width: Integer | None = Field(default=None, description="512 to 1536, in steps of 64; 512 if not said.")
    height: Integer | None = Field(default=None, description="512 to 1536, in steps of 64; 512 if not said.")
    prompts: list[Prompt] | None = Field(default=None, description="Up to 150 pieces, joined with commas.")
    negative_prompts: list[Prompt] | None = Field(default=None, description="The same of what shall not be there.")
    sd_model: Identifier | None = Field(default=None, description="The number of a checkpoint in the table of models.")
    model_access_key: Text | None = Field(default=None, description="Ignored.")
    sd_vae: Text | None = Field(
        default=None, description="`Automatic` if not said; `None`: the one within the checkpoint."
    )
    sampler: Text | None = Field(default=None, description="`DPM++ 2M Karras` if not said.")
    schedule_name: Text | None = Field(default=None, description="Stands above what the name of the sampler says.")
    steps: Integer | None = Field(default=None, description="1 to 60; 20 if not said.")
    cfg_scale: Number | None = Field(default=None, description="Up to 35; 7 if not said.")
    guidance: Number | None = Field(default=None, description="Ignored.")
    clip_skip: Integer | None = Field(
        default=None, description="1 to 12; SDXL is always read at the layer it was trained for."
    )
    denoising_strength: Number | None = Field(
        default=None, description="0 to 1, where there is a picture to start from; 0.75 if not said."
    )
    eta_noise_seed_delta: Integer | None = Field(
        default=None, description="Added to the seed of the noise within the steps of ancestral samplers."
    )
    controlnet: Controlnet | None = Field(default=None, description="Pictures that steer.")
    lora: Lora | None = Field(default=None, description="LoRAs.")
    animate_diff: AnimateDiff | None = Field(default=None, description="Not offered.")


class InputInitialize(Message):
    """The first stage: the seed, how many pictures, and the picture to start from."""

    absent_at_zero: ClassVar[Collection[str]] = ("seed", "count")

    seed: Integer | None = Field(default=None, description="0, -1 or not said: drawn at random.")
    image_resource_id: Text | None = Field(
        default=None, description="The picture to start from: an upload, or what an earlier job made."
    )
    count: Integer | None = Field(default=None, description="1 to 4; 1 if not said.")


class ImageToUpscaler(Message):
    """Larger pictures, painted once more at their new size."""

    absent_at_zero: ClassVar[Collection[str]] = ("hr_scale", "hr_resize_x", "hr_resize_y")

    hr_upscaler: Text | None = Field(
        default=None, description="Needed: `Latent` and its kin, `None`, `Lanczos`, `Nearest`, or a network."
    )
    hr_scale: Number | None = Field(default=None, description="How many times larger; stands above the two sides.")
    hr_resize_x: Integer | None = Field(default=None, description="Width of the result, from 128 in steps of 64.")
    hr_resize_y: Integer | None = Field(default=None, description="Height of the result, from 128 in steps of 64.")
    hr_second_pass_steps: Integer | None = Field(default=None, description="Needed; up to 60, 0: as many as before.")
    denoising_strength: Number | None = Field(default=None, description="Needed; 0 to 1, 0: only enlarge.")
    diffusion: Diffusion | None = Field(default=None, description="Needed without a `DIFFUSION` stage, else ignored.")


class AdetailerArg(Message):
    """What is found in a picture, and how it is painted anew."""

    ad_model: Text | None = Field(default=None, description="What finds the parts; `face_yolov8n.pt` if not said.")
    ad_prompt: list[Prompt] | None = Field(
        default=None, description="Of the parts; `[SEP]` between those of several, `[PROMPT]` for the main one."
    )
    ad_negative_prompt: list[Prompt] | None = Field(default=None, description="The same of what shall not be there.")
    ad_confidence: Number | None = Field(default=None, description="How sure a find must be, 0 to 1; 0.3.")
    ad_dilate_erode: Integer | None = Field(
        default=None, description="Pixels by which masks grow, or shrink below 0; 4."
    )
    ad_mask_merge_invert: Text | None = Field(default=None, description="`None`, `Merge` or `Merge and Invert`.")
    ad_denoising_strength: Number | None = Field(default=None, description="0 to 1; 0.4.")
    ad_inpaint_only_masked: Truth | None = Field(
        default=None, description="Whether only the part and what is around it is painted; true."
    )
    ad_inpaint_only_masked_padding: Number | None = Field(default=None, description="Pixels around the part; 32.")
    ad_use_inpaint_width_height: Truth | None = Field(default=None, description="Whether the next two count.")
    ad_inpaint_width: Integer | None = Field(default=None, description="Width at which a part is painted; 512.")
    ad_inpaint_height: Integer | None = Field(default=None, description="Height at which a part is painted; 512.")
    ad_use_steps: Truth | None = Field(default=None, description="Whether `adSteps` counts.")
    ad_steps: Integer | None = Field(default=None, description="1 to 60; 20.")
    ad_use_cfg_scale: Truth | None = Field(default=None, description="Whether `adCfgScale` counts.")
    ad_cfg_scale: Number | None = Field(default=None, description="Up to 35; 7.")
    ad_use_sampler: Truth | None = Field(default=None, description="Whether `adSampler` counts.")
    ad_sampler: Text | None = Field(default=None, description="As `sampler`.")
    ad_use_checkpoint: Truth | None = Field(default=None, description="Whether `adCheckpoint` counts.")
    ad_checkpoint: Identifier | None = Field(default=None, description="As `sdModel`.")
    ad_use_noise_multiplier: Truth | None = Field(default=None, description="Whether `adNoiseMultiplier` counts.")
    ad_noise_multiplier: Number | None = Field(default=None, description="On the noise that a part is put under; 1.")
    ad_use_clip_skip: Truth | None = Field(default=None, description="Whether `adClipSkip` counts.")
    ad_clip_skip: Integer | None = Field(default=None, description="As `clipSkip`.")
    lora: Lora | None = Field(default=None, description="LoRAs beside those of the stage.")


class ImageToAdetailer(Message):
    """Parts of pictures that are found and painted anew, one after the other."""

    args: list[AdetailerArg] | None = Field(
        default=None, description="What is found and painted, one after the other; none changes nothing."
    )
    diffusion: Diffusion | None = Field(default=None, description="Needed without a `DIFFUSION` stage, else ignored.")


class ImageToInpaint(Message):
    """A part of the pictures that is painted anew."""

    resize_mode: ResizeMode | None = Field(
        default=None, description="How the whole picture gets the size of the block; `JUST_RESIZE`."
    )
    mask_image_resource_id: Text | None = Field(default=None, description="White is painted anew.")
    mask_blur: Number | None = Field(default=None, description="Pixels; 4.")
    inpainting_fill: InpaintingFill | None = Field(
        default=None, description="What the masked part starts from; `ORIGINAL`."
    )
    inpaint_full_res: Truth | None = Field(
        default=None, description="Whether only the masked part is painted, at the size of the block; true."
    )
    inpaint_full_res_padding: Integer | None = Field(default=None, description="Pixels around the masked part; 32.")
    inpaint_mask_invert: Integer | None = Field(default=None, description="1: black is painted anew.")
    diffusion: Diffusion | None = Field(
        default=None, description="Needed without a `DIFFUSION` stage; stands above it."
    )


class Stage(Message):
    """One step of a job; only the block named after its type counts."""

    type: StageType | None = Field(default=None, description="What the stage does.")
    input_initialize: InputInitialize | None = Field(default=None, description="Of `INPUT_INITIALIZE`.")
    diffusion: Diffusion | None = Field(default=None, description="Of `DIFFUSION`.")
    image_to_upscaler: ImageToUpscaler | None = Field(default=None, description="Of `IMAGE_TO_UPSCALER`.")
    image_to_adetailer: ImageToAdetailer | None = Field(default=None, description="Of `IMAGE_TO_ADETAILER`.")
    image_to_inpaint: ImageToInpaint | None = Field(default=None, description="Of `IMAGE_TO_INPAINT`.")


class CreditsRequest(Message):
    """A list of stages whose price is asked."""

    stages: list[Stage] | None = Field(default=None, description="2 to 8, in order.")


class JobRequest(CreditsRequest):
    """A job: its stages in order, and the key under which it is made once."""

    request_id: Text | None = Field(default=None, description="The same key and body again give the same job.")
    notify_url: Text | None = Field(default=None, description="Is posted the job when it has ended.")


class ResourceRequest(Message):
    """A slot for a picture that is going to be uploaded."""

    expire_sec: Integer | None = Field(default=None, description="How long it may be uploaded, 60 to 86400 s; 3600.")
    term: Integer | None = Field(default=None, description="1: kept for seven days; 2: kept for good.")
