"""From a picture's metadata back to a request that makes the picture again (specification 08, section 6.5)."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar, get_args

from fooocus_core.metadata.read import FileNames, SavedMetadata, Values, by_stem, lora_entries, parse_metadata
from fooocus_core.metadata.record import DEFAULT_ADAPTIVE_SCALE, LABELS, LORA_KEY, LORA_LABEL, VERSION
from fooocus_core.metadata.schemes import stem
from fooocus_core.plan import FreeU, Lora, Performance, SwapMethod
from fooocus_core.presets.modes import MODES, mode_of_steps
from fooocus_core.prompts.styles import StyleBook
from fooocus_core.request import GenerationRequest
from fooocus_core.sampling.names import SAMPLER_NAMES, SCHEDULER_NAMES

Value = TypeVar("Value")

_KEYS: Final = {label: key for key, label in LABELS.items()}
_OMITTED: Final = MappingProxyType({"refiner_model": "None", "adaptive_cfg": DEFAULT_ADAPTIVE_SCALE, "clip_skip": 1})
"""What a row that was left out means, where the program that wrote the file is known."""
_MAX_LIST_CHARACTERS: Final = 10_000
"""Of the text of a list; Python's parser takes a longer one badly."""


class Restored(NamedTuple):
    """A request for one picture, and the keys whose values could not be understood and which it leaves unsaid."""

    request: GenerationRequest
    unread: tuple[str, ...]


def restore_request(saved: SavedMetadata, files: FileNames, styles: StyleBook) -> Restored:
    """The request that ``saved`` tells of.

    Files are named as the library lists them; one that is not there keeps the name in the metadata, and what then
    happens is decided where every request is resolved. An object's values may stand under keys or labels.
    """
    values = _known_values(saved, files, styles)
    read = _Reader(values)
    steps = read("steps", _whole)
    mode = read("performance", _one_of(tuple(MODES))) or (None if steps is None else mode_of_steps(steps))
    size = read("resolution", _numbers(2))
    adm = read("adm_guidance", _numbers(3))
    freeu = read("freeu", _numbers(4))
    request = GenerationRequest(
        prompt=read("prompt", _text),
        negative_prompt=read("negative_prompt", _text),
        styles=read("styles", _names),
        performance=mode,
        width_px=None if size is None else int(size[0]),
        height_px=None if size is None else int(size[1]),
        image_number=1,
        seed=read("seed", _whole),
        checkpoint=read("base_model", _text),
        refiner=read("refiner_model", _text),
        refiner_switch=read("refiner_switch", _number),
        refiner_swap=read("refiner_swap_method", _one_of(get_args(SwapMethod))),
        overwrite_switch=read("overwrite_switch", _number),
        vae=read("vae", _text),
        loras=tuple(lora for lora in read.loras(files.loras) if not _is_own(lora, mode)),
        clip_skip=read("clip_skip", _whole),
        guidance_scale=read("guidance_scale", _number),
        sharpness=read("sharpness", _number),
        adaptive_scale=read("adaptive_cfg", _number),
        adm_positive=None if adm is None else adm[0],
        adm_negative=None if adm is None else adm[1],
        adm_end=None if adm is None else adm[2],
        sampler=read("sampler", _one_of(SAMPLER_NAMES)),
        scheduler=read("scheduler", _one_of(SCHEDULER_NAMES)),
        freeu=None if freeu is None else FreeU(*freeu),
        overwrite_steps=None if mode is not None and steps == MODES[mode].steps else steps,
    )
    return Restored(request, tuple(read.unread))


def _known_values(saved: SavedMetadata, files: FileNames, styles: StyleBook) -> Values:
    """The values by key, with the saved names of missing files and with what the rows left out by the writer mean."""
    if isinstance(saved.parameters, dict):
        written = {_key(name): value for name, value in saved.parameters.items()}
        parsed = parse_metadata(SavedMetadata(written, saved.scheme), files, styles)
        values = {key: written[key] if value is None else value for key, value in parsed.items()}
    else:
        values = parse_metadata(saved, files, styles)
        entries = (parts for parts in lora_entries(values) if len(parts) > 1)
        values |= {f"{LORA_KEY}{number}": f"{parts[0]} : {parts[-1]}" for number, parts in enumerate(entries, start=1)}
    return {**_OMITTED, **values} if values.get("version") == VERSION else values


def _key(name: str) -> str:
    if name.startswith(LORA_LABEL):
        return name.replace(LORA_LABEL, LORA_KEY, 1)
    return _KEYS.get(name, name)


class _Reader:
    """Takes values out by key; keeps the keys whose values are of no use."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self.unread: list[str] = []

    def __call__(self, key: str, convert: Callable[[Any], Value]) -> Value | None:
        """The value, or ``None`` if there is none or ``convert`` raises ``ValueError``."""
        value = self._values.get(key)
        if value is None:
            return None
        try:
            return convert(value)
        except (ValueError, OverflowError):
            self.unread.append(key)
            return None

    def loras(self, listed: Sequence[str]) -> list[Lora]:
        """All applied LoRAs, in the order of their numbers."""
        numbers = [key.removeprefix(LORA_KEY) for key in self._values if key.startswith(LORA_KEY)]
        keys = [f"{LORA_KEY}{number}" for number in sorted(filter(str.isdecimal, numbers), key=int)]
        read = [self(key, _lora) for key in keys]
        return [Lora(by_stem(lora.name, listed) or lora.name, lora.weight) for lora in read if lora is not None]


def _is_own(lora: Lora, mode: Performance | None) -> bool:
    """Whether it is the one that the performance mode brings itself, by its file's name or that name's stem."""
    own = None if mode is None else MODES[mode].lora
    return own is not None and PurePosixPath(lora.name).name in (own.name, stem(own.name))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _whole(value: Any) -> int:
    """Seeds have 63 bits, more than a float holds, so a text of digits is read as it is."""
    if isinstance(value, str):
        return int(value)
    number = _number(value)
    if number != int(number):
        raise ValueError("not a whole number")
    return int(value)


def _numbers(count: int) -> Callable[[Any], list[float]]:
    """Reads the text of a tuple, its numbers with or without quotes."""

    def read(value: Any) -> list[float]:
        numbers = [_number(part.strip(" '\"")) for part in _text(value).strip("()[] ").split(",")]
        if len(numbers) != count:
            raise ValueError("another count of numbers")
        return numbers

    return read


def _one_of(names: Sequence[Value]) -> Callable[[Any], Value]:
    def read(value: Any) -> Value:
        # ``index`` raises ``ValueError`` for a name that is not among them.
        return names[names.index(value)]

    return read


def _names(value: Any) -> tuple[str, ...]:
    """A list of texts, or the text of one as Python writes it."""
    if isinstance(value, str):
        value = _list_of_text(value)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("not a list of names")
    return tuple(value)


def _list_of_text(text: str) -> Any:
    if len(text) > _MAX_LIST_CHARACTERS:
        raise ValueError("too long a list")
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("not a list") from error


def _lora(value: Any) -> Lora:
    name, _, weight = _text(value).rpartition(" : ")
    if not name:
        raise ValueError("no name")
    return Lora(name, _number(weight))
