"""Reading a picture's metadata back (specification 08, section 6.5)."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, get_args

from PIL import Image

from fooocus_core.errors import InvalidRequest
from fooocus_core.metadata.files import MAKER_NOTE_TAG, SCHEME_KEY, TEXT_KEY, USER_COMMENT_TAG
from fooocus_core.metadata.found_styles import find_styles
from fooocus_core.metadata.record import EXPANSION_STYLE, LORA_KEY
from fooocus_core.metadata.schemes import A1111_LABELS, KARRAS_SUFFIX, NEGATIVE_PREFIX, SAMPLER_TITLES, stem
from fooocus_core.plan import MetadataScheme
from fooocus_core.prompts.styles import StyleBook

Values = dict[str, Any]

_KEYS: Final = {label: key for key, label in A1111_LABELS.items()}
_SIZE: Final = re.compile(r"([0-9]+)x([0-9]+)")
# A label of at least two characters and a value: a JSON string, or whatever stands before the next comma. The label's
# length is bounded so that a long line without colons is read in linear time.
_PARAMETER: Final = re.compile(r'(\w[\w /-]{1,60}):\s*("(?:[^"\\]|\\.)+"|[^,]*)(?:,|$)')
_FEWEST_PARAMETERS: Final = 3
"""A last line with fewer is part of the prompt."""

_UNREADABLE: Final = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that are no pictures, or too large ones."""


class SavedMetadata(NamedTuple):
    """What a file holds: the object of scheme ``fooocus`` or the text of ``a1111``."""

    parameters: Values | str
    scheme: MetadataScheme


class FileNames(NamedTuple):
    """The library's files, in its order; stems in metadata are mapped back to the first that has them."""

    checkpoints: Sequence[str] = ()
    loras: Sequence[str] = ()
    vae: Sequence[str] = ()


def read_metadata(image_bytes: bytes) -> SavedMetadata | None:
    """The metadata of a PNG, JPEG or WebP file; ``None`` if it has none.

    Raises ``InvalidRequest`` naming ``image`` if the bytes are no picture.
    """
    try:
        image = Image.open(io.BytesIO(image_bytes))
        text, scheme = image.info.get(TEXT_KEY), image.info.get(SCHEME_KEY)
        parameters = _json_or_text(text)
        if not isinstance(parameters, dict):
            exif = image.getexif()
            if USER_COMMENT_TAG in exif:
                parameters, scheme = _json_or_text(exif[USER_COMMENT_TAG]), exif.get(MAKER_NOTE_TAG)
    except _UNREADABLE as error:
        raise InvalidRequest("image", "not a picture that can be read") from error
    return None if parameters is None else SavedMetadata(parameters, _scheme(scheme, parameters))


def parse_metadata(saved: SavedMetadata, files: FileNames, styles: StyleBook) -> Values:
    """The values by the keys of section 6.2, with model names as the library lists them.

    Scheme ``fooocus`` keeps its types and gives ``None`` for files that are not there; ``a1111`` gives texts, and the
    styles that can be told from them.
    """
    if isinstance(saved.parameters, dict):
        return _parse_fooocus(saved.parameters, files)
    return _parse_a1111(saved.parameters, files, styles)


def _json_or_text(value: object) -> Values | str | None:
    """A JSON object if ``value`` is the text of one, else the text, if it is any."""
    if not isinstance(value, str):
        return None
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, dict) else value


def _scheme(named: object, parameters: Values | str) -> MetadataScheme:
    known = next((scheme for scheme in get_args(MetadataScheme) if scheme == named), None)
    return known or ("fooocus" if isinstance(parameters, dict) else "a1111")


def _parse_fooocus(saved: Values, files: FileNames) -> Values:
    return {key: _restore_file(key, value, files) for key, value in saved.items()}


def _restore_file(key: str, value: Any, files: FileNames) -> Any:
    """The listed file for a stem; other keys, and values that name none, stay as they are."""
    if not isinstance(value, str) or value in ("", "None"):
        return value
    if key in ("base_model", "refiner_model"):
        return by_stem(value, files.checkpoints)
    if key == "vae":
        return by_stem(value, files.vae)
    if key.startswith(LORA_KEY):
        name, _, weight = value.rpartition(" : ")
        found = by_stem(name, files.loras)
        return None if found is None else f"{found} : {weight}"
    return value


def _parse_a1111(text: str, files: FileNames, styles: StyleBook) -> Values:
    positive, negative, values = _split_a1111(text)
    found = find_styles(positive, negative, styles)
    names = list(found.styles)
    values |= {"prompt": found.prompt, "negative_prompt": found.negative_prompt}
    if "raw_prompt" in values:
        values["prompt"] = values["raw_prompt"]
        if values["prompt"].replace("\n", ", ") != positive and EXPANSION_STYLE not in names:
            names.append(EXPANSION_STYLE)
    if "raw_negative_prompt" in values:
        values["negative_prompt"] = values["raw_negative_prompt"]
    if "sampler" in values:
        values["sampler"] = _sampler_name(values["sampler"])
    for key, listed in (("base_model", files.checkpoints), ("refiner_model", files.checkpoints), ("vae", files.vae)):
        if key in values:
            values[key] = by_stem(values[key], listed) or values[key]
    values |= {f"{LORA_KEY}{number}": lora for number, lora in _a1111_loras(values, files.loras)}
    return {**values, "styles": str(names)}


def _split_a1111(text: str) -> tuple[str, str, Values]:
    """The positive text, the negative text and the known parameters."""
    *lines, last = [line.strip() for line in text.strip().split("\n")]
    parameters = _PARAMETER.findall(last)
    if len(parameters) < _FEWEST_PARAMETERS:
        lines, parameters = [*lines, last], []
    prefix = NEGATIVE_PREFIX.strip()
    start = next((index for index, line in enumerate(lines) if line.startswith(prefix)), len(lines))
    negative = [line.removeprefix(prefix).strip() for line in lines[start:]]
    return "\n".join(lines[:start]), "\n".join(negative), _known_parameters(parameters)


def _known_parameters(pairs: list[tuple[str, str]]) -> Values:
    values: Values = {}
    for label, quoted in pairs:
        value = _unquoted(quoted)
        size = _SIZE.fullmatch(value)
        if size is not None:
            values["resolution"] = str((size[1], size[2]))
        elif label in _KEYS:
            values[_KEYS[label]] = value
    return values


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _sampler_name(title: str) -> str:
    """The first sampler with that title; a text that is no title stays."""
    plain = title.replace(KARRAS_SUFFIX, "")
    return next((name for name, known in SAMPLER_TITLES.items() if known == plain), plain)


def _a1111_loras(values: Values, listed: Sequence[str]) -> Iterator[tuple[int, str]]:
    """``file : weight`` by position in the list, from 1; what is not on disk is left out."""
    for number, parts in enumerate(lora_entries(values), start=1):
        found = by_stem(parts[0], listed)
        if found is not None and len(parts) > 1:
            yield number, f"{found} : {parts[-1]}"


def lora_entries(values: Values) -> list[list[str]]:
    """Name and weight of each LoRA, from the weights or from hashes of the form ``name: hash: weight``."""
    if "lora_weights" in values:
        return _split_entries(values["lora_weights"])
    entries = _split_entries(values.get("lora_hashes", ""))
    return entries if len(entries[0]) == 3 else []


def _split_entries(text: str) -> list[list[str]]:
    return [entry.split(": ") for entry in text.split(", ")]


def by_stem(name: str, listed: Sequence[str]) -> str | None:
    """The first listed file whose name without folder and last extension is ``name``."""
    return next((file for file in listed if stem(file) == name), None)
