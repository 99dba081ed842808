"""Guides in whole pictures: a thin copy of SDXL with thin copies of every guide's files, alone and mixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.events import Finished, ImageFinished
from fooocus_core.images import methods
from fooocus_core.images.preprocessors import pyramid_canny
from fooocus_core.images.resizing import covering
from fooocus_core.models.guide_models import ENCODER
from fooocus_core.plan import Guide, GuideKind, Guides, Output, Plan, Repaint, Sampling, StartPicture
from fooocus_core.stages import repainting
from tests.fooocus_core.models.guide_files import write_guide_files, write_thin_base
from tests.fooocus_core.stages.rendering import Studio, assert_same_together

SIDE = 64
SENT: dict[str, NDArray[np.uint8]] = {
    name: np.random.default_rng(seed).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    for seed, name in enumerate(["scene", "guide", "other"])
}
SENT["mask"] = np.zeros((90, 90), np.uint8)
SENT["mask"][40:60, 40:60] = 255
SENT["black"] = np.zeros((90, 90), np.uint8)
KINDS: tuple[GuideKind, ...] = ("ImagePrompt", "FaceSwap", "PyraCanny", "CPDS")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    root = tmp_path_factory.mktemp("models")
    write_guide_files(root)
    studio = Studio(root, write_thin_base(root), side_px=SIDE)
    studio.engine.pictures = SENT.__getitem__
    return studio


def guides(
    *kinds: GuideKind, stop: float = 1.0, weight: float = 1.0, picture: str = "guide", **settings: Any
) -> Guides:
    return Guides(tuple(Guide(picture, kind, stop, weight) for kind in kinds), **settings)


def plan(studio: Studio, asked: Guides | None, **fields: Any) -> Plan:
    [stage] = studio.plan().stages
    stage = replace(stage, guides=asked, **fields)
    return Plan((stage,), Output(preview=False))


def pixels(studio: Studio, asked: Guides | None, **fields: Any) -> NDArray[np.uint8]:
    return studio.finished(plan(studio, asked, **fields)).pixels


@pytest.fixture(scope="module")
def plain(studio: Studio) -> NDArray[np.uint8]:
    return pixels(studio, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_guide_changes_the_picture_and_leaves_no_trace(
    studio: Studio, plain: NDArray[np.uint8], kind: GuideKind
) -> None:
    guided = pixels(studio, guides(kind))
    assert guided.shape == plain.shape
    assert not np.array_equal(guided, plain)
    assert not np.array_equal(pixels(studio, guides(kind, picture="other")), guided)
    np.testing.assert_array_equal(pixels(studio, None), plain)


def test_what_is_stopped_at_once_changes_nothing(studio: Studio, plain: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(pixels(studio, guides(*KINDS, stop=0.0)), plain)


def test_control_where_and_when_it_does_not_count_changes_nothing(studio: Studio) -> None:
    steps, whole = Sampling("euler", "karras", 2), Guide("guide", "PyraCanny", 1.0, 1.0)
    plain = pixels(studio, None, sampling=steps)
    for idle in (replace(whole, start=1.0), replace(whole, mask="black")):
        np.testing.assert_array_equal(pixels(studio, Guides((idle,)), sampling=steps), plain)
    limited = [replace(whole, start=0.01), replace(whole, mask="mask"), replace(whole, only_positive=True)]
    made = [plain, *(pixels(studio, Guides((one,)), sampling=steps) for one in (whole, *limited))]
    assert len({one.tobytes() for one in made}) == len(made)


def test_the_weightings_differ(studio: Studio) -> None:
    asked = guides("ImagePrompt")
    assert not np.array_equal(pixels(studio, asked), pixels(studio, replace(asked, weighting="standard")))


def test_pictures_painted_together_are_those_painted_alone(studio: Studio) -> None:
    """The pictures that steer stop within the run, so that some calls have residuals and some have none."""
    assert_same_together(studio, plan(studio, guides(*KINDS, stop=0.6), sampling=Sampling("euler", "karras", 2)))


def test_guides_steer_a_variation(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "SMALLEST_CLASS", 128)
    start = StartPicture("scene", "Vary (Strong)", 0.85)
    alone, mixed = (
        pixels(studio, asked, start=start, width_px=128, height_px=128) for asked in (None, guides("PyraCanny"))
    )
    assert not np.array_equal(alone, mixed)


def test_guides_steer_a_repainting_with_an_engine(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control network is a copy of the patched weights; all of it is gone after the hand-over and at the end."""
    monkeypatch.setattr(repainting, "DIFFUSION_CLASS", SIDE)
    repaint = Repaint("scene", "mask", respective_field=1.0)
    steps = Sampling("euler", "karras", 2)
    alone = pixels(studio, None, repaint=repaint, switch_step=0, sampling=steps)
    for kind in ("ImagePrompt", "CPDS"):
        mixed = pixels(studio, guides(kind), repaint=repaint, switch_step=0, sampling=steps)
        assert not np.array_equal(mixed, alone)
        np.testing.assert_array_equal(mixed[:5], SENT["scene"][:5])
        np.testing.assert_array_equal(pixels(studio, None, repaint=repaint, switch_step=0, sampling=steps), alone)


def test_preparing_alone_shows_the_guides(studio: Studio) -> None:
    asked = replace(guides("ImagePrompt", "PyraCanny"), only_prepare=True)
    events = list(studio.engine.run(plan(studio, asked), lambda: False))
    assert isinstance(events[-1], Finished)
    edges, content = (event.pixels for event in events if isinstance(event, ImageFinished))
    assert content.shape == (224, 224, 3)
    np.testing.assert_array_equal(edges[:, :, 0], pyramid_canny(covering(SENT["guide"], SIDE, SIDE)))


def test_missing_files_are_all_named(studio: Studio, tmp_path: Path) -> None:
    write_guide_files(tmp_path, only=[ENCODER])
    (tmp_path / "checkpoints").symlink_to(studio.root / "checkpoints")
    bare = Studio(tmp_path, "base.safetensors", side_px=SIDE)
    bare.engine.pictures = SENT.__getitem__
    reason = bare.failure(plan(bare, guides("FaceSwap")))
    for name in ("detection_Resnet50_Final.pth", "fooocus_ip_negative.safetensors", "main.py download"):
        assert name in reason


def test_the_pocket_model_says_what_guides_need(tmp_path: Path) -> None:
    pocket = Studio(tmp_path)
    pocket.engine.pictures = SENT.__getitem__
    reason = pocket.failure(plan(pocket, guides("CPDS")))
    assert "SDXL checkpoint" in reason
    assert "fooocus_xl_cpds_128.safetensors" in reason
    shown = pocket.finished(plan(pocket, guides("CPDS", only_prepare=True)))
    assert shown.pixels.shape == (96, 96, 3)
