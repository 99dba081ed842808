"""Fooocus's own ``config.txt`` and the environment variables of its keys (specification 08, section 5).

Where several places name a key, the environment stands above presets, presets above ``config.txt``, and that above the
default preset. A value that cannot be used is logged with its key, and the next place is asked.
"""

from __future__ import annotations

import ast
import json
import logging
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from fooocus_core.library import ModelKind

log = logging.getLogger(__name__)

EXPANSION_KEY: Final = "path_fooocus_expansion"
WILDCARDS_KEY: Final = "path_wildcards"
OUTPUTS_KEY: Final = "path_outputs"
PATH_KEYS: Final = (*(f"path_{kind}" for kind in get_args(ModelKind)), EXPANSION_KEY, WILDCARDS_KEY, OUTPUTS_KEY)
TEXT_KEYS: Final = (
    "default_model",
    "default_refiner",
    "default_vae",
    "default_sampler",
    "default_scheduler",
    "default_performance",
    "default_prompt",
    "default_prompt_negative",
    "default_aspect_ratio",
    "default_output_format",
    "default_metadata_scheme",
    "metadata_created_by",
)
OTHER_KEYS: Final = (
    "previous_default_models",
    "default_refiner_switch",
    "default_loras",
    "default_loras_min_weight",
    "default_loras_max_weight",
    "default_max_lora_number",
    "default_cfg_scale",
    "default_sample_sharpness",
    "default_cfg_tsnr",
    "default_clip_skip",
    "default_overwrite_step",
    "default_overwrite_switch",
    "default_styles",
    "default_save_metadata_to_images",
    "checkpoint_downloads",
    "lora_downloads",
    "embeddings_downloads",
    "vae_downloads",
)
BLACK_OUT_KEY: Final = "default_black_out_nsfw"
SERVER_KEYS: Final = (BLACK_OUT_KEY,)
"""No preset has a say in these."""
CONFIG_KEYS: Final = (*PATH_KEYS, *TEXT_KEYS, *OTHER_KEYS, *SERVER_KEYS)
"""All keys that are read; what belongs to the original's own pages is passed over."""


class Layer(NamedTuple):
    """The settings of one place, and how messages call it."""

    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Config:
    """What the user has set up for all presets, and what stands above them all."""

    file: Layer = field(default_factory=lambda: Layer("config.txt", {}))
    environment: Layer = field(default_factory=lambda: Layer("environment", {}))

    def folders(self, key: str) -> tuple[Path, ...]:
        """The folders of a ``path_*`` key, which are one text or a list of texts; those that do not exist are left out.

        Nothing if none is left: the usual folder is meant then.
        """
        return tuple(path for source, path in self._paths(key) if _is_folder(source, key, path))

    def new_folder(self, key: str) -> Path | None:
        """The first folder of a ``path_*`` key, which may have to be made."""
        return next((path for _, path in self._paths(key)), None)

    def is_on(self, key: str) -> bool:
        """Whether a key that is true or false is true; not where nobody says so."""
        for source, values in (self.environment, self.file):
            value = values.get(key)
            if isinstance(value, bool):
                return value
            if value is not None:
                log.warning("%s: %s must be true or false, got %s; ignored", source, key, reprlib.repr(value))
        return False

    def _paths(self, key: str) -> list[tuple[str, Path]]:
        """The paths with the source that names them."""
        for source, values in (self.environment, self.file):
            value = values.get(key)
            if value is None or value == "":
                continue
            texts = value if isinstance(value, list) else [value]
            paths = [Path(text) for text in texts if isinstance(text, str) and text and "\0" not in text]
            if len(paths) == len(texts):
                return [(source, path) for path in paths]
            log.warning(
                "%s: %s must be a folder or a list of folders, got %s; ignored", source, key, reprlib.repr(value)
            )
        return []


def read_config(path: Path, variables: Mapping[str, str] | None = None) -> Config:
    """The file at ``path``, if there is one, and what ``variables`` hold for its keys. Unusable contents are logged."""
    file = read_layer(path) if path.is_file() else Layer(path.name, {})
    return Config(file, Layer("environment", {key: _parsed(key, text) for key, text in (variables or {}).items()}))


def read_layer(path: Path) -> Layer:
    """The JSON object of a preset file or ``config.txt``; an empty one, and a warning, if there is none to be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        hint = r"; in JSON a backslash is written twice: C:\\models" if "escape" in str(error) else ""
        log.warning("%s cannot be read and is ignored: %s%s", path.name, error, hint)
        return Layer(path.name, {})
    if not isinstance(values, dict):
        log.warning("%s is ignored: it is not a JSON object", path.name)
        return Layer(path.name, {})
    return Layer(path.name, values)


def _parsed(key: str, text: str) -> Any:
    """A variable's text as it is, or as the Python value that it spells where the key does not hold text."""
    if key in TEXT_KEYS or (key in PATH_KEYS and not text.startswith("[")):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _is_folder(source: str, key: str, path: Path) -> bool:
    if path.is_dir():
        return True
    log.warning("%s: %s: there is no folder %s; left out", source, key, path)
    return False
