"""A second checkpoint that takes over part of the steps (specification 03, section 8; 08, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from fooocus_core.adapters.merge import LoraMerger, WeightedLora
from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.conditioning.encode import EncodedText, TextEncoders
from fooocus_core.conditioning.refiner import refiner_conditioning
from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.autoencoder import Autoencoder, load_autoencoder
from fooocus_core.models.checkpoint import (
    UNET_PREFIX,
    VAE_PREFIX,
    CheckpointKind,
    Prediction,
    checkpoint_kind,
    open_checkpoint,
    prediction_of,
)
from fooocus_core.models.device import Placement
from fooocus_core.models.interposer import Interposer, load_interposer
from fooocus_core.models.preview import LinearPreview, Preview, fitted_colours, preview_of_file
from fooocus_core.models.unet import DiffusionNetwork, load_unet
from fooocus_core.sampling.prediction import SD15_LATENTS, SDXL_LATENTS, LatentFormat

PREVIEW_FILE = "vaeapp_sd15.pth"


@dataclass
class LoadedRefiner:
    """A refiner's network. ``autoencoder`` and ``translate`` are SD 1.5's alone: its latents are of another kind."""

    name: str
    kind: CheckpointKind
    network: DiffusionNetwork
    prediction: Prediction
    autoencoder: Autoencoder | None = None
    translate: Interposer | None = None
    preview_path: Path | None = None
    checkpoint_hash: str = ""

    @property
    def owns_vae(self) -> bool:
        return self.autoencoder is not None

    @property
    def latent_format(self) -> LatentFormat:
        return SD15_LATENTS if self.kind == "sd15" else SDXL_LATENTS

    def conditioning(
        self, text: EncodedText, side: PromptSide, encoders: TextEncoders, size_px: tuple[int, int], adm_scale: float
    ) -> Conditioning:
        """A text that the base's ``encoders`` read, for this network.

        Raises ``UnsupportedModel`` where the two checkpoints do not fit each other.
        """
        made = refiner_conditioning(
            text,
            side,
            self.kind,
            width_l=encoders.l.width,
            final_norm=encoders.l.normed,
            size_px=size_px,
            adm_scale=adm_scale,
        )
        width, wanted = made.context.shape[-1], self.network.shape.context_width
        sizes = 0 if made.adm is None else made.adm.shape[1] // (2 if self.kind == "sdxl" else 1)
        if width != wanted or sizes != self.network.adm_width:
            raise UnsupportedModel(self.name, "this refiner does not fit the base model's text encoders")
        return made

    def decoded(self, latents: Tensor) -> Tensor:
        """As ``LoadedModel.decoded``, of latents of this refiner's own kind."""
        if self.autoencoder is None:
            raise RuntimeError("this refiner works on the base model's latents")
        return self.autoencoder.decode_or_tiled(latents)

    @cached_property
    def merger(self) -> LoraMerger:
        """The LoRAs in this network's weights."""
        return LoraMerger(self.network)

    def merge(self, loras: Sequence[WeightedLora]) -> None:
        """Merge these and no others; a file made for the base alone is left out with a warning, as always."""
        self.merger.apply(loras, skip_foreign=True)

    @cached_property
    def preview(self) -> Preview:
        """As ``LoadedModel.preview``, of latents of this refiner's own kind."""
        if self.autoencoder is None:
            raise RuntimeError("this refiner works on the base model's latents")
        device = self.network.device
        found = preview_of_file(self.preview_path, device=device, dtype=self.network.dtype)
        return found or LinearPreview(fitted_colours(self.autoencoder, self.latent_format.scale), device=device)


def load_refiner(
    path: Path,
    placement: Placement,
    *,
    name: str | None = None,
    interposer: Path | None = None,
    preview_path: Path | None = None,
    head_width: int = 64,
) -> LoadedRefiner:
    """Load a refiner from one file: SDXL's, any SDXL checkpoint, or Stable Diffusion 1.5's.

    Its text encoders are not read: it works from the base model's texts. ``interposer``, which SD 1.5 needs, is the
    file that translates latents. Raises ``UnreadableModel`` and ``UnsupportedModel``.
    """
    checkpoint = open_checkpoint(path)
    kind = checkpoint_kind(checkpoint)
    network = load_unet(
        checkpoint.under(UNET_PREFIX),
        checkpoint.name,
        device=placement.second_home,
        dtype=placement.network,
        head_width=head_width,
    )
    loaded = LoadedRefiner(name or path.name, kind, network, prediction_of(checkpoint), preview_path=preview_path)
    if kind == "sd15":
        if not checkpoint.holds(VAE_PREFIX):
            raise UnsupportedModel(
                checkpoint.name, "a refiner of this kind needs its own autoencoder, which is missing"
            )
        loaded.autoencoder = load_autoencoder(
            checkpoint.under(VAE_PREFIX),
            checkpoint.name,
            device=placement.device,
            dtype=placement.autoencoder,
            residence=placement.residence,
        )
        loaded.translate = None if interposer is None else _load_interposer(interposer, placement)
    return loaded


def _load_interposer(path: Path, placement: Placement) -> Interposer:
    file = open_checkpoint(path)
    return load_interposer(file.tensors, file.name, device=placement.device, dtype=placement.network)
