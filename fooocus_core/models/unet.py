"""The denoising network: its shape read off the weights, its keys translated, its arithmetic from diffusers.

Specification: 08, section 3 (detection); 03, section 10 (the call); 02, section 6 (the added-condition vector).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2DCrossAttn
from torch import Tensor, nn

from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import assign_weights
from fooocus_core.models.compiled import Compiler
from fooocus_core.models.forward_pass import PLAIN_CALL, ForwardPass
from fooocus_core.sampling.network import NetworkCall

GROUPS = 32
HEAD_WIDTH = 64
"""Channels of one attention head in every SDXL network; not visible in the weights."""
SD15_HEADS = 8
"""Stable Diffusion 1.5 has so many heads at every width."""
LATENT_CHANNELS = 4
_INPAINT_CHANNELS = 9
_INPAINT_GREY = (0.8223, -0.6876, 0.6364, 0.1380)
"""What a classic inpaint network sees as its masked latent when nothing is masked (08, section 3)."""


@dataclass(frozen=True)
class UNetShape:
    """Everything about a UNet that its weights tell.

    Levels run from the full resolution down. ``depths`` count transformer blocks after each residual block;
    ``up_depths`` run in the order of the output blocks, deepest level first. ``middle_depth`` is ``None`` where the
    middle is a single residual block. ``adm_width`` is ``None`` for a network without added condition.
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    down_depths: tuple[tuple[int, ...], ...]
    middle_depth: int | None
    up_depths: tuple[tuple[int, ...], ...]
    context_width: int
    adm_width: int | None
    linear_projections: bool


class DiffusionNetwork:
    """A UNet as the samplers see it: float32 in, float32 out, computed in the network's own dtype.

    ``originals`` are the file's tensors under the names of the UNet's parameters, mapped and as they were stored:
    whatever is merged into the weights is taken off by them. ``parameter_names`` leads from ldm keys to those names.
    ``compiler``, to be set before the first call, may find a faster way to the same answers.
    """

    def __init__(
        self,
        unet: nn.Module,
        shape: UNetShape,
        originals: Mapping[str, Tensor],
        parameter_names: Mapping[str, str],
    ) -> None:
        self.unet = unet
        self.shape = shape
        self.originals = originals
        self.parameter_names = parameter_names
        self.compiler: Compiler | None = None

    @cached_property
    def part_names(self) -> Mapping[str, str]:
        """ldm name of every part to its name in ``unet``."""
        return unet_names(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def adm_width(self) -> int:
        """Width of the added-condition vector that one row takes; 0 if the network has none."""
        return self.shape.adm_width or 0

    @torch.no_grad()
    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        adm: Tensor | None,
        call: NetworkCall = PLAIN_CALL,
    ) -> Tensor:
        """The raw prediction, ``[batch, 4, h, w]`` float32.

        ``latents``: ``[batch, 4, h, w]``, already scaled for the network, any h and w. ``timesteps``: ``[batch]``
        floats 0 ... 999. ``context``: ``[batch, tokens, context_width]``. ``adm``: ``[batch, adm_width]``, or ``None``
        for a network without added condition. Raises ``ValueError`` for a vector of another width.
        """
        if self.adm_width and (adm is None or adm.shape[1] != self.adm_width):
            raise ValueError(f"added condition must be {self.adm_width} wide, got {None if adm is None else adm.shape}")
        device, dtype = self.device, self.dtype
        output = self._forward_pass(
            self._network_input(latents.to(device, dtype)),
            timesteps.to(device),
            context.to(device, dtype),
            None if adm is None else adm.to(device, dtype),
            call,
        )
        return output.float()

    def weights_changed(self) -> None:
        """To be called before and after a parameter gets other values: nothing made of the old ones is kept."""
        self.__dict__.pop("_forward_pass", None)

    @cached_property
    def _forward_pass(self) -> ForwardPass:
        return ForwardPass(self.unet, self.compiler)

    def _network_input(self, latents: Tensor) -> Tensor:
        """A classic inpaint network gets a full mask and a constant picture beside the latent."""
        if self.shape.in_channels != _INPAINT_CHANNELS:
            return latents.contiguous()  # an expanded row would decide the layout of all that follows
        grey = _inpaint_grey(latents.dtype, latents.device).expand_as(latents)
        return torch.cat([latents, torch.ones_like(latents[:, :1]), grey], dim=1)


