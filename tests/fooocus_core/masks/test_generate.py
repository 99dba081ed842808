"""Masks from a picture and what was asked, with the bundled network, and with thin ones in the published layouts."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fooocus_core.errors import UnknownModel, UnreadableModel
from fooocus_core.library import Library
from fooocus_core.masks.boxes import Detections
from fooocus_core.masks.generate import FoundMask, generate_mask
from fooocus_core.masks.models import BUNDLED_FILE, DETECTOR_FILE, SEGMENTER_FILES, MaskModels
from fooocus_core.masks.options import MASK_MODELS, MaskOptions
from fooocus_core.model_files.catalogue import Catalogue
from tests.fooocus_core.masks.thin_segmenter import thin_sam, write_thin_sam

PICTURE = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)
BOXES = np.array([[5, 5, 20, 20], [30, 10, 70, 50], [0, 40, 10, 60]], np.float32)
CATS = MaskOptions("sam", detection_prompt="a cat")


class FakeDetector:
    def __init__(self, boxes: NDArray[np.float32]) -> None:
        self.boxes = boxes
        self.asked: list[Any] = []

    def detect(self, picture: NDArray[np.uint8], prompt: str, **thresholds: float) -> Detections:
        self.asked.append((prompt, thresholds))
        return Detections(self.boxes, ("cat",) * len(self.boxes), np.ones(len(self.boxes), np.float32))


class FakeSegmenter:
    """Takes a box for what is in it."""

    def segments(self, picture: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Any:
        for left, top, right, bottom in boxes.astype(int).tolist():
            segment = np.zeros(picture.shape[:2], bool)
            segment[max(top, 0) : bottom, max(left, 0) : right] = True
            yield segment


class FakeModels(MaskModels):
    """Detection and segmentation as a test has them."""

    def __init__(self, boxes: NDArray[np.float32]) -> None:
        super().__init__(Library({}), Catalogue.of(), lambda: torch.device("cpu"))
        self.found = FakeDetector(boxes)
        self.segmenters: list[str] = []

    def segmenter_file(self, name: Any) -> Path:
        return Path(name)

    def detector(self) -> Any:
        return self.found

    def segmenter(self, name: Any) -> Any:
        self.segmenters.append(name)
        return FakeSegmenter()


def asked(**changes: Any) -> tuple[FoundMask, FakeModels]:
    models = FakeModels(changes.pop("boxes", BOXES))
    options = MaskOptions("sam", detection_prompt="A cat", **changes)
    return generate_mask(PICTURE, options, models), models


def filled(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.any(list(FakeSegmenter().segments(PICTURE, boxes)), axis=0)


def test_what_is_named_is_joined() -> None:
    found, models = asked()
    assert found.mask.shape == (60, 80, 3)
    assert found.mask.dtype == np.uint8
    assert np.array_equal(found.mask, np.where(filled(BOXES)[:, :, None], 255, 0).repeat(3, axis=2))
    assert (found.boxes, found.segments, found.is_empty) == (3, 3, False)
    assert models.found.asked == [("A cat", {"box_threshold": 0.3, "text_threshold": 0.25})]
    assert models.segmenters == ["vit_b"]


def test_no_more_than_so_many_are_taken_in_the_detector_s_order() -> None:
    found, _ = asked(max_detections=2, box_threshold=0.1, sam_model="vit_l")
    assert np.array_equal(found.mask[:, :, 0] > 0, filled(BOXES[:2]))
    assert (found.boxes, found.segments) == (3, 2)


def test_boxes_are_grown_before_they_are_segmented() -> None:
    found, _ = asked(dino_erode_or_dilate=3)
    assert np.array_equal(found.mask[:, :, 0] > 0, filled(BOXES + np.array([-3, -3, 3, 3], np.float32)))


def test_nothing_found_is_a_black_mask_without_a_segmenter() -> None:
    found, models = asked(boxes=np.zeros((0, 4), np.float32))
    assert found.mask.shape == (60, 80, 3)
    assert not found.mask.any()
    assert (found.boxes, found.segments, found.is_empty) == (0, 0, True)
    assert not models.segmenters


def test_the_boxes_themselves_need_no_segmenter() -> None:
    found, models = asked(dino_debug=True, max_detections=1)
    assert found.mask[20, 20].tolist() == [255, 255, 255]
    assert found.mask[45, 50].tolist() == [255, 255, 255]
    assert found.mask[0, 0].tolist() == [0, 0, 0]
    assert (found.boxes, found.segments, found.is_empty) == (3, 0, False)
    assert not models.segmenters


# ---------------------------------------------------------------------------------------------------------- the models


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def models(root: Path) -> MaskModels:
    return MaskModels(Library.below(root), Catalogue.of(), lambda: torch.device("cpu"))


def test_one_network_needs_no_file(models: MaskModels) -> None:
    clear = np.concatenate([PICTURE, np.zeros((60, 80, 1), np.uint8)], axis=2)
    found = generate_mask(clear, MaskOptions("u2netp"), models)
    assert found.mask.shape == (60, 80)
    assert (found.boxes, found.segments, found.is_empty) == (None, None, False)
    assert np.array_equal(found.mask, generate_mask(PICTURE, MaskOptions("u2netp"), models).mask)


@pytest.mark.parametrize("name", [name for name in MASK_MODELS if name not in ("u2netp", "sam")])
def test_every_other_file_is_named_and_published(models: MaskModels, name: Any) -> None:
    """Under the name by which Fooocus keeps it, and none takes another's place."""
    with pytest.raises(
        UnknownModel, match=rf"inpaint: no file named '{name}\.onnx', needed for masks by {name}"
    ) as error:
        generate_mask(PICTURE, MaskOptions(name), models)
    assert f"fetched by: main.py download {name}.onnx" in str(error.value)


