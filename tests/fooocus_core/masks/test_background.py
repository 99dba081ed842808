"""Networks that remove backgrounds: their arithmetic on outputs made by hand, and the bundled one on photographs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.images.pixels import Picture
from fooocus_core.masks.background import BackgroundRemover, load_background_remover
from fooocus_core.masks.models import BUNDLED_FILE
from fooocus_core.masks.options import ClothCategory, MaskModel
from tests.fooocus_core.masks.photographs import astronaut, coffee, overlap

ROOT = Path(__file__).resolve().parents[3]
PICTURE = np.zeros((12, 20, 3), np.uint8)


@dataclass
class FakeNetwork:
    """Answers ``output`` and keeps what it was asked."""

    output: NDArray[np.float32]
    asked: list[Any] = field(default_factory=list)

    def run(self, picture: Picture, side_px: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
        self.asked.append((side_px, mean, std))
        return self.output


def remover(name: MaskModel, output: Any) -> tuple[BackgroundRemover, FakeNetwork]:
    network = FakeNetwork(np.array(output, np.float32))
    return BackgroundRemover(name, network, f"{name}.onnx"), network


def shrunk(mask: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(mask).resize((width_px, height_px), Image.Resampling.LANCZOS))


@pytest.mark.parametrize(
    ("name", "side_px", "std"),
    [
        ("u2net", 320, (0.229, 0.224, 0.225)),
        ("u2netp", 320, (0.229, 0.224, 0.225)),
        ("u2net_human_seg", 320, (0.229, 0.224, 0.225)),
        ("silueta", 320, (0.229, 0.224, 0.225)),
        ("isnet-general-use", 1024, (1.0, 1.0, 1.0)),
        ("isnet-anime", 1024, (1.0, 1.0, 1.0)),
    ],
)
def test_each_network_is_fed_as_the_reference_feeds_it(name: MaskModel, side_px: int, std: tuple[float, ...]) -> None:
    made, network = remover(name, np.eye(4)[None, None])
    made.mask(PICTURE)
    assert network.asked == [(side_px, (0.485, 0.456, 0.406), std)]


def test_the_smallest_and_the_largest_value_become_black_and_white() -> None:
    """Truncated, as the reference does: two thirds of the way are 170, not 169.99 rounded."""
    made, _ = remover("u2net", [[[[-3.0, 0.0], [3.0, 1.5]]]])
    assert made.mask(np.zeros((2, 2, 3), np.uint8)).tolist() == [[0, 127], [255, 191]]


def test_a_soft_mask_is_brought_to_the_picture_by_lanczos() -> None:
    output = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(1, 1, 32, 32)
    made, _ = remover("silueta", output)
    mask = made.mask(PICTURE)
    assert mask.shape == PICTURE.shape[:2]
    assert np.array_equal(mask, shrunk((output[0, 0] * 255).astype(np.uint8), 20, 12))


def test_a_network_without_an_opinion_masks_nothing() -> None:
    made, _ = remover("isnet-anime", np.full((1, 1, 8, 8), 0.7))
    assert not made.mask(PICTURE).any()


@pytest.mark.parametrize(("category", "row"), [("upper", 1), ("lower", 2), ("full", 3)])
def test_clothes_are_told_apart_by_class(category: ClothCategory, row: int) -> None:
    """Four bands of the picture, of one class each; the numbers of the classes are what is resized."""
    scores = np.zeros((1, 4, 64, 64), np.float32)
    for band in range(4):
        scores[0, band, 16 * band : 16 * band + 16] = 1.0
    made, network = remover("u2net_cloth_seg", scores)
    mask = made.mask(np.zeros((64, 64, 3), np.uint8), category)
    assert network.asked[0][0] == 768
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[16 * row : 16 * row + 16] == 255).all()
    assert mask.sum() == 255 * 16 * 64


def test_classes_fray_where_they_are_resized() -> None:
    """From background to a full dress all classes between lie on the edge, as in the reference."""
    scores = np.zeros((1, 4, 64, 64), np.float32)
    scores[0, 0, :, :32] = scores[0, 3, :, 32:] = 1.0
    made, _ = remover("u2net_cloth_seg", scores)
    upper = made.mask(np.zeros((100, 100, 3), np.uint8), "upper")
    classes = np.zeros((64, 64), np.uint8)
    classes[:, 32:] = 3
    assert np.array_equal(upper == 255, shrunk(classes, 100, 100) == 1)


def rembg_class(name: str) -> Any:
    """rembg's own session of a model; behind ours, which keeps rembg from compiling what no mask needs."""
    importlib.import_module("fooocus_core.masks.rembg_session")
    return importlib.import_module("rembg.sessions").sessions[name]


