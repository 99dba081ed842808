"""LoRAs merged into the weights of a loaded model, and taken off again to the last bit (08, section 4)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from fooocus_core.adapters.lora import LoraFile, Matched, match_lora
from fooocus_core.adapters.lora_maths import Patch, merged
from fooocus_core.adapters.lora_names import TEXT_MODELS, TEXT_PROJECTION, UNET, text_module_names, unet_module_names
from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.text_encoders import ClipTextEncoder
from fooocus_core.models.unet import DiffusionNetwork

log = logging.getLogger(__name__)

SHOWN_KEY_CHARS = 80


@dataclass(frozen=True)
class WeightedLora:
    """A file and how strongly it is merged."""

    file: LoraFile
    weight: float


@dataclass
class _MatchedLora:
    """A file's patches for one model; ``misfits`` counts those that fit no weight, once they have been tried."""

    lora: WeightedLora
    matched: Matched
    misfits: int = 0

    @property
    def file(self) -> LoraFile:
        return self.lora.file

    @property
    def weight(self) -> float:
        return self.lora.weight


@dataclass(frozen=True)
class _Slot:
    """A parameter, the network it is of, and the tensor it was loaded from."""

    parameter: nn.Parameter
    network: DiffusionNetwork | ClipTextEncoder
    original: Tensor

    def set(self, values: Tensor) -> None:
        """Replaces the tensor; what it was stays untouched, so a mapped file never changes."""
        self.network.weights_changed()
        self.parameter.data = values.to(device=self.parameter.device, dtype=self.parameter.dtype)

    def plain(self) -> Tensor:
        """The tensor as it was loaded, in float32: rounded to the network's own type before."""
        parameter = self.parameter
        return self.original.to(device=parameter.device, dtype=parameter.dtype).float()

    def restore(self) -> None:
        self.set(self.original)


Recipe = tuple[tuple["ref[Patch]", float], ...]
"""The patches of a parameter with their strengths. It keeps none of them: they hold the content of files."""


@dataclass(frozen=True)
class _Merged:
    """What is in a parameter, and which of it did not fit."""

    recipe: Recipe
    misfits: tuple[bool, ...]


class PatchedWeights:
    """A second set of weights for a network, which can be put on and taken off between two of its calls.

    Where the device has room for both sets they are exchanged without a copy; else the one at rest lies in the
    computer's memory.
    """

    def __init__(
        self, network: DiffusionNetwork, weights: Sequence[tuple[_Slot, Tensor]], rests_on: torch.device
    ) -> None:
        """``rests_on``: where ``weights`` lie, and where the network's own go while they are on."""
        self._network = network
        self._weights = weights
        self._rests_on = rests_on
        self._plain: list[Tensor] = []

    def put_on(self) -> None:
        """The network's weights are the patched ones. Where there is no room for them, ``take_off`` goes back."""
        if self._plain:
            return
        self._network.weights_changed()
        for slot, weight in self._weights:
            device = slot.parameter.device
            self._plain.append(slot.parameter.data.to(self._rests_on))
            slot.parameter.data = weight.new_empty(0, device=device)  # its room is needed for the other
            slot.parameter.data = weight.to(device)

    def take_off(self) -> None:
        """The network's weights are what they were."""
        if self._plain:
            self._network.weights_changed()
        for (slot, _), weight in zip(self._weights, self._plain, strict=False):
            slot.parameter.data = weight.to(slot.parameter.device)
        self._plain = []


