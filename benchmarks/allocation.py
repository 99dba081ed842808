"""How much memory calculations take beside the weights, counted on tensors without data: no device is needed.

What a device holds beyond that is not counted: workspaces of its libraries, and gaps between allocations.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WITHOUT_MEMORY = torch.device("meta")


def most_allocated_bytes(work: Callable[[], object], networks: Sequence[nn.Module] = ()) -> int:
    """The most that ``work`` holds at a time of what it makes itself, on ``WITHOUT_MEMORY``, without gradients.

    The weights of ``networks`` are not counted. ``work`` should have been called once before: what networks keep from
    call to call is made in the first.
    """
    counting = _Counting(weight for network in networks for weight in network.parameters())
    with torch.no_grad(), WITHOUT_MEMORY, _FusedAttention(), counting:
        work()
    return counting.most_bytes


class _FusedAttention(TorchFunctionMode):
    """Attention as a device's fused kernels calculate it: nothing but the answer takes memory."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: dict[str, Any] | None = None
    ) -> Any:
        if function is functional.scaled_dot_product_attention:
            return torch.empty_like(arguments[0])
        return function(*arguments, **(named or {}))


class _Counting(TorchDispatchMode):
    """Follows the storages of all tensors that are made while it is on."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        # Views of these come by as well. Held, so that nothing else can come to have their identities.
        self._known = {id_of(storage): storage for storage in (tensor.untyped_storage() for tensor in known)}
        self._sizes: dict[int, int] = {}
        self.most_bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: dict[str, Any] | None = None
    ) -> Any:
        made = function(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return made

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key = id_of(storage)
        if key in self._known or key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        weakref.finalize(storage, self._sizes.pop, key, None)
        self.most_bytes = max(self.most_bytes, sum(self._sizes.values()))


def id_of(storage: torch.UntypedStorage) -> int:
    """The same for all tensors that share it."""
    return int(storage._cdata)
