"""From what was asked to what will run: the one place where defaults become values (specification 01, sections 1-3).

``resolve_request`` fills every gap from the preset and the performance mode, checks every range, and names the field
of whatever cannot be run. It looks up file names but opens no file and draws nothing but the seed.

What an unknown name means is decided here for every dialect: clients of the original program rely on some falling back.

* Checkpoint, refiner, LoRA, style: it falls back, and the log says so. The default checkpoint is used; the others are
  left out. (Styles keep their names in the plan and are looked up when it runs: the files may change in between.)
* Sampler, scheduler, performance, picture format, metadata scheme: refused, and the answer lists the known names.
* Autoencoder: refused. One of the preset's gives way to the checkpoint's own.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol, TypeVar, cast, get_args

from fooocus_core.errors import InvalidRequest, UnknownModel
from fooocus_core.images.methods import CUSTOM, DEFAULT_FACTOR, METHODS, added_px, upscaled_size, varied_size
from fooocus_core.masks.options import ClothCategory, MaskModel, MaskOptions, SamModel
from fooocus_core.plan import (
    Detail,
    DetailPass,
    DetailStart,
    Diffuse,
    FreeU,
    Guidance,
    Guide,
    GuideKind,
    Guides,
    ImageFormat,
    ImagePromptWeighting,
    InpaintEngine,
    Lora,
    MetadataScheme,
    Models,
    Output,
    Plan,
    Prompts,
    Repaint,
    Sampling,
    Side,
    Stage,
    StartPicture,
    SwapMethod,
)
from fooocus_core.presets.modes import DISTILLED_GUIDANCE, DISTILLED_REFINER_SWITCH, MODES, Mode
from fooocus_core.presets.preset import NO_MODEL, Preset, first_on_disk
from fooocus_core.presets.sizes import GRID_PX, Size, SizeLimits, fit_size
from fooocus_core.prompts.lines import holds_half_a_pair
from fooocus_core.request import (
    AskedDetail,
    AskedGuide,
    AskedGuides,
    AskedPass,
    AskedRepaint,
    AskedStart,
    GenerationRequest,
)
from fooocus_core.sampling.names import SAMPLER_NAMES, SCHEDULER_NAMES

log = logging.getLogger(__name__)

Name = TypeVar("Name", bound=str)

ModelKind = Literal["checkpoints", "loras", "vae"]


class GuideDefault(NamedTuple):
    """What a guide does where the request says nothing."""

    stop: float
    weight: float


MAX_SEED: Final = 2**63 - 1
MAX_IMAGES: Final = 32
MAX_STEPS: Final = 200
MAX_FACTOR: Final = 5.0
MAX_GUIDES: Final = 4
GUIDE_DEFAULTS: Final[Mapping[GuideKind, GuideDefault]] = MappingProxyType(
    {
        "ImagePrompt": GuideDefault(0.5, 0.6),
        "FaceSwap": GuideDefault(0.9, 0.75),
        "PyraCanny": GuideDefault(0.5, 1.0),
        "CPDS": GuideDefault(0.5, 1.0),
    }
)
"""Of each kind of guide (specification 06, section 1)."""
MIN_DENOISE: Final = 0.001
SELF_REFINED_SWITCH: Final = 0.8
"""Where an inpaint engine hands over to the base as it is, when there is no refiner (specification 01, section 10)."""
MAX_FREEU_FACTOR: Final = 100
"""Far beyond any use; more would leave half precision's range."""
MAX_PROMPT_CHARACTERS: Final = 20_000
"""Some sixty times the text encoders' window; a longer text would only exhaust the memory of the networks. A server
may draw the line elsewhere."""


class NameLookup(Protocol):
    """What is asked of the library of model files."""

    def checkpoint_names(self) -> Sequence[str]:
        """All checkpoints, in the library's order."""
        ...

    def find(self, kind: ModelKind, name: str) -> str | None:
        """The listed name that ``name`` stands for, if there is such a file."""
        ...