@cache
def _inpaint_grey(dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[1, 4, 1, 1]``; kept, because bringing it to a device waits until that has nothing to do."""
    return torch.tensor(_INPAINT_GREY, dtype=dtype)[None, :, None, None].to(device)


def load_unet(
    weights: Mapping[str, Tensor],
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    head_width: int = HEAD_WIDTH,
) -> DiffusionNetwork:
    """Build the network of un-prefixed ldm ``weights`` and give it those weights without a second copy.

    ``name`` is the file's, for errors. Raises ``UnsupportedModel`` if the shapes belong to no UNet of this kind.
    """
    shape = unet_shape(weights, name)
    unet = build_unet(shape, name, head_width)
    parts = unet_names(shape)
    names = {key: translated_key(key, parts) for key in weights}
    originals = {names[key]: tensor for key, tensor in weights.items()}
    assign_weights(unet, originals, name, device=device, dtype=dtype)
    return DiffusionNetwork(unet, shape, originals, names)


# --- the shape, read off the weights ------------------------------------------------------------------------------


def unet_shape(weights: Mapping[str, Tensor], name: str) -> UNetShape:
    """Infer a network's shape from its tensors' shapes alone (un-prefixed ldm keys)."""
    try:
        return _read_shape(weights)
    except (KeyError, IndexError) as error:
        raise UnsupportedModel(name, f"not a UNet of the SDXL layout ({error} is missing)") from error


def _read_shape(weights: Mapping[str, Tensor]) -> UNetShape:
    channels, down_depths = _read_down_levels(weights)
    projection = _first(weights, ".proj_in.weight")
    label = weights.get("label_emb.0.0.weight")
    return UNetShape(
        in_channels=weights["input_blocks.0.0.weight"].shape[1],
        out_channels=weights["out.2.weight"].shape[0],
        channels=channels,
        down_depths=down_depths,
        middle_depth=_depth(weights, "middle_block.1") if "middle_block.2.in_layers.0.weight" in weights else None,
        up_depths=_read_up_levels(weights),
        context_width=_first(weights, ".attn2.to_k.weight").shape[1],
        adm_width=None if label is None else label.shape[1],
        linear_projections=projection.dim() == 2,
    )


def _first(weights: Mapping[str, Tensor], ending: str) -> Tensor:
    for key, tensor in weights.items():
        if key.endswith(ending):
            return tensor
    raise KeyError(f"*{ending}")


def _read_down_levels(weights: Mapping[str, Tensor]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Channels and depths of each level; a strided convolution ends a level."""
    channels: list[int] = []
    depths: list[list[int]] = [[]]
    for index in range(1, _count(weights, "input_blocks.")):
        block = f"input_blocks.{index}"
        if f"{block}.0.op.weight" in weights:
            depths.append([])
            continue
        if not depths[-1]:
            channels.append(weights[f"{block}.0.in_layers.2.weight"].shape[0])
        depths[-1].append(_depth(weights, f"{block}.1"))
    return tuple(channels), tuple(tuple(level) for level in depths)


def _read_up_levels(weights: Mapping[str, Tensor]) -> tuple[tuple[int, ...], ...]:
    depths: list[list[int]] = [[]]
    blocks = _count(weights, "output_blocks.")
    for index in range(blocks):
        block = f"output_blocks.{index}"
        depths[-1].append(_depth(weights, f"{block}.1"))
        upsampled = f"{block}.1.conv.weight" in weights or f"{block}.2.conv.weight" in weights
        if upsampled and index < blocks - 1:
            depths.append([])
    return tuple(tuple(level) for level in depths)


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered children a prefix has."""
    return 1 + max((int(key[len(prefix) :].split(".")[0]) for key in weights if key.startswith(prefix)), default=-1)


def _depth(weights: Mapping[str, Tensor], part: str) -> int:
    return _count(weights, f"{part}.transformer_blocks.")


# --- the network --------------------------------------------------------------------------------------------------


def build_unet(shape: UNetShape, name: str, head_width: int = HEAD_WIDTH) -> nn.Module:
    """The network without weights, on the meta device. Raises ``UnsupportedModel`` for shapes diffusers cannot hold."""
    levels = len(shape.channels)
    _require_regular(shape, name)
    # The added condition goes straight into its MLP: Fooocus computes the whole vector itself (02, section 6).
    added: dict[str, Any] = {}
    if shape.adm_width is not None:
        added = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": shape.adm_width}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unet: Any = UNet2DConditionModel(  # type: ignore[no-untyped-call]
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            block_out_channels=shape.channels,
            layers_per_block=[len(level) for level in shape.down_depths],
            down_block_types=tuple("CrossAttnDownBlock2D" if any(d) else "DownBlock2D" for d in shape.down_depths),
            up_block_types=tuple("CrossAttnUpBlock2D" if any(d) else "UpBlock2D" for d in shape.up_depths),
            mid_block_type="UNetMidBlock2D" if shape.middle_depth is None else "UNetMidBlock2DCrossAttn",
            transformer_layers_per_block=[list(level) for level in shape.down_depths],
            reverse_transformer_layers_per_block=[list(level) for level in shape.up_depths],
            # diffusers calls the number of heads "attention_head_dim" here, for historical reasons
            attention_head_dim=[heads_of(shape, width, head_width) for width in shape.channels],
            cross_attention_dim=shape.context_width,
            use_linear_projection=shape.linear_projections,
            norm_num_groups=GROUPS,
            **added,
        )
        if shape.middle_depth is not None and shape.middle_depth != shape.down_depths[levels - 1][0]:
            unet.mid_block = _middle(shape, shape.middle_depth, head_width)
    return cast(nn.Module, unet)


def heads_of(shape: UNetShape, width: int, head_width: int) -> int:
    """Attention heads at one width; the family without size conditioning is SD 1.5."""
    return SD15_HEADS if shape.adm_width is None else max(1, width // head_width)


def _require_regular(shape: UNetShape, name: str) -> None:
    """diffusers builds a level either with attention after every block or after none, and mirrors block counts."""
    for level in (*shape.down_depths, *shape.up_depths):
        if any(level) and not all(level):
            raise UnsupportedModel(name, "a level of the UNet has attention after some of its blocks only")
    mirrored = tuple(len(level) + 1 for level in reversed(shape.down_depths))
    if tuple(len(level) for level in shape.up_depths) != mirrored or len(shape.channels) != len(shape.down_depths):
        raise UnsupportedModel(name, "the UNet's output blocks do not mirror its input blocks")
    if shape.middle_depth == 0:
        raise UnsupportedModel(name, "the UNet's middle has two residual blocks without attention between them")


def _middle(shape: UNetShape, depth: int, head_width: int) -> nn.Module:
    """A middle block whose depth is not that of the deepest level (the SDXL refiner's)."""
    width = shape.channels[-1]
    middle: nn.Module = UNetMidBlock2DCrossAttn(
        in_channels=width,
        temb_channels=4 * shape.channels[0],
        transformer_layers_per_block=depth,
        resnet_eps=1e-5,
        resnet_act_fn="silu",
        resnet_groups=GROUPS,
        num_attention_heads=heads_of(shape, width, head_width),
        cross_attention_dim=shape.context_width,
        use_linear_projection=shape.linear_projections,
    )
    return middle


# --- names --------------------------------------------------------------------------------------------------------

_ROOT_NAMES = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "class_embedding.linear_1",
    "label_emb.0.2": "class_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_PART_NAMES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "op": "conv",
}


def unet_names(shape: UNetShape) -> dict[str, str]:
    """ldm name to diffusers name of every part of the network: ``input_blocks.4.1`` -> ``down_blocks.1.attentions.0``.

    Names of what lies inside a residual block differ too; ``translated_key`` translates those.
    """
    return {**_ROOT_NAMES, **dict(_down_names(shape)), **dict(_middle_names(shape)), **dict(_up_names(shape))}


def _down_names(shape: UNetShape) -> Iterator[tuple[str, str]]:
    index = 1
    for level, depths in enumerate(shape.down_depths):
        for block, depth in enumerate(depths):
            yield f"input_blocks.{index}.0", f"down_blocks.{level}.resnets.{block}"
            if depth:
                yield f"input_blocks.{index}.1", f"down_blocks.{level}.attentions.{block}"
            index += 1
        if level + 1 < len(shape.down_depths):
            yield f"input_blocks.{index}.0", f"down_blocks.{level}.downsamplers.0"
        index += 1


def _middle_names(shape: UNetShape) -> Iterator[tuple[str, str]]:
    yield "middle_block.0", "mid_block.resnets.0"
    if shape.middle_depth is not None:
        yield "middle_block.1", "mid_block.attentions.0"
        yield "middle_block.2", "mid_block.resnets.1"


def _up_names(shape: UNetShape) -> Iterator[tuple[str, str]]:
    index = 0
    for level, depths in enumerate(shape.up_depths):
        for block, depth in enumerate(depths):
            yield f"output_blocks.{index}.0", f"up_blocks.{level}.resnets.{block}"
            if depth:
                yield f"output_blocks.{index}.1", f"up_blocks.{level}.attentions.{block}"
            if block + 1 == len(depths) and level + 1 < len(shape.up_depths):
                yield f"output_blocks.{index}.{2 if depth else 1}", f"up_blocks.{level}.upsamplers.0"
            index += 1


def translated_key(key: str, names: Mapping[str, str]) -> str:
    """diffusers' name of one ldm parameter; a key of no known part is returned unchanged."""
    parts = key.split(".")
    for length in (3, 2):
        head, tail = ".".join(parts[:length]), ".".join(parts[length:])
        if head in names:
            inside, _, leaf = tail.rpartition(".")
            if inside in _PART_NAMES:
                tail = f"{_PART_NAMES[inside]}.{leaf}"
            return f"{names[head]}.{tail}"
    return key
