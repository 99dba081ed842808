"""An engine on a folder of models, for tests that look at its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core.engine import Engine
from fooocus_core.events import Failed, Finished, ImageFinished, never
from fooocus_core.library import POCKET_NAME, FileHashes, Library
from fooocus_core.metadata.record import ImageRecord
from fooocus_core.models.device import Placement
from fooocus_core.models.loaded import LATENT_SCALE, ModelStore
from fooocus_core.models.residence import Residence
from fooocus_core.plan import Diffuse, Guidance, Lora, Models, Output, Performance, Plan, Prompts, Sampling
from fooocus_core.prompts.styles import StyleBook
from fooocus_core.prompts.wildcards import Wildcards
from fooocus_core.stages.diffuse import Manner, run_diffuse
from fooocus_core.stages.start import PassedLatents

TOGETHER_TOLERANCE = 1e-4
"""Of latents as the network sees them, which span some -4 to 4."""
CPU = Placement(torch.device("cpu"), torch.float32, torch.float32)


class Studio:
    """Renders pictures of one step with the real engine; ``root`` is its folder of models."""

    def __init__(self, root: Path, checkpoint: str = POCKET_NAME, side_px: int = 96) -> None:
        self.root = root
        self.checkpoint = checkpoint
        self.side_px = side_px
        store = ModelStore(Library.below(root), CPU, FileHashes(root / "hash_cache.txt"))
        self.engine = Engine(store, StyleBook([]), Wildcards([]))

    def plan(
        self,
        prompt: str = "a red apple",
        loras: Sequence[Lora] = (),
        *,
        mode_lora: Lora | None = None,
        performance: Performance = "Speed",
    ) -> Plan:
        stage = Diffuse(
            models=Models(self.checkpoint, loras=tuple(loras), performance_lora=mode_lora),
            prompts=Prompts(prompt),
            width_px=self.side_px,
            height_px=self.side_px,
            seed=7,
            performance=performance,
            guidance=Guidance(sharpness=0.0),
            sampling=Sampling("euler", "karras", 1),
        )
        return Plan((stage,), Output(preview=False))

    def run(self, plan: Plan) -> ImageFinished | str:
        """The picture, or the reason why there is none."""
        *_, picture, ending = self.engine.run(plan, lambda: False)
        if isinstance(ending, Failed):
            return ending.reason
        assert isinstance(ending, Finished)
        assert isinstance(picture, ImageFinished)
        return picture

    def failure(self, plan: Plan) -> str:
        reason = self.run(plan)
        assert isinstance(reason, str)
        return reason

    def finished(self, plan: Plan) -> ImageFinished:
        picture = self.run(plan)
        assert isinstance(picture, ImageFinished), picture
        return picture

    def picture(self, prompt: str = "a red apple", loras: Sequence[Lora] = ()) -> NDArray[np.uint8]:
        return self.finished(self.plan(prompt, loras)).pixels

    def record(self, plan: Plan) -> ImageRecord:
        record = self.finished(plan).record
        assert record is not None
        return record

    def latents(self, plan: Plan, at_once: int = 1) -> list[Tensor]:
        """What the pictures of a plan of one stage are decoded from, so many of them painted together."""
        (stage,) = plan.stages
        assert isinstance(stage, Diffuse)
        engine = self.engine
        kept: list[Tensor] = []
        list(
            run_diffuse(
                stage,
                plan.output,
                engine.models,
                engine.styles,
                engine.wildcards,
                never,
                pictures=engine.pictures,
                latents=PassedLatents(None, kept.append),
                manner=Manner(at_once),
            )
        )
        return kept


def assert_alike_together(studio: Studio, plan: Plan, pictures: int = 3) -> None:
    """Pictures that are painted together are those painted alone, up to how a call of more rows rounds its sums."""
    for one, other in _alone_and_together(studio, plan, pictures):
        torch.testing.assert_close(LATENT_SCALE * other, LATENT_SCALE * one, rtol=0, atol=TOGETHER_TOLERANCE)


def assert_same_together(studio: Studio, plan: Plan, pictures: int = 2) -> None:
    """The same to the last bit, on networks that are asked row by row, so that no sum is rounded otherwise.

    For networks with random weights, whose numbers are so large that rounding tells nothing.
    """
    models = studio.engine.models
    usual = models.placement
    models.placement = replace(usual, residence=Residence(row_by_row=True))
    try:
        for one, other in _alone_and_together(studio, plan, pictures):
            torch.testing.assert_close(other, one, rtol=0, atol=0)
    finally:
        models.placement = usual


def _alone_and_together(studio: Studio, plan: Plan, pictures: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Both ways' latents of each picture."""
    (stage,) = plan.stages
    assert isinstance(stage, Diffuse)
    plan = replace(plan, stages=(replace(stage, image_number=pictures),))
    alone, together = studio.latents(plan), studio.latents(plan, at_once=pictures)
    assert len(alone) == len(together) == pictures
    assert not torch.equal(alone[0], alone[-1]), "every picture has its own seed"
    return zip(alone, together, strict=True)
