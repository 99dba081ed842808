"""The denoising network's arithmetic as one straight pass over its weights.

diffusers holds the network: its modules, their names and sizes. This pass reads the same weights and gives the same
numbers up to the rounding of sums, without what a general implementation does between two kernels: the three
projections of a self-attention are one product, those of the time embedding are one product for all blocks, and keys
and values of a text are made once for a run instead of once a step. Specification: 03, section 10; Podell et al., SDXL,
2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain, count, pairwise
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, group_norm, layer_norm, nn
from torch.nn.functional import conv2d, gelu, interpolate, linear, scaled_dot_product_attention, silu

from fooocus_core.models.compiled import Compiler, form_of_weights
from fooocus_core.sampling.network import Attended, Join, KeysValues, NetworkCall, SeenPictures

KEPT_AT_MOST = 4
"""So many texts' keys and values are kept: both sides of a prompt, apart where their lengths differ, and two more. As
many added conditions: those of early and of late steps."""

WORTH_CALLS = 20
"""Pictures of one size for which compiling is worth it: more than a single one of a few steps."""
TIMES_KEPT_AT_MOST = 256
"""So many noise levels' embeddings are kept, each as long as a row of the added condition: those of several schedules,
for pictures of one side and of both."""
PLAIN_CALL = NetworkCall((), 0.0)
"""A call on which nothing is put."""
Known = list[list[Sequence[Attended]]]
"""What each block of each transformer looks at beside the picture itself, split into heads."""
_Text = Iterator[Sequence[Sequence[Attended]]]
Made = TypeVar("Made")


class ForwardPass:
    """A UNet's weights as they are now, arranged for being calculated with.

    Whoever changes a weight afterwards makes a new one. The three projections of every self-attention are laid side by
    side when it is made; the network's own parameters become views of them, so that nothing is held twice.
    """

    def __init__(self, unet: nn.Module, compiler: Compiler | None = None) -> None:
        """``unet``: a ``UNet2DConditionModel`` as ``build_unet`` makes it, with its weights."""
        net: Any = unet
        self._compiler = compiler
        self._form = None if compiler is None else form_of_weights(unet)
        self._texts: _Latest[Known] = _Latest()
        self._sizes: _Latest[Tensor | None] = _Latest()
        self._times: _Latest[Tensor] = _Latest(TIMES_KEPT_AT_MOST)
        self._frequencies = _frequencies(net.time_proj.num_channels, net.conv_in.weight.device)
        self._time = _Embedding(net.time_embedding)
        self._added = None if net.class_embedding is None else _Embedding(net.class_embedding)
        self._first = _Convolution(net.conv_in)
        self._down = [_Level(block, "downsamplers") for block in net.down_blocks]
        self._middle = _Level(net.mid_block, "")
        self._up = [_Level(block, "upsamplers") for block in net.up_blocks]
        self._last_norm = _GroupNorm(net.conv_norm_out)
        self._last = _Convolution(net.conv_out)
        levels = [*self._down, self._middle, *self._up]
        self._transformers = [transformer for level in levels for transformer in level.transformers]
        projections = [residual.time_projection for level in levels for residual in level.residuals]
        self._time_projection = _joined(projections)
        self._time_widths = [projection.out_features for projection in projections]

    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        adm: Tensor | None,
        call: NetworkCall = PLAIN_CALL,
    ) -> Tensor:
        """The raw prediction ``[batch, 4, h, w]``; every tensor in the network's dtype, on its device.

        ``latents``: ``[batch, channels, h, w]``; ``timesteps``: ``[batch]``, of any dtype; ``context``: ``[batch,
        tokens, width]``, not to be changed while in use; ``adm``: ``[batch, width]``, if the network takes one.
        """
        pictures = call.pictures
        key = (_place(context), None if pictures is None else pictures.key)
        known = self._texts.of(key, (context, pictures), lambda: self._known(context, pictures))
        added = None if adm is None else self._sizes.of(_place(adm), adm, lambda: self._embedded_adm(adm))
        skips, middle = ((), None) if call.residuals is None else call.residuals
        inputs = (self, latents, self._time_of(timesteps, call.timestep, latents.dtype), added, known)
        memory = call.memory
        deep = None if memory is None else memory.recalled(call.sides)
        if deep is not None:
            return self._run(ForwardPass.outermost, call.join, *inputs, deep, skips, call.feature)[0]
        output, deep = self._run(ForwardPass.whole, call.join, *inputs, skips, middle, call.feature)
        if memory is not None:
            memory.keep(call.sides, deep)
        return output

    def _run(self, function: Callable[..., tuple[Tensor, ...]], join: Join | None, *inputs: Any) -> tuple[Tensor, ...]:
        if self._compiler is None or join is not None:
            return function(*inputs, join)
        return self._compiler.run(function, self._form, *inputs, worth_calls=WORTH_CALLS)

    def whole(
        self,
        latents: Tensor,
        time: Tensor,
        added: Tensor | None,
        known: Known,
        skips: Sequence[Tensor] = (),
        middle: Tensor | None = None,
        feature: Tensor | None = None,
        join: Join | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The answer, and what reaches the outermost level on the way up: nothing but tensors' arithmetic.

        ``time``: the noise level, embedded, and ``added``: the added condition as that takes it, each ``[batch, 4 *
        channels]``; ``known``: what each block knows of the text; the others as a call's.
        """
        text, times = iter(known), iter(self._projected(time, added))
        kept = [self._entered(latents, feature)]
        for level in self._down:
            _down(level, kept, times, text)
        x, kept = kept[-1], _with_skips(kept, skips)
        for residual, transformer in self._middle.blocks:
            x = _through(residual, transformer, x, times, text)
        if middle is not None:
            x = x + middle
        for level in self._up[:-1]:
            x = _up(level, x, kept, times, text, join)
        return self._left(_up(self._up[-1], x, kept, times, text, join)), x

    def outermost(
        self,
        latents: Tensor,
        time: Tensor,
        added: Tensor | None,
        known: Known,
        deep: Tensor,
        skips: Sequence[Tensor] = (),
        feature: Tensor | None = None,
        join: Join | None = None,
    ) -> tuple[Tensor]:
        """The answer of the outermost level alone, on what reached it in another pass (Ma et al., DeepCache, 2023)."""
        first, last, times = self._down[0], self._up[-1], self._projected(time, added)
        kept = [self._entered(latents, feature)]
        _down_blocks(first, kept, iter(times), iter(known))
        kept = _with_skips(kept, skips[: len(kept)])
        last_known = known[len(known) - len(last.transformers) :]
        return (self._left(_up(last, deep, kept, iter(times[-len(last.residuals) :]), iter(last_known), join)),)

    def _time_of(self, timesteps: Tensor, timestep: float | None, dtype: torch.dtype) -> Tensor:
        """The noise level of each row, embedded; known again by the number of them all, as pictures share levels."""
        if timestep is None:
            return self._embedded(timesteps, dtype)
        return self._times.of((timestep, len(timesteps)), None, lambda: self._embedded(timesteps, dtype))

    def _embedded(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        angles = timesteps.float()[:, None] * self._frequencies
        return self._time(torch.cat([angles.cos(), angles.sin()], 1).to(dtype))

    def _projected(self, time: Tensor, added: Tensor | None) -> Sequence[Tensor]:
        """What every residual block adds for the noise level, in the order in which a pass comes by.

        Each ``[batch, channels, 1, 1]``.
        """
        projected = self._time_projection(silu(time if added is None else time + added))
        return torch.split(projected[:, :, None, None], self._time_widths, 1)

    def _entered(self, latents: Tensor, feature: Tensor | None) -> Tensor:
        x = self._first(latents)
        return x if feature is None else x + feature.to(x)

    def _left(self, x: Tensor) -> Tensor:
        return self._last(silu(self._last_norm(x)))

    def _embedded_adm(self, adm: Tensor) -> Tensor | None:
        return None if self._added is None else self._added(adm)

    def _known(self, context: Tensor, pictures: SeenPictures | None) -> Known:
        layers = count()
        return [
            [block.known(context, pictures, layer) for block, layer in zip(one.blocks, layers, strict=False)]
            for one in self._transformers
        ]


def _down(level: _Level, kept: list[Tensor], time: Iterator[Tensor], text: _Text) -> None:
    """On from the last of ``kept``, to which every result is added."""
    _down_blocks(level, kept, time, text)
    if level.resampling is not None:
        kept.append(level.resampling(kept[-1]))


def _down_blocks(level: _Level, kept: list[Tensor], time: Iterator[Tensor], text: _Text) -> None:
    for residual, transformer in level.blocks:
        kept.append(_through(residual, transformer, kept[-1], time, text))


def _with_skips(kept: list[Tensor], skips: Sequence[Tensor]) -> list[Tensor]:
    return [skip + more for skip, more in zip(kept, skips, strict=True)] if skips else kept


def _up(level: _Level, x: Tensor, kept: list[Tensor], time: Iterator[Tensor], text: _Text, join: Join | None) -> Tensor:
    """Each block joins the last of ``kept``, which is taken off."""
    for residual, transformer in level.blocks:
        joined = (x, kept.pop()) if join is None else join(x, kept.pop())
        x = _through(residual, transformer, torch.cat(joined, 1), time, text)
    if level.resampling is None:
        return x
    return level.resampling(interpolate(x, kept[-1].shape[2:], mode="nearest"))


def _through(
    residual: _Residual,
    transformer: _Transformer | None,
    x: Tensor,
    time: Iterator[Tensor],
    text: _Text,
) -> Tensor:
    x = residual(x, next(time))
    return x if transformer is None else transformer(x, next(text))


def _place(tensor: Tensor) -> Hashable:
    """Where a tensor lies and how often it has been written."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor._version


class _Latest(Generic[Made]):
    """What was made of the latest inputs of a kind that come again."""

    def __init__(self, kept_at_most: int = KEPT_AT_MOST) -> None:
        self._kept_at_most = kept_at_most
        self._kept: dict[Hashable, tuple[object, Made]] = {}

    def of(self, key: Hashable, source: object, made: Callable[[], Made]) -> Made:
        """What was made of what ``key`` stands for; ``source`` is held on to, so that nothing else takes its place."""
        if key not in self._kept:
            while len(self._kept) >= self._kept_at_most:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = (source, made())
        return self._kept[key][1]


# --- parts --------------------------------------------------------------------------------------------------------


class _Level:
    """The blocks of one resolution, and the convolution that leads to the next."""

    def __init__(self, level: Any, resampling: str) -> None:
        """``level``: a down, up or middle block; ``resampling``: what it calls the way to the next level."""
        self.residuals = [_Residual(block) for block in level.resnets]
        attentions = getattr(level, "attentions", None) or ()
        self.transformers = [_Transformer(block) for block in attentions if block is not None]
        resamplers = getattr(level, resampling, None) if resampling else None
        self.resampling = None if resamplers is None else _Convolution(resamplers[0].conv)

    @property
    def blocks(self) -> Iterator[tuple[_Residual, _Transformer | None]]:
        """Each residual block with what follows it: in the middle the second has nothing behind it."""
        lacking = len(self.residuals) - len(self.transformers)
        return zip(self.residuals, chain(self.transformers, [None] * lacking), strict=True)


class _Residual:
    def __init__(self, block: Any) -> None:
        self.time_projection: nn.Linear = block.time_emb_proj
        self._norm_1, self._norm_2 = _GroupNorm(block.norm1), _GroupNorm(block.norm2)
        self._convolution_1, self._convolution_2 = _Convolution(block.conv1), _Convolution(block.conv2)
        self._shortcut = None if block.conv_shortcut is None else _Convolution(block.conv_shortcut)

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self._convolution_1(silu(self._norm_1(x), inplace=True))
        hidden.add_(time)
        hidden = self._convolution_2(silu(self._norm_2(hidden), inplace=True))
        return hidden.add_(x if self._shortcut is None else self._shortcut(x))


class _Transformer:
    def __init__(self, transformer: Any) -> None:
        self._norm = _GroupNorm(transformer.norm)
        self._into, self._out_of = _Linear(transformer.proj_in), _Linear(transformer.proj_out)
        self.blocks = [_Block(block) for block in transformer.transformer_blocks]

    def __call__(self, x: Tensor, text: Sequence[Sequence[Attended]]) -> Tensor:
        height, width = x.shape[2:]
        tokens = self._into(self._norm(x).flatten(2).transpose(1, 2))
        for block, known in zip(self.blocks, text, strict=True):
            tokens = block(tokens, known)
        # ``x`` first: it decides the layout. In that of tokens each convolution behind would copy its weight into it.
        return x + self._out_of(tokens).transpose(1, 2).reshape(len(x), -1, height, width)


class _Block:
    """Attention to the picture, attention to the text, and a gated network for each token."""

    def __init__(self, block: Any) -> None:
        itself, text = block.attn1, block.attn2
        self._heads: int = itself.heads
        self._norm_1, self._norm_2, self._norm_3 = (
            _LayerNorm(block.norm1),
            _LayerNorm(block.norm2),
            _LayerNorm(block.norm3),
        )
        self._queries_keys_values = _joined([itself.to_q, itself.to_k, itself.to_v])
        self._out_1, self._out_2 = _Linear(itself.to_out[0]), _Linear(text.to_out[0])
        self._queries, self._keys, self._values = _Linear(text.to_q), _Linear(text.to_k), _Linear(text.to_v)
        self._gated, self._narrowed = _Linear(block.ff.net[0].proj), _Linear(block.ff.net[2])

    def known(self, context: Tensor, pictures: SeenPictures | None, layer: int) -> Sequence[Attended]:
        """What the attention to the text looks at, split into heads."""
        text = KeysValues(self._keys(context), self._values(context))
        seen = [Attended(1.0, text)] if pictures is None else pictures.beside(layer, text)
        return all_in_heads(seen, self._heads)

    def __call__(self, x: Tensor, known: Sequence[Attended]) -> Tensor:
        projected = self._queries_keys_values(self._norm_1(x)).view(*x.shape[:2], 3, self._heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4).unbind()
        x = self._out_1(attended(queries, [Attended(1.0, KeysValues(keys, values))])).add_(x)
        queries = in_heads(self._queries(self._norm_2(x)), self._heads)
        x = self._out_2(attended(queries, known)).add_(x)
        hidden, gate = self._gated(self._norm_3(x)).chunk(2, -1)
        return self._narrowed(gelu(gate).mul_(hidden)).add_(x)


def in_heads(x: Tensor, heads: int) -> Tensor:
    """``[batch, tokens, channels]`` to ``[batch, heads, tokens, channels of a head]``."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def all_in_heads(known: Sequence[Attended], heads: int) -> list[Attended]:
    """The same with keys and values split into heads."""
    return [Attended(one.weight, KeysValues(*(in_heads(part, heads) for part in one.known))) for one in known]


def attended(queries: Tensor, known: Sequence[Attended]) -> Tensor:
    """The weighted sum of softmax attentions, ``[batch, tokens, channels]``; all is split into heads.

    The first counts whole: it is the text's.
    """
    first, *others = (scaled_dot_product_attention(queries, *one.known).transpose(1, 2).flatten(2) for one in known)
    for one, more in zip(others, known[1:], strict=True):
        first = first + more.weight * one
    return first


def _frequencies(width: int, device: torch.device) -> Tensor:
    """Those at which a time is embedded, from 1 down to nearly 1/10000: ``[width / 2]`` float32."""
    half = width // 2
    return torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=device) / half)


