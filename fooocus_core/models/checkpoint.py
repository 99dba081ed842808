"""Weight files on disk: opened mapped, never executed, and told apart by what they hold.

A safetensors file is mapped: its tensors are views of the page cache and cost no memory until they are read. Every
other format goes through torch's weights-only loader, which refuses anything but plain tensors and containers.
Specification: 08, sections 2 and 3.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fooocus_core.errors import UnreadableModel, UnsupportedModel

log = logging.getLogger(__name__)

CheckpointKind = Literal["sdxl", "sdxl_refiner", "sd15"]
Prediction = Literal["eps", "v"]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_L_PREFIX = "conditioner.embedders.0.transformer.text_model."
TEXT_G_PREFIX = "conditioner.embedders.1.model."
REFINER_TEXT_PREFIX = "conditioner.embedders.0.model."
SD15_TEXT_PREFIX = "cond_stage_model.transformer."

SIDECAR_KEY = "fooocusapi.sidecar"
"""The metadata header key under which a checkpoint may describe itself (native area, tokenizer, preview colours)."""

_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
NESTED = ("state_dict", "params_ema", "params")
"""Under which names."""
_ZIP_MAGIC = b"PK\x03\x04"
_FOREIGN_LAYOUTS = (
    ("joint_blocks.", "an SD 3 or other joint-attention transformer"),
    ("double_blocks.", "a Flux-like transformer"),
    ("cond_stage_model.model.", "a Stable Diffusion 2 checkpoint"),
    ("down_blocks.", "a network in diffusers' own names, not a single-file checkpoint"),
    ("lora_", "a LoRA, not a checkpoint"),
    ("encoder.conv_in.", "an autoencoder, not a checkpoint"),
)


@dataclass(frozen=True)
class Checkpoint:
    """An open weight file. ``name`` is the file's name without its folder; ``metadata`` the safetensors header's."""

    name: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose key begins with ``prefix``, by the rest of their key. Nothing is copied."""
        return {key[len(prefix) :]: tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}

    def holds(self, prefix: str) -> bool:
        return any(key.startswith(prefix) for key in self.tensors)


class FileState(NamedTuple):
    """What tells one version of a file from another."""

    path: str
    size: int
    modified_ns: int


def file_state(path: Path) -> FileState:
    """Raises ``UnreadableModel`` for a file that has just gone."""
    try:
        stat = path.stat()
    except OSError as error:
        raise UnreadableModel(path.name, "the file is gone") from error
    return FileState(str(path), stat.st_size, stat.st_mtime_ns)


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a weight file without copying it.

    Raises ``UnreadableModel`` for a missing, truncated or corrupt file and for a pickle that holds more than tensors.
    """
    if path.suffix == ".safetensors":
        with _errors_of(path):
            return _open_safetensors(path)
    return Checkpoint(path.name, _plain_tensors(read_content(path), path.name))


def read_content(path: Path) -> Any:
    """What a weight file holds, as it is nested: a dictionary of tensors for safetensors. Errors as above."""
    with _errors_of(path):
        return dict(_open_safetensors(path).tensors) if path.suffix == ".safetensors" else _unpickled(path)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """The file system's and safetensors' errors as one, without the folder's name in it."""
    try:
        yield
    except OSError as error:
        raise UnreadableModel(path.name, error.strerror or "the file cannot be read") from error
    except SafetensorError as error:
        raise UnreadableModel(path.name, f"not a complete safetensors file ({error})") from error


