"""Finding faces: the published layout, the network beside transformers' body, the arithmetic of anchors, and a crop."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import ResNetBackbone, ResNetConfig

from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.images.faces import TEMPLATE, aligned_face
from fooocus_core.images.pixels import Picture
from fooocus_core.models.checkpoint import open_checkpoint
from fooocus_core.models.face_detector import (
    FACE_DETECTOR_FILE,
    MAX_OVERLAP,
    MAX_PIXELS,
    MAX_SIDE_PX,
    FaceDetector,
    anchors,
    decoded_boxes,
    decoded_landmarks,
    detection_size,
    distinct_boxes,
    load_face_detector,
    overlaps,
    sure_ones,
)
from fooocus_core.models.retinaface import RetinaFace, empty_retinaface
from tools.synthetic import DTYPES, FACES, published_shapes, thin_checkpoint

SIDES = st.integers(1, 100)
FLOATS = {"allow_nan": False, "width": 32}

# --- the file -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thin() -> dict[str, Tensor]:
    return thin_checkpoint(FACES, torch.float32)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_published_layout_at_full_size(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    weights = {  # each the one zero, seen many times: no memory
        prefix + key: torch.zeros((), dtype=DTYPES[dtype]).expand(shape)
        for key, (shape, dtype) in published_shapes(FACES).items()
    }
    network = empty_retinaface({key.removeprefix(prefix): tensor for key, tensor in weights.items()}, FACES)
    expected = {key: shape for key, (shape, _) in published_shapes(FACES).items()}
    assert {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()} == expected
    load_face_detector(weights, FACE_DETECTOR_FILE)
    assert caplog.records == []  # no key is of no use


def test_a_file_of_torch(thin: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({f"module.{key}": tensor for key, tensor in thin.items()}, tmp_path / FACE_DETECTOR_FILE)
    checkpoint = open_checkpoint(tmp_path / FACE_DETECTOR_FILE)
    picture = random_picture(70, 50)
    found = load_face_detector(checkpoint.tensors, checkpoint.name).detect(picture)
    expected = load_face_detector(thin, FACE_DETECTOR_FILE).detect(picture)
    assert [face.score for face in found] == [face.score for face in expected]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"body.conv1.weight": None}, "not a detector of faces"),
        ({"fpn.output1.0.weight": None}, "not a detector of faces"),
        ({"body.conv1.weight": torch.zeros(())}, "not a detector of faces"),
        ({"ssh2.conv7x7_3.1.running_var": None}, r"the weight ssh2\.conv7x7_3\.1\.running_var is missing"),
        ({"LandmarkHead.2.conv1x1.bias": torch.zeros(10)}, r"LandmarkHead\.2\.conv1x1\.bias has shape \(10,\)"),
        ({"body.conv1.weight": torch.zeros(16, 3, 7, 7)}, "has shape"),
    ],
)
def test_other_files_are_refused_by_name(
    thin: dict[str, Tensor], changes: dict[str, Tensor | None], reason: str
) -> None:
    weights = {key: tensor for key, tensor in (thin | changes).items() if tensor is not None}
    with pytest.raises(UnsupportedModel, match=reason) as refused:
        load_face_detector(weights, FACE_DETECTOR_FILE)
    assert refused.value.name == FACE_DETECTOR_FILE


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / FACE_DETECTOR_FILE).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UnreadableModel) as refused:
        open_checkpoint(tmp_path / FACE_DETECTOR_FILE)
    assert refused.value.name == FACE_DETECTOR_FILE


# --- the network --------------------------------------------------------------------------------------------------


def lively(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with statistics and offsets that are not neutral."""
    generator = torch.Generator().manual_seed(5)

    def value(key: str, tensor: Tensor) -> Tensor:
        if key.endswith(("bias", "running_mean")):
            return 0.3 * torch.randn(tensor.shape, generator=generator)
        return 0.5 + 0.5 * torch.rand(tensor.shape, generator=generator) if tensor.ndim == 1 else tensor

    return {key: value(key, tensor) for key, tensor in weights.items()}


@pytest.fixture(scope="module")
def lively_network(thin: dict[str, Tensor]) -> RetinaFace:
    network = empty_retinaface(thin, FACES)
    network.load_state_dict(lively(thin), assign=True)
    return network.eval()


