"""What the samplers ask of a denoising network, and what a call tells it beside its tensors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fooocus_core.conditioning.adm import PromptSide

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ControlResiduals(NamedTuple):
    """What control networks add: to each skip connection, the shallowest first, and to the middle's output."""

    skips: tuple[Tensor, ...]
    middle: Tensor


class KeysValues(NamedTuple):
    """What one attention knows of a text or a picture: keys and values, projected, ``[batch, tokens, channels]``."""

    keys: Tensor
    values: Tensor


class Attended(NamedTuple):
    """One softmax attention among those whose sum is a layer's answer."""

    weight: float
    known: KeysValues


class SeenPictures(Protocol):
    """Pictures that every cross-attention sees beside its text, in one call."""

    @property
    def key(self) -> Hashable:
        """Equal for two that live at the same time where they make the same of the same text."""

    def beside(self, layer: int, text: KeysValues) -> Sequence[Attended]:
        """All that one layer looks at; ``layer`` counts them in the order in which a call comes by."""


Join = Callable[["Tensor", "Tensor"], "tuple[Tensor, Tensor]"]
"""What becomes of backbone and skip ``[batch, channels, h, w]`` before a block on the way up joins them."""


class StepMemory:
    """What the depths of a network found in one run's latest whole pass, for the passes that reuse it.

    Of ``every`` calls with the same sides the first is a whole pass; the others calculate the outermost level alone.
    That changes pictures: what is found in the depths changes slowly along a run, but it does change.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._kept: dict[tuple[PromptSide, ...], tuple[int, Tensor]] = {}

    def recalled(self, sides: tuple[PromptSide, ...]) -> Tensor | None:
        """What may be reused in this call; ``None``: it must be a whole pass."""
        left, deep = self._kept.get(sides, (0, None))
        if deep is None or left == 0:
            return None
        self._kept[sides] = (left - 1, deep)
        return deep

    def keep(self, sides: tuple[PromptSide, ...], deep: Tensor) -> None:
        """What a whole pass has found."""
        self._kept[sides] = (self._every - 1, deep)


@dataclass(frozen=True)
class NetworkCall:
    """``sides``: which side of the guidance each row is. ``progress``: how far the run has come, 0 to 1.

    ``residuals``, ``feature`` (``[1, channels, h, w]``, added to what the first convolution gives), ``join`` and
    ``pictures``: what is put on the network for this call. ``memory``: its run's own; ``None``: every pass is whole.
    ``timestep``: the number that all of the call's timesteps are, if the caller knows of one without asking the device.
    """

    sides: tuple[PromptSide, ...]
    progress: float
    residuals: ControlResiduals | None = None
    feature: Tensor | None = None
    join: Join | None = None
    pictures: SeenPictures | None = None
    memory: StepMemory | None = None
    timestep: float | None = None


class NoisePredictor(Protocol):
    """The denoising network. It casts its inputs to its own dtype and answers in float32."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def adm_width(self) -> int:
        """Width of the added-condition vector that one row takes; 0 if the network has none."""

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        """The raw prediction ``[batch, 4, h, w]`` for scaled latents of that shape, at ``timesteps`` ``[batch]``,
        under ``context`` ``[batch, tokens, channels]`` and ``adm`` ``[batch, n]``.
        """


@dataclass(frozen=True)
class NetworkWrapper:
    """What stands around a network and answers in its place says of itself what the network says."""

    network: NoisePredictor

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def adm_width(self) -> int:
        return self.network.adm_width


class Control(Protocol):
    """Networks that look at a picture beside the latents (specification 06, section 5)."""

    def residuals(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        adm: Tensor | None,
        sigma: float,
        sides: Sequence[PromptSide],
    ) -> ControlResiduals | None:
        """For the inputs of one network call, scaled latents included, whose rows are of ``sides`` of the guidance.

        ``None`` where none is active at ``sigma``.
        """
