"""GroundingDINO in transformers beside the original program, on the same weights in the published layout."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data
from torch import Tensor

from fooocus_core.errors import InvalidRequest, UnreadableModel, UnsupportedModel
from fooocus_core.masks.detector import Detector, _pixels_of, load_detector
from fooocus_core.masks.detector_weights import transformers_weights
from fooocus_core.vocabularies import bert_tokenizer
from tests.fooocus_core.masks.thin_detector import MANIFEST, thin_config, thin_weights
from tools.synthetic import published_shapes

CPU = torch.device("cpu")
PROMPT = " A Rocket . the Tower ?red light"
TOKENS = 11
"""[CLS] a rocket . the tower ? red light . [SEP]"""


def recorded(name: str) -> NDArray[Any]:
    with np.load(Path(__file__).parent / "recorded_detector.npz") as file:
        return np.asarray(file[name])


def stored(folder: Path, content: Any) -> Path:
    path = folder / "groundingdino_swint_ogc.pth"
    torch.save(content, path)
    return path


def loaded(folder: Path, weights: Mapping[str, Tensor], **beside: Any) -> Detector:
    return load_detector(stored(folder, {"model": dict(weights), **beside}), CPU, thin_config())


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return thin_weights()


@pytest.fixture(scope="module")
def detector(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return loaded(tmp_path_factory.mktemp("detector"), weights)


def test_the_picture_goes_in_as_the_original_takes_it() -> None:
    pixels = _pixels_of(data.rocket())
    assert tuple(pixels.shape[2:]) == tuple(recorded("size"))
    assert np.abs(pixels[0, :, ::40, ::40].numpy() - recorded("pixels")).max() < 1e-6


def test_the_network_answers_as_the_original(detector: Detector) -> None:
    """Within what float32 sums in another order differ by."""
    tokens = detector._tokenizer.encode("a rocket . the tower ?red light.").ids
    assert len(tokens) == TOKENS
    with torch.inference_mode():
        answer = detector._network(pixel_values=_pixels_of(data.rocket()), input_ids=torch.tensor([tokens]))
    scores = answer.logits[0].sigmoid().numpy()
    assert np.abs(scores[:, :TOKENS] - recorded("scores")[:, :TOKENS]).max() < 1e-4
    assert scores[:, TOKENS:].max() == 0.0
    assert np.abs(answer.pred_boxes[0].numpy() - recorded("boxes")).max() < 1e-4


class Recorded:
    """A network that answers what the original program's answered."""

    def to(self, device: torch.device) -> Recorded:
        return self

    def __init__(self) -> None:
        self.read: list[int] = []

    def __call__(self, pixel_values: Tensor, input_ids: Tensor) -> SimpleNamespace:
        self.read = input_ids[0].tolist()
        scores, boxes = (torch.from_numpy(recorded(name))[None] for name in ("scores", "boxes"))
        return SimpleNamespace(logits=scores.logit(), pred_boxes=boxes)


def test_it_finds_what_the_original_finds() -> None:
    """From the same answers the same boxes, by the same words, in the same order."""
    detector = Detector(cast("Any", Recorded()), bert_tokenizer(), CPU)
    found = detector.detect(data.rocket(), PROMPT, box_threshold=0.9, text_threshold=0.6)
    assert 10 < len(found.boxes) < 50
    assert np.abs(found.boxes - recorded("kept")).max() < 1e-3  # pixels
    original = [re.sub(r"\[CLS]|\[SEP]| ", "", phrase) for phrase in recorded("phrases").tolist()]
    assert [phrase.replace(" ", "") for phrase in found.phrases] == original
    assert len(set(original)) > 3


def test_a_long_prompt_is_read_as_far_as_the_network_reads() -> None:
    network = Recorded()
    detector = Detector(cast("Any", network), bert_tokenizer(), CPU)
    detector.detect(data.rocket(), "a cat . " * 100, box_threshold=0.9, text_threshold=0.6)
    assert len(network.read) == 256
    assert (network.read[0], network.read[-1]) == (101, 102)  # [CLS] and [SEP]
    detector.detect(data.rocket(), PROMPT, box_threshold=0.9, text_threshold=0.6)
    assert len(network.read) == TOKENS


def test_every_published_weight_has_its_place() -> None:
    """At full size, and by names alone: what is left out is known to be of no use."""
    published = {key: torch.empty(shape, device="meta") for key, (shape, _) in published_shapes(MANIFEST).items()}
    renamed = transformers_weights(published)
    split = sum(key.endswith(("qkv.weight", "qkv.bias", "in_proj_weight", "in_proj_bias")) for key in published)
    useless = sum("relative_position_index" in key or "pooler" in key for key in published)
    assert (len(published), useless) == (938, 14)
    assert len(renamed) == len(published) - useless + 2 * split
    assert all(key.startswith(("model.", "bbox_embed.")) for key in renamed)
    queries = renamed["model.decoder.layers.5.encoder_attn_text.query.weight"]
    assert queries.shape == (256, 256)


def test_the_three_projections_keep_their_order() -> None:
    fused = torch.arange(6.0)[:, None]
    renamed = transformers_weights({"module.backbone.0.layers.1.blocks.0.attn.qkv.weight": fused})
    prefix = "model.backbone.conv_encoder.model.encoder.layers.1.blocks.0.attention.self."
    assert {key: value.flatten().tolist() for key, value in renamed.items()} == {
        f"{prefix}query.weight": [0, 1],
        f"{prefix}key.weight": [2, 3],
        f"{prefix}value.weight": [4, 5],
    }


def test_what_training_left_in_the_file_does_no_harm(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    surplus = {"module.label_enc.weight": torch.zeros(2), "module.bert.embeddings.position_ids": torch.zeros(1, 2)}
    assert loaded(tmp_path, {**weights, **surplus}, args=Namespace(lr=1e-4), epoch=3)


def test_other_files_are_refused_by_name(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    incomplete = {key: tensor for key, tensor in weights.items() if "feat_map" not in key}
    with pytest.raises(UnsupportedModel, match=r"groundingdino_swint_ogc.pth: the weight .*text_projection"):
        loaded(tmp_path, incomplete)
    with pytest.raises(UnsupportedModel, match="another shape"):
        loaded(tmp_path, {**weights, "module.feat_map.bias": torch.zeros(3)})
    with pytest.raises(UnsupportedModel, match="not a file of GroundingDINO"):
        load_detector(stored(tmp_path, {"weight": torch.zeros(1)}), CPU)
    stored(tmp_path, {}).write_bytes(b"PK\x03\x04 and nothing behind")
    with pytest.raises(UnreadableModel, match=r"groundingdino_swint_ogc.pth"):
        load_detector(tmp_path / "groundingdino_swint_ogc.pth", CPU)


def test_a_picture_like_a_thread_is_refused(detector: Detector) -> None:
    with pytest.raises(InvalidRequest, match="narrow"):
        detector.detect(np.zeros((8, 1000, 3), np.uint8), "a cat", box_threshold=0.3, text_threshold=0.25)
