"""Guides, from the pictures that were sent to what joins the network's calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core.adapters.adapted import Adaptations, AdaptedNetwork
from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.errors import Interrupted, MissingPicture, UnknownModel
from fooocus_core.images.faces import aligned_face
from fooocus_core.images.masked_area import grey_mask
from fooocus_core.images.pixels import Picture, to_rgb
from fooocus_core.images.preprocessors import cpds, pyramid_canny
from fooocus_core.images.resizing import contained, covering, lanczos
from fooocus_core.library import Library
from fooocus_core.models.device import Placement
from fooocus_core.models.guide_models import ADAPTER_FILES, CONTROL_FILES, GuideModels
from fooocus_core.models.unet import DiffusionNetwork
from fooocus_core.plan import Guide, GuideKind, Guides, ImagePromptWeighting
from fooocus_core.presets.sizes import Size
from fooocus_core.sampling.network import ControlResiduals, NetworkCall
from fooocus_core.sampling.prediction import sdxl_levels
from fooocus_core.stages.guides import PreparedGuide, PreparedGuides, guide_pictures, prepare_guides
from tests.fooocus_core.models.guide_files import thin_network, write_guide_files

FULL = Placement(torch.device("cpu"), torch.float32, torch.float32)
SIZE = Size(64, 72)
EARLY_SIGMA = 10.0
SIDES: Final[tuple[PromptSide, ...]] = ("negative", "positive")
SENT: dict[str, NDArray[np.uint8]] = {
    name: np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    for seed, (name, shape) in enumerate({"a": (90, 100, 3), "b": (64, 80, 3), "clear": (70, 70, 4)}.items())
}
SENT["left"] = np.repeat(np.array([[255, 0]], np.uint8), 32, 1).repeat(72, 0)
POINTS = np.array([(40, 40), (60, 40), (50, 52), (42, 62), (58, 62)], np.float32)


def guide(kind: GuideKind, picture: str = "a", weight: float = 1.0, stop: float = 0.5, **fields: Any) -> Guide:
    return Guide(picture, kind, stop, weight, **fields)


def guides(*pictures: Guide, **settings: Any) -> Guides:
    return Guides(pictures, **settings)


def sent(name: str) -> NDArray[np.uint8]:
    if name not in SENT:
        raise MissingPicture
    return SENT[name]


class Finder:
    """Finds the same face in every picture, or none."""

    def __init__(self, points: NDArray[np.float32] | None = POINTS) -> None:
        self.points = points
        self.seen: list[Picture] = []

    def __call__(self) -> Finder:
        return self

    def landmarks(self, picture: Picture) -> NDArray[np.float32] | None:
        self.seen.append(picture)
        return self.points


def no_faces() -> Any:
    raise AssertionError("nobody looks for faces here")


def prepared(asked: Guides, faces: Callable[[], Any] = no_faces) -> tuple[PreparedGuide, ...]:
    return guide_pictures(asked, sent, SIZE, faces)


# --- pictures -----------------------------------------------------------------------------------------------------


def test_control_pictures_are_edges_and_structure_at_the_stages_size() -> None:
    asked = guides(guide("CPDS"), guide("PyraCanny"), guide("PyraCanny", "b"), canny_low=20, canny_high=200)
    canny, other, structure = prepared(asked)
    assert [one.guide for one in (canny, other, structure)] == [asked.pictures[index] for index in (1, 2, 0)]
    assert canny.picture.shape == (SIZE.height_px, SIZE.width_px, 3)
    assert np.array_equal(canny.picture, to_rgb(pyramid_canny(covering(SENT["a"], *SIZE), 20, 200)))
    assert np.array_equal(structure.picture, to_rgb(cpds(covering(SENT["a"], *SIZE))))
    assert not np.array_equal(canny.picture, other.picture)


def test_image_prompts_lose_their_shape() -> None:
    ((_, picture, _),) = prepared(guides(guide("ImagePrompt", "b")))
    assert np.array_equal(picture, lanczos(SENT["b"], 224, 224))


def test_faces_are_cut_out() -> None:
    finder = Finder()
    ((_, picture, _),) = prepared(guides(guide("FaceSwap")), finder)
    assert np.array_equal(picture, lanczos(aligned_face(SENT["a"], POINTS), 224, 224))
    assert np.array_equal(finder.seen[0], SENT["a"])  # at its own size


def test_a_picture_without_a_face_is_taken_whole() -> None:
    ((_, picture, _),) = prepared(guides(guide("FaceSwap")), Finder(None))
    assert np.array_equal(picture, lanczos(SENT["a"], 224, 224))


def test_what_is_prepared_already_is_only_resized() -> None:
    asked = guides(guide("PyraCanny"), guide("CPDS"), guide("FaceSwap"), use_preprocessor=False)
    canny, structure, face = prepared(asked)
    for control in (canny, structure):
        assert np.array_equal(control.picture, covering(SENT["a"], *SIZE))
    assert np.array_equal(face.picture, lanczos(SENT["a"], 224, 224))


def test_one_may_be_prepared_beside_others_that_are_not() -> None:
    ready, other = prepared(guides(guide("PyraCanny", is_prepared=True), guide("PyraCanny")))
    assert np.array_equal(ready.picture, covering(SENT["a"], *SIZE))
    assert np.array_equal(other.picture, to_rgb(pyramid_canny(covering(SENT["a"], *SIZE))))


@pytest.mark.parametrize(("mode", "brought"), [("stretch", lanczos), ("cover", covering), ("contain", contained)])
def test_how_a_control_picture_and_its_mask_get_the_size(mode: Any, brought: Callable[..., Picture]) -> None:
    asked = guide("PyraCanny", is_prepared=True, resize=mode, mask="b")
    ((_, picture, mask),) = prepared(guides(asked))
    assert np.array_equal(picture, brought(SENT["a"], *SIZE))
    assert mask is not None
    assert np.array_equal(mask, brought(to_rgb(grey_mask(SENT["b"])), *SIZE)[:, :, 0])


def test_what_is_transparent_shows_white() -> None:
    ((_, picture, _),) = prepared(guides(guide("ImagePrompt", "clear")))
    assert np.array_equal(picture, lanczos(to_rgb(SENT["clear"]), 224, 224))


def test_a_picture_that_is_gone() -> None:
    with pytest.raises(MissingPicture):
        prepared(guides(guide("ImagePrompt", "gone")))


def test_what_does_nothing_is_prepared_only_for_its_own_sake() -> None:
    idle = guide("PyraCanny", weight=0)
    assert prepared(guides(idle)) == ()
    assert len(prepared(guides(idle, only_prepare=True))) == 1


def test_preparing_can_be_stopped() -> None:
    asked = guides(guide("ImagePrompt"), guide("ImagePrompt"))
    left = iter([None])

    def stop() -> None:
        if next(left, Interrupted):
            raise Interrupted

    with pytest.raises(Interrupted):
        guide_pictures(asked, sent, SIZE, no_faces, stop)


# --- networks -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return write_guide_files(tmp_path_factory.mktemp("guides"))


@pytest.fixture(scope="module")
def network() -> DiffusionNetwork:
    return thin_network()


@pytest.fixture(scope="module")
def read(library: Library, network: DiffusionNetwork) -> Callable[..., PreparedGuides]:
    models = GuideModels(library, FULL)

    def reading(*pictures: Guide, **settings: Any) -> PreparedGuides:
        asked = guides(*pictures, **settings)
        return prepare_guides(asked, prepared(asked, Finder(None)), network, sdxl_levels(), models)

    return reading


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(2, 4, 9, 8, generator=generator),
        torch.tensor([700.0, 700.0]),
        torch.randn(2, 77, 192, generator=generator),
        torch.randn(2, 128 + 1536, generator=generator),
    )


def residuals(found: PreparedGuides, sigma: float = EARLY_SIGMA) -> ControlResiduals | None:
    assert found.control is not None
    return found.control.residuals(*inputs(), sigma, SIDES)


def added(found: PreparedGuides, sigma: float = EARLY_SIGMA) -> ControlResiduals:
    sum_of_all = residuals(found, sigma)
    assert sum_of_all is not None
    return sum_of_all


def answer(found: PreparedGuides, network: DiffusionNetwork, progress: float = 0.3) -> Tensor:
    call = NetworkCall(SIDES, progress, residuals(found) if found.control else None)
    adapted = AdaptedNetwork(network, Adaptations(prompts=found.prompts, weighting=found.weighting))
    return adapted(*inputs(), call)


def test_no_guides_at_all(read: Callable[..., PreparedGuides]) -> None:
    assert read() == PreparedGuides(None, (), "fooocus")


def test_control_networks_add_up(read: Callable[..., PreparedGuides]) -> None:
    canny, structure = guide("PyraCanny", weight=0.7), guide("CPDS", "b", weight=1.3)
    both, first, second = (added(read(*one)) for one in ((structure, canny), (canny,), (structure,)))
    torch.testing.assert_close(both.middle, first.middle + second.middle)
    assert len(both.skips) == 9
    for sum_of_both, one, other in zip(both.skips, first.skips, second.skips, strict=True):
        torch.testing.assert_close(sum_of_both, one + other)
    assert not torch.allclose(first.middle, second.middle)


def test_edges_come_before_structure(read: Callable[..., PreparedGuides], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[GuideKind] = []
    control = GuideModels.control

    def noting(self: GuideModels, kind: GuideKind, network: DiffusionNetwork) -> Any:
        made.append(kind)
        return control(self, kind, network)

    monkeypatch.setattr(GuideModels, "control", noting)
    read(guide("CPDS"), guide("PyraCanny"), guide("CPDS", "b"))
    assert made == ["PyraCanny", "CPDS"]  # one network serves both pictures of a kind


def test_weight_and_softness_of_control_networks(read: Callable[..., PreparedGuides]) -> None:
    whole = added(read(guide("PyraCanny"), softness=0.0))
    half = added(read(guide("PyraCanny", weight=0.5), softness=0.4))
    torch.testing.assert_close(half.middle, 0.5 * whole.middle)
    torch.testing.assert_close(half.skips[0], 0.5 * 0.6 * whole.skips[0])


def test_control_networks_stop(read: Callable[..., PreparedGuides]) -> None:
    last = sdxl_levels().percent_to_sigma(0.5)
    found = read(guide("PyraCanny", stop=0.5), guide("CPDS", stop=1.0))
    alone = added(read(guide("CPDS", stop=1.0)), last - 0.01)
    assert torch.equal(added(found, last - 0.01).middle, alone.middle)
    assert not torch.allclose(added(found, last).middle, alone.middle)
    assert residuals(read(guide("PyraCanny", stop=0.5)), last - 0.01) is None


def test_control_networks_start(read: Callable[..., PreparedGuides]) -> None:
    first = sdxl_levels().percent_to_sigma(0.3)
    found = read(guide("PyraCanny", stop=1.0, start=0.3))
    assert residuals(found, first + 0.01) is None
    always = added(read(guide("PyraCanny", stop=1.0)), first)
    assert torch.equal(added(found, first).middle, always.middle)


def test_softness_of_one_of_several(read: Callable[..., PreparedGuides]) -> None:
    whole = added(read(guide("PyraCanny"), softness=0.0))
    soft = added(read(guide("PyraCanny", softness=0.9), softness=0.0))
    torch.testing.assert_close(soft.middle, whole.middle)
    torch.testing.assert_close(soft.skips[0], 0.1 * whole.skips[0])


def test_the_negative_side_is_left_alone_where_only_the_prompt_counts(read: Callable[..., PreparedGuides]) -> None:
    whole, half = (added(read(guide("PyraCanny", only_positive=only))) for only in (False, True))
    for all_rows, some in zip([*whole.skips, whole.middle], [*half.skips, half.middle], strict=True):
        assert not some[0].any()
        torch.testing.assert_close(some[1], all_rows[1])


def test_what_is_masked_is_not_steered(read: Callable[..., PreparedGuides]) -> None:
    """The left half of what is sampled; the stage is 64 pixels wide, so 8 cells at the shallowest level."""
    whole, half = (added(read(guide("PyraCanny", resize="stretch", mask=mask))) for mask in (None, "left"))
    shallow, all_of_it = half.skips[0], whole.skips[0]
    torch.testing.assert_close(shallow[..., :3], all_of_it[..., :3])
    assert not shallow[..., 5:].any()
    assert not torch.equal(half.middle, whole.middle)


def test_a_control_network_without_weight_is_not_made(read: Callable[..., PreparedGuides]) -> None:
    assert read(guide("PyraCanny", weight=0)).control is None


def test_image_prompts_come_before_faces(read: Callable[..., PreparedGuides]) -> None:
    face, first, second = guide("FaceSwap", "b", 0.75, 0.9), guide("ImagePrompt", "b", 0.6), guide("ImagePrompt", "a")
    found = read(face, first, second).prompts
    assert [(prompt.weight, prompt.stop) for prompt in found] == [(0.6, 0.5), (1.0, 0.5), (0.75, 0.9)]
    assert [layer.keys.shape[1:] for layer in found[0].positive[:1]] == [(16, 64)]
    # One picture read by two adapters, and each adapter's own negative.
    assert not torch.allclose(found[0].positive[0].keys, found[2].positive[0].keys)
    assert torch.equal(found[0].negative[0].keys, found[1].negative[0].keys)
    assert not torch.allclose(found[0].negative[0].keys, found[2].negative[0].keys)


def test_the_same_guides_give_the_same_answer(read: Callable[..., PreparedGuides], network: DiffusionNetwork) -> None:
    asked = guide("ImagePrompt"), guide("PyraCanny", "b"), guide("FaceSwap", "b")
    assert torch.equal(answer(read(*asked), network), answer(read(*asked), network))


@pytest.mark.parametrize("weighting", ["fooocus", "standard"])
def test_image_prompts_steer_until_they_stop(
    read: Callable[..., PreparedGuides], network: DiffusionNetwork, weighting: ImagePromptWeighting
) -> None:
    plain = network(*inputs())
    some, more = (read(guide("ImagePrompt", weight=w), weighting=weighting) for w in (0.5, 2.0))
    assert (some.control, some.weighting) == (None, weighting)
    answers = [plain, answer(some, network), answer(more, network)]
    assert not any(torch.allclose(answers[a], answers[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    torch.testing.assert_close(answer(some, network, progress=0.5), plain)


def test_an_image_prompt_without_weight_still_counts(
    read: Callable[..., PreparedGuides], network: DiffusionNetwork
) -> None:
    found = read(guide("ImagePrompt", weight=0))
    assert not torch.allclose(answer(found, network), network(*inputs()))


def test_everything_at_once(read: Callable[..., PreparedGuides], network: DiffusionNetwork) -> None:
    kinds: tuple[GuideKind, ...] = ("FaceSwap", "CPDS", "ImagePrompt", "PyraCanny")
    every = answer(read(*(guide(kind) for kind in kinds)), network)
    assert every.isfinite().all()
    for left_out in ("FaceSwap", "CPDS"):
        rest = read(*(guide(kind) for kind in kinds if kind != left_out))
        assert not torch.allclose(answer(rest, network), every)


def test_missing_files_are_told_before_anything_is_read(
    tmp_path: Path, network: DiffusionNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("something was loaded")

    monkeypatch.setattr(GuideModels, "control", refuse)
    models = GuideModels(write_guide_files(tmp_path, [CONTROL_FILES["CPDS"]]), FULL)
    asked = guides(guide("CPDS"), guide("ImagePrompt"))
    with pytest.raises(
        UnknownModel, match=rf"needed for guides of the kind ImagePrompt.*{ADAPTER_FILES['ImagePrompt'].name}"
    ):
        prepare_guides(asked, prepared(asked), network, sdxl_levels(), models)


def test_reading_can_be_stopped(library: Library, network: DiffusionNetwork) -> None:
    def stop() -> None:
        raise Interrupted

    for kind in ("CPDS", "ImagePrompt"):
        asked = guides(guide(kind))
        with pytest.raises(Interrupted):
            prepare_guides(asked, prepared(asked), network, sdxl_levels(), GuideModels(library, FULL), stop)
