"""What one job will do: complete, frozen, pure data, JSON in and out.

A plan is resolved from what was asked (``fooocus_core.request``) exactly once, by ``fooocus_core.resolve``. It holds no
tensors and no open files, so it can be written to a journal, sent to another machine, and run later with the same
result. ``PLAN_VERSION`` changes whenever an old plan could no longer be run as it was meant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fooocus_core.masks.options import MaskOptions

PLAN_VERSION = 1

ImageFormat = Literal["png", "jpeg", "jpg", "webp"]
MetadataScheme = Literal["fooocus", "a1111"]
Performance = Literal["Quality", "Speed", "Extreme Speed", "Lightning", "Hyper-SD"]
SwapMethod = Literal["joint", "separate", "vae"]
"""How a refiner takes over (specification 03, section 8)."""
InpaintEngine = Literal["None", "v1", "v2.5", "v2.6"]
"""Which patch makes the network one that repaints; ``None``: it stays as it is (specification 04, section 7)."""
Side = Literal["left", "right", "top", "bottom"]
GuideKind = Literal["ImagePrompt", "FaceSwap", "PyraCanny", "CPDS"]
"""What a guide steers by: a picture's content, a face, edges, structure (specification 06)."""
ImagePromptWeighting = Literal["fooocus", "standard"]
"""How image prompts enter the attention: Fooocus's way, or the decoupled attention of the IP-Adapter paper."""
PromptSyntax = Literal["fooocus", "web_ui"]
"""How texts are read: as Fooocus reads them, or as the Stable Diffusion web UI does (TAMS contract, section 13.4)."""
PartialSteps = Literal["all", "share"]
"""How many steps a run from a picture takes: as many as were asked for, over the end of a longer list of noise levels,
or the last of that many, ``floor(steps * min(denoise, 0.999))`` and at least one (TAMS contract, section 13.1)."""
EnlargingMethod = Literal[
    "network",
    "lanczos",
    "nearest",
    "latent",
    "latent antialiased",
    "latent bicubic",
    "latent bicubic antialiased",
    "latent nearest",
    "latent nearest-exact",
]
"""What makes a picture larger (TAMS contract, section 13.5); bare ``latent`` is bilinear."""
MaskedContent = Literal["original", "fill", "noise", "nothing"]
"""What a masked part starts from: the picture, its surroundings blurred into it, the seed's noise, or zeros."""
ResizeMode = Literal["stretch", "cover", "contain", "latent"]
"""How a whole picture gets the size at which it is repainted: out of proportion, cut off at its sides, with its borders
extended, or out of proportion as latents."""
PartDetector = Literal["mtcnn", "retinaface", "grounding_dino"]
"""What finds parts: the bundled network for faces, the published one, or one that is told by a phrase what to find."""
MaskMerge = Literal["none", "merge", "merge and invert"]
"""Whether each part that is found is repainted alone, all at once, or all but them."""


PNG_LEVEL = 1
"""How hard PNGs are packed, 0 to 9; all show the same (specification 08, section 6, asks for no level).

1 looks for runs only. Photographs take a quarter of the time of zlib's own default, 6, and no more room: there is next
to nothing in them that comes twice. Text has a lot, and its files become larger (``benchmarks/png.py``).
"""


@dataclass(frozen=True)
class Lora:
    """One low-rank adapter: file name as the library lists it, and its weight (-2 ... 2)."""

    name: str
    weight: float


@dataclass(frozen=True)
class Models:
    """The weight files of a job, by the names under which the library lists them."""

    checkpoint: str
    vae: str | None = None
    """``None``: the autoencoder inside the checkpoint."""
    loras: tuple[Lora, ...] = ()
    performance_lora: Lora | None = None
    """Merged after the request's and the prompt's own (specification 01, section 3)."""
    clip_skip: int = 2
    refiner: str | None = None
    """A second checkpoint that takes over part of the steps."""


@dataclass(frozen=True)
class Prompts:
    """The texts as they were typed; wildcards, arrays and styles are resolved when the stage runs."""

    prompt: str = ""
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()
    read_wildcards_in_order: bool = False
    max_loras: int = 5
    syntax: PromptSyntax = "fooocus"
    """``web_ui``: each text is one, of all its lines, and nothing in it is a wildcard, an array or a LoRA's tag; styles
    are not looked at."""


