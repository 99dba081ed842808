"""From a list of stages as it was sent to one in which every value is there (contract sections 5.4 to 5.11, 13).

Everything that is wrong is noted by its path, so that one answer names it all.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from fooocus_core.library import ModelKind
from fooocus_core.plan import (
    Enlarging,
    GuideKind,
    Guides,
    Lora,
    MaskedArea,
    MaskedContent,
    MaskMerge,
    PartSearch,
    ResizeMode,
)
from fooocus_core.presets.preset import Preset
from fooocus_core.presets.sizes import Size
from fooocus_core.resolve import choose_checkpoint
from fooocus_core.sampling.names import WEB_UI_SCHEDULER_NAMES
from fooocusapi.surfaces.tams import schemas
from fooocusapi.surfaces.tams.controls import ControlMeans, asked_entries, guides
from fooocusapi.surfaces.tams.detectors import part_of, search_for
from fooocusapi.surfaces.tams.judge import BAD_COUNT, BAD_SIZE, Judge
from fooocusapi.surfaces.tams.model_table import CHECKPOINT, LORA_TYPES, ModelEntry, Table, file_in
from fooocusapi.surfaces.tams.prompts import MAX_ENTRIES, for_each_part, joined
from fooocusapi.surfaces.tams.schemas import OFFERED_STAGES, VIDEO_STAGES
from fooocusapi.surfaces.tams.staged import (
    LARGEST_UPSCALED_PX,
    SMALLEST_AREA_PX,
    AdetailerStage,
    DiffusionStage,
    InpaintStage,
    Painting,
    PartsArg,
    StagedJob,
    StagedStep,
    UpscalerStage,
    is_allowed_once_enlarged,
)
from fooocusapi.surfaces.tams.vocabulary import (
    AUTOMATIC_VAE,
    DEFAULT_SAMPLER,
    NETWORKS,
    NO_VAE,
    OLDER_VAES,
    PLAIN_ENLARGING,
    find_sampler,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

FEWEST_STAGES, MOST_STAGES = 2, 8
MAX_COUNT: Final = 4
MAX_SEED: Final = 2**32 - 1
SHORTEST_SIDE_PX, LONGEST_SIDE_PX, USUAL_SIDE_PX = 512, 1536, 512
LARGEST_AREA_PX: Final = 2_073_600
SHORTEST_UPSCALED_PX: Final = 128
STEP_PX, LENIENT_STEP_PX = 64, 8
MAX_STEPS, USUAL_STEPS, USUAL_AD_STEPS = 60, 20, 20
MAX_CFG, USUAL_CFG = 35.0, 7.0
USUAL_STRENGTH: Final = 0.75
USUAL_DETECTOR: Final = "face_yolov8n.pt"
MAX_CLIP_SKIP, TRAINED_CLIP_SKIP = 12, 2
MAX_LORA_WEIGHT: Final = 10.0
MAX_SCALE: Final = 16.0
MAX_PARTS_ARGS: Final = 16
MAX_LORAS: Final = 32
MAX_MASK_BLUR_PX: Final = 256
MAX_PADDING_PX: Final = 4096
MAX_DILATION_PX: Final = 512
MAX_AD_SIDE_PX: Final = 2048

_CONTENTS: Final[dict[str, MaskedContent]] = {
    "FILL": "fill",
    "ORIGINAL": "original",
    "LATENT_NOISE": "noise",
    "LATENT_NOTHING": "nothing",
}
_RESIZES: Final[dict[str, ResizeMode]] = {
    "JUST_RESIZE": "stretch",
    "CROP_AND_RESIZE": "cover",
    "RESIZE_AND_FILL": "contain",
    "JUST_RESIZE_LATENT_UPSCALE": "latent",
}
_MERGES: Final[dict[str, MaskMerge]] = {
    "none": "none",
    "merge": "merge",
    "merge and invert": "merge and invert",
}
_BLOCKS: Final = {
    "INPUT_INITIALIZE": "inputInitialize",
    "DIFFUSION": "diffusion",
    "IMAGE_TO_UPSCALER": "imageToUpscaler",
    "IMAGE_TO_ADETAILER": "imageToAdetailer",
    "IMAGE_TO_INPAINT": "imageToInpaint",
}
_NOBODYS: Final = Painting(Size(USUAL_SIDE_PX, USUAL_SIDE_PX), "", "", "", None, (), "", "", USUAL_STEPS, USUAL_CFG, 0)
"""Stands in for a block that is missing, so that the rest can be judged."""


class FileNames(Protocol):
    """What is asked of the library of model files."""

    def checkpoint_names(self) -> Sequence[str]: ...

    def find(self, kind: ModelKind, name: str) -> str | None: ...


@dataclass(frozen=True)
class KnownPicture:
    """A resource that a job may name. ``size`` is ``None`` while its bytes are not there."""

    size: Size | None


@dataclass(frozen=True)
class Means:
    """What a list of stages is judged by."""

    table: Table
    library: FileNames
    preset: Preset
    """For a model that the table gives no file: the server's default checkpoint."""
    find_picture: Callable[[str], KnownPicture | None]
    draw_seed: Callable[[], int]
    """A number from 1 to ``MAX_SEED``."""
    max_prompt_characters: int
    allows_small_steps: bool = False
    """Whether sides may come in steps of 8."""
    parts_floor_px: int = 0
    """Parts are painted at no smaller area than that of a square with this side."""


