"""Named defaults, read from JSON files in Fooocus's preset format (specification 01, section 12; 08, section 5).

The bundled files lie beside this module; the user's folders are looked at first. A value that cannot be used is
logged and the next default taken in its place, so that a hand-written file never stops the server.
"""

from __future__ import annotations

import logging
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple, TypeGuard, TypeVar, get_args

from fooocus_core.errors import InvalidRequest
from fooocus_core.library import POCKET_NAME, ModelKind
from fooocus_core.plan import Guidance, ImageFormat, InpaintEngine, Lora, MetadataScheme, Performance, Sampling
from fooocus_core.presets.config_file import Config, Layer, read_layer
from fooocus_core.presets.modes import MODES
from fooocus_core.presets.sizes import Size, parse_size
from fooocus_core.sampling.names import SAMPLER_NAMES, SCHEDULER_NAMES

log = logging.getLogger(__name__)

Text = TypeVar("Text", bound=str)
Value = TypeVar("Value")

BUNDLED_FOLDER: Final = Path(__file__).parent
INITIAL: Final = "initial"
"""The preset that is no file: the configured defaults."""
DEFAULT: Final = "default"
POCKET: Final = "pocket"
MIN_LORA_WEIGHT: Final = -2.0
MAX_LORA_WEIGHT: Final = 2.0
WIDEST_LORA_WEIGHT: Final = 10.0
"""How far a preset may move either limit."""
MAX_LORAS: Final = 100
NO_CONFIG: Final = Config()
NO_MODEL: Final = ("", "None", "Default (model)")
"""Texts that stand for no file at all."""
DEFAULT_SIZE: Final = Size(1152, 896)


class Download(NamedTuple):
    """Where a file of a preset is published."""

    kind: ModelKind
    name: str
    url: str


_DOWNLOADS: Final[Mapping[str, ModelKind]] = {
    "checkpoint_downloads": "checkpoints",
    "lora_downloads": "loras",
    "embeddings_downloads": "embeddings",
    "vae_downloads": "vae",
}


@dataclass(frozen=True)
class Preset:
    """What is used where a request says nothing. Weight files are names; they need not be on disk."""

    name: str
    checkpoint: str = "juggernautXL_v8Rundiffusion.safetensors"
    previous_checkpoints: tuple[str, ...] = ()
    """Stand in, in this order, for a checkpoint that is not on disk."""
    refiner: str | None = None
    refiner_switch: float = 0.5
    vae: str | None = None
    loras: tuple[Lora, ...] = ()
    max_loras: int = 5
    min_lora_weight: float = MIN_LORA_WEIGHT
    max_lora_weight: float = MAX_LORA_WEIGHT
    clip_skip: int = 2
    guidance: Guidance = field(default_factory=Guidance)
    sampler: str = Sampling.sampler
    scheduler: str = Sampling.scheduler
    performance: Performance = "Speed"
    overwrite_steps: int | None = None
    """``None``: the mode's own steps."""
    overwrite_switch: float | None = None
    """Where a refiner takes over in place of ``refiner_switch``, as a request says it; ``None``: not said."""
    prompt: str = ""
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()
    size: Size = DEFAULT_SIZE
    inpaint_engine: InpaintEngine = "v2.6"
    image_format: ImageFormat = "png"
    save_metadata: bool = False
    metadata_scheme: MetadataScheme = "fooocus"
    created_by: str = ""
    """A name for the metadata of every picture."""
    downloads: tuple[Download, ...] = ()


def list_presets(folders: Sequence[Path] = ()) -> tuple[str, ...]:
    """``initial`` and the names of all preset files, sorted."""
    return (INITIAL, *sorted(preset_files(folders)))


def list_downloads(folders: Sequence[Path] = (), config: Config = NO_CONFIG) -> tuple[Download, ...]:
    """What the environment, ``config.txt`` and every preset give addresses for; for the same file they may differ."""
    presets = (read_layer(path) for path in preset_files(folders).values())
    return tuple(
        download for layer in (config.environment, config.file, *presets) for download in _downloads(_Settings([layer]))
    )


def load_preset(name: str, folders: Sequence[Path] = (), config: Config = NO_CONFIG) -> Preset:
    """The preset called ``name`` in any case, from the first of ``folders`` that has it, else a bundled one.

    Its keys stand above those of ``config``'s file, which stand above the default preset's. Names are compared, never
    joined to a path, so no name leads outside the folders. Raises ``InvalidRequest`` for an unknown name.
    """
    files = preset_files(folders)
    known = {stem.lower(): stem for stem in (INITIAL, *files)}
    found = known.get(name.strip().lower())
    if found is None:
        raise InvalidRequest.unknown_name("preset", name, list_presets(folders))
    own = (read_layer(files[found]),) if found in files else ()
    default = read_layer(files[known[DEFAULT]])
    return preset_from_layers(found, (config.environment, *own, config.file, default))


