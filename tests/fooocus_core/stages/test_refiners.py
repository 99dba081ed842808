"""Refiners and FreeU in whole pictures: a thin copy of SDXL's base with thin copies of every kind of refiner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from fooocus_core.events import Cancelled, Progress
from fooocus_core.models.checkpoint import UNET_PREFIX
from fooocus_core.models.interposer import INTERPOSER_FILE
from fooocus_core.plan import Diffuse, FreeU, Guidance, Plan, Sampling, SwapMethod
from tests.fooocus_core.models.tiny import write_checkpoint
from tests.fooocus_core.stages.rendering import Studio, assert_same_together
from tools.synthetic import BASE, INTERPOSER, REFINER, SD15, thin_checkpoint

STEPS, SWITCH = 3, 1
KINDS = {"refiner.safetensors": REFINER, "sd15.safetensors": SD15}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    root = tmp_path_factory.mktemp("models")
    for folder in ("checkpoints", "vae_approx"):
        (root / folder).mkdir()
    base = thin_checkpoint(BASE, keep=is_shallow)
    save_file(base, root / "checkpoints" / "base.safetensors")
    last = f"{UNET_PREFIX}out.2.weight"
    save_file({**base, last: base[last] * 0.5}, root / "checkpoints" / "other.safetensors")
    for name, manifest in KINDS.items():
        save_file(thin_checkpoint(manifest, keep=is_shallow), root / "checkpoints" / name)
    save_file(thin_checkpoint(INTERPOSER), root / "vae_approx" / INTERPOSER_FILE)
    write_checkpoint(root / "checkpoints" / "tiny.safetensors")
    return Studio(root, "base.safetensors", side_px=64)


def is_shallow(key: str) -> bool:
    """Whether a key is kept: of transformers in a row the first, of a text encoder's layers the first two."""
    for stack, kept in ((".transformer_blocks.", 1), (".resblocks.", 2), (".encoder.layers.", 2)):
        _, found, rest = key.partition(stack)
        if found and int(rest.split(".")[0]) >= kept:
            return False
    return True


def plan(
    studio: Studio,
    refiner: str | None = None,
    swap: SwapMethod = "joint",
    *,
    switch: int = SWITCH,
    freeu: FreeU | None = None,
    scale: float = 4.0,
) -> Plan:
    [stage] = studio.plan().stages
    assert isinstance(stage, Diffuse)
    stage = replace(
        stage,
        models=replace(stage.models, refiner=refiner),
        sampling=Sampling("euler", "karras", STEPS),
        guidance=Guidance(sharpness=0.0, scale=scale),
        refiner_swap=swap,
        switch_step=switch,
        freeu=freeu,
    )
    return Plan((stage,), replace(studio.plan().output, preview=True))


def pixels(studio: Studio, asked: Plan) -> np.ndarray:
    return studio.finished(asked).pixels


@pytest.fixture(scope="module")
def plain(studio: Studio) -> np.ndarray:
    return pixels(studio, plan(studio))


CASES: list[tuple[str, SwapMethod]] = [
    ("refiner.safetensors", "joint"),
    ("refiner.safetensors", "separate"),
    ("refiner.safetensors", "vae"),
    ("other.safetensors", "joint"),
    ("sd15.safetensors", "joint"),
]


@pytest.mark.parametrize(("refiner", "swap"), CASES)
def test_a_refiner_changes_the_picture(studio: Studio, plain: np.ndarray, refiner: str, swap: SwapMethod) -> None:
    *events, picture, _ = studio.engine.run(plan(studio, refiner, swap), lambda: False)
    assert picture.pixels.shape == plain.shape
    assert not np.array_equal(picture.pixels, plain)
    assert (picture.record.refiner, picture.record.refiner_swap_method) == (refiner, swap)
    assert len(picture.record.refiner_hash) == 10
    told = [event for event in events if isinstance(event, Progress) and event.text.startswith("Step")]
    assert [event.text.split()[1] for event in told] == [f"{number}/{STEPS}" for number in range(1, STEPS + 1)]
    assert [event.preview is not None for event in told] == [True] * STEPS


@pytest.mark.parametrize(("refiner", "swap"), [*CASES, ("sd15.safetensors", "vae"), (None, "joint")])
def test_pictures_painted_together_are_those_painted_alone(
    studio: Studio, refiner: str | None, swap: SwapMethod
) -> None:
    assert_same_together(studio, plan(studio, refiner, swap, freeu=FreeU(1.3, 1.4, 0.9, 0.2)))


def test_the_next_job_has_no_trace_of_the_refiner(studio: Studio, plain: np.ndarray) -> None:
    for refiner in ("refiner.safetensors", "sd15.safetensors"):
        pixels(studio, plan(studio, refiner))
        assert np.array_equal(pixels(studio, plan(studio)), plain)


def test_a_switch_at_the_end_leaves_the_refiner_nothing(studio: Studio, plain: np.ndarray) -> None:
    assert np.array_equal(pixels(studio, plan(studio, "refiner.safetensors", switch=STEPS)), plain)


def test_a_switch_at_the_start_leaves_the_base_nothing(studio: Studio) -> None:
    alone = [pixels(studio, plan(studio, "refiner.safetensors", swap, switch=0)) for swap in ("separate", "vae")]
    assert np.array_equal(*alone)


def test_without_guidance(studio: Studio) -> None:
    one = [pixels(studio, plan(studio, refiner, scale=1.0)) for refiner in (None, "refiner.safetensors")]
    assert not np.array_equal(*one)


def test_freeu_is_taken_off_again(studio: Studio, plain: np.ndarray) -> None:
    assert not np.array_equal(pixels(studio, plan(studio, freeu=FreeU(1.3, 1.4, 0.9, 0.2))), plain)
    assert np.array_equal(pixels(studio, plan(studio, freeu=FreeU(1.0, 1.0, 1.0, 1.0))), plain)
    assert np.array_equal(pixels(studio, plan(studio)), plain)


def test_a_cancelled_job_leaves_nothing_behind(studio: Studio, plain: np.ndarray) -> None:
    steps = 0

    def cancelled() -> bool:
        return steps == SWITCH + 1

    for event in studio.engine.run(plan(studio, "refiner.safetensors", freeu=FreeU(1.3, 1.4, 0.9, 0.2)), cancelled):
        ending = event
        steps += isinstance(event, Progress) and event.text.startswith("Step")
    assert isinstance(ending, Cancelled)
    assert np.array_equal(pixels(studio, plan(studio)), plain)


def test_the_record_tells_freeu(studio: Studio) -> None:
    assert studio.record(plan(studio, freeu=FreeU())).freeu == (1.01, 1.02, 0.99, 0.95)


def test_a_missing_translator_fails_the_job_by_its_name(studio: Studio, plain: np.ndarray) -> None:
    file = studio.root / "vae_approx" / INTERPOSER_FILE
    aside = file.rename(file.with_suffix(".aside"))
    try:
        # Another time stamp: what is loaded would stay otherwise.
        touched(studio.root / "checkpoints" / "sd15.safetensors")
        assert INTERPOSER_FILE in studio.failure(plan(studio, "sd15.safetensors"))
    finally:
        aside.rename(file)
    assert np.array_equal(pixels(studio, plan(studio)), plain)


def test_a_refiner_for_another_base_fails_the_job_by_its_name(studio: Studio, plain: np.ndarray) -> None:
    reason = studio.failure(plan(studio, "tiny.safetensors"))
    assert "tiny.safetensors" in reason
    assert "does not fit" in reason
    assert np.array_equal(pixels(studio, plan(studio)), plain)


def touched(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
