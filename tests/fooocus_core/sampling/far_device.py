"""A device that is far away: a stand-in for a graphics card, on which every question of the host for a value is noted.

Its tensors say that they are on the device ``meta`` and are calculated with on the CPU. Asking for their values, or
copying to or from them in a way that waits until the device has done all it was told, raises ``Waits``. It has lines of
work (streams) beside each other: what nobody has set right between them raises ``Races``, and what is copied to the
host without waiting is there only when the device has caught up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from fooocus_core.sampling import transfer

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
NONSENSE = 77
"""What the host finds where a copy has not been made yet."""
_INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class Waits(Exception):
    """The host would wait for the device."""


class Races(Exception):
    """What is found in some memory would depend on which of two lines of work is faster."""


@dataclass(eq=False)
class FarStream:
    """A line of work. ``waits_for``: of other lines, by how much they had been told, what comes before its own."""

    device: FarDevice
    waits_for: dict[FarStream, int] = field(default_factory=dict)

    def wait_stream(self, other: FarStream) -> None:
        self.waits_for[other] = self.device.told

    def record_event(self) -> FarEvent:
        return FarEvent(self.device, [copy for copy in self.device.under_way if copy.stream is self])

    def synchronize(self) -> None:
        self.device.wait()


@dataclass(frozen=True, eq=False)
class FarCopy:
    """Values that the host does not have yet: ``target`` gets them when the device has caught up."""

    stream: FarStream
    target: Tensor
    values: Tensor


@dataclass(frozen=True)
class FarEvent:
    """The moment at which these copies have been made."""

    device: FarDevice
    copies: list[FarCopy]

    def query(self) -> bool:
        return not any(copy in self.device.under_way for copy in self.copies)

    def synchronize(self) -> None:
        if not self.query():
            self.device.wait()


class Far(Tensor):
    """A tensor on the far device. ``near``: its values, on the CPU.

    ``stream``: which line of work made it, ``None`` for what lasts; ``told``: how much the device had been told then;
    ``used_by``: lines that its memory is kept for.
    """

    near: Tensor
    stream: FarStream | None
    told: int
    used_by: set[FarStream]

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        made: Far = Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, device=FAR
        )
        made.near, made.stream, made.told, made.used_by = near, None, 0, set()
        return made

    def record_stream(self, stream: Any) -> None:
        self.used_by.add(stream)

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
    """Inside it tensors can be made on the far device. While ``is_strict``, waiting for it raises ``Waits``.

    What is made meanwhile belongs to a line of work; what was made before is taken for something that lasts.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_strict = False
        self.told = 0
        self.under_way: list[FarCopy] = []
        self.stream = FarStream(self)
        monkeypatch.setattr(torch, "Generator", _FarGenerator)
        monkeypatch.setattr(transfer, "works_apart", lambda device: device == FAR)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: FarStream(self))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.stream)
        monkeypatch.setattr(torch.cuda, "stream", self._at_work_in)
        monkeypatch.setattr(torch.cuda, "synchronize", self.wait)

    def catch_up(self) -> None:
        """The device does all that it was told."""
        copies, self.under_way = self.under_way, []
        for copy in copies:
            copy.target.copy_(copy.values)

    def wait(self) -> None:
        """The host waits until then."""
        if self.is_strict:
            raise Waits("until the device has done all that it was told")
        self.catch_up()

    @contextmanager
    def _at_work_in(self, stream: FarStream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.is_pinned.default:
            return _is_pinned(args[0])
        if func is aten._pin_memory.default:
            return _pinned(args[0].clone())
        if kwargs.pop("pin_memory", False):
            return _pinned(func(*args, **kwargs))
        if self.is_strict:
            _refuse_waiting(func, args, kwargs)
            self._refuse_races(args, kwargs)
        if func is aten.copy_.default and isinstance(args[1], Far) and not isinstance(args[0], Far):
            return self._fetched(*args, **kwargs)
        answer = _calculated(func, args, kwargs)
        if self.is_strict:
            self._sign(answer)
        return answer

    def _fetched(self, target: Tensor, source: Far, non_blocking: bool = False) -> Tensor:
        """A copy to the host: made at once where it is waited for, else later; until then the host has nonsense."""
        if not non_blocking:
            self.wait()
            return target.copy_(source.near)
        place = target.untyped_storage().data_ptr()
        if any(copy.target.untyped_storage().data_ptr() == place for copy in self.under_way):
            raise Races("memory of the host is used again while a copy into it is under way")
        self.under_way.append(FarCopy(self.stream, target, source.near.clone()))
        return target.fill_(NONSENSE)

    def _refuse_races(self, args: Any, kwargs: dict[str, Any]) -> None:
        for one in tree_leaves((args, kwargs)):
            # What another device made outlived it: a constant that is kept.
            if isinstance(one, Far) and one.stream not in (None, self.stream) and one.stream.device is self:
                if self.stream.waits_for.get(one.stream, -1) < one.told:
                    raise Races("values of another line of work that may not be there yet")
                if self.stream not in one.used_by:
                    raise Races("memory of another line of work that it may give away")

    def _sign(self, answer: Any) -> None:
        self.told += 1
        for one in tree_leaves(answer):
            if isinstance(one, Far):
                one.stream, one.told = self.stream, self.told


def _pinned(tensor: Tensor) -> Tensor:
    """Marks memory of the host as such that never moves."""
    tensor.is_pinned_for_far = True  # type: ignore[attr-defined]
    return tensor


def _is_pinned(tensor: Tensor) -> bool:
    return hasattr(tensor, "is_pinned_for_far")


def _refuse_waiting(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    is_far = [isinstance(tensor, Far) for tensor in tensors]
    if func in _ASKING and any(is_far):
        raise Waits(f"{func} asks for values")
    if func in _INDEXING and any(is_far) and any(one.dtype in (torch.bool, torch.uint8) for one in tensors[1:]):
        raise Waits(f"{func} by a mask asks how many it holds")
    if _crosses(func, is_far, kwargs):
        if not kwargs.get("non_blocking", len(args) > 2 and args[2]):
            raise Waits("a copy between host and device")
        if not any(map(_is_pinned, tensors)):
            raise Waits("a copy between host and device of memory that may move")
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
