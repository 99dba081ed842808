"""One Brownian path, the same whatever is asked of it and in which order (specification 03, section 5.3).

The path is a binary tree: each interval is halved, and what the path does over a half is drawn under what it does over
the whole. Every interval has a seed of its own, so that a path follows from one seed. The numbers are, to the last bit,
those of ``BrownianTree`` of torchsde (Li et al. 2020, "Scalable Gradients for Stochastic Differential Equations"),
which the reference uses; here each half is drawn once, and nothing but what a question needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

DIGITS = 6
"""Decimals that times have. Two times that differ in none of them are one."""
POOL_WORDS = 24
"""Of the seeds' entropy."""

# The constants of numpy's SeedSequence (after O'Neill 2015, "Developing a seed_seq alternative").
_WORD = 2**32 - 1
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_L, _MIX_R = 0xCA01F9DD, 0x4973F715
_HASHES_BEFORE_KEY = POOL_WORDS**2
_KEY_CONSTANTS = tuple(
    _INIT_A * pow(_MULT_A, _HASHES_BEFORE_KEY + part * POOL_WORDS, 2**32) & _WORD for part in range(2)
)
"""With which the two words of a key are hashed into the pool's first word."""


class Seeds:
    """One seed for each place in the tree: the first word that numpy's ``SeedSequence(seed, spawn_key=key)`` gives.

    That word comes from the first word of the pool alone, so of the 624 mixtures that a sequence of its own would take
    for each place two are left.
    """

    def __init__(self, seed: int) -> None:
        self._first = int(np.random.SeedSequence(seed, pool_size=POOL_WORDS).pool[0])

    def of(self, *key: int) -> int:
        """For no key or one of two words below 2^32."""
        word = self._first
        for part, constant in zip(key, _KEY_CONSTANTS, strict=False):
            word = _MIX_L * word - _MIX_R * _hashed(part, constant, _MULT_A) & _WORD
            word ^= word >> 16
        return _hashed(word, _INIT_B, _MULT_B)


def _hashed(word: int, constant: int, factor: int) -> int:
    word = (word ^ constant) * (constant * factor) & _WORD
    return word ^ word >> 16


class _Part(NamedTuple):
    """A part of the path and what the path does over it; ``place``: its number among those of its ``depth``, counted
    from the left.
    """

    start: float
    end: float
    increment: Tensor
    place: int = 0
    depth: int = 0


Halves = dict[tuple[int, int], tuple[_Part, _Part]]
"""By place and depth of the whole."""


class BrownianPath:
    """A path from ``start`` to ``end``, of tensors of one shape. ``seed``: 0 ... 2^64 - 1."""

    def __init__(self, seed: int, start: float, end: float, shape: tuple[int, ...], device: torch.device) -> None:
        self._seeds = Seeds(seed)
        self._shape = shape
        self._generator = torch.Generator(device)
        self._whole = _Part(round(start, DIGITS), round(end, DIGITS), self._noise() * math.sqrt(end - start))
        self._halves: Halves = {}
        self._halves_before: Halves = {}

    def __call__(self, start: float, end: float) -> Tensor:
        """What the path does from one of its times to a later one, float32 on the path's device. Not to be changed.

        Raises ``ValueError`` for times that are not in this order once they are rounded.
        """
        start, end = round(start, DIGITS), round(end, DIGITS)
        if not self._whole.start <= start < end <= self._whole.end:
            raise ValueError(f"{start} ... {end} is no part of {self._whole.start} ... {self._whole.end}")
        # The halves of the last question are kept: the next one usually begins or ends where that one did.
        self._halves, self._halves_before = {}, self._halves
        first, *others = self._covering(self._whole, start, end)
        return sum(others, first)

    def _covering(self, whole: _Part, start: float, end: float) -> Iterator[Tensor]:
        """The increments of the largest parts that make up this stretch of ``whole``, from left to right."""
        if start == whole.start and end == whole.end:
            yield whole.increment
            return
        left, right = self._halved(whole)
        if start < left.end:
            yield from self._covering(left, start, min(end, left.end))
        if end > right.start:
            yield from self._covering(right, max(start, right.start), end)

    def _halved(self, whole: _Part) -> tuple[_Part, _Part]:
        key = (whole.place, whole.depth)
        halves = self._halves_before.get(key) or self._drawn_halves(whole)
        self._halves[key] = halves
        return halves

    def _drawn_halves(self, whole: _Part) -> tuple[_Part, _Part]:
        """The bridge at the middle: the left half's share, and noise of the variance that is open there."""
        start, end, increment, place, depth = whole
        middle = round(0.5 * (end + start), DIGITS)
        left, right, per_time = middle - start, end - middle, 1 / (end - start)
        noise = self._noise(place, depth).mul_(math.sqrt(left * right * per_time))
        first = (left * increment).mul_(per_time).add_(noise)
        return (
            _Part(start, middle, first, 2 * place, depth + 1),
            _Part(middle, end, increment - first, 2 * place + 1, depth + 1),
        )

    def _noise(self, *place_and_depth: int) -> Tensor:
        """Unit noise of a part of the path; of the path itself without them."""
        self._generator.manual_seed(self._seeds.of(*place_and_depth))
        return torch.randn(self._shape, generator=self._generator, device=self._generator.device)