class _Embedding:
    """Two linear layers with SiLU between them."""

    def __init__(self, embedding: Any) -> None:
        self._first, self._second = _Linear(embedding.linear_1), _Linear(embedding.linear_2)

    def __call__(self, x: Tensor) -> Tensor:
        return self._second(silu(self._first(x)))


class _GroupNorm:
    def __init__(self, norm: Any) -> None:
        self._arguments = (norm.num_groups, norm.weight.detach(), norm.bias.detach(), norm.eps)

    def __call__(self, x: Tensor) -> Tensor:
        return group_norm(x, *self._arguments)


class _LayerNorm:
    def __init__(self, norm: Any) -> None:
        self._arguments = (norm.normalized_shape, norm.weight.detach(), norm.bias.detach(), norm.eps)

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, *self._arguments)


class _Convolution:
    def __init__(self, layer: Any) -> None:
        self._arguments = (layer.weight.detach(), layer.bias.detach(), layer.stride, layer.padding)

    def __call__(self, x: Tensor) -> Tensor:
        return conv2d(x, *self._arguments)


class _Linear:
    """A linear layer; a convolution of 1 x 1 pixels is one too."""

    def __init__(self, layer: Any) -> None:
        self._weight: Tensor = layer.weight.detach().flatten(1)
        self._bias: Tensor | None = None if layer.bias is None else layer.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self._weight, self._bias)