@dataclass(frozen=True)
class Guidance:
    """How strongly and how sharply the prompt steers (specification 03 §6, 02 §6)."""

    scale: float = 4.0
    sharpness: float = 2.0
    adaptive_scale: float = 7.0
    adm_positive: float = 1.5
    adm_negative: float = 0.8
    adm_end: float = 0.3

    @classmethod
    def plain(cls, scale: float) -> Guidance:
        """Classifier-free guidance without any of Fooocus's own: no sharpness, no other scale for early steps, and the
        picture's true size as SDXL's size conditioning. A ``scale`` of 1 or less leaves the negative prompt out.
        """
        scale = max(1.0, scale)
        return cls(scale, sharpness=0.0, adaptive_scale=scale, adm_positive=1.0, adm_negative=1.0, adm_end=0.0)


@dataclass(frozen=True)
class Sampling:
    """Which solver walks which noise levels."""

    sampler: str = "dpmpp_2m_sde_gpu"
    scheduler: str = "karras"
    steps: int = 30
    partial_steps: PartialSteps = "all"
    """For runs from a picture."""
    eta_noise_seed_delta: int = 0
    """Added to the seed of the noise inside the steps of ancestral samplers; the others do not look at it."""
    noise_multiplier: float = 1.0
    """On the noise that a picture is put under; text to image does not look at it."""


@dataclass(frozen=True)
class FreeU:
    """Factors on the backbone (``b``, 0 ... 2) and the skips (``s``, 0 ... 4) of the two deepest levels (03, 10)."""

    b1: float = 1.01
    b2: float = 1.02
    s1: float = 0.99
    s2: float = 0.95


@dataclass(frozen=True)
class Enlarging:
    """To which size a picture is brought, and by what (TAMS contract, sections 13.1 and 13.5).

    Either ``factor``, rounded to multiples of 8, or sides: with both the picture covers that box and is cut to it, with
    one it keeps its proportions. ``images.enlarging.enlarged_size`` tells the size.
    """

    method: EnlargingMethod
    network: str | None = None
    """The file among the ``upscale_models``, as the library lists it; ``None``: the one that enlarges all pictures."""
    factor: float | None = None
    width_px: int | None = None
    height_px: int | None = None
    stands_for: str = ""
    """The upscaler that was asked for and is not there, in whose place this one is taken; empty: none."""

    @property
    def is_latent(self) -> bool:
        """Whether latents are enlarged, not pixels."""
        return self.method.startswith("latent")


@dataclass(frozen=True)
class StartPicture:
    """The picture that a variation, an upscale (specification 05) or an image to image starts from."""

    picture: str | None
    """The name under which the pictures that come with requests are kept: the hash of what it shows. ``None``: every
    picture of the stage before, each with its own seed."""
    method: str
    """As clients name it."""
    denoise: float
    """The share of the noise levels that is walked (above 0, up to 1)."""
    factor: float | None = None
    """How much larger the picture gets; ``None``: it is varied, unless one of the last two fields says otherwise."""
    refine: bool = True
    """``False``: the enlarged picture itself is the result, and nothing is diffused."""
    stretched: bool = False
    """Plain image to image: the picture is brought to the stage's size, out of proportion where that has another."""
    enlarging: Enlarging | None = None
    """In place of ``factor``. It decides on the size of the result; the stage's own is what that is expected to be."""


@dataclass(frozen=True)
class MaskedArea:
    """Repainting behind a soft mask as the web UI does it (TAMS contract, section 13.11).

    Only the masked part: it is cut out with its surroundings, painted at the stage's size and put back, and the result
    has the picture's own size. The whole picture: it is brought to the stage's size, which is that of the result.
    """

    invert: bool = False
    """Whether the mask is inverted, before all else."""
    blur_px: float = 4.0
    """The deviation of the Gauss filter that softens the mask."""
    only_masked: bool = True
    padding_px: int = 32
    """By how much the box around the mask grows on every side."""
    content: MaskedContent = "original"
    resize: ResizeMode = "stretch"
    """Of the whole picture."""
    keeps_size: bool = False
    """Whether the result of a whole picture has the picture's own size: parts of pictures do that, always."""


