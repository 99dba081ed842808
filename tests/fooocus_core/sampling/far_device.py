"""A device that is far away: a stand-in for a graphics card, on which every question of the host for a value is noted.

Its tensors say that they are on the device ``meta`` and are calculated with on the CPU. Asking for their values, or
copying to or from them in a way that waits until the device has done all it was told, raises ``Waits``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten

_ASKING = {
    aten._local_scalar_dense.default,
    aten.item.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
}
"""Operations that need the values on the host, or the size of whose answer follows from values."""
_INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class Waits(Exception):
    """The host would wait for the device."""


class Far(Tensor):
    """A tensor on the far device. ``near``: its values, on the CPU."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        made: Far = Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, device=FAR
        )
        made.near = near
        return made

    def data_ptr(self) -> int:
        return self.near.data_ptr()

    def untyped_storage(self) -> Any:
        return self.near.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _calculated(func, args, kwargs or {})


class _FarGenerator(torch.Generator):
    """A generator that says it is where it was asked to be; its numbers come from the CPU."""

    def __new__(cls, device: Any = "cpu") -> _FarGenerator:
        made = super().__new__(cls)
        made.said = torch.device(device)
        return made

    said: torch.device

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.said


class FarDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside it tensors can be made on the far device. While ``is_strict``, waiting for it raises ``Waits``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_strict = False
        monkeypatch.setattr(torch, "Generator", _FarGenerator)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.is_strict:
            _refuse_waiting(func, args, kwargs)
        return _calculated(func, args, kwargs)


def _refuse_waiting(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    is_far = [isinstance(tensor, Far) for tensor in tensors]
    if func in _ASKING and any(is_far):
        raise Waits(f"{func} asks for values")
    if func in _INDEXING and any(is_far) and any(one.dtype in (torch.bool, torch.uint8) for one in tensors[1:]):
        raise Waits(f"{func} by a mask asks how many it holds")
    if _crosses(func, is_far, kwargs) and not kwargs.get("non_blocking", len(args) > 2 and args[2]):
        raise Waits("a copy between host and device")
    if any(tensor.device == FAR and not far for tensor, far in zip(tensors, is_far, strict=True)):
        raise Waits("values of the host were copied into a new tensor of the device")


def _crosses(func: Any, is_far: list[bool], kwargs: dict[str, Any]) -> bool:
    """Whether this is a copy between host and device."""
    if func is aten.copy_.default:
        return is_far[0] != is_far[1]
    device = kwargs.get("device")
    return func is aten._to_copy.default and device is not None and is_far[0] != (torch.device(device) == FAR)


def _calculated(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """On the CPU; the answer is far where it was asked for there or came of something far."""
    near_of: dict[int, Far] = {}

    def near(leaf: Any) -> Any:
        if isinstance(leaf, Far):
            near_of[id(leaf.near)] = leaf
            return leaf.near
        return leaf

    device = kwargs.get("device")
    is_far = any(isinstance(leaf, Far) for leaf in tree_leaves((args, kwargs)))
    if device is not None:
        is_far = torch.device(device) == FAR
        kwargs = {**kwargs, "device": CPU}
    args, kwargs = tree_map(near, args), tree_map(near, kwargs)

    def far(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return near_of[id(leaf)] if id(leaf) in near_of else Far(leaf)

    answer = func(*args, **kwargs)
    return tree_map(far, answer) if is_far else answer


def bring(module: nn.Module) -> None:
    """A network's weights onto the far device."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = Far(weight.detach())  # type: ignore[assignment]
