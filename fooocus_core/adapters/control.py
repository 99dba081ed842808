"""ControlNet-LoRA: a copy of the network's encoder that looks at a picture (specification 06, section 5)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import assign_weights
from fooocus_core.sampling.network import ControlResiduals
from fooocus_core.sampling.prediction import SIGMA_BEFORE_START, NoiseLevels
from fooocus_core.sampling.transfer import sent

if TYPE_CHECKING:
    from fooocus_core.conditioning.adm import PromptSide
    from fooocus_core.models.unet import DiffusionNetwork

HINT_WEIGHT = "input_hint_block.0.weight"
"""The first layer that looks at the picture; no other kind of file has it."""
HINT_CHANNELS = 3
LATENT_CELL_PX = 8
_ENCODER_PARTS = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
_HINT_LAYERS = {"0": "conv_in", **{str(2 + 2 * index): f"blocks.{index}" for index in range(6)}, "14": "conv_out"}
"""The file's numbers count the activations in between."""
_HINT_WIDTHS = (16, 32, 96, 256)


class ControlNetwork:
    """One control network, made for one base network."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, hint: Tensor
    ) -> ControlResiduals:
        """Residuals for one call's inputs; ``hint``: ``[1, 3, 8 h, 8 w]`` in ``[0, 1]``, the same for every row."""
        weight = next(self._network.parameters())
        place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        skips, middle = self._network(
            latents.to(**place),
            timesteps.to(weight.device),
            encoder_hidden_states=context.to(**place),
            controlnet_cond=hint.to(**place).expand(len(latents), -1, -1, -1),
            class_labels=None if adm is None else adm.to(**place),
            return_dict=False,
        )
        return ControlResiduals(tuple(skips), middle)


@dataclass(frozen=True)
class ControlUnit:
    """One control network with its picture.

    ``hint``: ``[1, 3, H, W]`` in ``[0, 1]``; ``strength``: 0 ... 2, 0 disables it; ``start``, ``stop``: the share of
    the run (0 ... 1) between which it is asked; ``softness``: in place of the chain's; ``mask``: ``[1, 1, H, W]`` in
    ``[0, 1]``, how much it counts where; ``only_positive``: whether it leaves the negative side of the guidance alone.
    """

    network: ControlNetwork
    hint: Tensor
    strength: float
    stop: float
    start: float = 0.0
    softness: float | None = None
    mask: Tensor | None = None
    only_positive: bool = False


class ControlChain:
    """Several units whose residuals add up; a ``Control``. ``softness`` (0 ... 1) weakens the shallow ones."""

    def __init__(self, units: Sequence[ControlUnit], softness: float, levels: NoiseLevels) -> None:
        self._units = [unit for unit in units if unit.strength != 0]
        self._softness = softness
        self._levels = levels

    def residuals(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        adm: Tensor | None,
        sigma: float,
        sides: Sequence[PromptSide],
    ) -> ControlResiduals | None:
        """The sum over all units asked at ``sigma``, ``None`` if there are none."""
        total: ControlResiduals | None = None
        for unit in self._units:
            if self._is_asked(unit, sigma):
                size = tuple(side * LATENT_CELL_PX for side in latents.shape[2:])
                hint = fitted_hint(unit.hint, size[0], size[1])
                found = unit.network(latents, timesteps, context, adm, hint)
                found = weakened(found, self._softness if unit.softness is None else unit.softness, unit.strength)
                found = limited(found, unit, sides, size[0], size[1])
                total = found if total is None else _sum(total, found)
        return total

    def _is_asked(self, unit: ControlUnit, sigma: float) -> bool:
        first = SIGMA_BEFORE_START if unit.start <= 0 else self._levels.percent_to_sigma(unit.start)
        return self._levels.percent_to_sigma(unit.stop) <= sigma <= first


def fitted_hint(hint: Tensor, height_px: int, width_px: int) -> Tensor:
    """A picture ``[1, 3, H, W]`` centre-cropped to the asked shape and brought to its size by the nearest pixel."""
    height, width = hint.shape[2:]
    if (height, width) == (height_px, width_px):
        return hint
    if width / height > width_px / height_px:
        cut = round((width - height * width_px / height_px) / 2)
        hint = hint[:, :, :, cut : width - cut]
    else:
        cut = round((height - width * height_px / width_px) / 2)
        hint = hint[:, :, cut : height - cut]
    return interpolate(hint, (height_px, width_px), mode="nearest-exact")


def weakened(residuals: ControlResiduals, softness: float, strength: float) -> ControlResiduals:
    """Each residual at its share: the middle's at full ``strength``, the shallowest at ``1 - softness`` of it."""
    last = len(residuals.skips)
    shares = [1 - softness * (1 - index / last) for index in range(last)]
    skips = tuple(skip * share * strength for skip, share in zip(residuals.skips, shares, strict=True))
    return ControlResiduals(skips, residuals.middle * strength)