def in_names_of_transformers(key: str) -> str:
    """``layer2.0.conv1.weight`` as ``encoder.stages.1.layers.0.layer.0.convolution.weight``."""
    parts = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}
    *where, part, kind = key.split(".")
    if not where:
        return f"embedder.embedder.{parts[part[:-1]]}.{kind}"
    block = f"encoder.stages.{int(where[0][-1]) - 1}.layers.{where[1]}"
    if part in parts:
        return f"{block}.shortcut.{parts[part]}.{kind}"
    return f"{block}.layer.{int(part[-1]) - 1}.{parts[part[:-1]]}.{kind}"


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 33)])
def test_the_body_equals_that_of_transformers(thin: dict[str, Tensor], height: int, width: int) -> None:
    weights = lively(thin)
    body = {key.removeprefix("body."): tensor for key, tensor in weights.items() if key.startswith("body.")}
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[32, 64, 128, 256], out_features=["stage2", "stage3", "stage4"]
    )
    theirs = ResNetBackbone(config).eval()
    theirs.load_state_dict({in_names_of_transformers(key): tensor for key, tensor in body.items()})
    ours = empty_retinaface(weights, FACES).body
    ours.load_state_dict(body, assign=True)
    pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for mine, other in zip(ours.eval()(pixels), theirs(pixels).feature_maps, strict=True):
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 33)])
def test_pyramid_context_and_heads_as_published(lively_network: RetinaFace, height: int, width: int) -> None:
    """Written out once more, function by function, over the file's keys."""
    weights = lively_network.state_dict()
    pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))

    def normed(part: str, x: Tensor) -> Tensor:
        kernel = weights[f"{part}.0.weight"]
        statistics = (weights[f"{part}.1.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(functional.conv2d(x, kernel, padding=kernel.shape[2] // 2), *statistics)

    def context(part: str, x: Tensor) -> Tensor:
        shared = normed(f"{part}.conv5X5_1", x).relu()
        wide = normed(f"{part}.conv7x7_3", normed(f"{part}.conv7X7_2", shared).relu())
        return torch.cat([normed(f"{part}.conv3X3", x), normed(f"{part}.conv5X5_2", shared), wide], 1).relu()

    def enlarged(x: Tensor, like: Tensor) -> Tensor:
        return functional.interpolate(x, size=like.shape[2:], mode="nearest")

    def head(kind: str, values: int) -> Tensor:
        parts = ((f"{kind}.{index}.conv1x1", level) for index, level in enumerate(levels))
        said = (functional.conv2d(level, weights[f"{part}.weight"], weights[f"{part}.bias"]) for part, level in parts)
        return torch.cat([maps.movedim(1, 3).reshape(-1, values) for maps in said])

    with torch.no_grad():
        outputs = lively_network(pixels)
        fine, middle, coarse = (
            normed(f"fpn.output{i + 1}", x).relu() for i, x in enumerate(lively_network.body(pixels))
        )
        middle = normed("fpn.merge2", middle + enlarged(coarse, middle)).relu()
        fine = normed("fpn.merge1", fine + enlarged(middle, fine)).relu()
        levels = [context(f"ssh{i + 1}", level) for i, level in enumerate((fine, middle, coarse))]
    torch.testing.assert_close(outputs.scores, head("ClassHead", 2).softmax(1)[:, 1])
    torch.testing.assert_close(outputs.boxes, head("BboxHead", 4))
    torch.testing.assert_close(outputs.landmarks, head("LandmarkHead", 10))


@settings(max_examples=20)
@given(SIDES, SIDES)
def test_every_anchor_of_any_size_has_its_answer(lively_network: RetinaFace, width: int, height: int) -> None:
    with torch.no_grad():
        outputs = lively_network(torch.zeros(1, 3, height, width))
    count = len(anchors(width, height))
    assert [tuple(output.shape) for output in outputs] == [(count,), (count, 4), (count, 10)]


# --- anchors and what is told from them ---------------------------------------------------------------------------


def test_anchors() -> None:
    places = anchors(17, 9)  # grids of 3 x 2, 2 x 1 and 1 x 1 cells, two anchors in each
    assert places.dtype == np.float32
    assert places.tolist() == [
        *([4, 4, 16], [4, 4, 32], [12, 4, 16], [12, 4, 32], [20, 4, 16], [20, 4, 32]),
        *([4, 12, 16], [4, 12, 32], [12, 12, 16], [12, 12, 32], [20, 12, 16], [20, 12, 32]),
        *([8, 8, 64], [8, 8, 128], [24, 8, 64], [24, 8, 128]),
        *([16, 16, 256], [16, 16, 512]),
    ]


def test_offsets() -> None:
    place = np.array([[100, 200, 64]], np.float32)
    box = np.array([[5, -10, math.log(2) / 0.2, 0]], np.float32)  # half a size right, one up, twice as wide
    np.testing.assert_allclose(decoded_boxes(box, place), [[68, 104, 196, 168]], rtol=1e-6)
    points = np.array([[0, 0, 5, 0, 0, 5, -10, 0, 0, -2.5]], np.float32)
    expected = [[(100, 200), (132, 200), (100, 232), (36, 200), (100, 184)]]
    np.testing.assert_allclose(decoded_landmarks(points, place), expected, rtol=1e-6)


@given(
    st.tuples(st.floats(-500, 5000, **FLOATS), st.floats(-500, 5000, **FLOATS)),
    st.tuples(st.floats(1, 2000, **FLOATS), st.floats(1, 2000, **FLOATS)),
    st.lists(st.floats(-500, 5000, **FLOATS), min_size=10, max_size=10),
    st.sampled_from(anchors(333, 222).tolist()),
)
def test_a_planted_face_comes_back(
    corner: tuple[float, float], extent: tuple[float, float], points: list[float], place: list[float]
) -> None:
    """Encoded as for training, then decoded."""
    x, y, size = place
    middle = [(start + length / 2 - of) / size / 0.1 for start, length, of in zip(corner, extent, (x, y), strict=True)]
    offsets = np.array([[*middle, *(math.log(length / size) / 0.2 for length in extent)]], np.float32)
    box = [*corner, corner[0] + extent[0], corner[1] + extent[1]]
    np.testing.assert_allclose(decoded_boxes(offsets, np.array([place], np.float32))[0], box, rtol=1e-4, atol=1e-2)
    shares = (np.array(points).reshape(5, 2) - (x, y)) / size / 0.1
    found = decoded_landmarks(shares.reshape(1, 10).astype(np.float32), np.array([place], np.float32))
    np.testing.assert_allclose(found[0].ravel(), points, rtol=1e-5, atol=1e-2)


def test_sure_ones() -> None:
    scores = np.array([0.5, 0.98, 0.97, 0.99, 0.98, math.nan, 1.0], np.float32)
    assert sure_ones(scores).tolist() == [6, 3, 1, 4]
    assert sure_ones(np.zeros(0, np.float32)).tolist() == []


def test_overlaps() -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [2, 2, 4, 7], [10, 0, 20, 10], [30, 30, 40, 40]], np.float32)
    np.testing.assert_allclose(overlaps(box, others), [1, 1 / 3, 0.1, 0, 0], rtol=1e-6)