def resolve_request(
    request: GenerationRequest,
    preset: Preset,
    library: NameLookup,
    draw_seed: Callable[[], int],
    limits: SizeLimits | None = None,
    max_prompt_characters: int = MAX_PROMPT_CHARACTERS,
    weighting: ImagePromptWeighting = "fooocus",
    black_out_nsfw: bool = False,
) -> Plan:
    """The complete plan of a request.

    ``draw_seed`` is asked for a number in 0 ... 2**63 - 1 when the request brings none of its own. ``weighting`` is the
    server's word on image prompts; with ``black_out_nsfw`` every request's pictures are judged. Raises
    ``InvalidRequest`` for a value outside its range or set, ``UnknownModel`` when there is no checkpoint at all.
    """
    performance = _choice("performance", request.performance, preset.performance, tuple(MODES))
    mode = MODES[performance]
    limits = limits or SizeLimits()
    start, size = _start_and_size(request, preset, limits)
    repaint = None if request.repaint is None else _repaint(request.repaint, preset)
    if request.repaint is not None:
        size = _outpainted_size(request.repaint, limits)
    mode_steps = mode.steps if start is None or start.factor is None else mode.upscale_steps
    checkpoint = choose_checkpoint(request.checkpoint, preset, library)
    sampling = _sampling(request, preset, mode, mode_steps)
    models = _models(request, preset, mode, checkpoint, library)
    switch = _refiner_switch(request, preset, mode)
    if repaint is not None and repaint.engine != "None" and models.refiner is None:
        switch = SELF_REFINED_SWITCH
    overwritten_switch = _overwritten_switch(request, preset, sampling.steps)
    stage = Diffuse(
        models=models,
        prompts=_prompts(request, preset, max_prompt_characters),
        width_px=size.width_px,
        height_px=size.height_px,
        seed=choose_seed(request.seed, draw_seed),
        image_number=_image_number(request, start),
        seed_increment=request.seed_increment,
        performance=performance,
        guidance=_guidance(request, preset, mode),
        sampling=sampling,
        refiner_switch=switch,
        refiner_swap=_choice("refiner_swap", request.refiner_swap, "joint", get_args(SwapMethod)),
        # The share is one of the mode's own steps, whatever replaces those (specification 01, section 2, step 9).
        switch_step=overwritten_switch or round(mode_steps * switch),
        overwrite_switch=overwritten_switch,
        freeu=_freeu(request.freeu),
        start=start,
        repaint=repaint,
        guides=None if request.guides is None else _guides(request.guides, weighting),
    )
    stages: tuple[Stage, ...] = (stage,)
    if request.detail is not None:
        passes = tuple(
            _detail_pass(index, one, request.detail, preset, max_prompt_characters)
            for index, one in enumerate(request.detail.passes)
        )
        detail = dataclasses.replace(_detail(request, request.detail, stage, preset, mode, limits), passes=passes)
        stages = (stage, detail) if detail.picture is None else (detail,)
    return Plan(stages, output=_output(request, preset, black_out_nsfw))


def choose_seed(asked: int | None, draw_seed: Callable[[], int]) -> int:
    """``asked`` if it is a seed (0 ... 2**63 - 1); anything else, -1 and nothing included, means a random one."""
    return asked if asked is not None and 0 <= asked <= MAX_SEED else draw_seed()


def choose_checkpoint(asked: str | None, preset: Preset, library: NameLookup) -> str:
    """The checkpoint to load: the one asked for, else the preset's, its predecessors, or the first there is.

    The clients of the original program rely on an unknown name falling back instead of failing. Raises
    ``UnknownModel`` when the library holds no checkpoint.
    """
    wanted = [] if asked is None or asked in NO_MODEL else [asked]
    for name in (*wanted, preset.checkpoint, *preset.previous_checkpoints):
        found = library.find("checkpoints", name) or first_on_disk([name], library.checkpoint_names())
        if found is not None:
            if wanted and name != asked:
                log.warning("checkpoint not found, default used: asked=%r used=%r", asked, found)
            return found
    names = library.checkpoint_names()
    if not names:
        raise UnknownModel("checkpoints", wanted[0] if wanted else preset.checkpoint)
    log.warning("checkpoint not found, first one used: asked=%r used=%r", asked, names[0])
    return names[0]


def _refiner(
    request: GenerationRequest, preset: Preset, mode: Mode, checkpoint: str, library: NameLookup
) -> str | None:
    """The second checkpoint; none where it is the first one again, unknown, or left out by the mode."""
    name = request.refiner if request.refiner is not None else preset.refiner
    if mode.is_distilled or name is None or name in NO_MODEL:
        return None
    found = library.find("checkpoints", name)
    if found is None:
        log.warning("refiner not found, left out: %r", name)
    return None if found == checkpoint else found


