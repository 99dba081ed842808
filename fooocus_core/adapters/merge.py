"""LoRAs merged into the weights of a loaded model, and taken off again to the last bit (08, section 4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fooocus_core.adapters.lora import LoraFile, Matched, match_lora
from fooocus_core.adapters.lora_maths import Patch, merged
from fooocus_core.adapters.lora_names import TEXT_MODELS, TEXT_PROJECTION, UNET, text_module_names, unet_module_names
from fooocus_core.models.text_encoders import ClipTextEncoder
from fooocus_core.models.unet import DiffusionNetwork

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightedLora:
    """A file and how strongly it is merged."""

    file: LoraFile
    weight: float


@dataclass(frozen=True)
class _Slot:
    """A parameter of a network and the tensor it was loaded from."""

    module: nn.Module
    name: str
    original: Tensor

    @property
    def parameter(self) -> Tensor:
        return self.module.get_parameter(self.name)

    def set(self, values: Tensor) -> None:
        """Replaces the tensor; what it was stays untouched, so a mapped file never changes."""
        self.parameter.data = values.to(device=self.parameter.device, dtype=self.parameter.dtype)

    def restore(self) -> None:
        self.set(self.original)


class LoraMerger:
    """The LoRAs of one loaded model. ``apply`` states what shall be merged; what was before is taken off."""

    def __init__(self, network: DiffusionNetwork, text_l: ClipTextEncoder, text_g: ClipTextEncoder) -> None:
        self._slots = dict(_unet_slots(network)) | dict(_text_slots("l", text_l)) | dict(_text_slots("g", text_g))
        self._unet_modules = unet_module_names(network.parameter_names)
        self._text_modules = text_module_names("l", text_l.originals) | text_module_names("g", text_g.originals)
        self._changed: set[str] = set()

    @torch.no_grad()
    def apply(self, loras: Sequence[WeightedLora]) -> None:
        """Merge these and no others, in order, in float32. A failure leaves the weights as in the file."""
        self.remove()
        try:
            for parameter, patches in self._collected(loras).items():
                self._merge(parameter, patches)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Every weight as it was loaded."""
        for parameter in self._changed:
            self._slots[parameter].restore()
        self._changed.clear()

    def _collected(self, loras: Sequence[WeightedLora]) -> dict[str, list[tuple[Patch, float]]]:
        collected: dict[str, list[tuple[Patch, float]]] = {}
        for lora in loras:
            for parameter, patch in self._matched(lora.file).items():
                if parameter in self._slots:
                    collected.setdefault(parameter, []).append((patch, lora.weight))
        return collected

    def _matched(self, file: LoraFile) -> Mapping[str, Patch]:
        """The denoising network is matched first, what is left over with the text encoders."""
        network = match_lora(file, self._unet_modules)
        rest = LoraFile(file.name, {key: file.content[key] for key in network.left_over})
        text = match_lora(rest, self._text_modules)
        whole = Matched({**network.patches, **text.patches}, text.left_over)
        if whole.rejected:
            log.warning("LoRA left out, %d keys fit nothing here: %s", len(whole.left_over), file.name)
            return {}
        if whole.left_over:
            log.warning("LoRA with %d keys that fit nothing here: %s", len(whole.left_over), file.name)
        return whole.patches

    def _merge(self, parameter: str, patches: Sequence[tuple[Patch, float]]) -> None:
        slot = self._slots[parameter]
        weight = slot.parameter.detach().float()
        changed = False
        for patch, strength in patches:
            result = merged(weight, patch, strength) if strength else None
            if result is not None:
                weight, changed = result, True
        if changed:
            self._changed.add(parameter)
            slot.set(weight)


def _unet_slots(network: DiffusionNetwork) -> Iterator[tuple[str, _Slot]]:
    own = dict(network.unet.named_parameters())
    for ldm, name in network.parameter_names.items():
        if name in own:
            yield UNET + ldm, _Slot(network.unet, name, network.originals[name])


def _text_slots(encoder: str, text: ClipTextEncoder) -> Iterator[tuple[str, _Slot]]:
    own = dict(text.model.named_parameters())
    for name, original in text.originals.items():
        if name in own:
            full = TEXT_PROJECTION if name == "text_projection" else TEXT_MODELS[encoder] + name
            yield full, _Slot(text.model, name, original)
