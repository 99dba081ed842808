"""The networks of a stage: loaded, told both sides of the prompt, with what the stage puts on them (03, 8; 04, 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from fooocus_core.adapters.adapted import Adaptations, AdaptedNetwork, UnpatchedNetwork
from fooocus_core.adapters.inpaint_head import head_feature
from fooocus_core.conditioning.adm import base_adm
from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.conditioning.encode import EncodedText
from fooocus_core.errors import Interrupted
from fooocus_core.events import CancelToken
from fooocus_core.models.refiner import LoadedRefiner
from fooocus_core.models.sparing import ControlRowByRow, InTurn, RowByRow, Turns, turns_of
from fooocus_core.plan import Diffuse, Guides, Lora
from fooocus_core.presets.sizes import Size
from fooocus_core.sampling.network import Control, NetworkCall, NetworkWrapper, NoisePredictor
from fooocus_core.sampling.prediction import NoiseLevels
from fooocus_core.sampling.sample import PromptedNetwork, resolve_scheduler
from fooocus_core.sampling.schedules import steps_taken
from fooocus_core.sampling.swap import Swap, SwapPlan, resolve_swap
from fooocus_core.stages.guides import PreparedGuide, prepare_guides
from fooocus_core.stages.picture_latents import RepaintLatents

if TYPE_CHECKING:
    from fooocus_core.models.autoencoder import Autoencoder
    from fooocus_core.models.loaded import InpaintNetwork, LoadedModel, ModelStore
    from fooocus_core.models.unet import DiffusionNetwork


@dataclass(frozen=True)
class Sides:
    """Both sides of the prompt as the base's text encoders read them."""

    positive: EncodedText
    negative: EncodedText


@dataclass(frozen=True)
class Networks:
    """The base and, where one takes part, the refiner, which may be the base's own network without its patch."""

    base: LoadedModel
    refiner: LoadedRefiner | None
    inpaint: InpaintNetwork | None = None
    adaptations: Adaptations = field(default_factory=Adaptations)
    """What is put on the base."""
    control: Control | None = None
    """What looks on while the base works."""
    turns: Turns | None = None
    """Where base and refiner are not on the device together."""
    row_by_row: bool = False
    """Whether the sides of the guidance are asked one after the other."""

    def restore(self) -> None:
        """The base as and where it was loaded, but for its LoRAs."""
        if self.inpaint is not None:
            self.inpaint.patch.take_off()
        if self.turns is not None:
            self.turns.take(self.base.network)


def load_networks(stage: Diffuse, models: ModelStore, loras: Sequence[Lora]) -> Networks:
    """What a stage works with, its LoRAs merged.

    An inpaint engine without a refiner may get one: the base without the engine's patch (01, section 10). Raises
    ``CoreError``.
    """
    model = models.load(stage.models, loras)
    refiner = models.refiner(stage.models, loras)
    placement = models.placement
    networks = Networks(
        model,
        refiner,
        adaptations=Adaptations(freeu=stage.freeu),
        turns=None if refiner is None else turns_of(model.network, refiner.network, placement),
        row_by_row=placement.residence.row_by_row,
    )
    if stage.repaint is None or stage.repaint.engine == "None":
        return networks
    inpaint = models.inpaint_network(stage.models, loras, stage.repaint.engine)
    if refiner is None and stage.repaint.refines_itself:
        refiner = LoadedRefiner(model.name, "sdxl", model.network, model.prediction)
    adaptations = replace(networks.adaptations, patch=inpaint.patch)
    return replace(networks, refiner=refiner, inpaint=inpaint, adaptations=adaptations)


def with_inpaint_head(networks: Networks, stage: Diffuse, latents: RepaintLatents) -> Networks:
    """The same with the inpaint head's look at what is repainted; without an engine, unchanged."""
    if networks.inpaint is None or latents.masked is None:
        return networks
    base = networks.base
    latent_format = resolve_scheduler(stage.sampling.scheduler, base.prediction).prediction.latent_format
    masked = latent_format.process_in(latents.masked.float().cpu())
    feature = head_feature(networks.inpaint.head, latents.mask.cpu(), masked).to(base.network.device)
    return replace(networks, adaptations=replace(networks.adaptations, head_feature=feature))


def levels_of(stage: Diffuse, networks: Networks) -> NoiseLevels:
    """The noise levels of the base's run."""
    return resolve_scheduler(stage.sampling.scheduler, networks.base.prediction).prediction.levels


def with_guides(
    networks: Networks, stage: Diffuse, guides: Guides, prepared: Sequence[PreparedGuide], models: ModelStore
) -> Networks:
    """The same with what the guides add to every call of the base. Raises ``CoreError``."""
    if networks.inpaint is not None:
        networks.inpaint.patch.put_on()  # control networks are copies of the weights that the base works with
    made = prepare_guides(guides, prepared, networks.base.network, levels_of(stage, networks), models.guides)
    adaptations = replace(networks.adaptations, prompts=made.prompts, weighting=made.weighting)
    return replace(networks, adaptations=adaptations, control=made.control)


@dataclass(frozen=True)
class Called:
    """All that the runs of a stage call: its networks with what is put on them, and the hand-over of latents."""

    base: NoisePredictor
    refiner: NoisePredictor | None = None
    control: Control | None = None
    translate: Callable[[Tensor], Tensor] | None = None


