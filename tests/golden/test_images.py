"""Golden family H: picture arithmetic, masks, fills, control pictures and faces."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from fooocus_core.images import area_classes, resizing
from fooocus_core.images.faces import aligned_face, alignment, warped
from fooocus_core.images.fill import box_blurred, filled
from fooocus_core.images.masks import (
    assembled_mask,
    binary,
    eroded_or_dilated,
    joined_layers,
    repaints,
    soft_mask,
)
from fooocus_core.images.outpaint import extended
from fooocus_core.images.pixels import as_bytes, as_floats, to_rgb
from fooocus_core.images.preprocessors import cpds, pyramid_canny
from fooocus_core.images.repaint import DIFFUSION_CLASS, CutOut, at_diffusion_size, cut_out
from fooocus_core.images.working_area import Box, box_around, working_box
from tests.cases import check_all
from tests.golden.vectors import GOLDEN_DIR, golden_json

FOLDER = GOLDEN_DIR / "H_images"
CASES: dict[str, Any] = golden_json("H_images/cases.json")
MATRIX_TOLERANCE = 5e-5
FACE_TOLERANCE = 5
"""Levels: OpenCV 5 interpolates otherwise than 4."""

LEFT_OUT = "fill_noise_mask2.png"
"""The one file that the project's own copy goes without, for its size. The whole family has it."""

Bytes = NDArray[np.uint8]


@cache
def stored(file: str) -> Bytes:
    with Image.open(FOLDER / file) as image:
        return np.array(image)


def source(name: str) -> Bytes:
    """An input, which the cases call by a part of its file's name."""
    return stored(f"in_{name}.png")


def equal(actual: Bytes, file: str) -> None:
    expected = stored(file)
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, expected, err_msg=file)


def check_list(key: str, check: Callable[[Any], object]) -> None:
    check_all({f"{key} {index} {case}"[:120]: case for index, case in enumerate(CASES[key])}, check)


# --- pixels and sizes ---------------------------------------------------------------------------------------------


def test_three_channels() -> None:
    check_list("hwc3", lambda case: equal(to_rgb(stored(case["image"])), case["out"]))


def test_bytes_and_floats() -> None:
    arrays = load_file(FOLDER / "arrays.safetensors")
    np.testing.assert_array_equal(as_floats(arrays["u8"]), arrays["float"])
    np.testing.assert_array_equal(as_bytes(arrays["float_in"])[0], arrays["u8_out"])


MODES = {0: resizing.lanczos, 1: resizing.covering, 2: resizing.contained}


def test_resizing() -> None:
    def check(case: dict[str, Any]) -> None:
        equal(MODES[case["mode"]](source(case["image"]), case["width"], case["height"]), case["out"])

    check_list("resize", check)


def test_resampling() -> None:
    case = CASES["resample"]
    equal(resizing.lanczos(source(case["image"]), int(case["width"]), int(case["height"])), case["out"])


def test_area_classes() -> None:
    def check(case: list[float]) -> None:
        height, width, expected = case
        assert area_classes.area_class(height, width) == expected

    check_list("shape_ceil", check)


def test_sizes_of_an_area_class() -> None:
    def check(case: dict[str, Any]) -> None:
        assert list(area_classes.fitted_size(case["height"], case["width"], case["ceil"])) == case["out"]

    check_list("set_shape_ceil", check)


# --- masks --------------------------------------------------------------------------------------------------------


def test_thresholds() -> None:
    check_list("threshold", lambda case: equal(binary(source(case["mask"]), case["t"]), case["out"]))


def test_eroding_and_dilating() -> None:
    check_list("erode_dilate", lambda case: equal(eroded_or_dilated(source(case["mask"]), case["k"]), case["out"]))


def test_soft_masks() -> None:
    check_list("soft_mask", lambda case: equal(soft_mask(source(case["mask"])), case["out"]))


def uploaded(case: dict[str, Any]) -> Bytes | None:
    """What an upload comes to: nothing where it is off, and nothing of a pair whose picture has no channels."""
    if not case["advanced"] or case["upload"] is None:
        return None
    upload = stored(f"{case['upload']}.png")
    if case["upload_mask"] is None:
        return upload
    return joined_layers(upload, stored(f"{case['upload_mask']}.png")) if upload.ndim == 3 else None


def test_assembling_masks() -> None:
    def check(case: dict[str, Any]) -> None:
        change, invert = case["erode_or_dilate"], case["invert"]
        mask = assembled_mask(stored(f"{case['mask']}.png"), uploaded(case), erode_or_dilate=change, invert=invert)
        equal(mask, case["out"])
        assert (repaints(mask) or bool(case["outpaint"])) is case["goal"]
        if "image_out" in case:
            equal(to_rgb(stored(f"{case['image']}.png")), case["image_out"])

    check_list("mask_assembly", check)