@dataclass(frozen=True)
class Repaint:
    """A picture of which a part is painted anew, or which grows at its sides (specification 04)."""

    picture: str | None
    """The name under which it is kept; ``None``: every picture of the stage before, each with its own seed."""
    mask: str | None = None
    """The name under which its mask is kept, of the picture's size, 255 where to repaint; ``None``: black. With an
    ``area`` it may be of any size and soft."""
    outpaint: tuple[tuple[Side, int], ...] = ()
    """How many pixels are added at which sides."""
    denoise: float = 1.0
    """The share of the noise levels that is walked (0 ... 1)."""
    respective_field: float = 0.618
    """The share of the picture that is looked at (0: the mask's own box, 1: all of it)."""
    engine: InpaintEngine = "v2.6"
    use_initial_latent: bool = True
    """``False``: the masked part starts from nothing but noise."""
    refines_itself: bool = True
    """Whether an engine without a refiner hands over to the network as it is (specification 01, section 10)."""
    only_prepare: bool = False
    """``True``: the results are the fill, the mask and the cut-out, and nothing is diffused."""
    area: MaskedArea | None = None
    """``None``: Fooocus's way. With one, of the fields above only ``picture``, ``mask`` and ``denoise`` count, and the
    engine has to be ``None``."""

    def __post_init__(self) -> None:
        if self.area is not None and self.engine != "None":
            raise ValueError("a masked area is repainted without an engine")


@dataclass(frozen=True)
class Guide:
    """A picture that steers a stage. ``stop``: up to which share of the run (0 ... 1); ``weight``: 0 ... 2.

    What has a default below is for control networks alone (TAMS contract, sections 5.10 and 13.9).
    """

    picture: str
    """The name under which it is kept."""
    kind: GuideKind
    stop: float
    weight: float
    start: float = 0.0
    """From which share of the run."""
    softness: float | None = None
    """``None``: that of all guides of the stage."""
    mask: str | None = None
    """The name under which the mask is kept of where it steers, 255 where it does so fully; ``None``: everywhere."""
    resize: ResizeMode = "cover"
    """How it and its mask get the size of the stage."""
    is_prepared: bool = False
    """Whether it already is edges or structure."""
    only_positive: bool = False
    """Whether it steers by the prompt alone, and not by the negative one."""


@dataclass(frozen=True)
class Guides:
    """All guides of a stage, in the order of their slots, and how they are read (specification 06)."""

    pictures: tuple[Guide, ...]
    softness: float = 0.25
    """How much less the shallow layers of a control network count (0 ... 1)."""
    canny_low: int = 64
    canny_high: int = 128
    use_preprocessor: bool = True
    """``False``: pictures already are edges, structure, or a cut-out face."""
    weighting: ImagePromptWeighting = "fooocus"
    only_prepare: bool = False
    """``True``: the results are the guides as the networks see them, and nothing is diffused."""


@dataclass(frozen=True)
class Diffuse:
    """Text to image (specification 01, 02, 03), from a picture to its variation or upscale (05), or repainting (04).

    ``image_number`` independent runs of one image each.
    """

    models: Models
    prompts: Prompts
    width_px: int
    height_px: int
    seed: int
    image_number: int = 1
    seed_increment: bool = True
    seed_count: int = 2**63
    """Where the seeds of pictures wrap."""
    performance: Performance = "Speed"
    guidance: Guidance = field(default_factory=Guidance)
    sampling: Sampling = field(default_factory=Sampling)
    refiner_switch: float = 0.5
    """Share of the steps before a refiner takes over (0.1 ... 1); written into the metadata with or without one."""
    refiner_swap: SwapMethod = "joint"
    switch_step: int | None = None
    """The step at which the refiner takes over; ``None``: no step."""
    overwrite_switch: int | None = None
    """What was asked in place of the share, for the metadata."""
    freeu: FreeU | None = None
    start: StartPicture | None = None
    """``None``: from nothing but noise, unless ``repaint`` says what from; never both."""
    repaint: Repaint | None = None
    guides: Guides | None = None
    kind: Literal["diffuse"] = "diffuse"

    @property
    def follows(self) -> bool:
        """Whether it works on every picture of the stage before. Then its own seed and number are not looked at."""
        first = self.repaint or self.start
        return first is not None and first.picture is None


@dataclass(frozen=True)
class DetailPass:
    """What is found in a picture, and how it is painted anew (specification 07, section 1)."""

    mask: MaskOptions
    prompt: str = ""
    """Where it says nothing, the request's own; the same for ``negative_prompt``."""
    negative_prompt: str = ""
    erode_or_dilate: int = 0
    """By how many pixels the mask grows, or shrinks below 0."""
    invert: bool = False
    denoise: float = 1.0
    respective_field: float = 0.618
    engine: InpaintEngine = "v2.6"
    use_initial_latent: bool = True
    kind: Literal["mask"] = "mask"