def judged(stages: Sequence[schemas.Stage] | None, means: Means, judge: Judge) -> StagedJob:
    """The job, of use only if ``judge`` has noted nothing by then."""
    return _Reading(tuple(stages or ()), means, judge).job()


class _Reading:
    """One list of stages; what is true of the stage before is kept from stage to stage."""

    def __init__(self, stages: Sequence[schemas.Stage], means: Means, judge: Judge) -> None:
        self._stages = stages
        self._means = means
        self._judge = judge
        self._base: Painting | None = None
        self._size: Size | None = None
        """Of the pictures that a stage works on, as far as it is known."""
        self._has_made_pictures = False
        """Whether a stage stands before that a later one inherits its price from."""
        self._starts_from_picture = False
        self._has_diffusion = any(stage.type == "DIFFUSION" for stage in stages)

    def job(self) -> StagedJob:
        self._check_chain()
        seed, count, picture = self._start()
        steps = []
        for place in range(1, len(self._stages)):
            step = self._step(place)
            if step is not None:
                steps.append(step)
                self._has_made_pictures = True
        return StagedJob(seed, count, picture, tuple(steps))

    # ----------------------------------------------------------------------------------------------------- the chain

    def _check_chain(self) -> None:
        judge = self._judge
        if not self._stages:
            judge.refuse("stages", "at least two stages are needed")
        elif not FEWEST_STAGES <= len(self._stages) <= MOST_STAGES:
            judge.refuse("stages", f"{FEWEST_STAGES} to {MOST_STAGES} stages are needed, not {len(self._stages)}")
        for place, stage in enumerate(self._stages):
            self._check_place(place, stage)

    def _check_place(self, place: int, stage: schemas.Stage) -> None:
        field = f"stages[{place}].type"
        if stage.type in VIDEO_STAGES:
            self._judge.decline(field, f"{stage.type} is not offered by this server")
        elif stage.type is None or stage.type == "DEFAULT":
            self._judge.refuse(field, f"one of {', '.join(OFFERED_STAGES)} is needed")
        elif place == 0 and stage.type != "INPUT_INITIALIZE":
            self._judge.refuse(field, "the first stage must be INPUT_INITIALIZE")
        elif place > 0 and stage.type == "INPUT_INITIALIZE":
            self._judge.refuse(field, "INPUT_INITIALIZE is the first stage, and no other one")
        elif place > 1 and stage.type == "DIFFUSION":
            self._judge.refuse(field, "DIFFUSION comes once, directly after INPUT_INITIALIZE")

    # ----------------------------------------------------------------------------------------------- the first stage

    def _start(self) -> tuple[int, int, str | None]:
        """Seed, number of pictures, and the resource to start from."""
        first = self._stages[0] if self._stages else None
        if first is None or first.type != "INPUT_INITIALIZE":
            return 0, 1, None
        path = "stages[0].inputInitialize"
        block = first.input_initialize
        if block is None:
            self._judge.refuse(path, "this block is needed")
            return 0, 1, None
        count = block.count or 1
        self._judge.within(f"{path}.seed", block.seed, -1, MAX_SEED)
        self._judge.within(f"{path}.count", count, 1, MAX_COUNT, BAD_COUNT)
        picture = self._picture(f"{path}.imageResourceId", block.image_resource_id)
        self._starts_from_picture = bool(block.image_resource_id)
        if not self._has_diffusion:
            self._check_direct(path, count)
        self._size = picture.size if picture else None
        seed = self._means.draw_seed() if block.seed is None or block.seed in (0, -1) else block.seed
        return seed, count, block.image_resource_id or None

    def _check_direct(self, path: str, count: int) -> None:
        """A job that works on the uploaded picture itself."""
        if 1 < count <= MAX_COUNT:
            self._judge.refuse(f"{path}.count", "must be 1 without a DIFFUSION stage", BAD_COUNT)
        if not self._starts_from_picture and len(self._stages) > 1:
            self._judge.refuse(f"{path}.imageResourceId", "is needed without a DIFFUSION stage")

    def _picture(self, field: str, resource_id: str | None) -> KnownPicture | None:
        if not resource_id:
            return None
        known = self._means.find_picture(resource_id)
        if known is None:
            self._judge.refuse(field, "there is no such resource")
        return known

    # ------------------------------------------------------------------------------------------------- later stages

    def _step(self, place: int) -> StagedStep | None:
        stage = self._stages[place]
        name = _BLOCKS.get(stage.type or "")
        if name is None or stage.type == "INPUT_INITIALIZE":
            return None
        path = f"stages[{place}].{name}"
        match stage.type:
            case "DIFFUSION" if stage.diffusion is not None:
                return self._diffusion(path, stage.diffusion)
            case "IMAGE_TO_UPSCALER" if stage.image_to_upscaler is not None:
                return self._upscaler(path, stage.image_to_upscaler)
            case "IMAGE_TO_ADETAILER" if stage.image_to_adetailer is not None:
                return self._adetailer(path, stage.image_to_adetailer)
            case "IMAGE_TO_INPAINT" if stage.image_to_inpaint is not None:
                return self._inpaint(path, stage.image_to_inpaint)
        self._judge.refuse(path, "this block is needed")
        return None

    def _diffusion(self, path: str, block: schemas.Diffusion) -> DiffusionStage:
        self._base = self._painting(path, block)
        self._size = self._base.size
        return DiffusionStage(self._base, self._guides(path, block))

    def _guides(self, path: str, block: schemas.Diffusion) -> Guides | None:
        means = ControlMeans(self._judge, self._means.table, self._has_network, self._picture)
        return guides(f"{path}.controlnet", block.controlnet, means)

    def _has_network(self, kind: GuideKind) -> bool:
        from fooocus_core.models.guide_models import CONTROL_FILES

        file = CONTROL_FILES[kind]
        return self._means.library.find(file.folder, file.name) is not None

    def _own_or_base(self, path: str, block: schemas.Diffusion | None, *, prefers_own: bool = False) -> Painting:
        """The parameters of a stage: those of the ``DIFFUSION`` stage, where there is one, else its own."""
        if self._has_diffusion and not (prefers_own and block is not None):
            return self._base or _NOBODYS
        if block is None:
            self._judge.refuse(f"{path}.diffusion", "this block is needed without a DIFFUSION stage")
            return _NOBODYS
        return self._painting(f"{path}.diffusion", block)

    # ------------------------------------------------------------------------------------------------------ diffusion

    def _painting(self, path: str, block: schemas.Diffusion) -> Painting:
        judge = self._judge
        self._decline_extras(path, block)
        steps, cfg, strength = block.steps or USUAL_STEPS, block.cfg_scale or USUAL_CFG, block.denoising_strength
        judge.within(f"{path}.steps", steps, 1, MAX_STEPS)
        judge.within(f"{path}.cfgScale", cfg, 0, MAX_CFG)
        judge.within(f"{path}.denoisingStrength", strength, 0, 1)
        judge.within(f"{path}.etaNoiseSeedDelta", block.eta_noise_seed_delta, -(2**31), 2**31 - 1)
        self._check_clip_skip(f"{path}.clipSkip", block.clip_skip)
        sampler, schedule = self._sampler(path, block)
        model = self._checkpoint(f"{path}.sdModel", block.sd_model)
        return Painting(
            size=self._block_size(path, block),
            prompt=self._text(f"{path}.prompts", block.prompts),
            negative_prompt=self._text(f"{path}.negativePrompts", block.negative_prompts),
            checkpoint=self._file_of(model),
            vae=self._vae(f"{path}.sdVae", block.sd_vae, model),
            loras=self._loras(f"{path}.lora", block.lora),
            sampler=sampler,
            schedule=schedule,
            steps=steps,
            cfg_scale=cfg,
            strength=strength or USUAL_STRENGTH,
            eta_noise_seed_delta=block.eta_noise_seed_delta or 0,
        )

    def _decline_extras(self, path: str, block: schemas.Diffusion) -> None:
        """What this server does not do; an empty list asks for nothing."""
        if block.animate_diff is not None and block.animate_diff.args:
            self._judge.decline(f"{path}.animateDiff", "videos are not offered by this server")

    def _block_size(self, path: str, block: schemas.Diffusion) -> Size:
        size = Size(block.width or USUAL_SIDE_PX, block.height or USUAL_SIDE_PX)
        step_px = LENIENT_STEP_PX if self._means.allows_small_steps else STEP_PX
        has_good_sides = True
        for name, side_px in (("width", size.width_px), ("height", size.height_px)):
            if not SHORTEST_SIDE_PX <= side_px <= LONGEST_SIDE_PX or side_px % step_px:
                reason = f"must be from {SHORTEST_SIDE_PX} to {LONGEST_SIDE_PX}, in steps of {step_px}"
                self._judge.refuse(f"{path}.{name}", reason, BAD_SIZE)
                has_good_sides = False
        if has_good_sides and not SMALLEST_AREA_PX <= size.width_px * size.height_px <= LARGEST_AREA_PX:
            reason = f"width * height must be from {SMALLEST_AREA_PX} to {LARGEST_AREA_PX}"
            self._judge.refuse(path, reason, BAD_SIZE)
        return size

    def _text(self, field: str, prompts: Sequence[schemas.Prompt] | None) -> str:
        if len(prompts or ()) > MAX_ENTRIES:
            self._judge.refuse(field, f"at most {MAX_ENTRIES} entries are allowed")
            return ""
        text = joined(prompts)
        if len(text) > self._means.max_prompt_characters:
            self._judge.refuse(field, f"at most {self._means.max_prompt_characters} characters are allowed")
        return text

    def _sampler(self, path: str, block: schemas.Diffusion) -> tuple[str, str]:
        """Sampler and schedule by the core's names."""
        named = find_sampler(block.sampler or DEFAULT_SAMPLER)
        if named is None:
            self._judge.refuse(f"{path}.sampler", f"unknown sampler {_shown(block.sampler)}")
        schedule = (block.schedule_name or "").strip().lower()
        if schedule and schedule not in WEB_UI_SCHEDULER_NAMES:
            self._judge.refuse(f"{path}.scheduleName", f"one of {', '.join(WEB_UI_SCHEDULER_NAMES)} is needed")
        return (named.sampler, schedule or named.schedule) if named else ("", "")

    def _check_clip_skip(self, field: str, value: int | None) -> None:
        if not value:
            return
        self._judge.within(field, value, 1, MAX_CLIP_SKIP)
        if value > TRAINED_CLIP_SKIP:
            logger.warning("%s: SDXL is read at the layer it was trained for, whatever this says", field)

    # --------------------------------------------------------------------------------------------------------- models

    def _checkpoint(self, field: str, model_id: str | None) -> ModelEntry | None:
        table = self._means.table
        model = table.checkpoint(model_id or table.default_checkpoint)
        if model is None:
            reason = f"there is no model {_shown(model_id)} in the table of models" if model_id else "is needed"
            self._judge.refuse(field, reason)
        elif model.type != CHECKPOINT:
            self._judge.refuse(field, f"is a {model.type}, not a {CHECKPOINT}")
        elif model_id and model.id != model_id:
            logger.warning("%s: no model %s in the table, the default is used", field, _shown(model_id))
        return model

    def _file_of(self, model: ModelEntry | None) -> str:
        asked = model.file if model is not None and model.file else None
        return choose_checkpoint(asked, self._means.preset, self._means.library)

    def _vae(self, field: str, name: str | None, model: ModelEntry | None) -> str | None:
        """The autoencoder's file; ``None`` is the one within the checkpoint."""
        spelt = (name or AUTOMATIC_VAE).strip().lower()
        if spelt == NO_VAE:
            return None
        mapped = self._means.table.named("vaes", spelt)
        if mapped is None and spelt not in (AUTOMATIC_VAE, *OLDER_VAES):
            self._judge.refuse(field, f"there is no autoencoder {_shown(name)}")
            return None
        file = file_in(mapped) or (model.vae if model is not None else "")
        if spelt in OLDER_VAES:
            logger.warning("%s: %s is of no use to SDXL, the checkpoint's own is used", field, spelt)
        found = self._means.library.find("vae", file) if file else None
        if file and found is None:
            logger.warning("%s: no file %s, the checkpoint's own autoencoder is used", field, file)
        return found

    def _loras(self, path: str, lora: schemas.Lora | None) -> tuple[Lora, ...]:
        items = (lora.items if lora is not None else None) or ()
        if len(items) > MAX_LORAS:
            self._judge.refuse(f"{path}.items", f"at most {MAX_LORAS} are allowed")
            return ()
        found = (self._lora(f"{path}.items[{place}]", item) for place, item in enumerate(items))
        return tuple(lora for lora in found if lora is not None)

    def _lora(self, path: str, item: schemas.LoraItem) -> Lora | None:
        weight = 1.0 if item.weight is None else item.weight
        self._judge.within(f"{path}.weight", weight, -MAX_LORA_WEIGHT, MAX_LORA_WEIGHT)
        model = self._means.table.models.get(item.lora_model or "")
        if model is None:
            reason = f"there is no model {_shown(item.lora_model)} in the table of models"
            self._judge.refuse(f"{path}.loraModel", reason if item.lora_model else "is needed")
            return None
        if model.type not in LORA_TYPES:
            self._judge.refuse(f"{path}.loraModel", f"is a {model.type}; one of {', '.join(LORA_TYPES)} is needed")
            return None
        file = self._means.library.find("loras", model.file)
        if file is None:
            logger.warning("%s: no file %s, the LoRA is left out", path, model.file)
        return Lora(file, weight) if file is not None and weight else None

    # -------------------------------------------------------------------------------------------------------- upscaler

    def _upscaler(self, path: str, block: schemas.ImageToUpscaler) -> UpscalerStage:
        judge = self._judge
        painting = self._own_or_base(path, block.diffusion)
        own = None if self._has_diffusion else block.diffusion
        for name, value in (
            ("hrSecondPassSteps", block.hr_second_pass_steps),
            ("denoisingStrength", block.denoising_strength),
        ):
            if value is None:
                judge.refuse(f"{path}.{name}", "is needed")
        judge.within(f"{path}.hrSecondPassSteps", block.hr_second_pass_steps, 0, MAX_STEPS)
        judge.within(f"{path}.denoisingStrength", block.denoising_strength, 0, 1)
        enlarging = self._target(path, block, self._enlarging(f"{path}.hrUpscaler", block.hr_upscaler))
        self._size = self._upscaled(path, self._size or painting.size, enlarging)
        return UpscalerStage(
            painting=painting,
            enlarging=enlarging,
            upscaler=block.hr_upscaler or "",
            size=self._size,
            steps=block.hr_second_pass_steps or painting.steps,
            strength=block.denoising_strength or 0.0,
            guides=None if own is None else self._guides(f"{path}.diffusion", own),
        )

    def _enlarging(self, field: str, name: str | None) -> Enlarging:
        spelt = (name or "").strip().lower()
        plain = PLAIN_ENLARGING.get(spelt)
        if plain is not None:
            if plain.startswith("latent") and self._starts_from_picture and self._has_diffusion:
                self._judge.refuse(field, "an upscaler of the Latent family cannot follow an image to image")
            return Enlarging(plain)
        mapped = self._means.table.named("upscalers", spelt)
        if not spelt or (mapped is None and spelt not in NETWORKS):
            self._judge.refuse(field, f"unknown upscaler {_shown(name)}" if spelt else "is needed")
        file = file_in(mapped)
        found = self._means.library.find("upscale_models", file) if file else None
        if found is None:
            logger.warning("%s: no file for %s, the server's own upscaler stands in", field, _shown(name))
        return Enlarging("network", found, stands_for="" if found or name is None else name.strip())

    def _target(self, path: str, block: schemas.ImageToUpscaler, enlarging: Enlarging) -> Enlarging:
        """The size that is asked for: a factor above sides."""
        if block.hr_scale:
            if not 0 < block.hr_scale <= MAX_SCALE:
                self._judge.refuse(f"{path}.hrScale", f"must be above 0 and up to {MAX_SCALE:g}")
            return replace(enlarging, factor=max(block.hr_scale, 0.01))
        sides = {"hrResizeX": block.hr_resize_x or None, "hrResizeY": block.hr_resize_y or None}
        step_px = LENIENT_STEP_PX if self._means.allows_small_steps else STEP_PX
        for name, side_px in sides.items():
            if side_px is not None and (side_px < SHORTEST_UPSCALED_PX or side_px % step_px):
                reason = f"must be at least {SHORTEST_UPSCALED_PX}, in steps of {step_px}"
                self._judge.refuse(f"{path}.{name}", reason, BAD_SIZE)
        if not any(sides.values()):
            self._judge.refuse(path, "hrScale, or one of hrResizeX and hrResizeY, is needed")
            return replace(enlarging, factor=1.0)
        width_px, height_px = sides.values()
        return replace(enlarging, width_px=width_px, height_px=height_px)

    def _upscaled(self, path: str, source: Size, enlarging: Enlarging) -> Size:
        from fooocus_core.images.enlarging import enlarged_size

        size = enlarged_size(source, enlarging)
        if not is_allowed_once_enlarged(size):
            limits = f"{SMALLEST_AREA_PX} to {LARGEST_UPSCALED_PX} are allowed"
            reason = f"the result would have {size.width_px} * {size.height_px} pixels; {limits}"
            self._judge.refuse(path, reason, BAD_SIZE)
        return size

    # ------------------------------------------------------------------------------------------------------- adetailer

    def _adetailer(self, path: str, block: schemas.ImageToAdetailer) -> AdetailerStage:
        painting = self._own_or_base(path, block.diffusion)
        if not self._has_diffusion:
            self._decline_guides(f"{path}.diffusion", block.diffusion, "steer whole pictures, not the parts of them")
        args = block.args or []
        if len(args) > MAX_PARTS_ARGS:
            self._judge.refuse(f"{path}.args", f"at most {MAX_PARTS_ARGS} entries are allowed")
            args = []
        parts = (self._parts_arg(f"{path}.args[{place}]", arg, painting) for place, arg in enumerate(args))
        return AdetailerStage(painting, tuple(parts), self._priced_size(painting))

    def _decline_guides(self, path: str, block: schemas.Diffusion | None, reason: str) -> None:
        if block is not None and asked_entries("", block.controlnet):
            self._judge.decline(f"{path}.controlnet", f"control networks {reason}")

    def _parts_arg(self, path: str, arg: schemas.AdetailerArg, base: Painting) -> PartsArg:
        painting = self._own_painting(path, arg, base)
        merge = _MERGES.get((arg.ad_mask_merge_invert or "None").strip().lower())
        if merge is None:
            self._judge.refuse(f"{path}.adMaskMergeInvert", "one of None, Merge, Merge and Invert is needed")
        for name, value, lowest, highest in (
            ("adConfidence", arg.ad_confidence, 0, 1),
            ("adDenoisingStrength", arg.ad_denoising_strength, 0, 1),
            ("adDilateErode", arg.ad_dilate_erode, -MAX_DILATION_PX, MAX_DILATION_PX),
            ("adInpaintOnlyMaskedPadding", arg.ad_inpaint_only_masked_padding, 0, MAX_PADDING_PX),
            ("adNoiseMultiplier", arg.ad_noise_multiplier, 0, 10),
        ):
            self._judge.within(f"{path}.{name}", value, lowest, highest)
        self._check_clip_skip(f"{path}.adClipSkip", arg.ad_clip_skip)
        return PartsArg(
            search=self._search(f"{path}.adModel", arg.ad_model or USUAL_DETECTOR, _said(arg.ad_confidence, 0.3)),
            prompts=self._part_texts(f"{path}.adPrompt", arg.ad_prompt, base.prompt),
            negative_prompts=self._part_texts(f"{path}.adNegativePrompt", arg.ad_negative_prompt, base.negative_prompt),
            dilate_px=_said(arg.ad_dilate_erode, 4),
            merge=merge or "none",
            strength=_said(arg.ad_denoising_strength, 0.4),
            area=MaskedArea(
                blur_px=4.0,
                only_masked=_said(arg.ad_inpaint_only_masked, True),
                padding_px=round(_said(arg.ad_inpaint_only_masked_padding, 32.0)),
            ),
            painting=painting,
            noise_multiplier=_said(arg.ad_noise_multiplier, 1.0) if arg.ad_use_noise_multiplier else 1.0,
            priced_steps=painting.steps,
        )

    def _search(self, field: str, name: str, confidence: float) -> PartSearch | None:
        part = part_of(name.strip(), self._means.table.named("detectors", name))
        if part is None:
            self._judge.refuse(field, f"unknown detector {_shown(name)}")
            return None
        search = search_for(part, confidence, self._means.library)
        if search is None:
            logger.warning("%s: the files that find a %s are not there, so none is found", field, part.name)
        return search

    def _own_painting(self, path: str, arg: schemas.AdetailerArg, base: Painting) -> Painting:
        """The stage's parameters with those that this entry has of its own."""
        painting = replace(base, loras=(*base.loras, *self._loras(f"{path}.lora", arg.lora)))
        if arg.ad_use_steps:
            self._judge.within(f"{path}.adSteps", _said(arg.ad_steps, USUAL_AD_STEPS), 1, MAX_STEPS)
            painting = replace(painting, steps=_said(arg.ad_steps, USUAL_AD_STEPS))
        if arg.ad_use_cfg_scale:
            self._judge.within(f"{path}.adCfgScale", _said(arg.ad_cfg_scale, USUAL_CFG), 0, MAX_CFG)
            painting = replace(painting, cfg_scale=_said(arg.ad_cfg_scale, USUAL_CFG))
        if arg.ad_use_sampler:
            named = find_sampler(arg.ad_sampler or DEFAULT_SAMPLER)
            if named is None:
                self._judge.refuse(f"{path}.adSampler", f"unknown sampler {_shown(arg.ad_sampler)}")
            else:
                painting = replace(painting, sampler=named.sampler, schedule=named.schedule)
        if arg.ad_use_checkpoint:
            model = self._checkpoint(f"{path}.adCheckpoint", arg.ad_checkpoint)
            painting = replace(painting, checkpoint=self._file_of(model))
        if arg.ad_use_inpaint_width_height:
            painting = replace(painting, size=self._part_size(path, arg))
        return replace(painting, size=not_smaller(painting.size, self._means.parts_floor_px))

    def _part_size(self, path: str, arg: schemas.AdetailerArg) -> Size:
        size = Size(_said(arg.ad_inpaint_width, USUAL_SIDE_PX), _said(arg.ad_inpaint_height, USUAL_SIDE_PX))
        for name, side_px in (("adInpaintWidth", size.width_px), ("adInpaintHeight", size.height_px)):
            if not STEP_PX <= side_px <= MAX_AD_SIDE_PX or side_px % LENIENT_STEP_PX:
                reason = f"must be from {STEP_PX} to {MAX_AD_SIDE_PX}, in steps of {LENIENT_STEP_PX}"
                self._judge.refuse(f"{path}.{name}", reason, BAD_SIZE)
        return size

    def _part_texts(self, field: str, prompts: Sequence[schemas.Prompt] | None, main: str) -> tuple[str, ...]:
        self._text(field, prompts)
        return for_each_part(prompts, main)

    # --------------------------------------------------------------------------------------------------------- inpaint

    def _inpaint(self, path: str, block: schemas.ImageToInpaint) -> InpaintStage:
        judge = self._judge
        painting = self._own_or_base(path, block.diffusion, prefers_own=True)
        if not block.mask_image_resource_id:
            judge.refuse(f"{path}.maskImageResourceId", "is needed")
        self._picture(f"{path}.maskImageResourceId", block.mask_image_resource_id)
        judge.within(f"{path}.maskBlur", block.mask_blur, 0, MAX_MASK_BLUR_PX)
        judge.within(f"{path}.inpaintFullResPadding", block.inpaint_full_res_padding, 0, MAX_PADDING_PX)
        judge.within(f"{path}.inpaintMaskInvert", block.inpaint_mask_invert, 0, 1)
        area = MaskedArea(
            invert=bool(block.inpaint_mask_invert),
            blur_px=_said(block.mask_blur, 4.0),
            only_masked=_said(block.inpaint_full_res, True),
            padding_px=_said(block.inpaint_full_res_padding, 32),
            content=_CONTENTS.get(block.inpainting_fill or "", "original"),
            resize=_RESIZES.get(block.resize_mode or "", "stretch"),
        )
        if area.only_masked:
            self._decline_guides(f"{path}.diffusion", block.diffusion, "need inpaintFullRes to be false")
        stage = InpaintStage(
            painting=painting,
            mask=block.mask_image_resource_id or "",
            area=area,
            size=self._priced_size(painting),
            priced_steps=(self._base or painting).steps,
            guides=None if block.diffusion is None else self._guides(f"{path}.diffusion", block.diffusion),
        )
        self._size = self._size if area.only_masked else painting.size
        return stage

    def _priced_size(self, painting: Painting) -> Size:
        """That of the stage before; the picture that was uploaded is none."""
        return (self._size if self._has_made_pictures else None) or painting.size


def not_smaller(size: Size, floor_px: int) -> Size:
    """The size, or one of its proportions with at least the area of a square of ``floor_px``, in steps of 8."""
    factor = math.sqrt(floor_px**2 / (size.width_px * size.height_px))
    if factor <= 1:
        return size
    return Size(*(math.ceil(side_px * factor / LENIENT_STEP_PX) * LENIENT_STEP_PX for side_px in size))


def _said(value: T | None, default: T) -> T:
    return default if value is None else value


def _shown(name: str | None) -> str:
    return repr((name or "")[:64])
