"""What each type of LoRA adds to a weight (specification 08, section 4.2).

Every patch answers with the addition at strength 1, for the weight as it is by then, all in float32. It equals only
itself: whether two hold the same numbers is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Patch(Protocol):
    """``added``: what is to be added to ``weight`` (float32, any shape), or ``None`` for nothing at all. It is the
    caller's own, to be changed: weights are large, and a second copy of each is what merging would wait for.

    Tensors that do not fit raise what torch raises then: ``RuntimeError`` or ``IndexError``.
    """

    def added(self, weight: Tensor) -> Tensor | None: ...


def _scale(alpha: float | None, rank: int) -> float:
    if alpha is None:
        return 1.0
    if rank == 0:
        raise RuntimeError("a rank of 0")
    return alpha / rank


def _times(change: Tensor, factor: float) -> Tensor:
    """In place; most files say 1 in one way or another."""
    return change if factor == 1.0 else change.mul_(factor)


def _require_shape(tensor: Tensor, weight: Tensor) -> None:
    """What is added as it is would otherwise be spread over a weight of another shape."""
    if tensor.shape != weight.shape:
        raise RuntimeError(f"{tuple(tensor.shape)} for a weight {tuple(weight.shape)}")


def _like(tensor: Tensor, weight: Tensor) -> Tensor:
    return tensor.to(device=weight.device, dtype=torch.float32)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrices whose further dimensions are folded into the second."""
    return left.flatten(1) @ right.flatten(1)


def _expanded(core: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """A convolution from its core and two factors: ``[p, r, k, l]``."""
    return torch.einsum("ijkl,jr,ip->prkl", core, right, left)


@dataclass(frozen=True, eq=False)
class LowRank:
    """``up · down``, with ``mid`` between them for convolutions in three factors."""

    up: Tensor
    down: Tensor
    mid: Tensor | None
    alpha: float | None

    def added(self, weight: Tensor) -> Tensor:
        up, down = _like(self.up, weight), _like(self.down, weight)
        rank = down.shape[0]
        if self.mid is not None:
            down = torch.einsum("abkl,bi->aikl", _like(self.mid, weight), down.flatten(1))
        return _times(_product(up, down), _scale(self.alpha, rank)).reshape(weight.shape)


@dataclass(frozen=True, eq=False)
class Hadamard:
    """The elementwise product of two low-rank matrices (loha); cores where it is a convolution in factors."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    t1: Tensor | None
    t2: Tensor | None
    alpha: float | None

    def added(self, weight: Tensor) -> Tensor:
        first = self._factor(self.w1_a, self.w1_b, self.t1, weight)
        second = self._factor(self.w2_a, self.w2_b, self.t2, weight)
        return _times(first * second, _scale(self.alpha, self.w1_b.shape[0])).reshape(weight.shape)

    @staticmethod
    def _factor(a: Tensor, b: Tensor, core: Tensor | None, weight: Tensor) -> Tensor:
        a, b = _like(a, weight), _like(b, weight)
        return a @ b if core is None else _expanded(_like(core, weight), b, a)


@dataclass(frozen=True, eq=False)
class Kronecker:
    """The Kronecker product of two parts (lokr), each whole or in factors."""

    w1: Tensor | None
    w2: Tensor | None
    w1_a: Tensor | None
    w1_b: Tensor | None
    w2_a: Tensor | None
    w2_b: Tensor | None
    t2: Tensor | None
    alpha: float | None

    def added(self, weight: Tensor) -> Tensor | None:
        first = self._part(self.w1, self.w1_a, self.w1_b, None, weight)
        second = self._part(self.w2, self.w2_a, self.w2_b, self.t2, weight)
        if self.w2 is None and self.t2 is not None and first.numel() != 1:
            # The reference's product of this form fails inside torch, which it survives without a change.
            return None
        if second.dim() == 4:
            first = first[:, :, None, None]
        return _times(torch.kron(first, second.contiguous()), self._own_scale()).reshape(weight.shape)

    @staticmethod
    def _part(whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None, weight: Tensor) -> Tensor:
        if whole is not None:
            return _like(whole, weight)
        if a is None or b is None:
            raise RuntimeError("a part of the product is missing")
        a, b = _like(a, weight), _like(b, weight)
        return a @ b if core is None else _expanded(_like(core, weight), b, a)

    def _own_scale(self) -> float:
        """Only a part in factors has a rank; that of the second counts if both have."""
        rank = None
        if self.w1 is None and self.w1_b is not None:
            rank = self.w1_b.shape[0]
        if self.w2 is None and self.w2_b is not None:
            rank = self.w2_b.shape[0]
        return 1.0 if rank is None else _scale(self.alpha, rank)


@dataclass(frozen=True, eq=False)
class Glora:
    """``b2 · b1 + W · a2 · a1``."""

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    alpha: float | None

    def added(self, weight: Tensor) -> Tensor:
        a1, a2, b1, b2 = (_like(tensor, weight).flatten(1) for tensor in (self.a1, self.a2, self.b1, self.b2))
        change = b2 @ b1 + weight.flatten(1) @ a2 @ a1
        return _times(change, _scale(self.alpha, a1.shape[0])).reshape(weight.shape)


@dataclass(frozen=True, eq=False)
class Difference:
    """The addition itself; it must have the weight's shape."""

    tensor: Tensor

    def added(self, weight: Tensor) -> Tensor:
        _require_shape(self.tensor, weight)
        return self.tensor.to(device=weight.device, dtype=torch.float32, copy=True)


@dataclass(frozen=True, eq=False)
class EightBit:
    """Fooocus's own form: bytes between a smallest and a largest value (04, section 7)."""

    values: Tensor
    smallest: Tensor
    largest: Tensor

    def added(self, weight: Tensor) -> Tensor:
        _require_shape(self.values, weight)
        smallest, largest = _like(self.smallest, weight), _like(self.largest, weight)
        added = self.values.to(device=weight.device, dtype=torch.float32, copy=True)
        return added.div_(255.0).mul_(largest - smallest).add_(smallest)


@dataclass(frozen=True, eq=False)
class Nothing:
    """Recognised, and without effect."""

    def added(self, weight: Tensor) -> Tensor | None:
        return None


def merged(weight: Tensor, patch: Patch, strength: float) -> Tensor | None:
    """``weight`` (float32) with a patch in it, ``None`` if the patch does not fit, whatever its type.

    Where there is nothing to add the answer is ``weight`` itself.
    """
    try:
        added = patch.added(weight)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError):
        return None
    return weight if added is None or strength == 0 else _times(added, strength).add_(weight)
