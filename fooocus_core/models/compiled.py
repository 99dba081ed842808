"""Networks compiled in the background: calculated as they are until the compiled form is there, and where none can be.

torch's compiler needs minutes for a large network. Nobody waits for it here: it works on a thread of its own, and what
it has made is used only after it gave the plain numbers. What it keeps on disk makes the next start short.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Hashable
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

log = logging.getLogger(__name__)

MOST_FORMS: Final = 8
"""So many forms of input are compiled in one process; further ones are calculated as they are."""
NEAR: Final = {torch.float32: 1e-3, torch.float64: 1e-6}
NEAR_IN_HALF: Final = 2e-2
"""How far a compiled network may be from the plain one, as shares of what it answers on average."""

LEAST_CAPABILITY: Final = 7
"""CUDA compute capability from which torch's compiler makes kernels."""
LEAST_MEMORY_BYTES: Final = 15 * 2**30
"""Of a card that has room for compiling beside a picture: those sold with 16 GB."""

Choice = Literal["auto", "always", "never"]
Backend = str | Callable[..., Any]
Function = Callable[..., tuple[Tensor, ...]]


class _State(Enum):
    COMPILING = "compiling"
    READY = "ready"
    GIVEN_UP = "given up"


class Compiler:
    """Runs functions, compiled where that has come to an end well. One thread calls; another compiles."""

    def __init__(self, backend: Backend = "inductor") -> None:
        """``backend``: what ``torch.compile`` takes."""
        self._backend = backend
        self._states: dict[Hashable, _State] = {}
        self._calls: Counter[Hashable] = Counter()
        self._compiled: dict[Function, Function] = {}
        self._thread: threading.Thread | None = None

    def run(self, function: Function, weights: Hashable, *arguments: Any, worth_calls: int) -> tuple[Tensor, ...]:
        """``function(*arguments)``, which must not change its arguments and must answer by them alone.

        ``weights`` tells networks of different shapes apart (``form_of_weights``). An input's form is compiled when it
        has come ``worth_calls`` times.
        """
        form = (function, weights, _form_of(arguments))
        state = self._states.get(form)
        if state is _State.READY and not self.is_compiling:
            return self._run_compiled(form, function, arguments)
        answer = function(*arguments)
        if state is None:
            self._calls[form] += 1
            if self._calls[form] >= worth_calls and not self.is_compiling and len(self._states) < MOST_FORMS:
                self._begin(form, function, arguments, answer)
        return answer

    @property
    def is_compiling(self) -> bool:
        """Whether the other thread is at work; until it has ended everything is calculated as it is."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, timeout_s: float) -> None:
        """Until nothing is being compiled any more."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run_compiled(self, form: Hashable, function: Function, arguments: tuple[Any, ...]) -> tuple[Tensor, ...]:
        try:
            # What does not fit the compiled form after all must not be compiled while a picture waits.
            with torch.compiler.set_stance("eager_on_recompile"):
                return self._compiled[function](*arguments)
        except Exception:
            self._states[form] = _State.GIVEN_UP
            log.warning("a compiled network failed and is not used any more", exc_info=True)
            return function(*arguments)

    def _begin(
        self, form: Hashable, function: Function, arguments: tuple[Any, ...], answer: tuple[Tensor, ...]
    ) -> None:
        if function not in self._compiled:
            self._compiled[function] = torch.compile(function, dynamic=False, fullgraph=True, backend=self._backend)
        self._states[form] = _State.COMPILING
        self._thread = threading.Thread(
            target=self._compile, args=(form, function, arguments, answer), name="compiler", daemon=True
        )
        self._thread.start()

    def _compile(
        self, form: Hashable, function: Function, arguments: tuple[Any, ...], expected: tuple[Tensor, ...]
    ) -> None:
        log.info("compiling %s in the background", function.__qualname__)
        try:
            with torch.no_grad():
                found = self._compiled[function](*arguments)
                deviation = max(_deviation(*parts) for parts in zip(found, expected, strict=True))
        except Exception as error:
            self._states[form] = _State.GIVEN_UP
            reason = " ".join(
                str(error).strip().splitlines()[:2]
            )  # the first names the compiler, the second what it said
            log.warning("%s is not compiled: %s", function.__qualname__, reason or type(error).__name__)
            return
        allowed = NEAR.get(expected[0].dtype, NEAR_IN_HALF)
        self._states[form] = _State.READY if deviation <= allowed else _State.GIVEN_UP
        if deviation <= allowed:
            log.info("%s is compiled, %.1e from the plain calculation", function.__qualname__, deviation)
        else:
            log.warning("%s is not compiled: %.1e from the plain calculation", function.__qualname__, deviation)


def compiler_for(choice: Choice, device: torch.device, folder: Path) -> Compiler | None:
    """Whoever compiles for a device, if anyone. ``folder``: where what is made is kept for the next start."""
    if choice == "never" or (choice == "auto" and not _is_worth_it(device)):
        return None
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.absolute()))
    return Compiler()


def _is_worth_it(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    card = torch.cuda.get_device_properties(device)
    return card.major >= LEAST_CAPABILITY and card.total_memory >= LEAST_MEMORY_BYTES


def form_of_weights(network: nn.Module) -> Hashable:
    """Equal for networks of equal parts: what is compiled for one runs the other."""
    return tuple((name, weight.shape, weight.dtype, weight.device) for name, weight in network.named_parameters())


def _form_of(arguments: tuple[Any, ...]) -> Hashable:
    """Shapes, layouts and places of all tensors, and the values of all numbers."""
    return tuple(
        (leaf.shape, leaf.stride(), leaf.dtype, leaf.device)
        if isinstance(leaf, Tensor)
        else leaf
        if leaf is None or isinstance(leaf, (int, float))
        else type(leaf)
        for leaf in tree_leaves(arguments)
    )


def _deviation(found: Tensor, expected: Tensor) -> float:
    """The mean distance as a share of the mean size; not a number where the answer is none."""
    distance = (found.float() - expected.float()).abs().mean() / expected.float().abs().mean()
    return float(distance)
