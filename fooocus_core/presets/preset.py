"""Named defaults, read from JSON files in Fooocus's preset format (specification 01, section 12; 08, section 5).

The bundled files lie beside this module; the user's folders are looked at first. A value that cannot be used is
logged and the default taken in its place, so that a hand-written file never stops the server.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeGuard, TypeVar, get_args

from fooocus_core.errors import InvalidRequest
from fooocus_core.plan import Guidance, ImageFormat, Lora, MetadataScheme, Performance, Sampling
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
NO_MODEL: Final = ("", "None", "Default (model)")
"""Texts that stand for no file at all."""
DEFAULT_SIZE: Final = Size(1152, 896)


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
    clip_skip: int = 2
    guidance: Guidance = field(default_factory=Guidance)
    sampler: str = Sampling.sampler
    scheduler: str = Sampling.scheduler
    performance: Performance = "Speed"
    overwrite_steps: int | None = None
    """``None``: the mode's own steps."""
    prompt: str = ""
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()
    size: Size = DEFAULT_SIZE
    image_format: ImageFormat = "png"
    save_metadata: bool = False
    metadata_scheme: MetadataScheme = "fooocus"


def list_presets(folders: Sequence[Path] = ()) -> tuple[str, ...]:
    """``initial`` and the names of all preset files, sorted."""
    return (INITIAL, *sorted(_preset_files(folders)))


def load_preset(name: str, folders: Sequence[Path] = (), config: Mapping[str, Any] | None = None) -> Preset:
    """The preset called ``name`` in any case, from the first of ``folders`` that has it, else a bundled one.

    Its keys stand above those of ``config`` (the contents of ``config.txt``), which stand above the default preset's.
    Names are compared, never joined to a path, so no name leads outside the folders. Raises ``InvalidRequest`` for an
    unknown name.
    """
    files = _preset_files(folders)
    known = {stem.lower(): stem for stem in (INITIAL, *files)}
    found = known.get(name.strip().lower())
    if found is None:
        raise InvalidRequest.unknown_name("preset", name, list_presets(folders))
    own = read_settings(files[found]) if found in files else {}
    return preset_from_settings(found, {**read_settings(BUNDLED_FOLDER / "default.json"), **(config or {}), **own})


def choose_default_preset(
    checkpoint_names: Sequence[str], folders: Sequence[Path] = (), config: Mapping[str, Any] | None = None
) -> Preset:
    """The preset of a server that was not told one, from the checkpoints on disk.

    The configured defaults if their checkpoint or one of its predecessors is there; else the same settings with the
    first other checkpoint; else, with nothing but the bundled model, the preset made for it.
    """
    pocket = load_preset(POCKET, folders)
    default = load_preset(INITIAL, folders, config)
    if first_on_disk((default.checkpoint, *default.previous_checkpoints), checkpoint_names) is not None:
        return default
    others = [name for name in checkpoint_names if PurePosixPath(name).name != pocket.checkpoint]
    return replace(default, checkpoint=others[0], previous_checkpoints=()) if others else pocket


