"""The pocket model's networks: SDXL's architecture at pocket size.

Module names are chosen so that every ``state_dict`` key is the public single-file key without its prefix.
Group norms have 32 groups, attention heads are 64 wide, as in the full-size model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS: Final = 32
HEAD_WIDTH: Final = 64
SIZE_FREQUENCIES: Final = 256
TOKENS: Final = 77
LATENT_CHANNELS: Final = 4
LATENT_SCALE: Final = 0.13025
AnyModule = TypeVar("AnyModule", bound=nn.Module)


@dataclass(frozen=True)
class PocketShape:
    """Sizes of all networks. Widths are channels; depths count transformer blocks (UNet) or layers (text)."""

    vocabulary: int
    text_l_width: int = 64
    text_l_layers: int = 2
    text_g_width: int = 128
    text_g_layers: int = 3
    unet_channels: tuple[int, ...] = (128, 128, 128)
    unet_depths: tuple[int, ...] = (0, 1, 1)
    unet_res_blocks: int = 1
    vae_channels: tuple[int, ...] = (64, 64, 64, 64)
    vae_res_blocks: int = 1

    @property
    def context_width(self) -> int:
        return self.text_l_width + self.text_g_width

    @property
    def vector_width(self) -> int:
        return self.text_g_width + 6 * SIZE_FREQUENCIES


def sinusoids(values: Tensor, width: int) -> Tensor:
    """Cosines then sines of ``values`` [n] at ``width // 2`` frequencies from 1 down to 1/10000: [n, width]."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=values.device) / half)
    angles = values.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def zeroed(module: AnyModule) -> AnyModule:
    """Sets all parameters of a module to zero, so that its branch starts as a no-op."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def attend(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Multi-head attention over [batch, tokens, width] with 64-wide heads."""
    heads = query.shape[-1] // HEAD_WIDTH
    q, k, v = (t.unflatten(-1, (heads, HEAD_WIDTH)).transpose(1, 2) for t in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


# --- text encoders ------------------------------------------------------------------------------------------------


class SelfAttentionL(nn.Module):
    """Causal self-attention with separate q, k and v projections."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.out_proj(attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), causal=True))
        return attended


class MlpL(nn.Module):
    """Two linear layers with the sigmoid approximation of GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        out: Tensor = self.fc2(hidden * torch.sigmoid(1.702 * hidden))
        return out


class LayerL(nn.Module):
    """One pre-norm transformer layer of the first text encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = SelfAttentionL(width)
        self.layer_norm1 = nn.LayerNorm(width)
        self.mlp = MlpL(width)
        self.layer_norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class TextEncoderL(nn.Module):
    """First text encoder. Its last layer and final norm exist for the key layout; the context stops before them."""

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {"token_embedding": nn.Embedding(vocabulary, width), "position_embedding": nn.Embedding(TOKENS, width)}
        )
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(LayerL(width) for _ in range(layers))})
        self.final_layer_norm = nn.LayerNorm(width)
        start_embeddings(self.embeddings["token_embedding"].weight, self.embeddings["position_embedding"].weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [batch, 77] to the second-last hidden state [batch, 77, width]."""
        x: Tensor = self.embeddings["token_embedding"](ids) + self.embeddings["position_embedding"].weight
        for layer in list(self.encoder["layers"])[:-1]:
            x = layer(x)
        return x


class SelfAttentionG(nn.Module):
    """Causal self-attention with one joint input projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        attended: Tensor = self.out_proj(attend(query, key, value, causal=True))
        return attended


class LayerG(nn.Module):
    """One pre-norm transformer layer of the second text encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SelfAttentionG(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return out


class TextEncoderG(nn.Module):
    """Second text encoder: context from the second-last layer, pooled vector from the whole stack."""

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(TOKENS, width))
        self.text_projection = nn.Parameter(torch.empty(width, width))
        self.logit_scale = nn.Parameter(torch.tensor(0.0), requires_grad=False)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(LayerG(width) for _ in range(layers))})
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.ln_final = nn.LayerNorm(width)
        nn.init.normal_(self.text_projection, std=width**-0.5)
        start_embeddings(self.token_embedding.weight, self.positional_embedding)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [batch, 77] to the second-last hidden state [batch, 77, width] and pooled [batch, width]."""
        x: Tensor = self.token_embedding(ids) + self.positional_embedding
        *earlier, last = self.transformer["resblocks"]
        for layer in earlier:
            x = layer(x)
        end = ids.argmax(dim=-1)
        pooled = self.ln_final(last(x)[torch.arange(len(ids), device=ids.device), end]) @ self.text_projection
        return x, pooled


def start_embeddings(tokens: Tensor, positions: Tensor) -> None:
    """Initial embeddings; the positions' common offset keeps the mean of hidden states clearly away from zero.

    Emphasised prompts are rescaled by the ratio of two such means, which must not be a ratio of two noises.
    """
    nn.init.normal_(tokens, std=0.25)
    nn.init.normal_(positions, mean=0.25, std=0.05)


# --- denoiser -----------------------------------------------------------------------------------------------------


class UNetResBlock(nn.Module):
    """Residual block with an additive embedding of time and size."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels_in), nn.SiLU(), nn.Conv2d(channels_in, channels_out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, channels_out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels_out),
            nn.SiLU(),
            nn.Dropout(0.0),
            zeroed(nn.Conv2d(channels_out, channels_out, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        out: Tensor = self.skip_connection(x) + self.out_layers(hidden)
        return out


class CrossAttention(nn.Module):
    """Attention from picture tokens to themselves or to a context."""

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        out: Tensor = self.to_out(attend(self.to_q(x), self.to_k(context), self.to_v(context)))
        return out


class GegluIn(nn.Module):
    """Linear layer whose output is gated by the GELU of its second half."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = value * functional.gelu(gate)
        return out


class FeedForward(nn.Module):
    """Gated feed-forward layer, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GegluIn(width, 4 * width), nn.Dropout(0.0), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each with a layer norm before it."""

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.attn1 = CrossAttention(width, width)
        self.ff = FeedForward(width)
        self.attn2 = CrossAttention(width, context_width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + self.attn2(self.norm2(x), context)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map, with linear projections."""

    def __init__(self, channels: int, depth: int, context_width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(channels, context_width) for _ in range(depth))
        self.proj_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = x.shape[2:]
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        out: Tensor = x + self.proj_out(tokens).unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return out


class UNetDownsample(nn.Module):
    """Halves a feature map (rounding up) with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class UNetUpsample(nn.Module):
    """Enlarges a feature map to a given size by repetition, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        out: Tensor = self.conv(functional.interpolate(x, size=size, mode="nearest"))
        return out


class UNet(nn.Module):
    """Predicts the noise of a scaled latent from the timestep, a text context and a vector of pooled text and sizes."""

    def __init__(self, shape: PocketShape) -> None:
        super().__init__()
        channels, depths = shape.unet_channels, shape.unet_depths
        first, embedding = channels[0], 4 * channels[0]
        self.time_embed = nn.Sequential(nn.Linear(first, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label_emb = nn.Sequential(
            nn.Sequential(
                nn.Linear(shape.vector_width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
            )
        )
        blocks: list[nn.ModuleList] = [nn.ModuleList([nn.Conv2d(LATENT_CHANNELS, first, 3, padding=1)])]
        skips, width = [first], first
        for level, (level_width, depth) in enumerate(zip(channels, depths, strict=True)):
            for _ in range(shape.unet_res_blocks):
                blocks.append(self._layer(width, level_width, depth, embedding, shape.context_width))
                width = level_width
                skips.append(width)
            if level + 1 < len(channels):
                blocks.append(nn.ModuleList([UNetDownsample(width)]))
                skips.append(width)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = nn.ModuleList(
            [
                UNetResBlock(width, width, embedding),
                SpatialTransformer(width, depths[-1], shape.context_width),
                UNetResBlock(width, width, embedding),
            ]
        )
        outputs: list[nn.ModuleList] = []
        for level, (level_width, depth) in reversed(list(enumerate(zip(channels, depths, strict=True)))):
            for index in range(shape.unet_res_blocks + 1):
                layer = self._layer(width + skips.pop(), level_width, depth, embedding, shape.context_width)
                width = level_width
                if level > 0 and index == shape.unet_res_blocks:
                    layer.append(UNetUpsample(width))
                outputs.append(layer)
        self.output_blocks = nn.ModuleList(outputs)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), zeroed(nn.Conv2d(width, LATENT_CHANNELS, 3, padding=1))
        )
        with torch.no_grad():  # sizes matter little here: let the pooled text speak first
            self.label_emb[0][0].weight[:, shape.text_g_width :] *= 0.1

    @staticmethod
    def _layer(channels_in: int, channels_out: int, depth: int, embedding: int, context_width: int) -> nn.ModuleList:
        layer = nn.ModuleList([UNetResBlock(channels_in, channels_out, embedding)])
        if depth:
            layer.append(SpatialTransformer(channels_out, depth, context_width))
        return layer

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor) -> Tensor:
        """Scaled noisy latent [n, 4, h, w], timesteps [n] in 0..999, context [n, tokens, width], vector [n, width]."""
        time = sinusoids(timesteps, self.time_embed[0].in_features)
        embedding = self.time_embed(time) + self.label_emb(vector)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            x = self._run(block, x, embedding, context, None)
            skips.append(x)
        x = self._run(self.middle_block, x, embedding, context, None)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], dim=1)
            size = (skips[-1].shape[2], skips[-1].shape[3]) if skips else None
            x = self._run(block, x, embedding, context, size)
        noise: Tensor = self.out(x)
        return noise

    @staticmethod
    def _run(
        block: nn.Module, x: Tensor, embedding: Tensor, context: Tensor, size: tuple[int, int] | None
    ) -> Tensor:
        for layer in block.children():
            if isinstance(layer, UNetResBlock):
                x = layer(x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            elif isinstance(layer, UNetUpsample):
                x = layer(x, size)
            else:
                x = layer(x)
        return x


# --- autoencoder --------------------------------------------------------------------------------------------------


def vae_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class VaeResBlock(nn.Module):
    """Residual block of the autoencoder."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = vae_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = vae_norm(channels_out)
        self.conv2 = zeroed(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv2(functional.silu(self.norm2(self.conv1(functional.silu(self.norm1(x))))))
        shortcut = self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x
        out: Tensor = shortcut + hidden
        return out


class VaeAttention(nn.Module):
    """Single-head self-attention over the pixels of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = vae_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key, value = (conv(normed).flatten(2).transpose(1, 2) for conv in (self.q, self.k, self.v))
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).unflatten(2, x.shape[2:])
        out: Tensor = x + self.proj_out(attended)
        return out


