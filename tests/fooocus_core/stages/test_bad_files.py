"""Checkpoints and autoencoders that cannot be used: the job fails by the file's name, and the next one is right."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fooocus_core.library import POCKET_FOLDER, POCKET_NAME
from fooocus_core.plan import Plan
from tests.fooocus_core.models.tiny import tiny_checkpoint
from tests.fooocus_core.stages.rendering import Studio

UNET = "model.diffusion_model."
BYTES = bytes(range(256)) * 8


class _Trap:
    """Unpickled in earnest it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> object:
        return Path.mkdir, (self.folder,)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    root = tmp_path_factory.mktemp("bad")
    for name in ("checkpoints", "vae"):
        (root / name).mkdir()
    return Studio(root)


@pytest.fixture(scope="module")
def plain(studio: Studio) -> np.ndarray:
    return studio.picture()


def with_models(studio: Studio, **changed: str) -> Plan:
    plan = studio.plan()
    (stage,) = plan.stages
    return replace(plan, stages=(replace(stage, models=replace(stage.models, **changed)),))


def reason_of(studio: Studio, name: str) -> str:
    return studio.failure(with_models(studio, checkpoint=name))


def zeros(*names: str) -> dict[str, Tensor]:
    return {name: torch.zeros(2, 2) for name in names}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.safetensors", b""),
        ("noise.safetensors", BYTES),
        ("noise.ckpt", BYTES),
        ("noise.pth", b"PK\x03\x04" + BYTES),
    ],
)
def test_what_is_no_weight_file(studio: Studio, plain: np.ndarray, name: str, content: bytes) -> None:
    (studio.root / "checkpoints" / name).write_bytes(content)
    assert reason_of(studio, name).startswith(f"{name}: ")
    assert np.array_equal(studio.picture(), plain)


@pytest.mark.parametrize("kept", [4, 1000, -1000])
def test_truncated_at_any_place(studio: Studio, plain: np.ndarray, kept: int) -> None:
    whole = (POCKET_FOLDER / POCKET_NAME).read_bytes()
    (studio.root / "checkpoints" / "cut.safetensors").write_bytes(whole[:kept])
    assert reason_of(studio, "cut.safetensors").startswith("cut.safetensors: not a complete safetensors file")
    assert np.array_equal(studio.picture(), plain)


def test_pickles_that_would_run_something(studio: Studio, plain: np.ndarray) -> None:
    made = studio.root / "made"
    torch.save({"state_dict": {"trap": _Trap(made)}}, studio.root / "checkpoints" / "zipped.ckpt")
    (studio.root / "checkpoints" / "bare.ckpt").write_bytes(pickle.dumps({"trap": _Trap(made)}, protocol=2))
    for name in ("zipped.ckpt", "bare.ckpt"):
        assert reason_of(studio, name) == f"{name}: not a file of plain tensors; nothing else is unpickled"
    assert not made.exists()
    assert np.array_equal(studio.picture(), plain)


WRONG_KINDS = {
    "sd15": (zeros(f"{UNET}out.2.weight", "cond_stage_model.transformer.x"), "an sd15 checkpoint"),
    "refiner": (
        zeros(f"{UNET}label_emb.0.0.weight", "conditioner.embedders.0.model.x"),
        "an sdxl refiner checkpoint, not an SDXL base",
    ),
    "flux": (zeros("double_blocks.0.img_attn.qkv.weight"), "a Flux-like transformer"),
    "lora": (zeros("lora_unet_x.lora_up.weight"), "a LoRA, not a checkpoint"),
    "vae": (zeros("encoder.conv_in.weight"), "an autoencoder, not a checkpoint"),
    "other": (zeros("x"), "no denoising network in it"),
}


@pytest.mark.parametrize("kind", WRONG_KINDS)
def test_checkpoints_of_another_kind(studio: Studio, plain: np.ndarray, kind: str) -> None:
    tensors, what = WRONG_KINDS[kind]
    save_file(tensors, studio.root / "checkpoints" / f"{kind}.safetensors")
    reason = reason_of(studio, f"{kind}.safetensors")
    assert reason.startswith(f"{kind}.safetensors: ")
    assert what in reason
    assert np.array_equal(studio.picture(), plain)


def test_a_checkpoint_that_lacks_a_weight_or_has_one_of_another_shape(studio: Studio, plain: np.ndarray) -> None:
    whole = tiny_checkpoint()
    name = f"{UNET}middle_block.0.in_layers.2.weight"
    for tensors, reason in (
        ({key: tensor for key, tensor in whole.items() if key != name}, "is missing"),
        ({**whole, name: torch.zeros(3, 3)}, "has shape (3, 3)"),
    ):
        save_file(tensors, studio.root / "checkpoints" / "gap.safetensors")
        told = reason_of(studio, "gap.safetensors")
        assert told.startswith("gap.safetensors: ")
        assert reason in told
        assert np.array_equal(studio.picture(), plain)


def test_an_autoencoder_that_is_none(studio: Studio, plain: np.ndarray) -> None:
    (studio.root / "vae" / "noise.safetensors").write_bytes(BYTES)
    save_file(zeros("lora_unet_x.lora_up.weight"), studio.root / "vae" / "lora.safetensors")
    for name in ("noise.safetensors", "lora.safetensors"):
        assert studio.failure(with_models(studio, vae=name)).startswith(f"{name}: ")
        assert np.array_equal(studio.picture(), plain)


def test_a_file_that_has_gone_since_the_request(studio: Studio, plain: np.ndarray) -> None:
    assert reason_of(studio, "gone.safetensors") == "checkpoints: no file named 'gone.safetensors'"
    assert np.array_equal(studio.picture(), plain)