@dataclass(frozen=True)
class PartSearch:
    """What is looked for in a picture, part by part."""

    detector: PartDetector
    phrase: str = ""
    """What ``grounding_dino`` is told to find: ``hand``."""
    confidence: float = 0.3
    """What is less sure (0 ... 1) is left out."""
    is_outlined: bool = False
    """Whether a part is what stands out in its box, which the segmenter finds, and not the box."""


@dataclass(frozen=True)
class PartsPass:
    """Parts of a kind, found and painted anew one after the other, as ADetailer does (TAMS contract, section 13.10).

    The part of index i, by falling confidence, is painted with the picture's own seed + i.
    """

    find: PartSearch
    prompts: tuple[str, ...] = ()
    """One for each part, the last for all the rest; an empty one, or none, stands for that of ``base``. The same for
    ``negative_prompts``."""
    negative_prompts: tuple[str, ...] = ()
    dilate_px: int = 4
    """The side of the square that masks grow by, or shrink by below 0."""
    merge: MaskMerge = "none"
    denoise: float = 0.4
    area: MaskedArea = MaskedArea()
    """How each is repainted."""
    base: Diffuse | None = None
    """Models, prompts, sampling, guidance and size of this pass alone; ``None``: those of the stage."""
    kind: Literal["parts"] = "parts"


@dataclass(frozen=True)
class DetailStart:
    """A variation or an upscale before the first pass or after the last."""

    method: str
    denoise: float
    factor: float | None = None
    fast: bool = False
    comes_last: bool = False
    uses_last_prompts: bool = False
    """Those of the last pass that had any, in place of the request's. Only where it comes last."""


@dataclass(frozen=True)
class Detail:
    """Enhances pictures part by part: finds a mask, paints it anew, and so on (specification 07, section 1)."""

    base: Diffuse
    """What every pass has in common: models, prompts, seed, sampling."""
    steps: int
    """Of a pass and of a variation; ``upscale_steps`` of an upscale."""
    upscale_steps: int
    picture: str | None = None
    """The name under which the picture is kept; ``None``: every picture of the stage before."""
    passes: tuple[DetailPass | PartsPass, ...] = ()
    start: DetailStart | None = None
    refines_itself: bool = False
    """As in ``Repaint``: passes do what the request's own inpainting did, if there was one."""
    show_masks: bool = False
    """Whether every mask is a result of its own."""
    only_last: bool = False
    """Whether of all steps of a picture only the last is a result."""
    kind: Literal["detail"] = "detail"

    @property
    def most_results(self) -> int:
        """How many results one picture can have, kept or not."""
        return len(self.passes) * (1 + self.show_masks) + (self.start is not None)

    @property
    def follows(self) -> bool:
        """Whether it works on every picture of the stage before."""
        return self.picture is None


Stage = Diffuse | Detail


@dataclass(frozen=True)
class Output:
    """How finished pictures are encoded and what is written into them."""

    image_format: ImageFormat = "png"
    save_metadata: bool = False
    metadata_scheme: MetadataScheme = "fooocus"
    save_name: str = ""
    """The stem of the file names; empty: the job's own identifier, or what ``dated_names`` says."""
    preview: bool = True
    created_by: str = ""
    """A name for the metadata; empty: none."""
    black_out_nsfw: bool = False
    """Unsafe pictures become black (specification 07, section 4); previews, which nobody judges, are not shown."""
    dated_names: bool = False
    """Files without a ``save_name`` are named by date, time and a random number (specification 08, section 6)."""


