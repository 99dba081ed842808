"""The autoencoder between pixels and latents, whole or in tiles.

Latents here are un-scaled (03, section 2: divide by 0.13025 before decoding). Specification: 03, section 11; 05,
section 4; 08, section 3.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import assign_weights
from fooocus_core.models.compiled import Compiler, form_of_weights
from fooocus_core.models.device import is_out_of_memory
from fooocus_core.models.residence import RESIDENCES, Residence, at_work
from fooocus_core.models.tiles import Tile, tiled

log = logging.getLogger(__name__)

GROUPS = 32
LATENT_CHANNELS = 4
DECODE_TILES = ((32, 128), (128, 32), (64, 64))
"""Tile sizes (width, height) in latent cells of the three passes that are averaged."""
DECODE_OVERLAP = 16
ENCODE_TILES = ((512, 512), (1024, 256), (256, 1024))
"""The same in pixels; the order matters, because every tile draws its own noise."""
ENCODE_OVERLAP = 64
TILE_CELLS = 64 * 64
"""What a tile of either kind holds in latent cells."""
WORTH_CALLS = 4
"""Pictures of one size for which compiling the decoder is worth it."""
_LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class AutoencoderShape:
    """Channels of each level from full resolution down, and residual blocks a level of the encoder."""

    channels: tuple[int, ...]
    blocks: int
    latent_channels: int

    @property
    def factor(self) -> int:
        """Pixels along one side of a latent cell."""
        return int(2 ** (len(self.channels) - 1))


class Autoencoder:
    """Pixels in ``[0, 1]`` and un-scaled latents, float32 at both ends, computed in the network's own dtype.

    ``works_on``: the device to which the network is brought for its work; ``None``: it works where it is. ``in_tiles``:
    whether what is larger than a tile is never tried whole.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: AutoencoderShape,
        *,
        works_on: torch.device | None = None,
        in_tiles: bool = False,
    ) -> None:
        self.network = network
        self.shape = shape
        self._works_on = works_on
        self._in_tiles = in_tiles
        self.compiler: Compiler | None = None

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def factor(self) -> int:
        return self.shape.factor

    def decode(self, latents: Tensor) -> Tensor:
        """``[batch, 4, h, w]`` to pixels ``[batch, 3, 8 h, 8 w]`` in ``[0, 1]``."""
        return ((self.decode_raw(latents) + 1.0) / 2.0).clamp(0.0, 1.0)

    def decode_or_tiled(self, latents: Tensor) -> Tensor:
        """As ``decode``; a device without room for the whole picture decodes it in tiles (03, section 11)."""
        if self._is_tiled(latents.shape[2:].numel()):
            return self.decode_tiled(latents)
        try:
            return self.decode(latents)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Not in the handler, where the error still holds on to all that was calculated.
        log.warning("no room to decode the whole picture, decoding in tiles")
        return self.decode_tiled(latents)

    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """A sample of the posterior, ``[batch, 4, h, w]``.

        ``pixels``: ``[batch, 3, H, W]`` in ``[0, 1]``; sides that are no multiple of 8 are centre-cropped. ``noise``:
        standard normals of the latent's shape; by default drawn from the global CPU generator, as the reference does.
        """
        signed = cropped(pixels, self.factor) * 2.0 - 1.0
        is_tiled = self._is_tiled(signed.shape[2:].numel() // self.factor**2)
        mean, log_variance = self._moments_in_tiles(signed) if is_tiled else self.moments(signed)
        if noise is None:
            noise = torch.randn(mean.shape)
        return mean + torch.exp(0.5 * log_variance) * noise.to(mean)

    def decode_tiled(
        self, latents: Tensor, tiles: tuple[Tile, ...] = DECODE_TILES, overlap: int = DECODE_OVERLAP
    ) -> Tensor:
        """As ``decode``, from three tilings: less memory, slightly other pixels. The result is on the CPU."""
        passes = _passes(latents, lambda tile: self.decode_raw(tile) + 1.0, tiles, overlap, float(self.factor), 3)
        with self._at_work():
            return (_sum(passes) / len(tiles) / 2.0).clamp(0.0, 1.0)

    def encode_tiled(
        self,
        pixels: Tensor,
        noise: Callable[[torch.Size], Tensor] = torch.randn,
        tiles: tuple[Tile, ...] = ENCODE_TILES,
        overlap: int = ENCODE_OVERLAP,
    ) -> Tensor:
        """As ``encode``, from three tilings; ``noise`` is asked for each tile's normals, in traversal order."""

        def encoded(tile: Tensor) -> Tensor:
            mean, log_variance = self.moments(tile * 2.0 - 1.0)
            return mean + torch.exp(0.5 * log_variance) * noise(mean.shape).to(mean)

        whole = cropped(pixels, self.factor)
        passes = _passes(whole, encoded, tiles, overlap, 1.0 / self.factor, self.shape.latent_channels)
        with self._at_work():
            return _sum(passes) / len(tiles)

    @torch.no_grad()
    def decode_raw(self, latents: Tensor) -> Tensor:
        """The decoder's own output, about -1 ... 1."""
        with self._at_work():
            latents = latents.to(device=self.device, dtype=self.dtype)
            if self.compiler is None:
                return _decoded(self.network, latents)[0].float()
            form = form_of_weights(self.network)
            return self.compiler.run(_decoded, form, self.network, latents, worth_calls=WORTH_CALLS)[0].float()

    @torch.no_grad()
    def moments(self, signed: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and clamped log-variance of pixels in ``[-1, 1]``, each ``[batch, 4, h, w]``."""
        network = cast(Any, self.network)
        with self._at_work():
            hidden = network.encoder(signed.to(device=self.device, dtype=self.dtype))
            mean, log_variance = network.quant_conv(hidden).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*_LOG_VARIANCE_RANGE)

    def _moments_in_tiles(self, signed: Tensor) -> tuple[Tensor, Tensor]:
        """As ``moments``, from three tilings: the noise is left to the whole, so that it is that of ``encode``."""

        def joined(tile: Tensor) -> Tensor:
            return torch.cat(self.moments(tile), dim=1)

        channels, scale = 2 * self.shape.latent_channels, 1.0 / self.factor
        passes = _passes(signed, joined, ENCODE_TILES, ENCODE_OVERLAP, scale, channels)
        with self._at_work():
            mean, log_variance = (_sum(passes) / len(ENCODE_TILES)).chunk(2, dim=1)
        return mean, log_variance

    def _is_tiled(self, cells: int) -> bool:
        """Whether so many latent cells are worked on in tiles from the first; a single tile is nothing but a whole."""
        return self._in_tiles and cells > TILE_CELLS

    def _at_work(self) -> AbstractContextManager[None]:
        return at_work(self.network, self._works_on)


def _decoded(network: Any, latents: Tensor) -> tuple[Tensor]:
    decoded: tuple[Tensor] = network.decode(latents, return_dict=False)
    return decoded


def cropped(pixels: Tensor, multiple: int) -> Tensor:
    """The centre of ``[..., H, W]`` with sides that are multiples; half the remainder is cut off in front."""
    height, width = (side // multiple * multiple for side in pixels.shape[-2:])
    top, left = (side % multiple // 2 for side in pixels.shape[-2:])
    return pixels[..., top : top + height, left : left + width]


def _passes(
    source: Tensor,
    function: Callable[[Tensor], Tensor],
    tiles: tuple[Tile, ...],
    overlap: int,
    scale: float,
    channels: int,
) -> Iterator[Tensor]:
    for tile in tiles:
        yield tiled(source, function, tile=tile, overlap=overlap, scale=scale, channels=channels)


def _sum(tensors: Iterator[Tensor]) -> Tensor:
    """Added from left to right, one at a time in memory."""
    total = next(tensors)
    for tensor in tensors:
        total = total + tensor
    return total


def load_autoencoder(
    weights: Mapping[str, Tensor],
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    residence: Residence = RESIDENCES["normal"],
) -> Autoencoder:
    """From un-prefixed ldm keys or from diffusers keys. Raises ``UnsupportedModel`` for anything else.

    ``device``: where it works; ``residence`` says whether it lives there too.
    """
    renamed = renamed_weights(weights)
    shape = autoencoder_shape(renamed, name)
    with torch.device("meta"):
        network: Any = AutoencoderKL(  # type: ignore[no-untyped-call]
            block_out_channels=shape.channels,
            down_block_types=("DownEncoderBlock2D",) * len(shape.channels),
            up_block_types=("UpDecoderBlock2D",) * len(shape.channels),
            layers_per_block=shape.blocks,
            latent_channels=shape.latent_channels,
            norm_num_groups=GROUPS,
        )
    assign_weights(network, renamed, name, device=residence.home(device), dtype=dtype, skipped=_UNUSED)
    return Autoencoder(network, shape, works_on=device, in_tiles=residence.in_tiles)


# --- names and sizes ----------------------------------------------------------------------------------------------

_DIFFUSERS_MARK = "decoder.up_blocks.0.resnets.0.norm1.weight"
_LDM_PARTS = (
    ("mid.block_1.", "mid_block.resnets.0."),
    ("mid.block_2.", "mid_block.resnets.1."),
    ("mid.attn_1.", "mid_block.attentions.0."),
    ("nin_shortcut.", "conv_shortcut."),
    ("norm_out.", "conv_norm_out."),
    ("downsample.conv.", "downsamplers.0.conv."),
    ("upsample.conv.", "upsamplers.0.conv."),
)
_ATTENTION_PARTS = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
    # names of diffusers' own older files
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}
_UNUSED = ("model_ema.decay", "model_ema.num_updates")
_LEVEL = re.compile(r"^(encoder\.down|decoder\.up)\.(\d+)\.(?:block\.(\d+)\.)?")


def renamed_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Today's diffusers names, whichever names the file uses. Nothing is copied: 1x1 convolutions become views."""
    ldm = _DIFFUSERS_MARK not in weights
    levels = 1 + max((int(m[2]) for m in map(_LEVEL.match, weights) if m), default=0)
    renamed = {}
    for key, tensor in weights.items():
        name = _attention_name(_ldm_name(key, levels) if ldm else key)
        flat = ".attentions." in name and tensor.dim() == 4
        renamed[name] = tensor.flatten(1) if flat else tensor
    return renamed


def _ldm_name(key: str, levels: int) -> str:
    """diffusers counts the decoder's levels from the deepest, ldm from the full resolution."""
    match = _LEVEL.match(key)
    if match:
        side, level, block = match[1], int(match[2]), match[3]
        level = levels - 1 - level if side == "decoder.up" else level
        inside = f"resnets.{block}." if block is not None else ""
        key = f"{side}_blocks.{level}.{inside}{key[match.end() :]}"
    for ldm, diffusers in _LDM_PARTS:
        key = key.replace(ldm, diffusers)
    return key


def _attention_name(key: str) -> str:
    head, attention, tail = key.partition(".attentions.0.")
    part, _, leaf = tail.rpartition(".")
    return f"{head}{attention}{_ATTENTION_PARTS.get(part, part)}.{leaf}" if attention else key


def autoencoder_shape(weights: Mapping[str, Tensor], name: str) -> AutoencoderShape:
    """Infer the network's shape from tensors in diffusers names."""
    try:
        levels = 1 + max(int(key.split(".")[2]) for key in weights if key.startswith("encoder.down_blocks."))
        first = [f"encoder.down_blocks.{level}.resnets.0.conv1.weight" for level in range(levels)]
        counted = [key for key in weights if re.match(r"encoder\.down_blocks\.0\.resnets\.\d+\.conv1\.weight", key)]
        return AutoencoderShape(
            channels=tuple(weights[key].shape[0] for key in first),
            blocks=len(counted),
            latent_channels=weights["decoder.conv_in.weight"].shape[1],
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UnsupportedModel(name, "holds no autoencoder of Stable Diffusion's layout") from error