def test_distinct_boxes() -> None:
    boxes = [
        (0, 0, 10, 10),
        (4, 0, 14, 10),  # 60 of 140 with the first: 0.43
        (5, 0, 15, 10),  # 50 of 150 with the first; its 0.82 with the second does not count, that one is gone
        (0, 6, 10, 10),  # 40 of 100: exactly at the threshold, which is not beyond it
        (20, 0, 30, 10),
    ]
    assert distinct_boxes(np.array(boxes, np.float32)).tolist() == [0, 2, 3, 4]
    assert distinct_boxes(np.zeros((0, 4), np.float32)).tolist() == []


BOX = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))


@given(st.lists(BOX, min_size=1, max_size=30))
def test_distinct_boxes_of_any_kind(boxes: list[tuple[int, int, int, int]]) -> None:
    corners = np.array([(x, y, x + width, y + height) for x, y, width, height in boxes], np.float32)
    kept = distinct_boxes(corners).tolist()
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    for index, box in enumerate(corners):
        surer = [other for other in kept if other < index]
        is_hidden = bool((overlaps(box, corners[surer]) > MAX_OVERLAP).any())
        assert is_hidden == (index not in kept)


# --- large pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (2048, 2048, (2048, 2048)),
        (8192, 512, (8192, 512)),
        (4096, 4096, (2048, 2048)),
        (16384, 1, (8192, 1)),
        (1, 10**8, (1, 8192)),
    ],
)
def test_detection_sizes(width: int, height: int, expected: tuple[int, int]) -> None:
    assert detection_size(width, height) == expected