def _joined(layers: Sequence[nn.Linear]) -> Callable[[Tensor], Tensor]:
    """Several layers with one input as one layer, whose outputs stand side by side.

    The layers' weights become views of the whole.
    """
    weight = _side_by_side([layer.weight for layer in layers])
    biases = [layer.bias for layer in layers if layer.bias is not None]
    bias = _side_by_side(biases) if biases else None
    return lambda x: linear(x, weight, bias)


def _side_by_side(parameters: Sequence[Tensor]) -> Tensor:
    """All rows in one tensor, without a copy where they lie so already."""
    parts = [parameter.detach() for parameter in parameters]
    first, rows = parts[0], [len(part) for part in parts]
    if _lie_in_a_row(parts):
        return first.as_strided((sum(rows), *first.shape[1:]), first.stride())
    whole = torch.cat(parts)
    for parameter, part in zip(parameters, torch.split(whole, rows), strict=True):
        parameter.data = part
    return whole


def _lie_in_a_row(parts: Sequence[Tensor]) -> bool:
    """Whether each begins where the one before it ends, in the same piece of memory."""
    return all(
        before.is_contiguous()
        and behind.is_contiguous()
        and before.untyped_storage().data_ptr() == behind.untyped_storage().data_ptr()
        and before.storage_offset() + before.numel() == behind.storage_offset()
        for before, behind in pairwise(parts)
    )