def choose_default_preset(
    checkpoint_names: Sequence[str], folders: Sequence[Path] = (), config: Config = NO_CONFIG
) -> Preset:
    """The preset of a server that was not told one, from the checkpoints on disk.

    The configured defaults if their checkpoint or one of its predecessors is there; else the same settings with the
    first other checkpoint; else, with nothing but the bundled model, the preset made for it.
    """
    default = load_preset(INITIAL, folders, config)
    if first_on_disk((default.checkpoint, *default.previous_checkpoints), checkpoint_names) is not None:
        return default
    others = [name for name in checkpoint_names if PurePosixPath(name).name != POCKET_NAME]
    if others:
        return replace(default, checkpoint=others[0], previous_checkpoints=())
    return load_preset(POCKET, folders, config)


def first_on_disk(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of ``wanted`` that is listed, by its full name or in any sub-folder; as it is listed."""
    for name in wanted:
        for listed in names:
            if listed == name or PurePosixPath(listed).name == name:
                return listed
    return None


def preset_from_layers(name: str, layers: Sequence[Layer]) -> Preset:
    """The record of ``default_*`` keys as Fooocus writes them, each from the first layer with a value of use for it."""
    settings = _Settings(layers)
    base = Preset(name)
    lowest, highest = _lora_limits(settings, base)
    slots = _lora_slots(settings)
    return Preset(
        name=name,
        checkpoint=settings.text("default_model", base.checkpoint),
        previous_checkpoints=settings.texts("previous_default_models", base.previous_checkpoints),
        refiner=settings.model("default_refiner"),
        refiner_switch=settings.number("default_refiner_switch", base.refiner_switch, 0.1, 1.0),
        vae=settings.model("default_vae"),
        loras=tuple(lora for slot in slots if (lora := _lora(slot, lowest, highest))),
        max_loras=settings.whole("default_max_lora_number", len(slots) or base.max_loras, 1, MAX_LORAS),
        min_lora_weight=lowest,
        max_lora_weight=highest,
        clip_skip=settings.whole("default_clip_skip", base.clip_skip, 1, 12),
        guidance=Guidance(
            scale=settings.number("default_cfg_scale", base.guidance.scale, 1.0, 30.0),
            sharpness=settings.number("default_sample_sharpness", base.guidance.sharpness, 0.0, 30.0),
            adaptive_scale=settings.number("default_cfg_tsnr", base.guidance.adaptive_scale, 1.0, 30.0),
        ),
        sampler=settings.choice("default_sampler", base.sampler, SAMPLER_NAMES),
        scheduler=settings.choice("default_scheduler", base.scheduler, SCHEDULER_NAMES),
        performance=settings.choice("default_performance", base.performance, tuple(MODES)),
        overwrite_steps=_overwrite_steps(settings),
        overwrite_switch=_overwrite_switch(settings),
        prompt=settings.text("default_prompt", base.prompt, is_empty_said=True),
        negative_prompt=settings.text("default_prompt_negative", base.negative_prompt, is_empty_said=True),
        styles=settings.texts("default_styles", base.styles),
        size=_size(settings, base.size),
        inpaint_engine=settings.choice("default_inpaint_engine_version", base.inpaint_engine, get_args(InpaintEngine)),
        image_format=settings.choice("default_output_format", base.image_format, get_args(ImageFormat)),
        save_metadata=settings.flag("default_save_metadata_to_images", base.save_metadata),
        metadata_scheme=settings.choice("default_metadata_scheme", base.metadata_scheme, get_args(MetadataScheme)),
        created_by=settings.text("metadata_created_by", base.created_by),
        downloads=_downloads(settings),
    )


class _Settings:
    """Typed, forgiving access to the keys of several layers, the first of which counts most."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers

    def first(
        self, key: str, read: Callable[[Any], Value | None], expected: str, is_empty_said: bool = False
    ) -> Value | None:
        """What ``read`` makes of the first value of use; an unusable one is logged with its key.

        ``read`` returns ``None`` for a value that is not as ``expected``. Empty texts and nulls say nothing.
        """
        for source, values in self._layers:
            value = values.get(key)
            if value is None or (value == "" and not is_empty_said):
                continue
            found = read(value)
            if found is not None:
                return found
            log.warning("%s: %s must be %s, got %s; ignored", source, key, expected, reprlib.repr(value))
        return None

    def text(self, key: str, default: str, is_empty_said: bool = False) -> str:
        found = self.first(key, lambda value: value if isinstance(value, str) else None, "a text", is_empty_said)
        return default if found is None else found

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        found = self.first(key, _texts, "a list of texts")
        return default if found is None else found

    def model(self, key: str) -> str | None:
        """A file name, or ``None`` for the texts that mean no file."""
        name = self.text(key, "")
        return None if name in NO_MODEL else name

    def flag(self, key: str, default: bool) -> bool:
        found = self.first(key, lambda value: value if isinstance(value, bool) else None, "true or false")
        return default if found is None else found

    def number(self, key: str, default: float, low: float, high: float) -> float:
        found = self.first(
            key,
            lambda value: float(value) if is_number(value, low, high) else None,
            f"a number from {low:g} to {high:g}",
        )
        return default if found is None else found

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        found = self.first(
            key,
            lambda value: int(value) if is_number(value, low, high) and value == int(value) else None,
            f"a whole number from {low} to {high}",
        )
        return default if found is None else found

    def addresses(self, key: str) -> Mapping[str, str]:
        """File names and where they are published."""
        return self.first(key, _addresses, "an object of file names and addresses") or {}

    def choice(self, key: str, default: Text, known: tuple[Text, ...]) -> Text:
        found = self.first(
            key, lambda value: next((name for name in known if name == value), None), f"one of {', '.join(known)}"
        )
        return default if found is None else found


def _downloads(settings: _Settings) -> tuple[Download, ...]:
    return tuple(
        Download(kind, file, url) for key, kind in _DOWNLOADS.items() for file, url in settings.addresses(key).items()
    )


def is_number(value: object, low: float, high: float) -> TypeGuard[int | float]:
    """Whether ``value`` is a finite number (a truth value is none) within ``low`` ... ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return low <= value <= high and math.isfinite(value)


def _texts(value: object) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(entry, str) for entry in value) else None


def _addresses(value: object) -> dict[str, str] | None:
    return value if isinstance(value, dict) and all(isinstance(url, str) for url in value.values()) else None


def _lora_limits(settings: _Settings, base: Preset) -> tuple[float, float]:
    lowest = settings.number("default_loras_min_weight", base.min_lora_weight, -WIDEST_LORA_WEIGHT, WIDEST_LORA_WEIGHT)
    highest = settings.number("default_loras_max_weight", base.max_lora_weight, -WIDEST_LORA_WEIGHT, WIDEST_LORA_WEIGHT)
    if lowest <= highest:
        return lowest, highest
    log.warning("default_loras_min_weight %g is above default_loras_max_weight %g; both ignored", lowest, highest)
    return base.min_lora_weight, base.max_lora_weight


def _lora_slots(settings: _Settings) -> list[Any]:
    """The list as it is written; without other word it has as many slots as LoRAs can be used (08, section 5)."""
    expected = "a list of [enabled, name, weight]"
    return settings.first("default_loras", lambda value: value if isinstance(value, list) else None, expected) or []


def _lora(slot: object, lowest: float, highest: float) -> Lora | None:
    """The LoRA of ``[enabled, name, weight]`` or ``[name, weight]``; ``None`` for a slot that is off or empty."""
    match slot:
        case [bool() as enabled, str() as name, weight]:
            pass
        case [str() as name, weight]:
            enabled = True
        case _:
            log.warning("default_loras: not [enabled, name, weight]: %s; ignored", reprlib.repr(slot))
            return None
    if not enabled or name in NO_MODEL:
        return None
    if not is_number(weight, lowest, highest):
        log.warning(
            "default_loras: %r must have a weight from %g to %g, got %r; ignored", name, lowest, highest, weight
        )
        return None
    return Lora(name, float(weight))


def _overwrite_steps(settings: _Settings) -> int | None:
    steps = settings.whole("default_overwrite_step", -1, -1, 200)
    return steps if steps > 0 else None


def _overwrite_switch(settings: _Settings) -> float | None:
    switch = settings.number("default_overwrite_switch", -1.0, -1.0, 200.0)
    return switch if switch > 0 else None


def _size(settings: _Settings, default: Size) -> Size:
    def read(value: object) -> Size | None:
        try:
            return parse_size(value) if isinstance(value, str) else None
        except InvalidRequest:
            return None

    return settings.first("default_aspect_ratio", read, "a size such as 1152*896") or default


def preset_files(folders: Sequence[Path]) -> dict[str, Path]:
    """Preset name -> file; the first folder that has a name wins, whatever its case."""
    files: dict[str, Path] = {}
    seen: set[str] = set()
    for folder in (*folders, BUNDLED_FOLDER):
        for path in sorted(folder.glob("*.json")):
            if path.stem.lower() not in seen:
                seen.add(path.stem.lower())
                files[path.stem] = path
    return files
