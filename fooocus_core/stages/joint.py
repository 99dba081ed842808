"""Plans that are painted together: which fit each other, and what they share.

Every plan runs on a strand of its own and does all by itself but for two things: its networks are those that the first
of them has loaded, and these are called by the one who drives, for as many plans at once as wait for the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fooocus_core.events import CancelToken, never
from fooocus_core.plan import Diffuse, Lora, Plan, Prompts
from fooocus_core.prompts.tasks import lora_tags
from fooocus_core.sampling.network import NoisePredictor
from fooocus_core.stages.networks import Access, Called, Networks, called_by_runs, load_networks
from fooocus_core.stages.strand import Suspend
from fooocus_core.stages.together import AskingNetwork

if TYPE_CHECKING:
    from fooocus_core.models.loaded import ModelStore


def fit_together(plans: Sequence[Plan]) -> bool:
    """Whether all make their pictures from noise alone, with the same networks in the same way.

    Their texts, their seeds and the numbers of their pictures may differ, and what becomes of pictures that are made.
    """
    manners = [_manner(plan) for plan in plans]
    return None not in manners and all(manner == manners[0] for manner in manners)


def _manner(plan: Plan) -> object | None:
    """How a plan's pictures are painted, the LoRAs that its prompt names included; ``None``: always alone.

    With a refiner, guides or a picture to start from there is more on the networks than their LoRAs.
    """
    match plan.stages:
        case (Diffuse(start=None, repaint=None, guides=None) as stage,) if stage.models.refiner is None:
            prompts = Prompts(max_loras=stage.prompts.max_loras)
            same = replace(stage, prompts=prompts, seed=0, image_number=1, seed_increment=True, seed_count=1)
            return same, lora_tags(stage.prompts)
    return None


class Apart(BaseException):
    """A plan cannot go on in company and has to be run alone. Nothing on the way may take that for its failure."""


class Company:
    """The networks of plans that are painted together."""

    def __init__(self) -> None:
        self._loaded: tuple[object, Networks] | None = None
        self._bases: dict[int, NoisePredictor] = {}

    def access(self, suspend: Suspend) -> Access:
        """How one of the plans comes by the networks. ``suspend``: that of its strand."""
        return Access(self._load, partial(self._called, suspend))

    def _load(self, stage: Diffuse, models: ModelStore, loras: Sequence[Lora]) -> Networks:
        """Those that the first has loaded: while they are in use, nothing is merged into them and nothing taken off.

        Raises ``CoreError``; ``Apart`` where other LoRAs are meant after all, because a file has come or gone.
        """
        meant = (stage.models, stage.freeu, tuple(loras))
        if self._loaded is None:
            self._loaded = meant, load_networks(stage, models, loras)
        if self._loaded[0] != meant:
            raise Apart
        return self._loaded[1]

    def _called(self, suspend: Suspend, networks: Networks, cancel: CancelToken) -> Called:
        """What a plan's runs call: the base alone, as in all plans that fit each other."""
        # One object for all of them: by that their calls are known to be of one network.
        base = self._bases.setdefault(id(networks), called_by_runs(networks, never).base)
        return Called(AskingNetwork(base, suspend, cancel))
