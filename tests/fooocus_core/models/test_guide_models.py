"""Which files guides need, and the store of their networks."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fooocus_core.errors import UnknownModel, UnreadableModel, UnsupportedModel
from fooocus_core.library import Library
from fooocus_core.model_files.catalogue import Catalogue
from fooocus_core.models import guide_models
from fooocus_core.models.device import Placement
from fooocus_core.models.guide_models import (
    ADAPTER_FILES,
    CONTROL_FILES,
    DETECTOR,
    ENCODER,
    NEGATIVE,
    GuideModels,
    PictureReader,
    active_guides,
    needed_files,
)
from fooocus_core.plan import Guide, GuideKind, Guides
from fooocus_core.stages.guides import require_guidable
from tests.fooocus_core.models.guide_files import adapter_content, thin_network, write_content, write_guide_files

FULL = Placement(torch.device("cpu"), torch.float32, torch.float32)
ALL_FILES = (*CONTROL_FILES.values(), ENCODER, NEGATIVE, *ADAPTER_FILES.values(), DETECTOR)
PICTURE = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)


def guide(kind: GuideKind, weight: float = 1.0, stop: float = 0.5, picture: str = "a") -> Guide:
    return Guide(picture, kind, stop, weight)


def guides(*pictures: Guide, **settings: Any) -> Guides:
    return Guides(pictures, **settings)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("something was loaded")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return write_guide_files(tmp_path_factory.mktemp("guides"))


# --- which files --------------------------------------------------------------------------------------------------


def test_guides_are_grouped_by_their_kinds() -> None:
    slots = [guide("FaceSwap"), guide("CPDS"), guide("ImagePrompt", picture="1"), guide("PyraCanny", picture="1")]
    slots += [guide("ImagePrompt", picture="2"), guide("PyraCanny", picture="2")]
    found = [(one.kind, one.picture) for one in active_guides(guides(*slots))]
    assert found == [
        *(("PyraCanny", "1"), ("PyraCanny", "2"), ("CPDS", "a")),
        *(("ImagePrompt", "1"), ("ImagePrompt", "2"), ("FaceSwap", "a")),
    ]


def test_what_does_nothing_needs_no_file() -> None:
    idle = [guide("PyraCanny", weight=0), guide("CPDS", stop=0), guide("ImagePrompt", stop=0)]
    assert needed_files(guides(*idle)) == {}
    assert len(active_guides(guides(*idle, only_prepare=True))) == 3
    assert active_guides(guides(guide("ImagePrompt", weight=0))) != ()


def test_the_files_of_every_kind() -> None:
    assert list(needed_files(guides(guide("CPDS")))) == [CONTROL_FILES["CPDS"]]
    assert list(needed_files(guides(guide("ImagePrompt")))) == [ENCODER, NEGATIVE, ADAPTER_FILES["ImagePrompt"]]
    of_faces = [ENCODER, NEGATIVE, ADAPTER_FILES["FaceSwap"]]
    assert list(needed_files(guides(guide("FaceSwap")))) == [DETECTOR, *of_faces]
    assert list(needed_files(guides(guide("FaceSwap"), use_preprocessor=False))) == of_faces
    every = needed_files(guides(*(guide(kind) for kind in (*CONTROL_FILES, *ADAPTER_FILES))))
    assert set(every) == set(ALL_FILES)


def test_preparing_alone_needs_no_network_but_that_of_faces() -> None:
    every = [guide(kind) for kind in (*CONTROL_FILES, *ADAPTER_FILES)]
    assert list(needed_files(guides(*every, only_prepare=True))) == [DETECTOR]


@pytest.mark.parametrize("file", ALL_FILES)
def test_every_file_is_published(file: guide_models.GuideFile) -> None:
    assert Catalogue.of().find(*file) is not None


def test_all_missing_files_are_named_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = [CONTROL_FILES["PyraCanny"], ENCODER]
    models = GuideModels(write_guide_files(tmp_path, present), FULL)
    for name in ("open_checkpoint", "read_content"):
        monkeypatch.setattr(guide_models, name, refuse)
    asked = guides(guide("FaceSwap"), guide("PyraCanny"), guide("ImagePrompt"))
    with pytest.raises(UnknownModel) as caught:
        models.require(asked)
    assert (caught.value.kind, caught.value.name) == NEGATIVE
    text = str(caught.value)
    assert "guides of the kind ImagePrompt" in text
    for file in (ADAPTER_FILES["ImagePrompt"], ADAPTER_FILES["FaceSwap"], DETECTOR):
        assert file.name in text
    assert ENCODER.name not in text
    models.require(guides(guide("PyraCanny")))


def test_a_checkpoint_with_an_area_of_its_own_takes_no_guides() -> None:
    pocket: Any = SimpleNamespace(name="pocket.safetensors", native_area_px=4096)
    with pytest.raises(UnsupportedModel) as caught:
        require_guidable(guides(guide("FaceSwap"), guide("CPDS")), pocket)
    text = str(caught.value)
    assert text.startswith("pocket.safetensors: guides of the kind CPDS, FaceSwap need an SDXL checkpoint")
    command = text.split("main.py download ")[1].split()
    assert command == [CONTROL_FILES["CPDS"].name, *(f.name for f in (DETECTOR, ENCODER, NEGATIVE)),
                       ADAPTER_FILES["FaceSwap"].name]  # fmt: skip
    require_guidable(guides(guide("CPDS"), only_prepare=True), pocket)
    require_guidable(guides(guide("CPDS", weight=0)), pocket)
    sdxl: Any = SimpleNamespace(name="sdxl.safetensors", native_area_px=None)
    require_guidable(guides(guide("FaceSwap")), sdxl)


# --- the store ----------------------------------------------------------------------------------------------------


def read(reader: PictureReader) -> torch.Tensor:
    return reader.read(PICTURE)[69].values


def test_readers_give_keys_and_values_of_every_layer(library: Library) -> None:
    models = GuideModels(library, FULL)
    reader, faces = models.reader("ImagePrompt"), models.reader("FaceSwap")
    layers = reader.read(PICTURE)
    assert [layer.keys.shape for layer in layers] == [(1, 16, width) for width in reader.adapter.widths]
    assert all(layer.keys.isfinite().all() and layer.values.isfinite().all() for layer in layers)
    assert torch.equal(read(reader), layers[69].values)
    # Each kind has its own adapter, and with it its own negative; the encoder is the same.
    assert not torch.allclose(read(reader), read(faces))
    assert not torch.allclose(reader.negative[0].keys, faces.negative[0].keys)
    assert reader.encoder is faces.encoder
    reader.require_fitting(thin_network())


def test_pictures_are_told_apart(library: Library) -> None:
    reader = GuideModels(library, FULL).reader("ImagePrompt")
    assert not torch.allclose(reader.read(PICTURE)[0].keys, reader.read(PICTURE[::-1].copy())[0].keys)


def test_what_is_loaded_stays_until_its_file_changes(tmp_path: Path) -> None:
    models = GuideModels(write_guide_files(tmp_path), FULL)
    first, faces = models.reader("ImagePrompt"), models.reader("FaceSwap")
    assert models.reader("ImagePrompt") is first
    path = tmp_path / "controlnet" / ADAPTER_FILES["ImagePrompt"].name
    path.unlink()
    write_content(path, adapter_content(0.1))
    os.utime(path, ns=(1, 1))
    second = models.reader("ImagePrompt")
    assert second is not first
    assert second.encoder is first.encoder
    assert not torch.allclose(read(second), read(first))
    assert models.reader("FaceSwap") is faces
    models.unload()
    assert models.reader("FaceSwap") is not faces


def test_faces_are_found_by_the_published_file(library: Library) -> None:
    models = GuideModels(library, FULL)
    faces = models.faces()
    points = faces.landmarks(np.zeros((64, 64, 3), np.uint8))
    assert points is None or points.shape == (5, 2)
    assert models.faces() is faces


def test_a_new_encoder_makes_new_readers(tmp_path: Path) -> None:
    models = GuideModels(write_guide_files(tmp_path), FULL)
    first = models.reader("ImagePrompt")
    os.utime(tmp_path / "clip_vision" / ENCODER.name, ns=(1, 1))
    second = models.reader("ImagePrompt")
    assert second.encoder is not first.encoder


def test_files_in_sub_folders_and_as_safetensors_are_found(tmp_path: Path) -> None:
    library = write_guide_files(tmp_path, [ENCODER, NEGATIVE])
    (tmp_path / "controlnet" / "old").mkdir()
    (tmp_path / "controlnet" / NEGATIVE.name).rename(tmp_path / "controlnet" / "old" / NEGATIVE.name)
    flat = {f"{part}.{key}": t for part, tensors in adapter_content().items() for key, t in tensors.items()}
    write_content(tmp_path / "controlnet" / "ip-adapter-plus_sdxl_vit-h.safetensors", flat)
    models = GuideModels(library, FULL)
    models.require(guides(guide("ImagePrompt")))
    assert models.reader("ImagePrompt").adapter.name == "ip-adapter-plus_sdxl_vit-h.safetensors"


def test_a_file_that_goes_in_between_is_named(tmp_path: Path) -> None:
    models = GuideModels(write_guide_files(tmp_path, [ENCODER]), FULL)
    with pytest.raises(UnknownModel, match=NEGATIVE.name):
        models.reader("ImagePrompt")


def test_control_networks_follow_the_bases_weights(library: Library) -> None:
    models, network = GuideModels(library, FULL), thin_network()
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([500.0]), torch.randn(1, 77, 192), torch.randn(1, 128 + 1536)
    hint = torch.rand(1, 3, 64, 64)
    first = models.control("PyraCanny", network)(*inputs, hint)
    assert len(first.skips) == 9
    assert torch.equal(models.control("PyraCanny", network)(*inputs, hint).middle, first.middle)
    network.unet.get_parameter("conv_in.weight").data *= 1.5
    assert not torch.allclose(models.control("PyraCanny", network)(*inputs, hint).middle, first.middle)


@pytest.mark.parametrize("damage", ["cut", "code"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    models = GuideModels(write_guide_files(tmp_path), FULL)
    path = tmp_path / "controlnet" / ADAPTER_FILES["ImagePrompt"].name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        torch.save({"image_proj": Path, "ip_adapter": {}}, path)
    with pytest.raises(UnreadableModel, match=path.name):
        models.reader("ImagePrompt")


def test_files_that_fit_no_guide_are_refused(tmp_path: Path) -> None:
    models = GuideModels(write_guide_files(tmp_path), FULL)
    write_content(tmp_path / "clip_vision" / ENCODER.name, {"a": torch.zeros(1)})
    write_content(tmp_path / "controlnet" / CONTROL_FILES["CPDS"].name, {"a": torch.zeros(1)})
    with pytest.raises(UnsupportedModel, match=rf"{ENCODER.name}.*no CLIP image encoder"):
        models.reader("FaceSwap")
    with pytest.raises(UnsupportedModel, match=rf"{CONTROL_FILES['CPDS'].name}.*no ControlNet-LoRA"):
        models.control("CPDS", thin_network())
    write_content(tmp_path / "controlnet" / DETECTOR.name, {"a": torch.zeros(1)})
    with pytest.raises(UnsupportedModel, match=DETECTOR.name):
        models.faces()


def test_an_adapter_for_another_network_is_refused(library: Library, tmp_path: Path) -> None:
    content = adapter_content()
    for number in (137, 139):
        for part in "kv":
            del content["ip_adapter"][f"{number}.to_{part}_ip.weight"]
    other = write_guide_files(tmp_path, [ENCODER, NEGATIVE])
    write_content(tmp_path / "controlnet" / ADAPTER_FILES["FaceSwap"].name, content)
    reader = GuideModels(other, FULL).reader("FaceSwap")
    with pytest.raises(UnsupportedModel, match=r"ip-adapter-plus-face.*other cross-attentions"):
        reader.require_fitting(thin_network())