def _models(request: GenerationRequest, preset: Preset, mode: Mode, checkpoint: str, library: NameLookup) -> Models:
    return Models(
        checkpoint=checkpoint,
        vae=_vae(request, preset, library),
        loras=_loras(preset.loras if request.loras is None else request.loras, preset, library),
        performance_lora=_performance_lora(mode, library),
        clip_skip=_whole("clip_skip", request.clip_skip, preset.clip_skip, 1, 12),
        refiner=_refiner(request, preset, mode, checkpoint, library),
    )


def _vae(request: GenerationRequest, preset: Preset, library: NameLookup) -> str | None:
    """The autoencoder's file. One that is asked for must be there; a preset's that is not gives way to the model's."""
    name = preset.vae if request.vae is None else request.vae
    if name is None or name in NO_MODEL:
        return None
    found = library.find("vae", name)
    if found is None and request.vae is not None:
        raise InvalidRequest("vae", f"no file named {name!r}")
    if found is None:
        log.warning("preset's autoencoder not found, the checkpoint's own used: %r", name)
    return found


def _loras(slots: Sequence[Lora], preset: Preset, library: NameLookup) -> tuple[Lora, ...]:
    """As many of the first slots as the preset allows, less the empty ones and those whose file is unknown."""
    loras = []
    for lora in slots[: preset.max_loras]:
        if lora.name in NO_MODEL:
            continue
        weight = _number("loras", lora.weight, 1.0, preset.min_lora_weight, preset.max_lora_weight)
        found = library.find("loras", lora.name)
        if found is None:
            log.warning("LoRA not found, left out: %r", lora.name)
        else:
            loras.append(Lora(found, weight))
    return tuple(loras)


def _performance_lora(mode: Mode, library: NameLookup) -> Lora | None:
    """The mode's own LoRA, by its listed name where it has one."""
    if mode.lora is None:
        return None
    return Lora(library.find("loras", mode.lora.name) or mode.lora.name, mode.lora.weight)


def _prompts(request: GenerationRequest, preset: Preset, max_characters: int) -> Prompts:
    prompt = _text("prompt", request.prompt, preset.prompt, max_characters)
    if request.repaint is not None and request.repaint.additional_prompt:
        additional = _text("inpaint_additional_prompt", request.repaint.additional_prompt, "", max_characters)
        prompt = f"{additional}\n{prompt}" if prompt else additional
    return Prompts(
        prompt=prompt,
        negative_prompt=_text("negative_prompt", request.negative_prompt, preset.negative_prompt, max_characters),
        styles=preset.styles if request.styles is None else request.styles,
        read_wildcards_in_order=request.read_wildcards_in_order,
        max_loras=preset.max_loras,
    )


def _guidance(request: GenerationRequest, preset: Preset, mode: Mode) -> Guidance:
    default = preset.guidance
    guidance = Guidance(
        scale=_number("guidance_scale", request.guidance_scale, default.scale, 1.0, 30.0),
        sharpness=_number("sharpness", request.sharpness, default.sharpness, 0.0, 30.0),
        adaptive_scale=_number("adaptive_scale", request.adaptive_scale, default.adaptive_scale, 1.0, 30.0),
        adm_positive=_number("adm_positive", request.adm_positive, default.adm_positive, 0.0, 3.0),
        adm_negative=_number("adm_negative", request.adm_negative, default.adm_negative, 0.0, 3.0),
        adm_end=_number("adm_end", request.adm_end, default.adm_end, 0.0, 1.0),
    )
    return DISTILLED_GUIDANCE if mode.is_distilled else guidance


def _sampling(request: GenerationRequest, preset: Preset, mode: Mode, mode_steps: int) -> Sampling:
    """Names are checked even where the mode overrules them, so that a wrong one never passes unseen."""
    sampler = _choice("sampler", request.sampler, preset.sampler, SAMPLER_NAMES)
    scheduler = _choice("scheduler", request.scheduler, preset.scheduler, SCHEDULER_NAMES)
    overwrite = _whole("overwrite_steps", request.overwrite_steps, preset.overwrite_steps or -1, -1, MAX_STEPS)
    steps = overwrite if overwrite > 0 else mode_steps
    if mode.forced_sampling is not None:
        return Sampling(mode.forced_sampling.sampler, mode.forced_sampling.scheduler, steps)
    return Sampling(sampler, scheduler, steps)