def _open_safetensors(path: Path) -> Checkpoint:
    """The library checks the file's structure; the mapping is torch's own.

    The library's tensors take 2 ms each to make from a mapped file of 7 GB, ten seconds for SDXL's 2515; slices of one
    mapping take none. Each tensor keeps the mapping alive, and writing to one never reaches the file.
    """
    size = path.stat().st_size
    if size == 0:
        raise UnreadableModel(path.name, "the file is empty")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        header, start = _header(path)
        whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        tensors = {}
        for key in file.keys():  # noqa: SIM118 - not a mapping
            view = _view(whole, header[key], start)
            tensors[key] = file.get_tensor(key) if view is None else view
    return Checkpoint(path.name, tensors, metadata)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a file that is known to be sound, and where the tensors begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _view(whole: Tensor, entry: Mapping[str, Any], start: int) -> Tensor | None:
    """One tensor of a mapped file; ``None`` where its place or its type does not allow a view."""
    dtype = _SAFETENSORS_DTYPES.get(entry["dtype"])
    first, last = (start + offset for offset in entry["data_offsets"])
    if dtype is None or first == last or first % dtype.itemsize:
        return None
    return whole[first:last].view(dtype).view(entry["shape"])


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        zipped = file.read(4) == _ZIP_MAGIC  # only this form of torch's can be mapped
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise UnreadableModel(path.name, "not a file of plain tensors; nothing else is unpickled") from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way: this is the border where it becomes one error
        raise UnreadableModel(path.name, "corrupt, or not a torch file") from error


def _plain_tensors(content: Any, name: str) -> dict[str, Tensor]:
    """The tensors of a pickled mapping; a mapping inside it in which training programs put them is taken instead."""
    inner = [content[key] for key in NESTED if isinstance(content.get(key), dict)] if isinstance(content, dict) else []
    content = inner[0] if inner else content
    if not isinstance(content, dict):
        raise UnreadableModel(name, "holds no dictionary of tensors")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UnreadableModel(name, "holds no tensors")
    return tensors


def checkpoint_kind(checkpoint: Checkpoint) -> CheckpointKind:
    """Which family a single-file checkpoint belongs to, judged by its parts and not by their widths.

    Raises ``UnsupportedModel`` with the reason for everything else. Specification: 08, section 3.
    """
    for prefix, what in _FOREIGN_LAYOUTS:
        if checkpoint.holds(prefix) or checkpoint.holds(UNET_PREFIX + prefix):
            raise UnsupportedModel(checkpoint.name, f"this is {what}")
    if not checkpoint.holds(UNET_PREFIX):
        raise UnsupportedModel(checkpoint.name, f"no denoising network in it (keys {UNET_PREFIX}*)")
    sized = checkpoint.holds(UNET_PREFIX + "label_emb.")
    if checkpoint.holds(SD15_TEXT_PREFIX) and not sized:
        return "sd15"
    if checkpoint.holds(REFINER_TEXT_PREFIX) and sized:
        return "sdxl_refiner"
    if checkpoint.holds(TEXT_L_PREFIX) and checkpoint.holds(TEXT_G_PREFIX) and sized:
        return "sdxl"
    raise UnsupportedModel(
        checkpoint.name, "not of the SDXL family: it lacks SDXL's two text encoders or its size conditioning"
    )


def prediction_of(checkpoint: Checkpoint) -> Prediction:
    """What the network predicts: a top-level key ``v_pred`` marks v-prediction (08, section 3)."""
    return "v" if "v_pred" in checkpoint.tensors else "eps"


def assign_weights(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    skipped: Iterable[str] = (),
) -> None:
    """Give a module built on the meta device its weights, tensor by tensor; one already right is not copied.

    ``name`` is the file's, for errors. Keys outside the module are left alone with a warning, except ``skipped`` ones
    that are known to be of no use. Raises ``UnsupportedModel`` if a weight is missing or has another shape: unlike the
    reference, which runs on with random numbers in its place.
    """
    wanted = dict(module.named_parameters()) | dict(module.named_buffers())
    persistent = module.state_dict().keys()
    _require_all(wanted, persistent, weights, name)
    surplus = weights.keys() - persistent - set(skipped)
    if surplus:
        log.warning("%s: %d keys of no use, such as %s", name, len(surplus), min(surplus))
    placed = {key: weights[key].to(device=device, dtype=dtype) for key in persistent}
    module.load_state_dict(placed, assign=True)
    module.requires_grad_(False).eval()


def _require_all(
    wanted: Mapping[str, Tensor], persistent: Iterable[str], weights: Mapping[str, Tensor], name: str
) -> None:
    for key in persistent:
        if key not in weights:
            raise UnsupportedModel(name, f"the weight {key} is missing")
        if weights[key].shape != wanted[key].shape:
            found, expected = tuple(weights[key].shape), tuple(wanted[key].shape)
            raise UnsupportedModel(name, f"the weight {key} has shape {found} where {expected} belongs")
