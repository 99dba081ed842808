"""The conversion reads ncnn's layer list and weights, and the bundled file is what it should be."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tools.pocket.convert_upscaler import HALF_PRECISION_TAG, convert

BUNDLED = Path(__file__).parents[2] / "fooocus_core/pocket/upscaler_x4.safetensors"
DESCRIPTION = """7767517
3 3
Input data 0 1 data
Convolution conv 1 1 data a 0=2 1=3 4=1 5=1 6=54
PReLU act 1 1 a b 0=2"""


def weights() -> bytes:
    kernel = np.arange(54, dtype=np.float16)
    others = np.array([0.5, -0.5, 0.25, 0.75], np.float32)
    return np.uint32(HALF_PRECISION_TAG).tobytes() + kernel.tobytes() + others.tobytes()


def test_convolutions_and_slopes_in_order() -> None:
    tensors = convert(DESCRIPTION, weights())
    assert list(tensors) == ["body.0.weight", "body.0.bias", "body.1.weight"]
    assert tensors["body.0.weight"].shape == (2, 3, 3, 3)
    assert tensors["body.0.weight"].flatten().tolist() == list(range(54))
    assert tensors["body.0.bias"].tolist() == [0.5, -0.5]
    assert tensors["body.1.weight"].tolist() == [0.25, 0.75]


def test_left_over_bytes_and_unknown_formats_are_errors() -> None:
    with pytest.raises(ValueError, match="left over"):
        convert(DESCRIPTION, weights() + b"1234")
    with pytest.raises(ValueError, match="unknown weight format"):
        convert(DESCRIPTION, b"\x01" + weights())


def test_bundled_network() -> None:
    assert BUNDLED.stat().st_size <= 2 * 2**20
    with safe_open(BUNDLED, framework="pt") as file:
        assert file.get_tensor("body.0.weight").shape == (64, 3, 3, 3)
        assert file.get_tensor("body.34.weight").shape == (48, 64, 3, 3)
