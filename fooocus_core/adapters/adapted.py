"""What a stage puts on the base's network, for the time of one call.

A refiner may be the same network without any of it (specification 03, section 8), so that nothing may stay on it
between two calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fooocus_core.adapters.freeu import freeu_join
from fooocus_core.adapters.image_prompt import PicturesBeside, pass_order
from fooocus_core.sampling.network import NetworkWrapper

if TYPE_CHECKING:
    from torch import Tensor

    from fooocus_core.adapters.image_prompt import ImagePrompt
    from fooocus_core.adapters.merge import PatchedWeights
    from fooocus_core.models.unet import DiffusionNetwork
    from fooocus_core.plan import FreeU, ImagePromptWeighting
    from fooocus_core.sampling.network import NetworkCall


@dataclass(frozen=True)
class Adaptations:
    """``head_feature`` is the inpaint head's, ``[1, channels, h, w]``; ``patch`` an inpaint engine's weights."""

    freeu: FreeU | None = None
    head_feature: Tensor | None = None
    patch: PatchedWeights | None = None
    prompts: Sequence[ImagePrompt] = ()
    weighting: ImagePromptWeighting = "fooocus"


@dataclass(frozen=True)
class AdaptedNetwork(NetworkWrapper):
    """A network under adaptations; a ``NoisePredictor``. What ``patch`` puts on stays until it is taken off."""

    network: DiffusionNetwork
    adaptations: Adaptations

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        if self.adaptations.patch is not None:
            self.adaptations.patch.put_on()
        return self.network(latents, timesteps, context, adm, self._adapted(call))

    def _adapted(self, call: NetworkCall) -> NetworkCall:
        asked, shape = self.adaptations, self.network.shape
        return replace(
            call,
            feature=asked.head_feature,
            join=None if asked.freeu is None else freeu_join(asked.freeu, shape.channels[0]),
            pictures=PicturesBeside(asked.prompts, asked.weighting, call.sides, call.progress, pass_order(shape))
            if asked.prompts
            else None,
        )


@dataclass(frozen=True)
class UnpatchedNetwork(NetworkWrapper):
    """The same network as a refiner of itself: without ``patch``; a ``NoisePredictor``."""

    network: DiffusionNetwork
    patch: PatchedWeights

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        self.patch.take_off()
        return self.network(latents, timesteps, context, adm, call)