def limited(
    residuals: ControlResiduals, unit: ControlUnit, sides: Sequence[PromptSide], height_px: int, width_px: int
) -> ControlResiduals:
    """Each residual where, and on those sides of the guidance on which, its unit counts."""
    if unit.mask is None and not unit.only_positive:
        return residuals
    counts = torch.tensor([not unit.only_positive or side == "positive" for side in sides], dtype=torch.float32)
    shares = sent(counts[:, None, None, None], residuals.middle.device)
    if unit.mask is not None:
        shares = fitted_hint(unit.mask, height_px, width_px) * shares

    def within(residual: Tensor) -> Tensor:
        return residual * interpolate(shares.to(residual), residual.shape[2:], mode="area")

    return ControlResiduals(tuple(map(within, residuals.skips)), within(residuals.middle))


def _sum(first: ControlResiduals, second: ControlResiduals) -> ControlResiduals:
    skips = tuple(a + b for a, b in zip(first.skips, second.skips, strict=True))
    return ControlResiduals(skips, first.middle + second.middle)


def build_control(file: Mapping[str, Tensor], name: str, base: DiffusionNetwork) -> ControlNetwork:
    """A file's control network over ``base`` as its weights stand now, LoRAs included.

    ``file``: the un-prefixed tensors; ``name``: the file's, for errors. Raises ``UnsupportedModel`` for a file that is
    no ControlNet-LoRA or was made for a network of another shape.
    """
    hint_weight = file.get(HINT_WEIGHT)
    if hint_weight is None or hint_weight.ndim != 4 or hint_weight.shape[1] != HINT_CHANNELS:
        raise UnsupportedModel(name, "this is no ControlNet-LoRA")
    network = _empty_network(base, name)
    weights = {**_encoder_weights(file, name, base), **_own_weights(file)}
    assign_weights(network, weights, name, device=base.device, dtype=base.dtype)
    return ControlNetwork(network)


def _empty_network(base: DiffusionNetwork, name: str) -> nn.Module:
    """The encoder half of the base's shape on the meta device, with zero convolutions and a hint block."""
    config: Any = base.unet.config
    blocks = {len(level) for level in base.shape.down_depths}
    if len(blocks) > 1:
        raise UnsupportedModel(name, "the checkpoint's levels differ in length, which no control network has")
    copied = ("in_channels", "block_out_channels", "down_block_types", "cross_attention_dim",
              "attention_head_dim", "transformer_layers_per_block", "use_linear_projection", "norm_num_groups",
              "class_embed_type", "projection_class_embeddings_input_dim")  # fmt: skip
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: Any = ControlNetModel(  # type: ignore[no-untyped-call]
            **{key: config[key] for key in copied},
            layers_per_block=blocks.pop(),
            mid_block_type=config["mid_block_type"],
            conditioning_channels=HINT_CHANNELS,
            conditioning_embedding_out_channels=_HINT_WIDTHS,
        )
    return cast(nn.Module, network)


def _encoder_weights(file: Mapping[str, Tensor], name: str, base: DiffusionNetwork) -> dict[str, Tensor]:
    """The base's encoder weights: replaced where the file has the tensor, moved by a product where it has the pair."""
    # Detached: what is put on the base later stays the base's alone.
    parameters = {name: parameter.detach() for name, parameter in base.unet.named_parameters()}
    weights: dict[str, Tensor] = {}
    for key, parameter in base.parameter_names.items():
        if key.startswith(_ENCODER_PARTS):
            weight = parameters[parameter]
            module = key.removesuffix(".weight")
            if key in file:
                weight = file[key].to(weight)
            elif f"{module}.up" in file:
                weight = weight + _product(file, module, name, weight)
            weights[parameter] = weight
    return weights


def _product(file: Mapping[str, Tensor], module: str, name: str, like: Tensor) -> Tensor:
    """``up`` times ``down`` as a change of the weight ``like``, in its dtype."""
    up, down = file[f"{module}.up"], file.get(f"{module}.down")
    if down is None or not _multiply_to(like, up, down):
        raise UnsupportedModel(name, f"made for another network: {module} does not fit")
    up, down = (part.to(like).flatten(1) for part in (up, down))
    return (up @ down).reshape(like.shape)


def _multiply_to(like: Tensor, up: Tensor, down: Tensor) -> bool:
    if up.ndim < 2 or down.ndim < 2:
        return False
    fits = up.shape[1:].numel() == len(down) and len(up) == len(like)
    return fits and down.shape[1:].numel() == like.shape[1:].numel()


def _own_weights(file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the base has no counterpart of, in diffusers' names."""
    own = {}
    for key, tensor in file.items():
        part, _, rest = key.partition(".")
        index, _, leaf = rest.partition(".")
        if part == "input_hint_block" and index in _HINT_LAYERS:
            own[f"controlnet_cond_embedding.{_HINT_LAYERS[index]}.{leaf}"] = tensor
        elif part == "zero_convs":
            own[f"controlnet_down_blocks.{index}.{leaf.removeprefix('0.')}"] = tensor
        elif part == "middle_block_out":
            own[f"controlnet_mid_block.{leaf}"] = tensor
    return own