def _refiner_switch(request: GenerationRequest, preset: Preset, mode: Mode) -> float:
    switch = _number("refiner_switch", request.refiner_switch, preset.refiner_switch, 0.1, 1.0)
    return DISTILLED_REFINER_SWITCH if mode.is_distilled else switch


def _overwritten_switch(request: GenerationRequest, preset: Preset, steps: int) -> int | None:
    """The step that was asked for in place of the share, at least the first."""
    asked = _number("overwrite_switch", request.overwrite_switch, preset.overwrite_switch or -1.0, -1.0, MAX_STEPS)
    if asked <= 0:
        return None
    return max(1, round(asked * steps)) if asked < 1 else int(asked)


def _freeu(asked: FreeU | None) -> FreeU | None:
    if asked is None:
        return None
    factors = dataclasses.asdict(asked)
    limit = float(MAX_FREEU_FACTOR)
    return FreeU(**{name: _number(f"freeu_{name}", factor, factor, -limit, limit) for name, factor in factors.items()})


def _start_and_size(request: GenerationRequest, preset: Preset, limits: SizeLimits) -> tuple[StartPicture | None, Size]:
    """The picture to start from, if there is one, and the size of the result, which is then that picture's."""
    if request.start is None:
        return None, _size(request, preset, limits)
    asked = request.start
    if asked.method not in METHODS:
        raise InvalidRequest.unknown_name("start_method", asked.method, METHODS)
    factor, denoise = _factor(asked), _denoise(request, asked.method)
    if factor is None:
        height, width = varied_size(asked.height_px, asked.width_px)
        return StartPicture(asked.picture, asked.method, denoise), _diffused_size(width, height, limits)
    _require_small("start", asked.width_px, asked.height_px, limits)
    height, width, refine = upscaled_size(asked.height_px, asked.width_px, factor, fast=METHODS[asked.method].fast)
    size = _diffused_size(width, height, limits) if refine else Size(width, height)
    return StartPicture(asked.picture, asked.method, denoise, factor, refine), size


def _repaint(asked: AskedRepaint, preset: Preset) -> Repaint:
    added = _added_px(asked)
    return Repaint(
        picture=asked.picture,
        mask=asked.mask,
        outpaint=tuple((side, added[side]) for side, _ in asked.outpaint),
        denoise=_strength("inpaint_strength", asked.strength, Repaint.denoise, 0.0),
        respective_field=_number(
            "inpaint_respective_field", asked.respective_field, Repaint.respective_field, 0.0, 1.0
        ),
        engine=_engine("inpaint_engine", asked.engine, preset),
        use_initial_latent=asked.use_initial_latent,
        only_prepare=asked.only_prepare,
    )


def _added_px(asked: AskedRepaint) -> dict[Side, int]:
    return added_px(asked.height_px, asked.width_px, {side: length or 0 for side, length in asked.outpaint})


def _outpainted_size(asked: AskedRepaint, limits: SizeLimits) -> Size:
    """The size of the result. A picture that comes in too large was refused before; here it is what is added."""
    added = _added_px(asked)
    width = asked.width_px + added["left"] + added["right"]
    height = asked.height_px + added["top"] + added["bottom"]
    if width * height > limits.max_repainted_pixels:
        reason = f"the result would have {width}*{height} pixels, more than {limits.max_repainted_pixels}"
        raise InvalidRequest("outpaint" if asked.outpaint else "repaint", reason)
    return Size(width, height)


def _detail(
    request: GenerationRequest, asked: AskedDetail, stage: Diffuse, preset: Preset, mode: Mode, limits: SizeLimits
) -> Detail:
    """What becomes of the pictures, or of the one that was sent: all but what is found and painted anew."""
    refines_itself = stage.repaint is not None and stage.repaint.engine != "None" and stage.models.refiner is None
    overwritten = stage.sampling.steps if (request.overwrite_steps or preset.overwrite_steps or -1) > 0 else None
    return Detail(
        base=stage if asked.picture is None else dataclasses.replace(stage, image_number=1),
        steps=overwritten or mode.steps,
        upscale_steps=overwritten or mode.upscale_steps,
        picture=asked.picture,
        start=None if asked.method is None else _detail_start(asked, asked.method, request, limits),
        refines_itself=refines_itself,
        show_masks=asked.show_masks,
        only_last=asked.only_last,
    )


