"""Plans that are painted together: which of them fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fooocus_core.plan import Diffuse, Plan, Prompts
from fooocus_core.prompts.tasks import lora_tags


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
