"""A checkpoint with everything it needs to make pictures, and the store that keeps it loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core import plan
from fooocus_core.adapters.inpaint_head import read_head
from fooocus_core.adapters.lora import LoraFile, read_lora
from fooocus_core.adapters.merge import LoraMerger, PatchedWeights, WeightedLora
from fooocus_core.conditioning.encode import TextEncoders
from fooocus_core.conditioning.inversion import EmbeddingFiles
from fooocus_core.conditioning.tokenizer import stock_tokenizer
from fooocus_core.errors import UnknownModel, UnsupportedModel
from fooocus_core.library import BUNDLED_UPSCALER, FileHashes, Library
from fooocus_core.models.autoencoder import Autoencoder, load_autoencoder
from fooocus_core.models.checkpoint import (
    TEXT_G_PREFIX,
    TEXT_L_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
    Checkpoint,
    FileState,
    Prediction,
    checkpoint_kind,
    file_state,
    open_checkpoint,
    prediction_of,
)
from fooocus_core.models.compiled import Compiler
from fooocus_core.models.device import Placement
from fooocus_core.models.guide_models import GuideModels
from fooocus_core.models.interposer import INTERPOSER_FILE
from fooocus_core.models.preview import LinearPreview, Preview, fitted_colours, preview_of_file
from fooocus_core.models.recent import Recent
from fooocus_core.models.refiner import PREVIEW_FILE as REFINER_PREVIEW_FILE
from fooocus_core.models.refiner import LoadedRefiner, load_refiner
from fooocus_core.models.residence import RESIDENCES, Residence
from fooocus_core.models.sidecar import Sidecar, read_sidecar
from fooocus_core.models.text_encoders import load_text_g, load_text_l
from fooocus_core.models.unet import DiffusionNetwork, load_unet
from fooocus_core.models.upscaler import Upscaler, as_picture, load_upscaler

log = logging.getLogger(__name__)

LATENT_SCALE = 0.13025
PREVIEW_FILE = "xlvaeapp.pth"
UPSCALER_FILE = "fooocus_upscaler_s409985e5.bin"
WORKING_ROOM_BYTES = 4 * 2**30
"""What a picture of SDXL's usual size needs beside the weights, with a margin."""
KEPT_LORA_BYTES = 2 * 2**30
"""Of LoRA files that stay open: two sets of five usual ones. Mapped, as nearly all are, they take no memory."""
COMPILED_WITHIN_S = 120.0
"""How long a picture for which there was no room waits for the compiler to let go of the device's memory."""
INPAINT_HEAD_FILE = "fooocus_inpaint_head.pth"
INPAINT_PATCH_FILES: Mapping[plan.InpaintEngine, str] = MappingProxyType(
    {"v1": "inpaint.fooocus.patch", "v2.5": "inpaint_v25.fooocus.patch", "v2.6": "inpaint_v26.fooocus.patch"}
)
"""Of every engine that has one (specification 04, section 7)."""