# --- inpainting and outpainting -----------------------------------------------------------------------------------


def test_box_blur() -> None:
    check_list("box_blur", lambda case: equal(box_blurred(source(case["image"]), case["radius"]), case["out"]))


def test_fills() -> None:
    cases = {case["out"]: case for case in CASES["fill"]}
    if not (FOLDER / LEFT_OUT).exists():
        del cases[LEFT_OUT]
    check_all(cases, lambda case: equal(filled(source(case["image"]), source(case["mask"])), case["out"]))


def rows_and_columns(box: Box) -> list[int]:
    return [box.top, box.bottom, box.left, box.right]


def test_boxes() -> None:
    def check(case: dict[str, Any]) -> None:
        mask = np.zeros((case["height"], case["width"]), np.uint8)
        top, bottom, left, right = case["mask_rect_y0y1x0x1"]
        mask[top:bottom, left:right] = 255
        assert rows_and_columns(box_around(mask)) == case["initial"]
        assert rows_and_columns(working_box(mask, case["respective_field"])) == case["box"]

    check_list("boxes", check)


def test_outpainting() -> None:
    def check(case: dict[str, Any]) -> None:
        picture, mask = source("shapes")[:101, :77], source("mask0")[:101, :77]
        image, grown = extended(picture, mask, dict.fromkeys(case["directions"], 0))
        assert list(grown.shape) == case["size_hw"]
        for actual, file in zip((image, grown), case["images"], strict=True):
            equal(actual, file)

    check_list("outpaint", check)


def repainted(case: dict[str, Any]) -> CutOut:
    picture, mask = source(case["image"]), source(case["mask"])
    return cut_out(
        picture,
        mask,
        case["respective_field"],
        at_diffusion_size(lambda small: small, DIFFUSION_CLASS),
        fill=case["use_fill"],
    )


def test_repainting() -> None:
    def check(numbered: tuple[int, dict[str, Any]]) -> None:
        index, case = numbered
        repaint = repainted(case)
        assert rows_and_columns(repaint.box) == case["interested_area"]
        assert list(repaint.picture.shape[:2]) == case["working_size"]
        for part, actual in (("image", repaint.picture), ("mask", repaint.mask), ("fill", repaint.fill)):
            equal(actual[::4, ::4], f"worker{index}_interested_{part}_every4.png")
            assert actual.mean() == case[f"interested_{part}_mean"]
        equal(repaint.soft_mask, f"worker{index}_soft_mask.png")
        equal(repaint.composited(stored(f"worker{index}_generated.png")), f"worker{index}_composited.png")

    check_all({f"worker {index}": (index, case) for index, case in enumerate(CASES["worker"])}, check)


# --- control pictures and faces -----------------------------------------------------------------------------------


def test_canny() -> None:
    def check(case: dict[str, Any]) -> None:
        equal(pyramid_canny(source(case["image"]), case["low"], case["high"]), case["out"])

    check_list("pyracanny", check)


def test_cpds() -> None:
    check_list("cpds", lambda case: equal(cpds(source(case["image"])), case["out"]))


def close(actual: NDArray[np.generic], expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(actual, float), np.asarray(expected, float), atol=tolerance, rtol=0)


def test_faces() -> None:
    def check(case: dict[str, Any]) -> None:
        picture = source(case["image"])
        if not case["faces"]:
            assert aligned_face(picture, None) is picture
            return
        landmarks = np.array(case["faces"][0][5:], np.float32).reshape(5, 2)
        np.testing.assert_array_equal(landmarks, np.array(case["landmarks"], np.float32))
        found = alignment(landmarks)
        assert found is not None
        close(found, case["matrix"], MATRIX_TOLERANCE)
        face = warped(picture, np.array(case["matrix"]))
        close(face[::4, ::4], stored(case["out"]), FACE_TOLERANCE)
        close(face.mean(), case["mean"], FACE_TOLERANCE)
        row, column = case["border_at"]
        assert face[row, column].tolist() == case["border"]

    check_list("face_crop", check)


# --- nothing is left uncompared -----------------------------------------------------------------------------------


def test_every_kind_of_case_is_known() -> None:
    known = {
        *("fill", "box_blur", "soft_mask", "threshold", "erode_dilate", "boxes", "worker", "outpaint"),
        *("pyracanny", "cpds", "resize", "resample", "shape_ceil", "set_shape_ceil", "hwc3", "face_crop"),
        *("mask_assembly", "library_versions"),
    }
    assert set(CASES) == known


def test_only_one_file_may_be_missing() -> None:
    named = {value for cases in CASES.values() for value in _texts(cases) if value.endswith(".png")}
    assert {file for file in named if not (FOLDER / file).exists()} <= {LEFT_OUT}


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        value = list(value.values())
    return {text for item in value for text in _texts(item)} if isinstance(value, list) else set()