def called_by_runs(networks: Networks, cancel: CancelToken) -> Called:
    """What the runs call; their networks ask before every call whether the job is still wanted."""
    base, refiner = AdaptedNetwork(networks.base.network, networks.adaptations), networks.refiner
    control = networks.control
    return Called(
        _spared(base, base.network, networks, cancel),
        None if refiner is None else _spared(_without_patch(refiner, networks), refiner.network, networks, cancel),
        control if control is None or not networks.row_by_row else ControlRowByRow(control),
        None if refiner is None else refiner.translate,
    )


@dataclass(frozen=True)
class Access:
    """How a stage comes by its networks, and how its runs come to call them."""

    load: Callable[[Diffuse, ModelStore, Sequence[Lora]], Networks] = load_networks
    called: Callable[[Networks, CancelToken], Called] = called_by_runs


DIRECT = Access()


def prompted_base(stage: Diffuse, networks: Networks, called: Called, sides: Sides, size: Size) -> PromptedNetwork:
    """The base with both sides of the prompt; ``size`` is what is sampled."""
    positive, negative = sides.positive, sides.negative
    return PromptedNetwork(
        called.base,
        networks.base.prediction,
        Conditioning(positive.context, base_adm(positive.pooled, *size, stage.guidance.adm_positive)),
        Conditioning(negative.context, base_adm(negative.pooled, *size, stage.guidance.adm_negative)),
        control=called.control,
    )


def prompted_refiner(
    stage: Diffuse, networks: Networks, called: Called, sides: Sides, size: Size
) -> PromptedNetwork | None:
    """The refiner with both sides of the prompt, if there is one."""
    refiner = networks.refiner
    if refiner is None or called.refiner is None:
        return None
    guidance, encoders = stage.guidance, networks.base.text
    return PromptedNetwork(
        called.refiner,
        refiner.prediction,
        refiner.conditioning(sides.positive, "positive", encoders, size, guidance.adm_positive),
        refiner.conditioning(sides.negative, "negative", encoders, size, guidance.adm_negative),
        latent_format=refiner.latent_format,
        owns_vae=refiner.owns_vae,
    )


def _spared(network: NoisePredictor, own: DiffusionNetwork, networks: Networks, cancel: CancelToken) -> NoisePredictor:
    """A network, whose weights are ``own``, that can be interrupted before every call and is called as room allows."""
    if networks.turns is not None:
        network = InTurn(network, own, networks.turns)
    interruptible = InterruptibleNetwork(network, cancel)
    return RowByRow(interruptible) if networks.row_by_row else interruptible


def _without_patch(refiner: LoadedRefiner, networks: Networks) -> NoisePredictor:
    if networks.inpaint is None or refiner.network is not networks.base.network:
        return refiner.network
    return UnpatchedNetwork(refiner.network, networks.inpaint.patch)


def denoise_of(stage: Diffuse) -> float:
    """The share of the noise levels that is walked."""
    if stage.repaint is not None:
        return stage.repaint.denoise
    if stage.start is None:
        return 1.0
    return stage.start.denoise if stage.start.refine else 0.0


def takes_share(stage: Diffuse) -> bool:
    """Whether the run takes a share of the steps, that of the noise levels; text to image takes them all."""
    return stage.sampling.partial_steps == "share" and (stage.start is not None or stage.repaint is not None)


def steps_of(stage: Diffuse) -> int:
    """How many steps the run takes."""
    steps = stage.sampling.steps
    return steps_taken(steps, denoise_of(stage)) if takes_share(stage) else steps


def swap_plan_of(stage: Diffuse, networks: Networks) -> SwapPlan:
    """Which of the networks take part in which way."""
    return resolve_swap(
        Swap(stage.refiner_swap, stage.switch_step),
        has_refiner=networks.refiner is not None,
        refiner_owns_vae=networks.refiner is not None and networks.refiner.owns_vae,
        steps=stage.sampling.steps,
        denoise=denoise_of(stage),
    )


def refiner_latents_from(stage: Diffuse, networks: Networks) -> int | None:
    """The first step whose latents are of the refiner's own kind; ``None``: there is none."""
    if networks.refiner is None or not networks.refiner.owns_vae:
        return None
    return {"vae": stage.switch_step, "refiner": 0}.get(swap_plan_of(stage, networks))


def encoding_autoencoders(stage: Diffuse, networks: Networks) -> tuple[Autoencoder, Autoencoder | None]:
    """What encodes a picture for the first run, and, where a second run has latents of its own, for that (03, 8)."""
    base, refiner = networks.base.autoencoder, networks.refiner
    first = refiner_latents_from(stage, networks)
    if refiner is None or refiner.autoencoder is None or first is None:
        return base, None
    return (refiner.autoencoder, None) if first == 0 else (base, refiner.autoencoder)


def decoding_autoencoder(stage: Diffuse, networks: Networks) -> Autoencoder:
    """What makes pixels of the latents at the end."""
    refiner = networks.refiner
    own = None if refiner is None or refiner_latents_from(stage, networks) is None else refiner.autoencoder
    return own or networks.base.autoencoder


@dataclass(frozen=True)
class InterruptibleNetwork(NetworkWrapper):
    """A network that asks before every call whether the job is still wanted: a stop takes less than a step."""

    cancel: CancelToken

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        """As the network's own; raises ``Interrupted``."""
        stop_if(self.cancel)
        return self.network(latents, timesteps, context, adm, call)


def stop_if(cancel: CancelToken) -> None:
    """Raises ``Interrupted`` where the job is not wanted any more."""
    if cancel():
        raise Interrupted("stopped on request")
