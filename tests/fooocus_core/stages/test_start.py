"""Variations and upscales in whole pictures, with the pocket model and with one that paints any size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core.errors import MissingPicture, UnreadableModel
from fooocus_core.events import Cancelled, Event, Failed, Finished, ImageFinished
from fooocus_core.images import methods
from fooocus_core.images.resizing import lanczos
from fooocus_core.library import BUNDLED_UPSCALER, POCKET_NAME
from fooocus_core.models.autoencoder import AutoencoderShape
from fooocus_core.models.checkpoint import open_checkpoint
from fooocus_core.models.loaded import UPSCALER_FILE
from fooocus_core.plan import Models, Output, Plan, Sampling, StartPicture
from fooocus_core.presets.sizes import Size
from fooocus_core.stages.picture_latents import Draw
from fooocus_core.stages.start import start_of
from tests.fooocus_core.stages.rendering import Studio

SIDE = 256
STEPS = 6
ONE_STEP = Sampling("euler", "karras", 1)
SUBTLE = StartPicture("scene", "Vary (Subtle)", 0.5)
STRONG = StartPicture("scene", "Vary (Strong)", 0.85)
TWICE = StartPicture("scene", "Upscale (2x)", 0.382, 2.0)
FAST = StartPicture("scene", "Upscale (Fast 2x)", 0.382, 2.0, refine=False)


def scene(side: int = SIDE) -> NDArray[np.uint8]:
    """A bright disc over a coloured slope: large shapes that a diffusion keeps or loses."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    slope = np.stack([90 * rows, 60 + 90 * columns, np.full((side, side), 120.0)], 2)
    inside = (rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.08
    return np.where(inside[..., None], [230, 40, 30], slope).astype(np.uint8)


def kept(name: str) -> NDArray[np.uint8]:
    pictures = {"scene": scene(), "large": scene(600)}
    if name not in pictures:
        raise MissingPicture
    return pictures[name]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    root = tmp_path_factory.mktemp("models")
    studio = Studio(root, side_px=SIDE)
    studio.engine.pictures = kept
    return studio


def plan(studio: Studio, start: StartPicture | None, side_px: int = SIDE, **fields: Any) -> Plan:
    [stage] = studio.plan("a red ball").stages
    sampling = Sampling("euler", "karras", STEPS)
    stage = replace(stage, start=start, sampling=sampling, width_px=side_px, height_px=side_px)
    return Plan((replace(stage, **fields),), Output(preview=False))


def played(studio: Studio, asked: Plan) -> list[Event]:
    return list(studio.engine.run(asked, lambda: False))


def finished(studio: Studio, asked: Plan) -> list[ImageFinished]:
    events = played(studio, asked)
    assert isinstance(events[-1], Finished), events[-1]
    return [event for event in events if isinstance(event, ImageFinished)]


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The root of the mean square of the differences, in grey levels."""
    assert one.shape == other.shape
    return float(np.sqrt(np.square(one.astype(np.float64) - other).mean()))


def test_a_subtle_variation_stays_closer_than_a_strong_one(studio: Studio) -> None:
    subtle, strong = (distance(studio.finished(plan(studio, start)).pixels, scene()) for start in (SUBTLE, STRONG))
    assert subtle < 0.7 * strong


def test_the_more_is_made_anew_the_further_it_goes(studio: Studio) -> None:
    distances = [
        distance(studio.finished(plan(studio, replace(SUBTLE, denoise=share))).pixels, scene())
        for share in (0.1, 0.5, 0.7, 0.85)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[2]


def test_variations_of_one_request_differ_by_their_seeds(studio: Studio) -> None:
    first, second = finished(studio, plan(studio, SUBTLE, image_number=2))
    assert (first.seed, second.seed) == (7, 8)
    assert not np.array_equal(first.pixels, second.pixels)
    assert distance(first.pixels, second.pixels) < distance(first.pixels, scene()) * 2


@pytest.mark.parametrize("start", [TWICE, FAST], ids=["refined", "fast"])
def test_an_upscale_is_close_to_a_plain_enlargement(studio: Studio, start: StartPicture) -> None:
    """The pocket model, which sees less than the picture shows, leaves it as the network enlarged it."""
    [picture] = finished(studio, plan(studio, replace(start, picture="large"), 1200, image_number=2))
    assert distance(picture.pixels, lanczos(scene(600), 1200, 1200)) < 4
    assert picture.record is None


@dataclass
class Encoder:
    """In place of an autoencoder: tells what it was given, and whether in tiles."""

    factor: int = 8
    shape: AutoencoderShape = AutoencoderShape((32, 32, 32, 32), 1, 4)  # noqa: RUF009
    given: list[tuple[bool, tuple[int, ...]]] = field(default_factory=list)

    def encode(self, pixels: Tensor, noise: Tensor) -> Tensor:
        self.given.append((False, tuple(pixels.shape[2:])))
        return noise

    def encode_tiled(self, pixels: Tensor, noise: Draw) -> Tensor:
        self.given.append((True, tuple(pixels.shape[2:])))
        return noise(torch.Size((1, 4, 1, 1)))


@pytest.mark.parametrize(
    ("start", "shown_at", "in_tiles", "seen", "upscaler"),
    [
        (SUBTLE, None, False, (1024, 1024), ""),
        (SUBTLE, Size(96, 88), False, (88, 96), ""),
        (TWICE, None, True, (1024, 1024), BUNDLED_UPSCALER.name),
    ],
    ids=["varied at its class", "varied at a model's own area", "refined as it was enlarged"],
)
def test_what_is_encoded(
    studio: Studio, start: StartPicture, shown_at: Size | None, in_tiles: bool, seen: tuple[int, int], upscaler: str
) -> None:
    encoder = Encoder()
    made = start_of(
        start,
        scene(),
        encoder,  # type: ignore[arg-type]
        studio.engine.models,
        shown_at=shown_at,
        last_seed=7,
        before_tile=lambda: None,
    )
    assert encoder.given == [(in_tiles, seen)]
    assert made.upscaler == upscaler


def test_a_model_of_any_size_refines_what_was_enlarged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pocket model as if it had no area of its own, and sizes as if the smallest class were an eighth."""
    monkeypatch.setattr(methods, "SMALLEST_CLASS", 128)
    studio = Studio(tmp_path)
    studio.engine.pictures = lambda name: scene(64)
    model = studio.engine.models.load(Models(POCKET_NAME))
    model.sidecar = replace(model.sidecar, native_area_px=None)
    weak, strong = (
        studio.finished(plan(studio, replace(TWICE, denoise=share), 128, sampling=ONE_STEP)) for share in (0.1, 0.9)
    )
    whole = lanczos(scene(64), 128, 128)
    assert distance(weak.pixels, whole) < distance(strong.pixels, whole)
    assert weak.record is not None
    assert (weak.record.upscaler, weak.record.width_px) == (BUNDLED_UPSCALER.name, 128)


def test_a_picture_that_is_gone_fails_the_job(studio: Studio) -> None:
    for start in (SUBTLE, FAST):
        ending = played(studio, plan(studio, replace(start, picture="gone")))[-1]
        assert isinstance(ending, Failed)
        assert "not there any more" in ending.reason


def test_an_enlargement_can_be_stopped(studio: Studio) -> None:
    asked: list[None] = []

    def cancel() -> bool:
        asked.append(None)
        return True

    *_, ending = studio.engine.run(plan(studio, FAST, 1024), cancel)
    assert isinstance(ending, Cancelled)
    assert len(asked) == 1


@pytest.mark.parametrize("refine", [True, False])
def test_an_enlargement_that_is_wished_away_leaves_nothing(studio: Studio, refine: bool) -> None:
    told = list(studio.engine.run(plan(studio, replace(FAST, refine=refine), 1024), lambda: False, lambda: True))
    assert told[-1] == Finished()
    assert not [event for event in told if isinstance(event, ImageFinished)]


def test_the_published_network_enlarges_if_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "upscale_models").mkdir()
    path = tmp_path / "upscale_models" / UPSCALER_FILE
    models = Studio(tmp_path).engine.models
    name, bundled = models.picture_upscaler()
    assert name == BUNDLED_UPSCALER.name
    torch.save(dict(open_checkpoint(BUNDLED_UPSCALER).tensors), path)
    name, published = models.picture_upscaler()
    assert name == UPSCALER_FILE
    assert published is not bundled
    assert models.picture_upscaler()[1] is published
    path.write_bytes(b"broken")
    with pytest.raises(UnreadableModel, match=UPSCALER_FILE):
        models.picture_upscaler()