def first_on_disk(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of ``wanted`` that is listed, by its full name or in any sub-folder; as it is listed."""
    for name in wanted:
        for listed in names:
            if listed == name or PurePosixPath(listed).name == name:
                return listed
    return None


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object from a preset file or ``config.txt``; nothing, and a warning, if there is none to be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("settings file skipped: %s: %s", path.name, error)
        return {}
    if not isinstance(values, dict):
        log.warning("settings file skipped: %s: not a JSON object", path.name)
        return {}
    return values


def preset_from_settings(name: str, values: Mapping[str, Any]) -> Preset:
    """The record of ``default_*`` keys as Fooocus writes them; unusable values are logged and left at their default."""
    settings = _Settings(name, values)
    base = Preset(name)
    return Preset(
        name=name,
        checkpoint=settings.text("default_model", base.checkpoint),
        previous_checkpoints=settings.texts("previous_default_models", base.previous_checkpoints),
        refiner=settings.model("default_refiner"),
        refiner_switch=settings.number("default_refiner_switch", base.refiner_switch, 0.1, 1.0),
        vae=settings.model("default_vae"),
        loras=_loras(settings),
        max_loras=_max_loras(settings),
        clip_skip=int(settings.number("default_clip_skip", base.clip_skip, 1, 12)),
        guidance=Guidance(
            scale=settings.number("default_cfg_scale", base.guidance.scale, 1.0, 30.0),
            sharpness=settings.number("default_sample_sharpness", base.guidance.sharpness, 0.0, 30.0),
            adaptive_scale=settings.number("default_cfg_tsnr", base.guidance.adaptive_scale, 1.0, 30.0),
        ),
        sampler=settings.choice("default_sampler", base.sampler, SAMPLER_NAMES),
        scheduler=settings.choice("default_scheduler", base.scheduler, SCHEDULER_NAMES),
        performance=settings.choice("default_performance", base.performance, tuple(MODES)),
        overwrite_steps=_overwrite_steps(settings),
        prompt=settings.text("default_prompt", base.prompt),
        negative_prompt=settings.text("default_prompt_negative", base.negative_prompt),
        styles=settings.texts("default_styles", base.styles),
        size=_size(settings, base.size),
        image_format=settings.choice("default_output_format", base.image_format, get_args(ImageFormat)),
        save_metadata=settings.flag("default_save_metadata_to_images", base.save_metadata),
        metadata_scheme=settings.choice("default_metadata_scheme", base.metadata_scheme, get_args(MetadataScheme)),
    )


class _Settings:
    """Typed, forgiving access to the keys of one preset."""

    def __init__(self, preset: str, values: Mapping[str, Any]) -> None:
        self._preset = preset
        self._values = values

    def raw(self, key: str) -> Any:
        """The value as it stands in the file; ``None`` if absent."""
        return self._values.get(key)

    def text(self, key: str, default: str) -> str:
        value = self.raw(key)
        return value if isinstance(value, str) else self._default(key, value, default)

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self.raw(key)
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        return self._default(key, value, default)

    def model(self, key: str) -> str | None:
        """A file name, or ``None`` for the texts that mean no file."""
        name = self.text(key, "")
        return None if name in NO_MODEL else name

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw(key)
        return value if isinstance(value, bool) else self._default(key, value, default)

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self.raw(key)
        return float(value) if is_number(value, low, high) else self._default(key, value, float(default))

    def choice(self, key: str, default: Text, known: tuple[Text, ...]) -> Text:
        value = self.raw(key)
        return next((name for name in known if name == value), None) or self._default(key, value, default)

    def _default(self, key: str, value: object, default: Value) -> Value:
        if value is not None:
            log.warning("preset value ignored: %s: %s=%r", self._preset, key, value)
        return default


def is_number(value: object, low: float, high: float) -> TypeGuard[int | float]:
    """Whether ``value`` is a finite number (a truth value is none) within ``low`` ... ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return low <= value <= high and math.isfinite(value)


def _loras(settings: _Settings) -> tuple[Lora, ...]:
    """The enabled, named slots of ``[enabled, name, weight]`` or ``[name, weight]`` entries, in order."""
    slots = settings.raw("default_loras")
    return tuple(lora for slot in slots if (lora := _lora(slot))) if isinstance(slots, list) else ()


def _lora(slot: object) -> Lora | None:
    enabled, name, weight = _slot(slot)
    if enabled is not True or not isinstance(name, str) or name in NO_MODEL:
        return None
    if not is_number(weight, MIN_LORA_WEIGHT, MAX_LORA_WEIGHT):
        log.warning("preset's LoRA ignored: %r with weight %r", name, weight)
        return None
    return Lora(name, float(weight))


def _slot(slot: object) -> tuple[Any, Any, Any]:
    match slot:
        case [enabled, name, weight]:
            return enabled, name, weight
        case [name, weight]:
            return True, name, weight
        case _:
            return False, None, None


def _max_loras(settings: _Settings) -> int:
    """As many as said, else as many as the list has slots, else five (specification 08, section 5)."""
    slots = settings.raw("default_loras")
    default = len(slots) if isinstance(slots, list) and slots else 5
    return int(settings.number("default_max_lora_number", default, 1, 100))


def _overwrite_steps(settings: _Settings) -> int | None:
    steps = int(settings.number("default_overwrite_step", -1, -1, 200))
    return steps if steps > 0 else None


def _size(settings: _Settings, default: Size) -> Size:
    try:
        return parse_size(settings.text("default_aspect_ratio", f"{default.width_px}*{default.height_px}"))
    except InvalidRequest as error:
        log.warning("preset value ignored: %s", error)
        return default


def _preset_files(folders: Sequence[Path]) -> dict[str, Path]:
    """Preset name -> file; the first folder that has a name wins, whatever its case."""
    files: dict[str, Path] = {}
    seen: set[str] = set()
    for folder in (*folders, BUNDLED_FOLDER):
        for path in sorted(folder.glob("*.json")):
            if path.stem.lower() not in seen:
                seen.add(path.stem.lower())
                files[path.stem] = path
    return files
