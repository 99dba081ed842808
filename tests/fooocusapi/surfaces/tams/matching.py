"""Comparing an answer with one in which some values are only described: ``<uuid>``, ``<url>`` and the like."""

from __future__ import annotations

import re
from typing import Any

FORMS = {
    "uint64": r"\d{18}",
    "uint32": r"\d{1,10}",
    "int64": r"-?\d+",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "url": r"https?://\S+",
    "kB": r"\d+ kB",
    "text": r".+",
    "current": r"CREATED|WAITING|RUNNING|SUCCESS",
}
PLACEHOLDER = re.compile(r"<(\w+)(?::(\d+))?>")


def mismatch(expected: Any, real: Any, names: dict[str, str] | None = None, place: str = "") -> str | None:
    """Where and how ``real`` is not what was expected; ``None`` where it is. ``<uuid:0>`` is one value throughout."""
    names = {} if names is None else names
    if isinstance(expected, str) and (form := PLACEHOLDER.fullmatch(expected)):
        return _of_form(form, real, names, place)
    if isinstance(expected, dict):
        return _of_object(expected, real, names, place)
    if isinstance(expected, list):
        if not isinstance(real, list) or len(real) != len(expected):
            return f"{place}: {real!r} is no list of {len(expected)}"
        found = (
            mismatch(one, two, names, f"{place}[{index}]")
            for index, (one, two) in enumerate(zip(expected, real, strict=True))
        )
        return next((entry for entry in found if entry), None)
    if type(expected) is not type(real) and not (isinstance(expected, (int, float)) and isinstance(real, (int, float))):
        return f"{place}: {real!r} in place of {expected!r}"
    return None if expected == real else f"{place}: {real!r} in place of {expected!r}"


def _of_form(form: re.Match[str], real: Any, names: dict[str, str], place: str) -> str | None:
    if not isinstance(real, str) or not re.fullmatch(FORMS[form[1]], real):
        return f"{place}: {real!r} is no {form[0]}"
    if form[2] is not None and names.setdefault(form[0], real) != real:
        return f"{place}: {real!r} is another {form[0]} than before"
    return None


def _of_object(expected: dict[str, Any], real: Any, names: dict[str, str], place: str) -> str | None:
    wanted = {names.get(key, key): value for key, value in expected.items()}
    if not isinstance(real, dict) or set(real) != set(wanted):
        return f"{place}: the keys of {real!r} are not {sorted(wanted)}"
    found = (mismatch(value, real[key], names, f"{place}.{key}") for key, value in wanted.items())
    return next((entry for entry in found if entry), None)
