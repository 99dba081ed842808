"""Opening weight files: what is read, what is refused, and that nothing is executed or copied."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fooocus_core.errors import ModelError, UnreadableModel, UnsupportedModel
from fooocus_core.models.checkpoint import Checkpoint, checkpoint_kind, open_checkpoint, prediction_of
from tests.fooocus_core.models.tiny import tiny_checkpoint, write_checkpoint


def test_safetensors_with_its_header(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "model.safetensors"))
    assert checkpoint.name == "model.safetensors"
    assert "fooocusapi.sidecar" in checkpoint.metadata
    assert torch.equal(
        checkpoint.under("first_stage_model.")["quant_conv.bias"],
        tiny_checkpoint()["first_stage_model.quant_conv.bias"],
    )


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int16,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("padding", range(9))
def test_every_type_shape_and_alignment(tmp_path: Path, padding: int) -> None:
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "odd": torch.ones(padding, dtype=torch.uint8)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little") + padding  # a header that moves the tensors off their alignment
    path.write_bytes(
        length.to_bytes(8, "little")
        + content[8 : 8 + length - padding]
        + b" " * padding
        + content[8 + length - padding :]
    )
    read = open_checkpoint(path).tensors
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[key], tensor) and read[key].dtype == tensor.dtype for key, tensor in tensors.items())


def test_writing_to_a_tensor_never_reaches_the_file(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.safetensors")
    before = path.read_bytes()
    for tensor in open_checkpoint(path).tensors.values():
        tensor.zero_()
    assert path.read_bytes() == before


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_pickled_tensors(tmp_path: Path, zipped: bool, nested: bool) -> None:
    tensors = {"a.weight": torch.arange(4.0)}
    content = {"state_dict": tensors, "epoch": 3} if nested else tensors
    torch.save(content, tmp_path / "model.ckpt", _use_new_zipfile_serialization=zipped)
    assert torch.equal(open_checkpoint(tmp_path / "model.ckpt").tensors["a.weight"], torch.arange(4.0))


class Canary:
    """Unpickled in earnest it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_a_pickle_with_code_is_refused_unrun(tmp_path: Path, save: object) -> None:
    canary = tmp_path / "executed"
    save({"state_dict": {"a": torch.ones(1)}, "more": Canary(canary)}, tmp_path / "evil.ckpt")  # type: ignore[operator]
    with pytest.raises(UnreadableModel, match=r"evil\.ckpt"):
        open_checkpoint(tmp_path / "evil.ckpt")
    assert not canary.exists()


def damaged(path: Path, how: str) -> Path:
    content = write_checkpoint(path).read_bytes()
    versions = {
        "empty": b"",
        "header cut": content[:100],
        "tensors cut": content[: len(content) // 2],
        "one byte short": content[:-1],
        "noise": bytes(range(256)) * 40,
        "huge header": (2**62).to_bytes(8, "little") + content[8:],
    }
    path.write_bytes(versions[how])
    return path


@pytest.mark.parametrize("how", ["empty", "header cut", "tensors cut", "one byte short", "noise", "huge header"])
@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_damaged_files_are_named(tmp_path: Path, how: str, name: str) -> None:
    with pytest.raises(UnreadableModel) as refused:
        open_checkpoint(damaged(tmp_path / name, how))
    assert refused.value.name == name
    assert str(tmp_path) not in str(refused.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("missing.safetensors", "missing.ckpt", "folder.safetensors"):
        with pytest.raises(UnreadableModel) as refused:
            open_checkpoint(tmp_path / name)
        assert str(tmp_path) not in str(refused.value)


def test_pickles_without_tensors(tmp_path: Path) -> None:
    for content in ({"a": 1}, [1, 2], 7):
        torch.save(content, tmp_path / "model.pth")
        with pytest.raises(UnreadableModel):
            open_checkpoint(tmp_path / "model.pth")


def test_kinds() -> None:
    tiny = tiny_checkpoint()
    assert checkpoint_kind(Checkpoint("a", tiny)) == "sdxl"
    assert prediction_of(Checkpoint("a", tiny)) == "eps"
    assert prediction_of(Checkpoint("a", {**tiny, "v_pred": torch.empty(0)})) == "v"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("lora_unet_input_blocks_1_0.lora_up.weight", "LoRA"),
        ("encoder.conv_in.weight", "autoencoder"),
        ("down_blocks.0.resnets.0.conv1.weight", "diffusers"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "joint-attention"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("cond_stage_model.model.positional_embedding", "Stable Diffusion 2"),
        ("something.else", "no denoising network"),
        ("model.diffusion_model.out.2.weight", "not of the SDXL family"),
    ],
)
def test_foreign_files_are_refused_with_the_reason(key: str, reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        checkpoint_kind(Checkpoint("other.safetensors", {key: torch.empty(1)}))


def anonymous_kib() -> int:
    """Memory of this process that is not a mapped file."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own accounts")
@pytest.mark.parametrize("name", ["big.safetensors", "big.ckpt"])
def test_files_are_mapped_not_copied(tmp_path: Path, name: str) -> None:
    tensors = {str(index): torch.zeros(4 * 2**20) for index in range(8)}  # 128 MiB
    path = tmp_path / name
    save_file(tensors, path) if name.endswith("safetensors") else torch.save(tensors, path)
    del tensors
    before = anonymous_kib()
    checkpoint = open_checkpoint(path)
    assert sum(tensor.sum().item() for tensor in checkpoint.tensors.values()) == 0
    assert anonymous_kib() - before < 32 * 1024


def test_errors_share_a_root() -> None:
    assert issubclass(UnreadableModel, ModelError)
    assert issubclass(UnsupportedModel, ModelError)
