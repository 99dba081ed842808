"""Segment Anything: files in the published layouts, the way through the network, and what becomes of its masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import sam_model_registry
from skimage import data

from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.masks.models import SEGMENTER_FILES
from fooocus_core.masks.options import SAM_MODELS, SamModel
from fooocus_core.masks.segmenter import Segmenter, load_segmenter, without_small_holes
from tests.fooocus_core.masks.thin_segmenter import thin_sam, write_thin_sam
from tools.synthetic import published_shapes

CPU = torch.device("cpu")
BOXES = np.array([[100, 50, 300, 200], [10, 10, 60, 380], [-20, 300, 700, 500]], np.float32)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("sam") / SEGMENTER_FILES["vit_b"]
    return path, write_thin_sam(path)


@pytest.fixture(scope="module")
def segmenter(original: tuple[Path, Any]) -> Segmenter:
    return load_segmenter("vit_b", original[0], CPU, thin_sam)


@pytest.mark.parametrize("name", SAM_MODELS)
def test_the_published_files_fit_their_networks(name: SamModel) -> None:
    with torch.device("meta"):
        network = sam_model_registry[name]()
    wanted = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    published = published_shapes(SEGMENTER_FILES[name].removesuffix(".pth"))
    assert wanted == {key: shape for key, (shape, _) in published.items()}


def test_segments_are_those_of_the_formula(original: tuple[Path, Any], segmenter: Segmenter) -> None:
    """Step by step as the specification has it: the longer side 1024, boxes along with it, what is above 0."""
    picture = data.coffee()
    height_px, width_px = picture.shape[:2]
    network = original[1]
    scaled = np.asarray(Image.fromarray(picture).resize((1024, 683), Image.Resampling.BILINEAR))
    pixels = torch.from_numpy(scaled.astype(np.float32)).movedim(2, 0)
    pixels = (pixels - network.pixel_mean) / network.pixel_std
    padded = torch.zeros(1, 3, 1024, 1024)
    padded[0, :, :683] = pixels
    boxes = torch.from_numpy(BOXES) * torch.tensor([1024 / width_px, 683 / height_px] * 2)
    with torch.inference_mode():
        sparse, dense = network.prompt_encoder(points=None, boxes=boxes, masks=None)
        small, _ = network.mask_decoder(
            image_embeddings=network.image_encoder(padded),
            image_pe=network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        large = torch.nn.functional.interpolate(small, (1024, 1024), mode="bilinear")[..., :683, :]
        logits = torch.nn.functional.interpolate(large, (height_px, width_px), mode="bilinear")[:, 0]
    expected = [without_small_holes((one > 0).numpy()) for one in logits]
    found = list(segmenter.segments(picture, BOXES))
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert one.shape == picture.shape[:2]
        assert one.dtype == np.bool_
        assert (one != other).mean() < 1e-4  # sums in another order, next to the edges
    assert 0.01 < found[0].mean() < 0.99


def test_gaps_are_filled_below_four_hundred_pixels() -> None:
    mask = np.ones((100, 100), bool)
    mask[10:30, 10:30] = False  # 400 pixels
    mask[50:71, 50:69] = False  # 399
    mask[0:5, 95:100] = False  # at the edge of the picture
    filled = without_small_holes(mask)
    assert not filled[10:30, 10:30].any()
    assert filled.sum() == 100 * 100 - 400


def test_gaps_that_touch_at_a_corner_are_one() -> None:
    mask = np.ones((100, 100), bool)
    mask[10:30, 10:25] = mask[30:50, 25:40] = False  # 300 pixels each
    assert np.array_equal(without_small_holes(mask), mask)


def test_a_mask_without_gaps_stays_as_it_is() -> None:
    assert not without_small_holes(np.zeros((40, 40), bool)).any()
    assert without_small_holes(np.ones((40, 40), bool)).all()


def test_other_files_are_refused_by_name(tmp_path: Path, original: tuple[Path, Any]) -> None:
    with pytest.raises(UnsupportedModel, match=r"sam_vit_b_01ec64\.pth: the weight .* has shape"):
        load_segmenter("vit_b", original[0], CPU)
    broken = tmp_path / "sam_vit_l_0b3195.pth"
    broken.write_bytes(original[0].read_bytes()[:5000])
    with pytest.raises(UnreadableModel, match=r"sam_vit_l_0b3195\.pth"):
        load_segmenter("vit_l", broken, CPU, thin_sam)