@pytest.mark.parametrize("category", ["upper", "lower", "full"])
def test_clothes_are_those_of_rembg(category: ClothCategory) -> None:
    scores = np.random.default_rng(2).random((1, 4, 48, 48), np.float32)
    made, _ = remover("u2net_cloth_seg", scores)
    picture = np.zeros((75, 130, 3), np.uint8)
    session = object.__new__(rembg_class("u2net_cloth_seg"))
    session.inner_session = SimpleNamespace(
        run=lambda names, fed: [scores], get_inputs=lambda: [SimpleNamespace(name="input")]
    )
    (own,) = session.predict(Image.fromarray(picture), cc=category)
    assert np.array_equal(made.mask(picture, category), np.asarray(own))


def test_a_network_of_another_kind_is_refused() -> None:
    made, _ = remover("u2net_cloth_seg", np.zeros((1, 1, 8, 8)))
    with pytest.raises(UnsupportedModel, match=r"u2net_cloth_seg\.onnx: not a network of u2net_cloth_seg's kind"):
        made.mask(PICTURE)


@pytest.fixture(scope="module")
def bundled() -> BackgroundRemover:
    return load_background_remover("u2netp", BUNDLED_FILE)


@pytest.mark.parametrize(("photograph", "least"), [(coffee, 0.97), (astronaut, 0.95)])
def test_the_bundled_network_finds_what_a_person_would_cut_out(
    bundled: BackgroundRemover, photograph: Callable[[], tuple[Picture, NDArray[np.bool_]]], least: float
) -> None:
    """Intersection over union with an outline by hand: 0.981 and 0.963."""
    picture, outline = photograph()
    mask = bundled.mask(picture)
    assert mask.shape == outline.shape
    assert overlap(mask > 127, outline) > least


def test_the_bundled_network_answers_as_in_rembg(bundled: BackgroundRemover) -> None:
    """Give or take one level of grey, should threads sum in another order."""
    picture, _ = astronaut()
    session = object.__new__(rembg_class("u2netp"))
    session.inner_session = onnxruntime.InferenceSession(BUNDLED_FILE, providers=["CPUExecutionProvider"])
    (own,) = session.predict(Image.fromarray(picture))
    assert np.abs(bundled.mask(picture).astype(int) - np.asarray(own)).max() <= 1


def test_a_black_picture_masks_something_or_nothing_and_never_fails(bundled: BackgroundRemover) -> None:
    assert bundled.mask(np.zeros((9, 700, 3), np.uint8)).shape == (9, 700)


@pytest.mark.parametrize("content", [b"", b"not a network", BUNDLED_FILE.read_bytes()[:100_000]])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "isnet-anime.onnx"
    path.write_bytes(content)
    with pytest.raises(UnreadableModel, match=r"isnet-anime\.onnx: corrupt") as error:
        load_background_remover("isnet-anime", path)
    assert str(tmp_path) not in str(error.value)


def test_rembg_is_there_without_compiling() -> None:
    """Its mattings compile for most of a minute where they are let; numba works again afterwards."""
    code = (
        "import sys, numba; from fooocus_core.masks import rembg_session;"
        "mattings = [module for name, module in sys.modules.items() if name.startswith('pymatting.')];"
        "functions = [value for module in mattings for value in vars(module).values()];"
        "assert mattings and numba.config.DISABLE_JIT == 0;"
        "sys.exit(any(hasattr(function, 'py_func') for function in functions))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