def vae_middle(channels: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "block_1": VaeResBlock(channels, channels),
            "attn_1": VaeAttention(channels),
            "block_2": VaeResBlock(channels, channels),
        }
    )


def run_middle(middle: nn.ModuleDict, x: Tensor) -> Tensor:
    out: Tensor = middle["block_2"](middle["attn_1"](middle["block_1"](x)))
    return out


class VaeDownsample(nn.Module):
    """Halves a feature map; the odd row and column of padding lie at the bottom and right."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return out


class VaeUpsample(nn.Module):
    """Doubles a feature map by repetition, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class VaeEncoder(nn.Module):
    """Pictures [n, 3, h, w] in -1..1 to means and log-variances before ``quant_conv``, [n, 8, h/8, w/8]."""

    def __init__(self, channels: tuple[int, ...], res_blocks: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        levels: list[nn.ModuleDict] = []
        width = channels[0]
        for level, level_width in enumerate(channels):
            blocks = nn.ModuleList()
            for _ in range(res_blocks):
                blocks.append(VaeResBlock(width, level_width))
                width = level_width
            modules: dict[str, nn.Module] = {"block": blocks}
            if level + 1 < len(channels):
                modules["downsample"] = VaeDownsample(width)
            levels.append(nn.ModuleDict(modules))
        self.down = nn.ModuleList(levels)
        self.mid = vae_middle(width)
        self.norm_out = vae_norm(width)
        self.conv_out = nn.Conv2d(width, 2 * LATENT_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            for block in level["block"]:
                x = block(x)
            if "downsample" in level:
                x = level["downsample"](x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(run_middle(self.mid, x))))
        return out


class VaeDecoder(nn.Module):
    """Latents after ``post_quant_conv`` [n, 4, h, w] to pictures [n, 3, 8h, 8w] in about -1..1."""

    def __init__(self, channels: tuple[int, ...], res_blocks: int) -> None:
        super().__init__()
        width = channels[-1]
        self.conv_in = nn.Conv2d(LATENT_CHANNELS, width, 3, padding=1)
        self.mid = vae_middle(width)
        levels: list[nn.ModuleDict] = []
        for level, level_width in reversed(list(enumerate(channels))):
            blocks = nn.ModuleList()
            for _ in range(res_blocks + 1):
                blocks.append(VaeResBlock(width, level_width))
                width = level_width
            modules: dict[str, nn.Module] = {"block": blocks}
            if level > 0:
                modules["upsample"] = VaeUpsample(width)
            levels.insert(0, nn.ModuleDict(modules))
        self.up = nn.ModuleList(levels)
        self.norm_out = vae_norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = run_middle(self.mid, self.conv_in(x))
        for level in reversed(list(self.up)):
            for block in level["block"]:
                x = block(x)
            if "upsample" in level:
                x = level["upsample"](x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return out


class Vae(nn.Module):
    """The autoencoder: 8 times smaller, 4 channels."""

    def __init__(self, shape: PocketShape) -> None:
        super().__init__()
        self.encoder = VaeEncoder(shape.vae_channels, shape.vae_res_blocks)
        self.decoder = VaeDecoder(shape.vae_channels, shape.vae_res_blocks)
        self.quant_conv = nn.Conv2d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)
        self.post_quant_conv = nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS, 1)

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, both [n, 4, h/8, w/8]."""
        mean, log_variance = self.quant_conv(self.encoder(pictures)).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [n, 3, 8h, 8w] in about -1..1."""
        out: Tensor = self.decoder(self.post_quant_conv(latents))
        return out
