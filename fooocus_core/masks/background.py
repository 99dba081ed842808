"""Masks of what stands out in a picture, by the networks of rembg (specification 07, section 2.1)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.images.pixels import Mask, Picture
from fooocus_core.masks.options import ClothCategory, MaskModel

log = logging.getLogger(__name__)

CLOTH_MODEL: Final[MaskModel] = "u2net_cloth_seg"
CLOTH_CLASSES: Final[dict[ClothCategory, int]] = {"upper": 1, "lower": 2, "full": 3}
"""Which of the cloth network's classes each category is; 0 is the background."""

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
_SIDE_PX: Final = 320
_OTHER_SIDES_PX: Final[dict[MaskModel, int]] = {CLOTH_MODEL: 768, "isnet-general-use": 1024, "isnet-anime": 1024}
_UNSCALED: Final[frozenset[MaskModel]] = frozenset({"isnet-general-use", "isnet-anime"})
"""Networks that read colours of which the mean is taken and nothing else."""


class Network(Protocol):
    """What is asked of ``rembg_session.FileSession``."""

    def run(
        self, picture: NDArray[np.uint8], side_px: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> NDArray[np.float32]: ...


class BackgroundRemover:
    """One network. ``name`` is the model's, ``file_name`` for errors."""

    def __init__(self, name: MaskModel, network: Network, file_name: str) -> None:
        self._name = name
        self._network = network
        self._file_name = file_name

    def mask(self, picture: Picture, cloth_category: ClothCategory = "full") -> Mask:
        """How much of each pixel stands out, 0 to 255, ``[h, w]``; of the clothes 255 for the category and else 0.

        Raises ``UnsupportedModel`` for a network that does not answer as this one should.
        """
        output = self._run(picture)
        size = (picture.shape[1], picture.shape[0])
        if self._name == CLOTH_MODEL:
            return _of_class(output, CLOTH_CLASSES[cloth_category], size)
        return _stretched(output[0, 0], size)

    def _run(self, picture: Picture) -> NDArray[np.float32]:
        side = _OTHER_SIDES_PX.get(self._name, _SIDE_PX)
        std = (1.0, 1.0, 1.0) if self._name in _UNSCALED else _STD
        try:
            output = self._network.run(picture, side, _MEAN, std)
        except Exception as error:  # onnxruntime has no root of its errors that is its own
            raise UnsupportedModel(self._file_name, f"not a network of {self._name}'s kind") from error
        channels = 1 + max(CLOTH_CLASSES.values()) if self._name == CLOTH_MODEL else 1
        if output.ndim != 4 or output.shape[1] < channels:
            raise UnsupportedModel(self._file_name, f"not a network of {self._name}'s kind")
        return output


def load_background_remover(name: MaskModel, path: Path) -> BackgroundRemover:
    """The network of a file. Raises ``UnreadableModel``."""
    from fooocus_core.masks.rembg_session import FileSession

    try:
        return BackgroundRemover(name, FileSession(path), path.name)
    except Exception as error:  # as above; whatever is wrong with the file, it cannot be read
        raise UnreadableModel(path.name, "corrupt, or not an ONNX file") from error


def _stretched(values: NDArray[np.float32], size: tuple[int, int]) -> Mask:
    """From the smallest value to the largest as 0 to 255, at ``(width, height)``; one value all over says nothing."""
    lowest, highest = values.min(), values.max()
    if not highest > lowest:
        return np.zeros(size[::-1], np.uint8)
    shares = (values - lowest) / (highest - lowest)
    return _resized((shares * 255).astype(np.uint8), size)


def _of_class(scores: NDArray[np.float32], wanted: int, size: tuple[int, int]) -> Mask:
    """Where a class wins. The classes' numbers are what is resized, as in the reference, so that edges are frayed."""
    classes = scores[0].argmax(axis=0).astype(np.uint8)
    return np.where(_resized(classes, size) == wanted, 255, 0).astype(np.uint8)


def _resized(values: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.LANCZOS))