def _detail_pass(index: int, asked: AskedPass, detail: AskedDetail, preset: Preset, max_characters: int) -> DetailPass:
    field = f"detail.passes.{index}"
    try:
        mask = MaskOptions(
            model=cast(MaskModel, asked.mask_model),
            cloth_category=cast(ClothCategory, asked.cloth_category),
            detection_prompt=asked.detection_prompt,
            sam_model=cast(SamModel, asked.sam_model),
            box_threshold=asked.box_threshold,
            text_threshold=asked.text_threshold,
            max_detections=asked.max_detections,
            dino_erode_or_dilate=detail.grow_boxes_px,
            dino_debug=detail.show_boxes,
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"{field}.{error.field}", error.reason) from error
    return DetailPass(
        mask=mask,
        prompt=_text(f"{field}.prompt", asked.prompt, "", max_characters),
        negative_prompt=_text(f"{field}.negative_prompt", asked.negative_prompt, "", max_characters),
        erode_or_dilate=int(_number(f"{field}.erode_or_dilate", asked.erode_or_dilate, 0, -64, 64)),
        invert=asked.invert,
        denoise=_strength(f"{field}.strength", asked.strength, DetailPass.denoise, 0.0),
        respective_field=_number(
            f"{field}.respective_field", asked.respective_field, DetailPass.respective_field, 0.0, 1.0
        ),
        engine=_engine(f"{field}.engine", asked.engine, preset),
        use_initial_latent=asked.use_initial_latent,
    )


def _detail_start(asked: AskedDetail, name: str, request: GenerationRequest, limits: SizeLimits) -> DetailStart:
    if name not in METHODS:
        raise InvalidRequest.unknown_name("detail.method", name, METHODS)
    method = METHODS[name]
    if method.factor is not None:
        _require_small("detail.picture", asked.width_px, asked.height_px, limits)
    return DetailStart(
        method=name,
        denoise=_denoise(request, name),
        factor=_number("detail.factor", asked.factor, 1.0, 1.0, MAX_FACTOR) if name == CUSTOM else method.factor,
        fast=method.fast,
        comes_last=asked.comes_last,
        uses_last_prompts=asked.uses_last_prompts,
    )


def _engine(field: str, asked: str | None, preset: Preset) -> InpaintEngine:
    return _choice(field, cast("InpaintEngine | None", asked), preset.inpaint_engine, get_args(InpaintEngine))


def _guides(asked: AskedGuides, weighting: ImagePromptWeighting) -> Guides:
    default = Guides(())
    return Guides(
        pictures=tuple(_guide(index, guide) for index, guide in enumerate(asked.pictures[:MAX_GUIDES])),
        softness=_number("controlnet_softness", asked.softness, default.softness, 0.0, 1.0),
        canny_low=_whole("canny_low_threshold", asked.canny_low, default.canny_low, 1, 255),
        canny_high=_whole("canny_high_threshold", asked.canny_high, default.canny_high, 1, 255),
        use_preprocessor=asked.use_preprocessor,
        weighting=weighting,
        only_prepare=asked.only_prepare,
    )


def _guide(index: int, asked: AskedGuide) -> Guide:
    kind = _choice(f"guides.{index}.kind", cast(GuideKind, asked.kind), "ImagePrompt", get_args(GuideKind))
    default = GUIDE_DEFAULTS[kind]
    return Guide(
        asked.picture,
        kind,
        stop=_number(f"guides.{index}.stop", asked.stop, default.stop, 0.0, 1.0),
        weight=_number(f"guides.{index}.weight", asked.weight, default.weight, 0.0, 2.0),
    )


def _require_small(field: str, width_px: int, height_px: int, limits: SizeLimits) -> None:
    """What is enlarged becomes sixteen times as large on the way."""
    if width_px * height_px > limits.max_pixels:
        reason = f"{width_px}*{height_px} is more than {limits.max_pixels} pixels, the most to be enlarged"
        raise InvalidRequest(field, reason)


