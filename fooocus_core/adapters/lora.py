"""Reading LoRA files and matching them with the weights they change (specification 08, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fooocus_core.adapters.lora_maths import (
    Difference,
    EightBit,
    Glora,
    Hadamard,
    Kronecker,
    LowRank,
    Nothing,
    Patch,
)
from fooocus_core.errors import UnreadableModel
from fooocus_core.models.checkpoint import read_content

MOST_LEFT_OVER = 12
"""A file with more unmatched keys than this belongs to another kind of network and is left out whole."""

_LOW_RANK_KEYS = (
    ("{}.lora_up.weight", "{}.lora_down.weight", "{}.lora_mid.weight"),
    ("{}_lora.up.weight", "{}_lora.down.weight", None),
    ("{}.lora_linear_layer.up.weight", "{}.lora_linear_layer.down.weight", None),
)


_MOST_WORDS = 3
"""Of all keys behind a module's name: ``.lora_linear_layer.up.weight``."""


@dataclass(frozen=True, eq=False)
class LoraFile:
    """A file's content by key: tensors, and triples of tensors in Fooocus's own patches. Equal is only itself."""

    name: str
    content: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Of its tensors, mapped or not."""
        parts = (value if isinstance(value, (tuple, list)) else (value,) for value in self.content.values())
        return sum(part.nbytes for value in parts for part in value if isinstance(part, Tensor))


def read_lora(path: Path) -> LoraFile:
    """Open a LoRA file, mapped. Raises ``UnreadableModel``."""
    content = read_content(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise UnreadableModel(path.name, "holds no dictionary of tensors")
    return LoraFile(path.name, {str(key): value for key, value in content.items()})


@dataclass
class Matched:
    """A file's patches by parameter, and its keys that mean nothing here."""

    patches: dict[str, Patch] = field(default_factory=dict)
    left_over: set[str] = field(default_factory=set)

    @property
    def rejected(self) -> bool:
        return len(self.left_over) > MOST_LEFT_OVER


def match_lora(file: LoraFile, modules: Mapping[str, str]) -> Matched:
    """Find the patch of every parameter. ``modules``: names of modules to parameters, the winning ones last."""
    keys = _Keys(file)
    patches: dict[str, Patch] = {}
    named = _modules_named(file)
    for module, parameter in modules.items():
        if parameter in file.content:
            patches[parameter] = _fooocus_patch(keys.take_any(parameter))
        elif module in named:
            patches |= _patches_of(keys, module, parameter)
    return Matched(patches, file.content.keys() - keys.taken)


def _modules_named(file: LoraFile) -> set[str]:
    """What may be a module's name in the keys of a file: most of the thousands that are known are in none.

    A key is the name, ``_lora`` or nothing, and one to three words behind points.
    """
    named: set[str] = set()
    for key in file.content:
        for _ in range(_MOST_WORDS):
            key = key.rpartition(".")[0]
            named.add(key)
            named.add(key.removesuffix("_lora"))
    return named


def _fooocus_patch(value: Any) -> Patch:
    """A triple of bytes and bounds; a plain tensor in its place is recognised and changes nothing."""
    if isinstance(value, (tuple, list)) and len(value) == 3 and all(isinstance(part, Tensor) for part in value):
        return EightBit(*value)
    return Nothing()


def _patches_of(keys: _Keys, module: str, parameter: str) -> dict[str, Patch]:
    """The patches that one module's keys make, the bias's among them; of several types the later one wins."""
    alpha = keys.alpha(module)
    patches: dict[str, Patch] = {}
    for kind in (_low_rank, _hadamard, _kronecker, _glora):
        patch = kind(keys, module, alpha)
        if patch is not None:
            patches[parameter] = patch
    for weight_key, bias_key in ((".w_norm", ".b_norm"), (".diff", ".diff_b")):
        weight, bias = keys.take(module + weight_key), keys.take(module + bias_key)
        if weight is not None:
            patches[parameter] = Difference(weight)
        if bias is not None:
            patches[parameter.removesuffix(".weight") + ".bias"] = Difference(bias)
    return patches


class _Keys:
    """A file's content, remembering what has been used."""

    def __init__(self, file: LoraFile) -> None:
        self._content = file.content
        self.taken: set[str] = set()

    def take_any(self, key: str) -> Any:
        self.taken.add(key)
        return self._content[key]

    def take(self, key: str) -> Tensor | None:
        value = self._content.get(key)
        if not isinstance(value, Tensor):
            return None
        self.taken.add(key)
        return value

    def take_all(self, *keys: str) -> list[Tensor] | None:
        """All of them, or none."""
        if not all(isinstance(self._content.get(key), Tensor) for key in keys):
            return None
        self.taken.update(keys)
        return [self._content[key] for key in keys]

    def alpha(self, module: str) -> float | None:
        value = self.take(f"{module}.alpha")
        return None if value is None or value.numel() != 1 else float(value.item())


def _low_rank(keys: _Keys, module: str, alpha: float | None) -> Patch | None:
    for up_key, down_key, mid_key in _LOW_RANK_KEYS:
        pair = keys.take_all(up_key.format(module), down_key.format(module))
        if pair is not None:
            mid = None if mid_key is None else keys.take(mid_key.format(module))
            return LowRank(pair[0], pair[1], mid, alpha)
    return None


def _hadamard(keys: _Keys, module: str, alpha: float | None) -> Patch | None:
    parts = keys.take_all(*(f"{module}.hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b")))
    if parts is None:
        return None
    w1_a, w1_b, w2_a, w2_b = parts
    return Hadamard(w1_a, w1_b, w2_a, w2_b, keys.take(f"{module}.hada_t1"), keys.take(f"{module}.hada_t2"), alpha)


def _kronecker(keys: _Keys, module: str, alpha: float | None) -> Patch | None:
    names = ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t2")
    w1, w2, w1_a, w1_b, w2_a, w2_b, t2 = (keys.take(f"{module}.lokr_{name}") for name in names)
    if all(part is None for part in (w1, w2, w1_a, w1_b, w2_a, w2_b, t2)):
        return None
    return Kronecker(w1, w2, w1_a, w1_b, w2_a, w2_b, t2, alpha)


def _glora(keys: _Keys, module: str, alpha: float | None) -> Patch | None:
    parts = keys.take_all(*(f"{module}.{part}.weight" for part in ("a1", "a2", "b1", "b2")))
    if parts is None:
        return None
    a1, a2, b1, b2 = parts
    return Glora(a1, a2, b1, b2, alpha)
