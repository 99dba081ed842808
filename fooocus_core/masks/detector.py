"""Objects that a text names, found by GroundingDINO (specification 07, section 2.2).

The network is transformers' own, in the sizes of ``groundingdino_swint_ogc.pth``, whose weights it is given. Its text
encoder, BERT, is part of that file; BERT's vocabulary is part of this package.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection
from transformers.utils import logging as transformers_logging

from fooocus_core.errors import InvalidRequest, UnsupportedModel
from fooocus_core.images.pixels import Picture
from fooocus_core.masks.boxes import Detections, caption_of, detections_of, detector_size
from fooocus_core.masks.detector_weights import transformers_weights
from fooocus_core.masks.visits import visiting
from fooocus_core.models.checkpoint import read_content
from fooocus_core.vocabularies import bert_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
MAX_TOKENS: Final = 256
_NARROWEST_PX: Final = 40
"""Of the shorter side as the detector sees it; below, there are fewer places in the picture than it has queries."""


class Detector:
    """The network with its tokenizer."""

    def __init__(self, network: GroundingDinoForObjectDetection, tokenizer: Tokenizer, device: torch.device) -> None:
        """``device``: where the network calculates."""
        self._network = network
        self._tokenizer = tokenizer
        self._device = device

    @torch.no_grad()
    def detect(self, picture: Picture, prompt: str, *, box_threshold: float, text_threshold: float) -> Detections:
        """What ``prompt`` names in a picture; names are set apart by full stops. Raises ``InvalidRequest``."""
        height_px, width_px = picture.shape[:2]
        tokens = _within(MAX_TOKENS, self._tokenizer.encode(caption_of(prompt)).ids)
        pixels, text = _pixels_of(picture), torch.tensor([tokens])
        with visiting(self._network, self._device):
            answer = self._network(pixel_values=pixels.to(self._device), input_ids=text.to(self._device))
            scores, boxes = answer.logits[0].sigmoid().cpu().numpy(), answer.pred_boxes[0].cpu().numpy()

        def words(places: Sequence[int]) -> str:
            text: str = self._tokenizer.decode([tokens[place] for place in places])
            return text.replace(".", "").strip()

        return detections_of(
            scores,
            boxes,
            (width_px, height_px),
            box_threshold=box_threshold,
            text_threshold=text_threshold,
            words=words,
        )


def load_detector(path: Path, device: torch.device, config: GroundingDinoConfig | None = None) -> Detector:
    """The network of a file in the published layout; ``config`` stands for other sizes than the published ones.

    Raises ``UnreadableModel`` and ``UnsupportedModel``.
    """
    with torch.serialization.safe_globals([Namespace]):  # training's settings may lie beside the weights
        content = read_content(path)
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping):
        raise UnsupportedModel(path.name, "not a file of GroundingDINO")
    return Detector(_network(weights, config or GroundingDinoConfig(), path.name), bert_tokenizer(), device)


def _network(weights: Mapping[str, Tensor], config: GroundingDinoConfig, name: str) -> Any:
    """transformers loads by names that are published, whatever its own classes call their parts in this release."""
    load: Any = GroundingDinoForObjectDetection.from_pretrained
    with _no_progress_bar():
        network, report = load(
            None,
            config=config,
            state_dict=transformers_weights(weights),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
        )
    _require_all(report, name)
    return network.requires_grad_(False).eval()


def _require_all(report: Mapping[str, Any], name: str) -> None:
    """Left as it was drawn, a single weight would make every detection a chance one."""
    missing, reshaped = sorted(report["missing_keys"]), sorted(map(str, report["mismatched_keys"]))
    if missing:
        raise UnsupportedModel(name, f"the weight {missing[0]} is missing")
    if reshaped:
        raise UnsupportedModel(name, f"a weight has another shape than in the published file: {reshaped[0]}")
    if report["unexpected_keys"]:
        log.warning("%s: %d keys of no use", name, len(report["unexpected_keys"]))


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    bars: Any = transformers_logging
    was_shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            bars.enable_progress_bar()


def _within(length: int, tokens: list[int]) -> list[int]:
    """As many tokens as are read; the one that ends the text stays its end."""
    return tokens if len(tokens) <= length else [*tokens[: length - 1], tokens[-1]]


def _pixels_of(picture: Picture) -> Tensor:
    """``[1, 3, h, w]`` as the network was taught to see pictures, but for red and blue, which change places.

    The reference hands its RGB to a routine that takes BGR; the same things are only found at the same scores if that
    is kept.
    """
    size = detector_size(picture.shape[1], picture.shape[0])
    if min(size) < _NARROWEST_PX:
        raise InvalidRequest("image", "the picture is too long and narrow to look for objects in it")
    exchanged = Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]))
    resized = np.asarray(exchanged.resize(size, Image.Resampling.BILINEAR))
    values = torch.from_numpy(resized.astype(np.float32) / 255.0).movedim(2, 0)
    return ((values - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None])[None]