@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_any_size_keeps_the_bounds(width: int, height: int) -> None:
    seen = detection_size(width, height)
    assert math.prod(seen) <= MAX_PIXELS
    assert 1 <= min(seen) <= max(seen) <= MAX_SIDE_PX
    if width * height <= MAX_PIXELS and max(width, height) <= MAX_SIDE_PX:
        assert seen == (width, height)


# --- the whole way ------------------------------------------------------------------------------------------------

STRIDE, SIZE = 16, 128
LOGIT, BIAS = 20.0, 10.0
COLOURS = ((255, 0, 0), (0, 255, 0), (255, 255, 0), (120, 0, 0), (0, 120, 0))
"""One to a landmark, none of them with the blue that the planted detector takes for a face."""


def random_picture(height: int, width: int) -> Picture:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def planted_detector(box: NDArray[np.float64], landmarks: NDArray[np.float64]) -> FaceDetector:
    """A network that takes a blue dot at ``(16 x, 16 y)`` for a face of the 128 pixel anchor of cell ``x, y``.

    Only blue goes through it, untouched but for a division by 151, and only on the middle level. ``box`` and
    ``landmarks`` are the offsets ``[4]`` and ``[10]`` that it tells wherever it is asked.
    """
    weights = {
        key: torch.full_like(tensor, 1.0 if key.endswith(("running_var", "weight")) and tensor.ndim == 1 else 0.0)
        for key, tensor in thin_checkpoint(FACES, torch.float32).items()
    }
    weights["body.conv1.weight"][0, 0, 3, 3] = 1 / 151
    for stage in (1, 2, 3, 4):
        weights[f"body.layer{stage}.0.downsample.0.weight"][0, 0] = 1.0
    weights["fpn.output2.0.weight"][0, 0] = 1.0
    weights["fpn.merge2.0.weight"][0, 0, 1, 1] = 1.0
    weights["ssh2.conv3X3.0.weight"][0, 0, 1, 1] = 1.0
    for level in (0, 1, 2):
        weights[f"ClassHead.{level}.conv1x1.bias"] = torch.tensor((BIAS, 0.0, BIAS, 0.0))
        weights[f"BboxHead.{level}.conv1x1.bias"] = torch.from_numpy(np.tile(box, 2)).float()
        weights[f"LandmarkHead.{level}.conv1x1.bias"] = torch.from_numpy(np.tile(landmarks, 2)).float()
    weights["ClassHead.1.conv1x1.weight"][3, 0] = LOGIT  # the second anchor's face
    return load_face_detector(weights, FACE_DETECTOR_FILE)


def score_of(blue: int) -> float:
    return 1 / (1 + math.exp(BIAS - LOGIT * (blue - 104) / 151))


def dot(picture: Picture, x: float, y: float, colour: tuple[int, int, int], radius: int = 1) -> None:
    column, row = round(x), round(y)
    picture[row - radius : row + radius + 1, column - radius : column + radius + 1] = colour


def turned_template(degrees: float) -> NDArray[np.float64]:
    """Five points of a face about 100 pixels wide, turned, around the anchor's centre."""
    angle = math.radians(degrees)
    turn = np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    return np.asarray((TEMPLATE - TEMPLATE.mean(0)) * 0.5 @ turn.T + (6.0, -9.0))