@dataclass(frozen=True)
class Plan:
    """Everything one job asks for, resolved."""

    stages: tuple[Stage, ...]
    output: Output = field(default_factory=Output)
    only_last_stage: bool = False
    """Whether what the last stage makes is all that is a result. Then every stage makes one picture of each that it
    works on, unchanged if there is nothing to do, and their numbers stay the same through all stages."""
    version: int = PLAN_VERSION

    def __post_init__(self) -> None:
        following = [stage for stage in self.stages if isinstance(stage, Diffuse) and stage.follows]
        if following and not self.only_last_stage:
            raise ValueError("only where the last stage's pictures are all results, a stage diffuses those of another")
        if self.stages and self.stages[0].follows:
            raise ValueError("the first stage has none before it whose pictures it could work on")

    @property
    def main(self) -> Diffuse:
        """What the first stage diffuses with: the models, prompts and sizes that the plan is told by."""
        first = self.stages[0]
        return first if isinstance(first, Diffuse) else first.base

    @property
    def images(self) -> int:
        """How many pictures are made, each of which may go through several stages."""
        return sum(1 if isinstance(stage, Detail) else stage.image_number for stage in self.stages if not stage.follows)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of all kept pictures that the plan needs; one that it needs twice stands there twice."""
        return tuple(name for stage in self.stages for name in _pictures_of(stage))

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values. Seeds stay integers: Python's JSON keeps all 63 bits."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """The inverse of ``to_json``.

        Raises ``ValueError`` for another version or an unknown stage kind, so that a journal written by a different
        release fails the job with a reason instead of running something else.
        """
        if values.get("version") != PLAN_VERSION:
            raise ValueError(f"plan version {values.get('version')!r} cannot be run, this release runs {PLAN_VERSION}")
        return cls(
            stages=tuple(_stage_from_json(stage) for stage in values["stages"]),
            output=Output(**values["output"]),
            only_last_stage=values.get("only_last_stage", False),
            version=PLAN_VERSION,
        )


def _pictures_of(stage: Stage) -> Iterator[str]:
    if isinstance(stage, Detail):
        if stage.picture is not None:
            yield stage.picture
        return
    if stage.start is not None and stage.start.picture is not None:
        yield stage.start.picture
    if stage.repaint is not None:
        if stage.repaint.picture is not None:
            yield stage.repaint.picture
        if stage.repaint.mask is not None:
            yield stage.repaint.mask
    if stage.guides is not None:
        for guide in stage.guides.pictures:
            yield from (guide.picture,) if guide.mask is None else (guide.picture, guide.mask)


def _stage_from_json(values: Mapping[str, Any]) -> Stage:
    match values.get("kind"):
        case "diffuse":
            return _diffuse_from_json(values)
        case "detail":
            return _detail_from_json(values)
        case kind:
            raise ValueError(f"unknown stage kind {kind!r}")


def _detail_from_json(values: Mapping[str, Any]) -> Detail:
    passes = tuple(_pass_from_json(one) for one in values["passes"])
    start = DetailStart(**values["start"]) if values["start"] else None
    return Detail(**{**values, "base": _diffuse_from_json(values["base"]), "passes": passes, "start": start})


def _pass_from_json(values: Mapping[str, Any]) -> DetailPass | PartsPass:
    if values.get("kind") != "parts":
        return DetailPass(**{**values, "mask": MaskOptions(**values["mask"])})
    return PartsPass(
        **{
            **values,
            "find": PartSearch(**values["find"]),
            "prompts": tuple(values["prompts"]),
            "negative_prompts": tuple(values["negative_prompts"]),
            "area": MaskedArea(**values["area"]),
            "base": _diffuse_from_json(values["base"]) if values["base"] else None,
        }
    )


def _diffuse_from_json(values: Mapping[str, Any]) -> Diffuse:
    return Diffuse(
        **{
            **values,
            "models": _models_from_json(values["models"]),
            "prompts": Prompts(**{**values["prompts"], "styles": tuple(values["prompts"]["styles"])}),
            "guidance": Guidance(**values["guidance"]),
            "sampling": Sampling(**values["sampling"]),
            "freeu": FreeU(**values["freeu"]) if values.get("freeu") else None,
            "start": _start_from_json(values["start"]) if values.get("start") else None,
            "repaint": _repaint_from_json(values["repaint"]) if values.get("repaint") else None,
            "guides": _guides_from_json(values["guides"]) if values.get("guides") else None,
        }
    )


def _start_from_json(values: Mapping[str, Any]) -> StartPicture:
    enlarging = values.get("enlarging")
    return StartPicture(**{**values, "enlarging": Enlarging(**enlarging) if enlarging else None})


def _repaint_from_json(values: Mapping[str, Any]) -> Repaint:
    area = values.get("area")
    outpaint = tuple((side, length) for side, length in values["outpaint"])
    return Repaint(**{**values, "outpaint": outpaint, "area": MaskedArea(**area) if area else None})


def _guides_from_json(values: Mapping[str, Any]) -> Guides:
    return Guides(**{**values, "pictures": tuple(Guide(**guide) for guide in values["pictures"])})


def _models_from_json(values: Mapping[str, Any]) -> Models:
    performance_lora = values["performance_lora"]
    return Models(
        **{
            **values,
            "loras": tuple(Lora(**lora) for lora in values["loras"]),
            "performance_lora": Lora(**performance_lora) if performance_lora else None,
        }
    )
