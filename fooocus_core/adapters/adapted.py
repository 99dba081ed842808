"""What a stage puts on the base's network, for the time of one call.

A refiner may be the same network without any of it (specification 03, section 8), so that nothing may stay on it
between two calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fooocus_core.adapters.freeu import freeu
from fooocus_core.adapters.image_prompt import image_prompts
from fooocus_core.adapters.inpaint_head import inpaint_head
from fooocus_core.sampling.network import NetworkWrapper

if TYPE_CHECKING:
    from torch import Tensor

    from fooocus_core.adapters.image_prompt import ImagePrompt
    from fooocus_core.adapters.merge import PatchedWeights
    from fooocus_core.models.unet import DiffusionNetwork
    from fooocus_core.plan import FreeU, ImagePromptWeighting
    from fooocus_core.sampling.network import NetworkCall, NoisePredictor


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
        asked = self.adaptations
        if asked.patch is not None:
            asked.patch.put_on()
        network: NoisePredictor = self.network
        with ExitStack() as adapted:
            if asked.freeu is not None:
                adapted.enter_context(freeu(self.network, asked.freeu))
            if asked.head_feature is not None:
                adapted.enter_context(inpaint_head(self.network, asked.head_feature))
            if asked.prompts:
                network = adapted.enter_context(image_prompts(self.network, asked.prompts, asked.weighting))
            return network(latents, timesteps, context, adm, call)


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