def test_a_planted_face_is_cut_out_upright() -> None:
    points = turned_template(25)
    detector = planted_detector(np.array((1.0, -2.0, 0.5, 1.0)), points.ravel() / SIZE / 0.1)
    picture = np.full((301, 403, 3), 90, np.uint8)
    dot(picture, 9 * STRIDE, 7 * STRIDE, (90, 90, 230))
    centre = np.array((9.5, 7.5)) * STRIDE
    for (x, y), colour in zip(points + centre, COLOURS, strict=True):
        dot(picture, x, y, colour, radius=5)

    (face,) = detector.detect(picture)
    assert face.score == pytest.approx(score_of(230), rel=1e-4)
    width, height = SIZE * math.exp(0.1), SIZE * math.exp(0.2)
    left, top = centre[0] + 0.1 * SIZE - width / 2, centre[1] - 0.2 * SIZE - height / 2
    np.testing.assert_allclose(face.box, (left, top, left + width, top + height), rtol=1e-4)
    np.testing.assert_allclose(face.landmarks, points + centre, atol=0.01)

    landmarks = detector.landmarks(picture)
    assert landmarks is not None
    np.testing.assert_array_equal(landmarks, face.landmarks)
    crop = aligned_face(picture, landmarks)
    assert crop.shape == (512, 512, 3)
    for (x, y), colour in zip(TEMPLATE, COLOURS, strict=True):
        assert tuple(crop[round(y), round(x)]) == colour


def test_blue_is_read_as_blue_and_no_face_is_none() -> None:
    detector = planted_detector(np.zeros(4), np.zeros(10))
    picture = np.zeros((200, 200, 3), np.uint8)
    dot(picture, 96, 96, (255, 255, 0))
    assert detector.detect(picture) == []
    assert detector.landmarks(picture) is None
    assert aligned_face(picture, detector.landmarks(picture)) is picture
    dot(picture, 96, 96, (0, 0, 205))  # 0.967
    assert detector.landmarks(picture) is None
    dot(picture, 96, 96, (0, 0, 207))  # 0.974
    assert detector.landmarks(picture) is not None


def test_the_surest_face_comes_first_and_hides_its_neighbours() -> None:
    detector = planted_detector(np.zeros(4), np.zeros(10))
    picture = np.zeros((180, 420, 3), np.uint8)
    for x, blue in ((4, 220), (5, 230), (18, 250), (20, 240)):
        dot(picture, x * STRIDE, 5 * STRIDE, (0, 0, blue))
    faces = detector.detect(picture)
    assert [face.score for face in faces] == pytest.approx([score_of(250), score_of(230)], rel=1e-4)
    assert [tuple(face.landmarks[0]) for face in faces] == [(18.5 * STRIDE, 5.5 * STRIDE), (5.5 * STRIDE, 5.5 * STRIDE)]
    found = detector.landmarks(picture)
    assert found is not None
    assert tuple(found[0]) == (18.5 * STRIDE, 5.5 * STRIDE)


def test_a_face_of_a_large_picture_is_told_in_its_own_pixels() -> None:
    points = turned_template(-10)
    detector = planted_detector(np.zeros(4), points.ravel() / SIZE / 0.1)
    width, height = 12001, 192
    scale = np.array((width, height)) / detection_size(width, height)
    assert scale.min() > 1.4
    picture = np.zeros((height, width, 3), np.uint8)
    dot(picture, *(scale * (300 * STRIDE, 4 * STRIDE)), (0, 0, 255), radius=5)
    (face,) = detector.detect(picture)
    centre = np.array((300.5, 4.5)) * STRIDE
    np.testing.assert_allclose(face.landmarks, (centre + points) * scale, rtol=1e-5)
    np.testing.assert_allclose(face.box, np.concatenate([centre - 64, centre + 64]) * np.tile(scale, 2), rtol=1e-5)


@settings(max_examples=15)
@given(SIDES, SIDES)
def test_small_and_odd_pictures_have_faces_or_none(lively_network: RetinaFace, width: int, height: int) -> None:
    detector = FaceDetector(lively_network)
    picture = random_picture(height, width)
    faces = detector.detect(picture)
    scores = [face.score for face in faces]
    assert scores == sorted(scores, reverse=True)
    found = detector.landmarks(picture)
    assert (found is None) == (faces == [])
    if found is not None:
        np.testing.assert_array_equal(found, faces[0].landmarks)
        assert (found.shape, found.dtype, faces[0].box.shape) == ((5, 2), np.float32, (4,))
