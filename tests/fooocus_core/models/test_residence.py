"""What low, normal and high mean for where networks are; the device is one that nothing can be calculated on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fooocus_core.library import Library
from fooocus_core.models import autoencoder as autoencoder_module
from fooocus_core.models import loaded as loaded_module
from fooocus_core.models.autoencoder import TILE_CELLS, Autoencoder, load_autoencoder
from fooocus_core.models.checkpoint import VAE_PREFIX
from fooocus_core.models.compiled import Compiler
from fooocus_core.models.device import Placement, choose_placement
from fooocus_core.models.guide_models import GuideModels
from fooocus_core.models.loaded import ModelStore, load_model
from fooocus_core.models.residence import RESIDENCES, Vram, at_work
from fooocus_core.plan import Models
from tests.fooocus_core.models.guide_files import write_guide_files
from tests.fooocus_core.models.tiny import tiny_checkpoint, write_checkpoint

CPU, DEVICE = torch.device("cpu"), torch.device("meta")
PLACED = Placement(DEVICE, torch.float32, torch.float32)


def placed(vram: Vram) -> Placement:
    return replace(PLACED, residence=RESIDENCES[vram])


@pytest.mark.parametrize(("vram", "helpers"), [("low", "cpu"), ("normal", "meta"), ("high", "meta")])
def test_what_a_picture_needs_for_moments_lives_in_the_computer_where_vram_is_low(
    tmp_path: Path, vram: Vram, helpers: str
) -> None:
    model = load_model(write_checkpoint(tmp_path / "tiny.safetensors"), placed(vram))
    assert model.network.device.type == "meta", "the denoising network is on the device always"
    assert {model.text.l.device.type, model.text.g.device.type, model.autoencoder.device.type} == {helpers}


def test_pictures_are_read_in_the_computer_where_vram_is_low(tmp_path: Path) -> None:
    models = GuideModels(write_guide_files(tmp_path), placed("low"))
    reader = models.reader("ImagePrompt")
    assert (reader.encoder.device.type, reader.encoder.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize(
    ("vram", "free_bytes", "expected"),
    [("low", 2**60, "cpu"), ("normal", 2**60, "cuda"), ("normal", 0, "cpu"), ("high", 0, "cuda")],
)
def test_where_a_second_set_of_weights_rests(
    monkeypatch: pytest.MonkeyPatch, vram: Vram, free_bytes: int, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_bytes, free_bytes))
    model: Any = SimpleNamespace(network=SimpleNamespace(unet=nn.Linear(1, 1)))
    placement = replace(placed(vram), device=torch.device("cuda", 0))
    assert loaded_module._resting_place(model, placement).type == expected
    assert placement.second_home.type == ("cpu" if vram == "low" else "cuda")


def test_a_device_without_room_is_as_one_with_low_vram_until_all_is_forgotten(tmp_path: Path) -> None:
    store = ModelStore(Library.below(tmp_path), placed("high"))
    store.save_room()
    assert store.placement == store.guides.placement == placed("low")
    store.unload()
    assert store.placement == store.guides.placement == placed("high")


@pytest.mark.parametrize("vram", ["low", "normal", "high"])
def test_nothing_is_compiled_where_weights_come_and_go(tmp_path: Path, vram: Vram) -> None:
    (tmp_path / "checkpoints").mkdir()
    write_checkpoint(tmp_path / "checkpoints" / "tiny.safetensors")
    compiler = Compiler()
    store = ModelStore(Library.below(tmp_path), placed(vram), compiler=compiler)
    model = store.load(Models("tiny.safetensors"))
    expected = None if vram == "low" else compiler
    assert model.network.compiler is model.autoencoder.compiler is expected


def test_where_there_is_no_room_the_compiler_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    compiler = Compiler()
    monkeypatch.setattr(compiler, "wait", waited.append)
    ModelStore(Library.below(tmp_path), placed("normal"), compiler=compiler).save_room()
    assert waited == [loaded_module.COMPILED_WITHIN_S]


def test_the_setting_chooses() -> None:
    assert choose_placement("cpu").residence == RESIDENCES["normal"]
    assert choose_placement("cpu", vram="low").residence == RESIDENCES["low"]


# --- at work and back ---------------------------------------------------------------------------------------------


class Traveller(nn.Module):
    """A network that notes where it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.journeys: list[str] = []

    def to(self, device: torch.device) -> Traveller:  # type: ignore[override]
        self.journeys.append(device.type)
        self.weight = nn.Parameter(torch.ones(1, device=device))
        return self