class LoraMerger:
    """The LoRAs of one loaded model. ``apply`` states what shall be merged; what was before is taken off."""

    def __init__(
        self, network: DiffusionNetwork, text_l: ClipTextEncoder | None = None, text_g: ClipTextEncoder | None = None
    ) -> None:
        """A refiner has no text encoders of its own."""
        self._network = network
        self._slots = dict(_unet_slots(network))
        self._unet_modules = unet_module_names(network.parameter_names)
        self._text_modules: dict[str, str] = {}
        for encoder, text in (("l", text_l), ("g", text_g)):
            if text is not None:
                self._slots |= dict(_text_slots(encoder, text))
                self._text_modules |= text_module_names(encoder, text.originals)
        self._merged: dict[str, _Merged] = {}
        self._known: WeakKeyDictionary[LoraFile, Matched] = WeakKeyDictionary()

    @torch.no_grad()
    def apply(self, loras: Sequence[WeightedLora], *, skip_foreign: bool = False) -> None:
        """Merge these and no others, in order, in float32. A failure leaves the weights as in the file.

        A parameter for which the same patches are meant as before is not touched. Raises ``UnsupportedModel`` for a
        file made for another model: with more than ``MOST_LEFT_OVER`` keys that fit nothing here, or without a single
        patch in the shape of its weight. With ``skip_foreign`` such a file is left out with a warning, as the
        reference does.
        """
        try:
            chosen = [lora for lora in map(self._matched, loras) if _accepted(lora, skip_foreign)]
            wanted = _by_parameter(chosen)
            self._restore(self._merged.keys() - wanted.keys())
            for parameter, patches in wanted.items():
                self._merge(parameter, patches)
            for lora in chosen:
                _tell_misfits(lora, skip_foreign)
        except BaseException:
            self.remove()
            raise

    @torch.no_grad()
    def patched(self, loras: Sequence[WeightedLora], patch: WeightedLora, rests_on: torch.device) -> PatchedWeights:
        """The network's weights with ``loras`` and then ``patch`` merged, beside those that it has.

        ``rests_on``: where they lie while they are not put on: the network's own device, or the CPU. Raises
        ``UnsupportedModel`` as ``apply``.
        """
        chosen = [*(lora for lora in map(self._matched, loras) if _accepted(lora, False)), self._matched(patch)]
        wanted = chosen[-1].matched.patches.keys()
        if not _accepted(chosen[-1], False) or not wanted:
            raise UnsupportedModel(patch.file.name, "made for another model: it names no weight of this one")
        weights = []
        for parameter, patches in _by_parameter(chosen).items():
            slot = self._slots.get(parameter)
            weight = None
            if slot is not None and parameter in wanted:
                weight, misfits = _merged_weight(slot, patches)
                _count(misfits, patches)
            if slot is not None and weight is not None:
                weights.append((slot, weight.to(device=rests_on, dtype=slot.parameter.dtype)))
        for lora in chosen:
            _tell_misfits(lora, False)
        return PatchedWeights(self._network, weights, rests_on)

    def remove(self) -> None:
        """Every weight as it was loaded."""
        self._restore(set(self._merged))

    def _restore(self, parameters: Iterable[str]) -> None:
        for parameter in parameters:
            self._slots[parameter].restore()
            del self._merged[parameter]

    def _matched(self, lora: WeightedLora) -> _MatchedLora:
        """A file that is still held by somebody is matched once."""
        if lora.file not in self._known:
            self._known[lora.file] = self._match(lora.file)
        return _MatchedLora(lora, self._known[lora.file])

    def _match(self, file: LoraFile) -> Matched:
        """The denoising network is matched first, what is left over with the text encoders."""
        network = match_lora(file, self._unet_modules)
        rest = LoraFile(file.name, {key: file.content[key] for key in network.left_over})
        text = match_lora(rest, self._text_modules)
        return Matched({**network.patches, **text.patches}, text.left_over)

    def _merge(self, parameter: str, patches: Sequence[tuple[Patch, _MatchedLora]]) -> None:
        """Put the patches, and no others, into a parameter; one that is not here leaves them all over."""
        slot = self._slots.get(parameter)
        if slot is None:
            _count([True] * len(patches), patches)
            return
        recipe = tuple((ref(patch), lora.weight) for patch, lora in patches)
        merged_before = self._merged.get(parameter)
        if merged_before is not None and merged_before.recipe == recipe:
            _count(merged_before.misfits, patches)
            return
        weight, misfits = _merged_weight(slot, patches)
        _count(misfits, patches)
        if weight is not None:
            self._merged[parameter] = _Merged(recipe, misfits)
            slot.set(weight)
        elif merged_before is not None:
            self._restore([parameter])


def _merged_weight(
    slot: _Slot, patches: Sequence[tuple[Patch, _MatchedLora]]
) -> tuple[Tensor | None, tuple[bool, ...]]:
    """The loaded weight with its patches, in order, in float32 (``None``: none changes it), and what did not fit."""
    weight = original = slot.plain()
    misfits = []
    for patch, lora in patches:
        result = merged(weight, patch, lora.weight)
        misfits.append(result is None)
        weight = weight if result is None else result
    return None if weight is original else weight, tuple(misfits)


def _count(misfits: Sequence[bool], patches: Sequence[tuple[Patch, _MatchedLora]]) -> None:
    """Notes which patches did not fit with the files they are of."""
    for is_misfit, (_, lora) in zip(misfits, patches, strict=True):
        lora.misfits += is_misfit


def _by_parameter(loras: Sequence[_MatchedLora]) -> dict[str, list[tuple[Patch, _MatchedLora]]]:
    """The patches of every parameter, in the order of the files."""
    collected: dict[str, list[tuple[Patch, _MatchedLora]]] = {}
    for lora in loras:
        for parameter, patch in lora.matched.patches.items():
            collected.setdefault(parameter, []).append((patch, lora))
    return collected


def _accepted(lora: _MatchedLora, skip_foreign: bool) -> bool:
    """Whether enough of a file's keys mean something here."""
    left_over, keys = lora.matched.left_over, len(lora.file.content)
    if lora.matched.rejected:
        some = min(left_over)[:SHOWN_KEY_CHARS]
        what = f"made for another kind of model: {len(left_over)} of its {keys} keys fit nothing here, such as {some}"
        _refuse(lora, what, skip_foreign)
        return False
    if left_over:
        log.warning("LoRA %s: %d of its %d keys fit nothing here", lora.file.name, len(left_over), keys)
    return True


def _tell_misfits(lora: _MatchedLora, skip_foreign: bool) -> None:
    """What has been left out of a file because its shape is another than the weight's."""
    patches = len(lora.matched.patches)
    if lora.misfits and lora.misfits == patches:
        _refuse(lora, "made for another model: nothing in it has the shape of the weight it names", skip_foreign)
    elif lora.misfits:
        log.warning("LoRA %s: %d of its %d patches fit no weight here", lora.file.name, lora.misfits, patches)


def _refuse(lora: _MatchedLora, reason: str, skip_foreign: bool) -> None:
    if not skip_foreign:
        raise UnsupportedModel(lora.file.name, reason)
    log.warning("LoRA %s left out: %s", lora.file.name, reason)


def _unet_slots(network: DiffusionNetwork) -> Iterator[tuple[str, _Slot]]:
    own = dict(network.unet.named_parameters())
    for ldm, name in network.parameter_names.items():
        if name in own:
            yield UNET + ldm, _Slot(own[name], network, network.originals[name])


def _text_slots(encoder: str, text: ClipTextEncoder) -> Iterator[tuple[str, _Slot]]:
    own = dict(text.model.named_parameters())
    for name, original in text.originals.items():
        if name in own:
            full = TEXT_PROJECTION if name == "text_projection" else TEXT_MODELS[encoder] + name
            yield full, _Slot(own[name], text, original)
