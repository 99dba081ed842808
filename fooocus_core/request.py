"""What was asked, before any default: the common ground under every HTTP dialect.

A dialect translates its own schema into a ``GenerationRequest`` and nothing more; ``fooocus_core.resolve`` turns it
into a complete ``Plan`` with the preset's and the mode's values. ``None`` always means "not said".
"""

from __future__ import annotations

from dataclasses import dataclass

from fooocus_core.plan import FreeU, ImageFormat, Lora, MetadataScheme, Performance, Side, SwapMethod


@dataclass(frozen=True)
class AskedStart:
    """A picture that came with the request, and what is to be done with it (specification 05).

    ``picture`` is the name under which it is kept, ``method`` one of ``fooocus_core.images.methods.METHODS``.
    """

    picture: str
    width_px: int
    height_px: int
    method: str
    factor: float | None = None
    """For ``Upscale (Custom)``."""


@dataclass(frozen=True)
class AskedRepaint:
    """A picture of which a part is to be painted anew, or which is to grow at its sides (specification 04).

    ``picture`` and ``mask`` are names under which both are kept; the mask has the picture's size and is 255 where to
    repaint. Without a mask there must be a side.
    """

    picture: str
    width_px: int
    height_px: int
    mask: str | None = None
    outpaint: tuple[tuple[Side, int | None], ...] = ()
    """The sides at which it grows, and by how many pixels; 0, less and ``None`` mean three tenths of its length."""
    additional_prompt: str = ""
    """Stands before the prompt, on a line of its own."""
    strength: float | None = None
    respective_field: float | None = None
    engine: str | None = None
    use_initial_latent: bool = True
    only_prepare: bool = False


@dataclass(frozen=True)
class AskedGuide:
    """A picture that is to steer, kept as ``picture``, in one of the ways of ``fooocus_core.plan.GuideKind``."""

    picture: str
    kind: str = "ImagePrompt"
    stop: float | None = None
    weight: float | None = None


@dataclass(frozen=True)
class AskedGuides:
    """The guides that have a picture, in the order of their slots; the first four count."""

    pictures: tuple[AskedGuide, ...]
    softness: float | None = None
    canny_low: int | None = None
    canny_high: int | None = None
    use_preprocessor: bool = True
    only_prepare: bool = False


@dataclass(frozen=True)
class AskedPass:
    """One part of a picture that is to be found and painted anew (specification 07, section 1)."""

    prompt: str = ""
    """Where it says nothing, the request's own; the same for ``negative_prompt``."""
    negative_prompt: str = ""
    mask_model: str = "sam"
    cloth_category: str = "full"
    detection_prompt: str = ""
    sam_model: str = "vit_b"
    text_threshold: float = 0.25
    box_threshold: float = 0.3
    max_detections: int = 0
    erode_or_dilate: float = 0
    invert: bool = False
    strength: float | None = None
    respective_field: float | None = None
    engine: str | None = None
    use_initial_latent: bool = True


@dataclass(frozen=True)
class AskedDetail:
    """Pictures are to be enhanced part by part: one that is kept as ``picture``, else those that the request makes."""

    passes: tuple[AskedPass, ...] = ()
    picture: str | None = None
    width_px: int = 0
    height_px: int = 0
    method: str | None = None
    """A variation or an upscale, one of ``fooocus_core.images.methods.METHODS``."""
    factor: float | None = None
    """For ``Upscale (Custom)``."""
    comes_last: bool = False
    """Whether that comes after the last part in place of before the first."""
    uses_last_prompts: bool = False
    """Whether it then takes the prompts of the last part that had any."""
    show_boxes: bool = False
    """Whether masks are what ``sam`` was led to, in place of what it found there."""
    grow_boxes_px: float = 0
    show_masks: bool = False
    only_last: bool = False


@dataclass(frozen=True)
class GenerationRequest:
    """Pictures as any dialect can ask for them. Ranges are checked by ``resolve_request``."""

    prompt: str | None = None
    negative_prompt: str | None = None
    styles: tuple[str, ...] | None = None
    performance: Performance | None = None
    width_px: int | None = None
    height_px: int | None = None
    image_number: int | None = None
    seed: int | None = None
    """Outside 0 ... 2**63 - 1, or not said: drawn at random."""
    seed_increment: bool = True
    checkpoint: str | None = None
    refiner: str | None = None
    refiner_switch: float | None = None
    refiner_swap: SwapMethod | None = None
    overwrite_switch: float | None = None
    """Where the refiner takes over: a share of the steps below 1, a step from 1 on; 0 and less: not said."""
    vae: str | None = None
    loras: tuple[Lora, ...] | None = None
    """``()`` is none at all; ``None`` is the preset's list."""
    clip_skip: int | None = None
    guidance_scale: float | None = None
    sharpness: float | None = None
    adaptive_scale: float | None = None
    adm_positive: float | None = None
    adm_negative: float | None = None
    adm_end: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    freeu: FreeU | None = None
    overwrite_steps: int | None = None
    """A positive number replaces the mode's steps."""
    start: AskedStart | None = None
    """With one, the size is the picture's."""
    repaint: AskedRepaint | None = None
    """The same. Not beside ``start``."""
    guides: AskedGuides | None = None
    detail: AskedDetail | None = None
    overwrite_vary_strength: float | None = None
    """A positive number replaces the method's share of what is made anew; the same for upscales."""
    overwrite_upscale_strength: float | None = None
    read_wildcards_in_order: bool = False
    image_format: ImageFormat | None = None
    save_metadata: bool | None = None
    metadata_scheme: MetadataScheme | None = None
    save_name: str = ""
    preview: bool = True
    black_out_nsfw: bool = False