def _factor(asked: AskedStart) -> float | None:
    """How much larger the picture gets; ``None`` for a variation."""
    if asked.method != CUSTOM:
        return METHODS[asked.method].factor
    return _number("start_factor", asked.factor, DEFAULT_FACTOR, 1.0, MAX_FACTOR)


def _denoise(request: GenerationRequest, name: str) -> float:
    """The method's share, or what was asked for in its place."""
    varied = _strength("overwrite_vary_strength", request.overwrite_vary_strength, -1.0, -1.0)
    upscaled = _strength("overwrite_upscale_strength", request.overwrite_upscale_strength, -1.0, -1.0)
    method = METHODS[name]
    overwrite = varied if method.factor is None else upscaled
    return overwrite if overwrite > 0 else method.denoise


def _diffused_size(width_px: int, height_px: int, limits: SizeLimits) -> Size:
    """On the latents' grid. The area is limited by the methods themselves, so that only the sides are looked at."""
    if min(width_px, height_px) < limits.min_side_px or max(width_px, height_px) > limits.max_side_px:
        raise InvalidRequest(
            "start",
            f"the result would have {width_px}*{height_px} pixels, its sides must be from {limits.min_side_px} to "
            f"{limits.max_side_px}",
        )
    return Size(width_px - width_px % GRID_PX, height_px - height_px % GRID_PX)


def _image_number(request: GenerationRequest, start: StartPicture | None) -> int:
    """What is only enlarged comes out the same every time, so it is made once (05, section 2)."""
    number = _whole("image_number", request.image_number, 1, 1, MAX_IMAGES)
    return number if start is None or start.refine else 1


def _size(request: GenerationRequest, preset: Preset, limits: SizeLimits) -> Size:
    width = preset.size.width_px if request.width_px is None else request.width_px
    height = preset.size.height_px if request.height_px is None else request.height_px
    return fit_size(Size(width, height), limits)


def _output(request: GenerationRequest, preset: Preset, black_out_nsfw: bool) -> Output:
    return Output(
        image_format=_choice("image_format", request.image_format, preset.image_format, get_args(ImageFormat)),
        save_metadata=preset.save_metadata if request.save_metadata is None else request.save_metadata,
        metadata_scheme=_choice(
            "metadata_scheme", request.metadata_scheme, preset.metadata_scheme, get_args(MetadataScheme)
        ),
        save_name=request.save_name,
        preview=request.preview,
        created_by=preset.created_by,
        black_out_nsfw=black_out_nsfw or request.black_out_nsfw,
    )


def _choice(field: str, asked: Name | None, default: Name, known: tuple[Name, ...]) -> Name:
    """``asked`` or ``default``, which must be one of ``known``."""
    name = default if asked is None else asked
    if name not in known:
        raise InvalidRequest.unknown_name(field, name, known)
    return name


def _number(field: str, asked: float | None, default: float, low: float, high: float) -> float:
    """``asked`` or ``default`` as a float; a number that is not finite is in no range."""
    value = default if asked is None else asked
    if not (low <= value <= high and math.isfinite(value)):
        raise InvalidRequest(field, f"must be from {low:g} to {high:g}, got {value}")
    return float(value)


def _strength(field: str, asked: float | None, default: float, low: float) -> float:
    """A share of the noise levels up to 1. A list that is so much longer than the walk has to be made in full."""
    strength = _number(field, asked, default, low, 1.0)
    if 0 < strength < MIN_DENOISE:
        raise InvalidRequest(field, f"must be 0 or at least {MIN_DENOISE:g}, got {strength}")
    return strength


def _whole(field: str, asked: int | None, default: int, low: int, high: int) -> int:
    value = default if asked is None else asked
    if not low <= value <= high:
        raise InvalidRequest(field, f"must be from {low} to {high}, got {value}")
    return value


def _text(field: str, asked: str | None, default: str, max_characters: int) -> str:
    text = default if asked is None else asked
    if len(text) > max_characters:
        raise InvalidRequest(field, f"must be at most {max_characters} characters, got {len(text)}")
    if holds_half_a_pair(text):
        raise InvalidRequest(field, "holds half of a surrogate pair, which is no character")
    return text
