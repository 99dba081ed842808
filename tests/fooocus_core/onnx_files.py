"""Tiny ONNX files, written by hand: the few fields of the format that a network of three nodes needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FLOAT, INTS, INT = 1, 7, 2
OPERATIONS = 13
"""The version of the operations: axes are attributes in it."""


def write_mean_network(path: Path, side_px: int, weights: NDArray[np.float32]) -> None:
    """``[1, side, side, 3]`` to ``[1, scores]``: the means of the three colours times ``weights``, ``[3, scores]``."""
    mean = _node("ReduceMean", ["picture"], "means", _ints("axes", [1, 2]), _int("keepdims", 0))
    score = _node("MatMul", ["means", "weights"], "scores")
    graph = [
        *(_message(1, node) for node in (mean, score)),
        _text(2, "tagger"),
        _message(5, _tensor("weights", weights)),
        _message(11, _value("picture", [1, side_px, side_px, 3])),
        _message(12, _value("scores", [1, weights.shape[1]])),
    ]
    version = _text(1, "") + _number(2, OPERATIONS)
    path.write_bytes(_number(1, 7) + _message(8, version) + _message(7, b"".join(graph)))


def _node(kind: str, inputs: list[str], output: str, *attributes: bytes) -> bytes:
    names = b"".join(_text(1, name) for name in inputs) + _text(2, output)
    return names + _text(4, kind) + b"".join(_message(5, attribute) for attribute in attributes)


def _ints(name: str, values: list[int]) -> bytes:
    return _text(1, name) + b"".join(_number(8, value) for value in values) + _number(20, INTS)


def _int(name: str, value: int) -> bytes:
    return _text(1, name) + _number(3, value) + _number(20, INT)


def _tensor(name: str, values: NDArray[np.float32]) -> bytes:
    lengths = b"".join(_number(1, length) for length in values.shape)
    return lengths + _number(2, FLOAT) + _text(8, name) + _message(9, values.astype("<f4").tobytes())


def _value(name: str, lengths: list[int]) -> bytes:
    shape = b"".join(_message(1, _number(1, length)) for length in lengths)
    return _text(1, name) + _message(2, _message(1, _number(1, FLOAT) + _message(2, shape)))


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
