"""The real engine over two tiny checkpoints and three LoRAs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fooocus_core.events import Event, ImageFinished
from fooocus_core.plan import Lora, Plan
from tests.fooocus_core.adapters.lora_files import lora_tensors, write_lora
from tests.fooocus_core.models.tiny import CHANNELS, TEXT_G, TEXT_L, tiny_checkpoint, write_checkpoint
from tests.fooocus_core.stages.rendering import Studio

CHECKPOINTS = ("shallow.safetensors", "deep.safetensors")
LORAS = ("first.safetensors", "second.safetensors", "third.safetensors")
STEPS = 2
IMAGES = 2


def tiny_studio(root: Path) -> Studio:
    """A studio with its files in ``root``."""
    (root / "checkpoints").mkdir()
    for name, depth in zip(CHECKPOINTS, (1, 2), strict=True):
        write_checkpoint(root / "checkpoints" / name, tiny_checkpoint(depth))
    for seed, name in enumerate(LORAS):
        write_lora(root / "loras" / name, lora_tensors({"unet": CHANNELS[1], "l": TEXT_L, "g": TEXT_G}, seed=seed))
    return Studio(root, CHECKPOINTS[0], side_px=64)


def tiny_plan(studio: Studio, checkpoint: str = CHECKPOINTS[0], loras: tuple[str, ...] = LORAS[:1]) -> Plan:
    """Two pictures of two steps, with previews."""
    plan = studio.plan("a b", [Lora(name, 0.5) for name in loras])
    stage = plan.main
    stage = replace(
        stage,
        models=replace(stage.models, checkpoint=checkpoint),
        sampling=replace(stage.sampling, steps=STEPS),
        image_number=IMAGES,
    )
    return Plan((stage,), replace(plan.output, preview=True))


def events_of(studio: Studio, plan: Plan, cancel: Callable[[], bool] = lambda: False) -> list[Event]:
    """All that the engine tells."""
    return list(studio.engine.run(plan, cancel))


def pictures_in(events: list[Event]) -> list[NDArray[np.uint8]]:
    """The finished ones."""
    return [event.pixels for event in events if isinstance(event, ImageFinished)]