@dataclass
class LoadedModel:
    """The networks of one checkpoint. ``name`` is the file's as the library lists it.

    ``prediction`` tells what the network predicts. ``checkpoint_hash`` is the short hash of the file, or empty.
    """

    name: str
    network: DiffusionNetwork
    autoencoder: Autoencoder
    text: TextEncoders
    prediction: Prediction
    sidecar: Sidecar
    upscaler: Callable[[], Upscaler]
    preview_path: Path | None = None
    checkpoint_hash: str = ""

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def native_area_px(self) -> int | None:
        """The area at which the model renders whatever the size asked for; ``None``: it renders the size itself."""
        return self.sidecar.native_area_px

    def decoded(self, latents: Tensor) -> Tensor:
        """Un-scaled latents ``[batch, 4, h, w]`` to pixels ``[batch, 3, 8 h, 8 w]`` in ``[0, 1]``, float32."""
        return self.autoencoder.decode_or_tiled(latents)

    def enlarged(self, pixels: Tensor, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """The first picture of a batch at exactly this size, uint8 ``[height, width, 3]``."""
        if pixels.shape[2:] == (height_px, width_px):
            return as_picture(pixels)
        return self.upscaler().enlarge_to(pixels, width_px, height_px)

    @cached_property
    def merger(self) -> LoraMerger:
        """The LoRAs in this model's weights."""
        return LoraMerger(self.network, self.text.l, self.text.g)

    @cached_property
    def preview(self) -> Preview:
        """The preview network if it is on disk and sound, else the model's own colours, else fitted ones."""
        device = self.network.device
        if self.sidecar.preview is not None:
            return LinearPreview(self.sidecar.preview, device=device)
        found = preview_of_file(self.preview_path, device=device, dtype=self.network.dtype)
        return found or LinearPreview(fitted_colours(self.autoencoder, LATENT_SCALE), device=device)


def load_model(
    path: Path,
    placement: Placement,
    *,
    name: str | None = None,
    vae: Path | None = None,
    upscaler: Callable[[], Upscaler] | None = None,
    preview_path: Path | None = None,
    head_width: int = 64,
) -> LoadedModel:
    """Load a checkpoint of the SDXL family from one file; ``vae`` replaces its autoencoder.

    ``head_width`` is the width of an attention head in the denoising network and both text encoders. Raises
    ``UnreadableModel`` and ``UnsupportedModel``, both with the name of the file at fault.
    """
    checkpoint = open_checkpoint(path)
    kind = checkpoint_kind(checkpoint)
    if kind != "sdxl":
        raise UnsupportedModel(checkpoint.name, f"this is an {kind.replace('_', ' ')} checkpoint, not an SDXL base")
    sidecar = read_sidecar(checkpoint)
    network = load_unet(
        checkpoint.under(UNET_PREFIX),
        checkpoint.name,
        device=placement.device,
        dtype=placement.network,
        head_width=head_width,
    )
    text = _load_text(checkpoint, sidecar, placement, head_width)
    _require_fitting(network, text, checkpoint.name)
    return LoadedModel(
        name=name or path.name,
        network=network,
        autoencoder=_load_vae(checkpoint, vae, placement),
        text=text,
        prediction=prediction_of(checkpoint),
        sidecar=sidecar,
        upscaler=upscaler or (lambda: load_bundled_upscaler(placement)),
        preview_path=preview_path,
    )


def load_bundled_upscaler(placement: Placement) -> Upscaler:
    """The enlargement network that ships with the project."""
    file = open_checkpoint(BUNDLED_UPSCALER)
    return load_upscaler(file.tensors, file.name, device=placement.device)


def _load_text(checkpoint: Checkpoint, sidecar: Sidecar, placement: Placement, head_width: int) -> TextEncoders:
    name, device, dtype = checkpoint.name, placement.home, placement.text
    text_l = load_text_l(checkpoint.under(TEXT_L_PREFIX), name, device=device, dtype=dtype, head_width=head_width)
    text_g = load_text_g(checkpoint.under(TEXT_G_PREFIX), name, device=device, dtype=dtype, head_width=head_width)
    tokenizer = sidecar.tokenizer or stock_tokenizer()
    for encoder in (text_l, text_g):
        if encoder.shape.vocabulary <= tokenizer.end_id:
            raise UnsupportedModel(
                name, f"its tokenizer has {tokenizer.end_id + 1} tokens, a text encoder {encoder.shape.vocabulary}"
            )
        if encoder.shape.positions < 77:
            raise UnsupportedModel(name, f"a text encoder reads {encoder.shape.positions} tokens, 77 are needed")
    return TextEncoders(text_l, text_g, tokenizer)


def _load_vae(checkpoint: Checkpoint, vae: Path | None, placement: Placement) -> Autoencoder:
    """The checkpoint's own autoencoder, or a file's: alone or itself inside a checkpoint."""
    source = checkpoint if vae is None else open_checkpoint(vae)
    weights = source.under(VAE_PREFIX) if source.holds(VAE_PREFIX) else dict(source.tensors)
    if vae is None and not source.holds(VAE_PREFIX):
        raise UnsupportedModel(checkpoint.name, "it brings no autoencoder; name one")
    return load_autoencoder(
        weights,
        source.name,
        device=placement.device,
        dtype=placement.autoencoder,
        residence=placement.residence,
    )


def _require_fitting(network: DiffusionNetwork, text: TextEncoders, name: str) -> None:
    """The parts of one file must fit each other: a text context and an added condition of the network's widths."""
    context = text.l.width + text.g.width
    if network.shape.context_width != context:
        raise UnsupportedModel(name, f"text {context} wide for a network that reads {network.shape.context_width}")
    added = text.g.pooled_width + 6 * 256
    if network.adm_width != added:
        raise UnsupportedModel(name, f"size conditioning {added} wide for a network that reads {network.adm_width}")


@dataclass(frozen=True)
class InpaintNetwork:
    """What makes a checkpoint's network one that repaints. ``head``: ``[channels, 5, 3, 3]``."""

    head: Tensor
    patch: PatchedWeights


class ModelStore:
    """Keeps the last checkpoint loaded, so that a second job with it costs nothing. For one thread."""

    def __init__(
        self,
        library: Library,
        placement: Placement,
        hashes: FileHashes | None = None,
        compiler: Compiler | None = None,
    ) -> None:
        """``compiler``: what may find faster ways for the networks that take the most time; ``None``: nothing does."""
        self.library = library
        self._compiler = compiler
        self.placement = placement
        self._asked = placement.residence
        self._hashes = hashes
        self._loaded: tuple[object, LoadedModel] | None = None
        self._merged: list[tuple[object, float]] = []
        self._lora_files: Recent[FileState, LoraFile] = Recent(KEPT_LORA_BYTES, lambda file: file.nbytes)
        self._embeddings: EmbeddingFiles | None = None
        self._refiner: tuple[object, LoadedRefiner] | None = None
        self._refiner_merged: list[tuple[object, float]] = []
        self._inpaint: tuple[object, InpaintNetwork] | None = None
        self.guides = GuideModels(library, placement)
        self._upscaler: Upscaler | None = None
        self._picture_upscaler: tuple[object, Upscaler] | None = None

    def lora_names(self) -> Sequence[str]:
        return self.library.lora_names()

    def embeddings(self) -> EmbeddingFiles | None:
        """Where textual inversions are looked up. Without any folder ``embedding:`` words are words like others."""
        folders = [folder for folder in self.library.folders("embeddings") if folder.is_dir()]
        if self._embeddings is None or self._embeddings.roots != folders:
            self._embeddings = EmbeddingFiles(folders)
        return self._embeddings if folders else None

    def load(self, models: plan.Models, loras: Sequence[plan.Lora] = ()) -> LoadedModel:
        """The checkpoint of a plan with ``loras`` and no others merged, in their order.

        What is loaded and merged already stays. A LoRA that is not in the library is skipped with a warning. Raises
        ``CoreError``; the weights are then those of an earlier call or of the file.
        """
        model = self.checkpoint(models)
        self._merge(model, loras)
        return model

    def checkpoint(self, models: plan.Models) -> LoadedModel:
        """The checkpoint of a plan, for what can be asked of it before its LoRAs are known. Raises ``CoreError``."""
        path = self.library.path("checkpoints", models.checkpoint)
        vae = None if models.vae is None else self.library.path("vae", models.vae)
        key = (models.checkpoint, _state(path), _state(vae))
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = self._inpaint = None  # never two checkpoints at once
            _release_memory()
            self._merged = []
            self._loaded = (key, self._fresh(models.checkpoint, path, vae))
        return self._loaded[1]

    def refiner(self, models: plan.Models, loras: Sequence[plan.Lora] = ()) -> LoadedRefiner | None:
        """The refiner of a plan with the same LoRAs, as far as they fit it; none loaded stays if the plan names none.

        Raises ``CoreError``, ``UnknownModel`` for a refiner whose latents need a translator that is not on disk.
        """
        if models.refiner is None:
            self._refiner = None
            return None
        path = self.library.path("checkpoints", models.refiner)
        key = (models.refiner, _state(path))
        if self._refiner is None or self._refiner[0] != key:
            self._refiner = None
            _release_memory()
            self._refiner_merged = []
            self._refiner = (key, self._fresh_refiner(models.refiner, path))
        self._merge_refiner(self._refiner[1], loras)
        return self._refiner[1]

    def inpaint_network(
        self, models: plan.Models, loras: Sequence[plan.Lora], engine: plan.InpaintEngine
    ) -> InpaintNetwork:
        """The weights of an inpaint engine over those of a plan's checkpoint with its LoRAs.

        They lie beside the checkpoint's own, so that both can be used in one picture. Raises ``CoreError``,
        ``UnknownModel`` for what is not on disk.
        """
        head = self.library.file("inpaint", INPAINT_HEAD_FILE, f"inpaint engine {engine}")
        patch = self.library.file("inpaint", INPAINT_PATCH_FILES[engine], f"inpaint engine {engine}")
        model = self.load(models, loras)
        key = (self._loaded and self._loaded[0], tuple(self._merged), _state(head), _state(patch))
        if self._inpaint is None or self._inpaint[0] != key:
            self._inpaint = None
            _release_memory()
            files = [self._weighted(path, weight) for path, weight in self._present(loras)]
            weight = read_head(head)
            if len(weight) != model.network.shape.channels[0]:
                raise UnsupportedModel(head.name, "this inpaint head is not made for the checkpoint's network")
            self._inpaint = (
                key,
                InpaintNetwork(
                    weight,
                    model.merger.patched(
                        files, WeightedLora(read_lora(patch), 1.0), _resting_place(model, self.placement)
                    ),
                ),
            )
        return self._inpaint[1]

    def _fresh_refiner(self, name: str, path: Path) -> LoadedRefiner:
        refiner = load_refiner(
            path,
            self.placement,
            name=name,
            interposer=self._approximation(INTERPOSER_FILE),
            preview_path=self._approximation(REFINER_PREVIEW_FILE),
        )
        refiner.network.compiler = self._compiler_here
        if refiner.owns_vae and refiner.translate is None:
            raise UnknownModel("vae_approx", INTERPOSER_FILE, f"the refiner {name}")
        if self._hashes is not None:
            refiner.checkpoint_hash = self._hashes.short(path)
        return refiner

    def _merge_refiner(self, refiner: LoadedRefiner, loras: Sequence[plan.Lora]) -> None:
        present = self._present(loras)
        state = _merged_state(present)
        if state == self._refiner_merged:
            return
        files = [self._weighted(path, weight) for path, weight in present]
        self._refiner_merged = []  # should merging fail, it leaves the weights as in the file
        refiner.merge(files)
        self._refiner_merged = state

    @property
    def _compiler_here(self) -> Compiler | None:
        return self._compiler if self.placement.residence.compiles else None

    def _merge(self, model: LoadedModel, loras: Sequence[plan.Lora]) -> None:
        present = self._present(loras)
        state = _merged_state(present)
        if state == self._merged:
            return
        files = [self._weighted(path, weight) for path, weight in present]
        self._merged = []  # should merging fail, it leaves the weights as in the file
        model.merger.apply(files)
        self._merged = state

    def _weighted(self, path: Path, weight: float) -> WeightedLora:
        """A LoRA, read from disk unless it was lately and has not changed."""
        return WeightedLora(self._lora_files.get_or(file_state(path), lambda: read_lora(path)), weight)

    def _present(self, loras: Sequence[plan.Lora]) -> list[tuple[Path, float]]:
        """The LoRAs that are on disk."""
        found = [(self._lora_path(lora.name), lora.weight) for lora in loras]
        return [(path, weight) for path, weight in found if path is not None]

    def _lora_path(self, name: str) -> Path | None:
        try:
            return self.library.path("loras", name)
        except UnknownModel:
            log.warning("LoRA not found, left out: %r", name)
            return None

    def _fresh(self, name: str, path: Path, vae: Path | None) -> LoadedModel:
        model = load_model(
            path,
            self.placement,
            name=name,
            vae=vae,
            upscaler=self._shared_upscaler,
            preview_path=self._approximation(PREVIEW_FILE),
        )
        model.network.compiler = model.autoencoder.compiler = self._compiler_here
        if self._hashes is not None:
            model.checkpoint_hash = self._hashes.short(path)
        return model

    def lora_hash(self, name: str) -> str:
        """The short hash of a listed LoRA; empty if no hashes are kept or the file is gone."""
        if self._hashes is None:
            return ""
        try:
            return self._hashes.short(self.library.path("loras", name))
        except (UnknownModel, OSError):  # a file may go while the picture is made, which is no reason to lose it
            return ""

    def save_room(self) -> None:
        """As little on the device as can be from now on, until ``unload``; what is loaded already stays where it is.

        Waits a while for what is being compiled, which holds on to weights of its own accord.
        """
        self._reside(RESIDENCES["low"])
        if self._compiler is not None:
            self._compiler.wait(COMPILED_WITHIN_S)

    def _reside(self, residence: Residence) -> None:
        self.placement = self.guides.placement = replace(self.placement, residence=residence)

    def unload(self) -> None:
        """Forget every network and give the device's memory back."""
        self._reside(self._asked)
        self._loaded = None
        self._merged = []
        self._lora_files.clear()
        self._embeddings = None
        self._refiner = None
        self._inpaint = None
        self.guides.unload()
        self._upscaler = None
        self._picture_upscaler = None
        _release_memory()

    def picture_upscaler(self, asked: str | None = None) -> tuple[str, Upscaler]:
        """What enlarges pictures that come with requests, and its name.

        That is the file ``asked`` for, as the library lists it, else the published one, else the bundled one. Raises
        ``UnknownModel`` for a file that was asked for and is not there, ``UnreadableModel`` and ``UnsupportedModel``
        for one that is there and cannot be used.
        """
        name = asked or self.library.find("upscale_models", UPSCALER_FILE)
        if name is None or name == BUNDLED_UPSCALER.name:
            return BUNDLED_UPSCALER.name, self._shared_upscaler()
        path = self.library.path("upscale_models", name)
        key = _state(path)
        if self._picture_upscaler is None or self._picture_upscaler[0] != key:
            file = open_checkpoint(path)
            loaded = load_upscaler(file.tensors, file.name, device=self.placement.device)
            self._picture_upscaler = (key, loaded)
        return name, self._picture_upscaler[1]

    def _shared_upscaler(self) -> Upscaler:
        if self._upscaler is None:
            self._upscaler = load_bundled_upscaler(self.placement)
        return self._upscaler

    def _approximation(self, file_name: str) -> Path | None:
        """One of the small networks beside the autoencoders, if it is on disk."""
        name = self.library.find("vae_approx", file_name)
        return None if name is None else self.library.path("vae_approx", name)


def _resting_place(model: LoadedModel, placement: Placement) -> torch.device:
    """Where a second set of a network's weights lies: with the first, if that leaves room to work in."""
    device = placement.second_home
    if device.type != "cuda" or placement.residence.second == "on device":
        return device
    needed = sum(weight.nbytes for weight in model.network.unet.parameters()) + WORKING_ROOM_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return device if free > needed else torch.device("cpu")


def _merged_state(present: Sequence[tuple[Path, float]]) -> list[tuple[object, float]]:
    """What tells one list of LoRAs from another."""
    return [(file_state(path), weight) for path, weight in present]


def _state(path: Path | None) -> FileState | None:
    return None if path is None else file_state(path)


def _release_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
