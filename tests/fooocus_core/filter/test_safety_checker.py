"""Stable Diffusion's checker: its published layout, the same verdicts as diffusers, the arithmetic of its margins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from fooocus_core.adapters.image_prompt import clip_pixels
from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.filter.safety_checker import SafetyChecker, centre, load_safety_checker, shows_any
from fooocus_core.images.pixels import as_floats
from fooocus_core.models.clip_vision import HEADS
from tests.fooocus_core.filter.files import ALWAYS, CHECKER, NEVER, thin_checker, write_checker
from tools.synthetic import DTYPES, published_shapes

CPU = torch.device("cpu")
PICTURE = np.random.default_rng(0).integers(0, 256, (300, 411, 3), dtype=np.uint8)


def planted(*margins: float) -> list[np.float32]:
    return [np.float32(margin) for margin in margins]


@pytest.mark.parametrize(
    ("special", "concepts", "shown"),
    [
        ([-0.1, -0.1, -0.1], [-0.1, 0.001], True),
        ([-0.1, -0.1, -0.1], [-0.1, -0.001], False),
        ([-0.1, -0.1, -0.1], [0.0, 0.0004], False),  # rounded to three decimals
        ([-0.1, -0.1, -0.1], [0.0006], True),
        ([0.2, 0.2, 0.2], [-0.02], False),  # a special concept blackens nothing by itself
        ([0.001, -0.1, -0.1], [-0.009], True),  # but makes the others nearer by 0.01
        ([0.001, -0.1, -0.1], [-0.01], False),
        ([-0.1, 0.001, -0.005], [-0.011], False),  # once, however many there are
        ([0.0004, -0.1, -0.1], [-0.009], False),
    ],
)
def test_what_margins_mean(special: list[float], concepts: list[float], shown: bool) -> None:
    assert shows_any(planted(*special), planted(*concepts)) is shown


def test_every_key_of_the_published_file_has_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At full size: pages that nobody writes to cost no memory."""
    weights = {key: torch.empty(shape, dtype=DTYPES[kind]) for key, (shape, kind) in published_shapes(CHECKER).items()}
    path = Path("checker.bin")
    monkeypatch.setattr("fooocus_core.models.checkpoint.read_content", lambda _: weights)
    checker = load_safety_checker(path, CPU)
    numbers = sum(tensor.numel() for tensor in weights.values()) - 257  # position_ids counts positions
    loaded = [checker.encoder.projection, *checker.encoder.model.parameters(), *checker.special_care, *checker.concepts]
    assert sum(tensor.numel() for tensor in loaded) == numbers
    assert (checker.encoder.shape.width, checker.encoder.shape.layers, checker.encoder.shape.patch_px) == (1024, 24, 14)
    assert caplog.records == []


def diffusers_checker() -> StableDiffusionSafetyChecker:
    vision = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "patch_size": 14,
        "image_size": 224,
        "hidden_act": "quick_gelu",
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=48))
    weights = {key.replace("vision_model.vision_model.", "vision_model."): t for key, t in thin_checker().items()}
    missing, surplus = checker.load_state_dict(weights, strict=False)
    assert (missing, surplus) == ([], ["vision_model.embeddings.position_ids"])
    return checker.eval()


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> SafetyChecker:
    return load_safety_checker(write_checker(tmp_path_factory.mktemp("models")), CPU)


def test_the_embedding_is_that_of_diffusers(checker: SafetyChecker) -> None:
    pixels = clip_pixels(torch.from_numpy(as_floats(centre(PICTURE))))
    reference = diffusers_checker()
    with torch.no_grad():
        expected = reference.visual_projection(reference.vision_model(pixels)[1])
    torch.testing.assert_close(checker.encoder.embedding(pixels), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("index", [0, 8, 16])
@pytest.mark.parametrize("beyond", [-0.002, 0.002])
def test_verdicts_are_those_of_diffusers(checker: SafetyChecker, index: int, beyond: float) -> None:
    """Thresholds planted on either side of a cosine."""
    pixels = clip_pixels(torch.from_numpy(as_floats(centre(PICTURE))))
    cosines = [margin + NEVER for margin in checker.concepts.margins(checker.encoder.embedding(pixels))]
    checker.concepts.thresholds[index] = float(cosines[index]) + beyond
    reference = diffusers_checker()
    reference.concept_embeds_weights.data.copy_(checker.concepts.thresholds)
    _, (is_bad,) = reference(pixels, np.ones((1, 4, 4, 3)))
    assert checker.is_unsafe(PICTURE) is is_bad is (beyond < 0)
    checker.concepts.thresholds[index] = NEVER


@pytest.mark.parametrize("shape", [(300, 411), (411, 300), (224, 224), (50, 50), (8, 90)])
def test_the_square_is_that_of_transformers(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (expected,) = CLIPImageProcessorPil()(picture, input_data_format="channels_last", return_tensors="pt")[
        "pixel_values"
    ]
    ours = clip_pixels(torch.from_numpy(as_floats(centre(picture))))[0]
    torch.testing.assert_close(ours, expected, atol=0.0151, rtol=0)  # one step of 255, where the passes are swapped


def test_thresholds_decide(tmp_path: Path) -> None:
    assert load_safety_checker(write_checker(tmp_path, ALWAYS), CPU).is_unsafe(PICTURE)
    assert not load_safety_checker(write_checker(tmp_path, NEVER), CPU).is_unsafe(PICTURE)


@pytest.mark.parametrize("lost", ["concept_embeds", "special_care_embeds_weights", "visual_projection.weight"])
def test_a_file_without_a_part_is_refused(tmp_path: Path, lost: str) -> None:
    weights = thin_checker()
    del weights[lost]
    torch.save(weights, tmp_path / "checker.bin")
    with pytest.raises(UnsupportedModel, match=r"checker\.bin: "):
        load_safety_checker(tmp_path / "checker.bin", CPU)


def test_concepts_of_another_width_are_refused(tmp_path: Path) -> None:
    torch.save({**thin_checker(), "concept_embeds": torch.ones(17, 50)}, tmp_path / "checker.bin")
    with pytest.raises(UnsupportedModel, match=r"concept_embeds has shape \(17, 50\)"):
        load_safety_checker(tmp_path / "checker.bin", CPU)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = write_checker(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UnreadableModel):
        load_safety_checker(path, CPU)


def test_a_network_of_no_numbers_says_so(tmp_path: Path) -> None:
    weights = thin_checker()
    weights["visual_projection.weight"][0] = torch.nan
    torch.save(weights, tmp_path / "checker.bin")
    with pytest.raises(UnsupportedModel, match="not numbers"):
        load_safety_checker(tmp_path / "checker.bin", CPU).is_unsafe(PICTURE)