def test_the_files_of_sam_are_named_before_anything_is_looked_for(models: MaskModels, root: Path) -> None:
    with pytest.raises(UnknownModel, match=f"main.py download {SEGMENTER_FILES['vit_b']}"):
        generate_mask(PICTURE, CATS, models)
    write_thin_sam(root / "sam" / SEGMENTER_FILES["vit_b"])
    with pytest.raises(UnknownModel, match=f"main.py download {DETECTOR_FILE}"):
        generate_mask(PICTURE, CATS, models)


def test_the_user_s_own_file_comes_before_the_bundled_one(models: MaskModels, root: Path) -> None:
    path = root / "inpaint" / "u2netp.onnx"
    path.parent.mkdir()
    path.write_bytes(b"broken")
    with pytest.raises(UnreadableModel, match=r"u2netp\.onnx"):
        generate_mask(PICTURE, MaskOptions("u2netp"), models)


def test_one_network_of_a_sort_stays_loaded_until_its_file_changes(models: MaskModels, root: Path) -> None:
    bundled = models.background_remover("u2netp")
    assert models.background_remover("u2netp") is bundled
    path = root / "inpaint" / "silueta.onnx"
    path.parent.mkdir()
    path.write_bytes(BUNDLED_FILE.read_bytes())
    other = models.background_remover("silueta")
    os.utime(path, (1, 1))
    assert models.background_remover("silueta") is not other
    assert models.background_remover("u2netp") is not bundled  # which had to go


def test_unloading_forgets_all(models: MaskModels) -> None:
    before = models.background_remover("u2netp")
    models.unload()
    assert models.background_remover("u2netp") is not before


def test_networks_are_not_unloaded_under_a_mask(models: MaskModels) -> None:
    unloaded = threading.Event()

    def unload() -> None:
        models.unload()
        unloaded.set()

    thread = threading.Thread(target=unload)
    with models.in_use():
        thread.start()
        assert not unloaded.wait(0.05)
    thread.join(10)
    assert unloaded.is_set()


def test_a_segmenter_is_loaded_once(models: MaskModels, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fooocus_core.masks import segmenter

    monkeypatch.setitem(segmenter.sam_model_registry, "vit_h", thin_sam)
    write_thin_sam(root / "sam" / SEGMENTER_FILES["vit_h"])
    assert models.segmenter("vit_h") is models.segmenter("vit_h")
