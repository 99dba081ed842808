"""Compiled functions come into use when they are there and right, and nothing waits for them or fails by them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.models.compiled import MOST_FORMS, Choice, Compiler, compiler_for, form_of_weights
from fooocus_core.models.forward_pass import WORTH_CALLS
from fooocus_core.models.unet import DiffusionNetwork
from tests.fooocus_core.models.test_forward_pass import SHAPES, inputs, network

WAIT_S = 60.0


class Backend:
    """A compiler whose work can be held up, spoilt and counted; what it makes is the plain graph."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.error: Exception | None = None
        self.factor = 1.0
        self.graphs = 0
        self.runs = 0

    def __call__(self, graph: Any, _examples: Any) -> Callable[..., Any]:
        assert self.may_go_on.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        self.graphs += 1

        def run(*arguments: Any) -> Any:
            self.runs += 1
            return tuple(part * self.factor for part in graph.forward(*arguments))

        return run


@pytest.fixture
def backend() -> Iterator[Backend]:
    torch.compiler.reset()
    yield Backend()
    torch.compiler.reset()


@pytest.fixture
def compiler(backend: Backend) -> Compiler:
    return Compiler(backend)


def both(weights: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    return weights * x * 2, x + weights


def doubled(weights: Tensor, x: Tensor) -> Tensor:
    return both(weights, x)[0]


WEIGHTS = torch.linspace(1, 2, 6)


def call(compiler: Compiler, x: Tensor, worth_calls: int = 2) -> Tensor:
    with torch.no_grad():
        return compiler.run(both, "weights", WEIGHTS, x, worth_calls=worth_calls)[0]


def make_ready(compiler: Compiler, x: Tensor) -> None:
    for _ in range(2):
        call(compiler, x)
    compiler.wait(WAIT_S)
    assert not compiler.is_compiling


def test_a_form_that_comes_often_is_compiled(compiler: Compiler, backend: Backend) -> None:
    x = torch.ones(6)
    call(compiler, x)
    compiler.wait(WAIT_S)
    assert backend.graphs == 0
    call(compiler, x)
    compiler.wait(WAIT_S)
    assert (backend.graphs, backend.runs) == (1, 1)
    assert torch.equal(call(compiler, x * 3), doubled(WEIGHTS, x * 3))
    assert (backend.graphs, backend.runs) == (1, 2)


def test_nobody_waits_for_it(compiler: Compiler, backend: Backend) -> None:
    backend.may_go_on.clear()
    x = torch.ones(6)
    for _ in range(5):
        assert torch.equal(call(compiler, x), doubled(WEIGHTS, x))
    assert compiler.is_compiling
    assert backend.runs == 0
    backend.may_go_on.set()
    compiler.wait(WAIT_S)
    call(compiler, x)
    assert backend.runs == 2


def test_what_is_wrong_is_not_used(compiler: Compiler, backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    backend.factor = 1.01
    x = torch.ones(6)
    with caplog.at_level(logging.WARNING):
        make_ready(compiler, x)
    for _ in range(3):
        assert torch.equal(call(compiler, x), doubled(WEIGHTS, x))
    assert backend.runs == 1
    assert "from the plain calculation" in caplog.text


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_used(compiler: Compiler, backend: Backend, factor: float) -> None:
    backend.factor = factor
    x = torch.ones(6)
    make_ready(compiler, x)
    assert torch.equal(call(compiler, x), doubled(WEIGHTS, x))


def test_where_nothing_can_be_compiled_it_is_said_once(
    compiler: Compiler, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.error = RuntimeError("there is no C++ compiler\nand much more")
    x = torch.ones(6)
    with caplog.at_level(logging.WARNING):
        make_ready(compiler, x)
        for _ in range(4):
            assert torch.equal(call(compiler, x), doubled(WEIGHTS, x))
            compiler.wait(WAIT_S)
    assert len(caplog.records) == 1
    assert "and much more" not in caplog.text


def test_what_fails_later_is_given_up(compiler: Compiler, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(6)
    make_ready(compiler, x)

    def fail(*_: Any) -> Any:
        raise RuntimeError("illegal memory access")

    monkeypatch.setitem(compiler._compiled, both, fail)
    for _ in range(2):
        assert torch.equal(call(compiler, x), doubled(WEIGHTS, x))


def test_only_so_many_forms_are_compiled(compiler: Compiler, backend: Backend) -> None:
    for length in range(MOST_FORMS + 3):
        make_ready(compiler, torch.ones(1 + length, 6))
    assert backend.graphs == MOST_FORMS


# --- the denoising network ----------------------------------------------------------------------------------------


def diffusion_network(compiler: Compiler | None) -> DiffusionNetwork:
    made = DiffusionNetwork(network(SHAPES["sdxl"]), SHAPES["sdxl"], {}, {})
    made.compiler = compiler
    return made


def test_the_network_is_compiled_whole_and_once(compiler: Compiler, backend: Backend) -> None:
    plain, compiled = diffusion_network(None), diffusion_network(compiler)
    given = inputs(SHAPES["sdxl"])
    for _ in range(WORTH_CALLS):
        compiled(*given)
    compiler.wait(WAIT_S)
    assert backend.graphs == 1  # in one piece
    runs = backend.runs
    torch.testing.assert_close(compiled(*given), plain(*given))
    assert backend.runs == runs + 1


def test_other_weights_need_no_other_compiling(compiler: Compiler, backend: Backend) -> None:
    compiled, given = diffusion_network(compiler), inputs(SHAPES["sdxl"])
    for _ in range(WORTH_CALLS):
        compiled(*given)
    compiler.wait(WAIT_S)
    before = compiled(*given)
    compiled.weights_changed()
    weight = compiled.unet.get_parameter("mid_block.attentions.0.transformer_blocks.0.attn1.to_k.weight")
    weight.data = weight.detach() * 1.5
    runs, found = backend.runs, compiled(*given)
    assert backend.runs == runs + 1
    assert not torch.allclose(found, before)
    compiled.compiler = None
    compiled.weights_changed()
    torch.testing.assert_close(found, compiled(*given))
    assert backend.graphs == 1


def test_networks_of_other_parts_are_of_another_form() -> None:
    forms = {form_of_weights(network(shape)) for shape in SHAPES.values()}
    assert len(forms) == len(SHAPES)
    assert form_of_weights(network(SHAPES["sdxl"])) in forms


# --- who compiles -------------------------------------------------------------------------------------------------


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A graphics card that is not there."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    card = SimpleNamespace(major=8, total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: card)
    return card


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("choice", "device", "compiles"),
    [("auto", CUDA, True), ("auto", CPU, False), ("always", CPU, True), ("never", CUDA, False)],
)
def test_who_compiles(
    card: SimpleNamespace, tmp_path: Path, choice: Choice, device: torch.device, compiles: bool
) -> None:
    assert (compiler_for(choice, device, tmp_path) is not None) == compiles
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == (str(tmp_path) if compiles else None)


@pytest.mark.parametrize(("major", "gib"), [(6, 24), (8, 8)])
def test_old_and_small_cards_do_not(card: SimpleNamespace, tmp_path: Path, major: int, gib: int) -> None:
    card.major, card.total_memory = major, gib * 2**30
    assert compiler_for("auto", CUDA, tmp_path) is None
