"""An engine on a folder of models, for tests that look at its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fooocus_core.engine import Engine
from fooocus_core.events import Failed, Finished, ImageFinished
from fooocus_core.library import POCKET_NAME, FileHashes, Library
from fooocus_core.metadata.record import ImageRecord
from fooocus_core.models.device import Placement
from fooocus_core.models.loaded import ModelStore
from fooocus_core.plan import Diffuse, Guidance, Lora, Models, Output, Performance, Plan, Prompts, Sampling
from fooocus_core.prompts.styles import StyleBook
from fooocus_core.prompts.wildcards import Wildcards

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