def test_a_network_is_brought_to_its_work_and_back() -> None:
    network = Traveller()
    with at_work(network, DEVICE):
        assert network.journeys == ["meta"]
    assert network.journeys == ["meta", "cpu"]


def test_it_goes_home_from_work_that_failed() -> None:
    network = Traveller()
    with pytest.raises(RuntimeError, match="no room"), at_work(network, DEVICE):
        raise RuntimeError("no room")
    assert network.journeys == ["meta", "cpu"]


def test_work_inside_work_needs_no_journey() -> None:
    network = Traveller()
    with at_work(network, DEVICE), at_work(network, DEVICE):
        pass
    assert network.journeys == ["meta", "cpu"]


@pytest.mark.parametrize("device", [None, CPU])
def test_one_that_works_at_home_stays(device: torch.device | None) -> None:
    network = Traveller()
    with at_work(network, device):
        pass
    assert network.journeys == []


# --- the autoencoder ----------------------------------------------------------------------------------------------


def autoencoder(vram: Vram, device: torch.device = CPU) -> Autoencoder:
    weights = {key.removeprefix(VAE_PREFIX): t for key, t in tiny_checkpoint().items() if key.startswith(VAE_PREFIX)}
    return load_autoencoder(weights, "vae", device=device, dtype=torch.float32, residence=RESIDENCES[vram])


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the autoencoder goes to work, which stays where it is, so that it can calculate."""
    places: list[str] = []
    inside: list[nn.Module] = []

    @contextmanager
    def noting(network: nn.Module, device: torch.device | None) -> Iterator[None]:
        if device is not None and not inside:
            places.append(device.type)
        inside.append(network)
        yield
        inside.pop()

    monkeypatch.setattr(autoencoder_module, "at_work", noting)
    return places


def test_the_autoencoder_comes_for_its_work_alone(visits: list[str]) -> None:
    visiting = autoencoder("low", DEVICE)
    latents, pixels, noise = torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 64, 64), torch.zeros(1, 4, 8, 8)
    visiting.decode_or_tiled(latents)
    visiting.encode(pixels, noise)
    assert visits == ["meta"] * 2


def test_it_comes_once_for_all_tiles(visits: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    visiting = autoencoder("low", DEVICE)
    decoded: list[tuple[int, ...]] = []
    decode_raw = Autoencoder.decode_raw

    def noting(self: Autoencoder, latents: Tensor) -> Tensor:
        decoded.append(tuple(latents.shape[2:]))
        return decode_raw(self, latents)

    monkeypatch.setattr(Autoencoder, "decode_raw", noting)
    visiting.decode_or_tiled(torch.zeros(1, 4, 65, 64))
    assert visits == ["meta"]
    assert max(height * width for height, width in decoded) <= TILE_CELLS


def test_a_picture_of_one_tile_is_that_of_normal() -> None:
    latents, pixels, noise = torch.randn(1, 4, 16, 12), torch.rand(1, 3, 128, 96), torch.randn(1, 4, 16, 12)
    low, normal = autoencoder("low"), autoencoder("normal")
    assert torch.equal(low.decode_or_tiled(latents), normal.decode_or_tiled(latents))
    assert torch.equal(low.encode(pixels, noise), normal.encode(pixels, noise))


def test_larger_pictures_are_encoded_in_tiles_with_the_noise_of_the_whole() -> None:
    pixels, noise = torch.rand(1, 3, 8 * 65, 8 * 64), torch.randn(1, 4, 65, 64)
    low, normal = autoencoder("low"), autoencoder("normal")
    tiled, whole = low.encode(pixels, noise), normal.encode(pixels, noise)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    error, spread = (tiled - whole).square().mean().sqrt(), whole.std()
    assert error < 0.2 * spread, "seams and norms differ, the noise does not"
