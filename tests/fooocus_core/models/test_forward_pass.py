"""The straight pass gives what diffusers' own modules give, and never works on weights or texts of the past."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.conditioning.adm import PromptSide
from fooocus_core.models import forward_pass
from fooocus_core.models.forward_pass import ForwardPass
from fooocus_core.models.unet import UNetShape, build_unet
from fooocus_core.sampling.network import ControlResiduals, NetworkCall, StepMemory

WIDTH, CONTEXT, ADM = 32, 24, 20
SHAPES = {
    "sdxl": UNetShape(4, 4, (32, 64), ((0, 0), (2, 2)), 2, ((2, 2, 2), (0, 0, 0)), CONTEXT, ADM, True),
    "refiner": UNetShape(4, 4, (32, 64), ((0, 0), (1, 1)), 3, ((1, 1, 1), (0, 0, 0)), CONTEXT, ADM, True),
    "sd15": UNetShape(4, 4, (32, 64), ((1, 1), (1, 1)), 1, ((1, 1, 1), (1, 1, 1)), CONTEXT, None, False),
    "bare middle": UNetShape(4, 4, (32, 64), ((0,), (1,)), None, ((1, 1), (0, 0)), CONTEXT, ADM, True),
    "inpaint": UNetShape(9, 4, (32,), ((1,),), 1, ((1, 1),), CONTEXT, ADM, True),
}
FINE = 1e-10
"""Of float64, for the same arithmetic in another order."""
COARSE = 5e-5
"""Of float32, for outputs of about 1."""


def network(shape: UNetShape) -> Any:
    """Weights of fixed random numbers, small enough for outputs about 1."""
    generator = torch.Generator().manual_seed(1)
    unet: Any = build_unet(shape, "test", head_width=16).to_empty(device="cpu").requires_grad_(False).eval()
    for name, parameter in unet.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        fan_in = max(1, parameter[0].numel())
        parameter.copy_(1 + 0.1 * drawn if "norm" in name and name.endswith("weight") else drawn * fan_in**-0.5)
    return unet


def inputs(shape: UNetShape, rows: int = 2, size: tuple[int, int] = (12, 16), seed: int = 2) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    adm = None if shape.adm_width is None else torch.randn(rows, ADM, generator=generator)
    return (
        torch.randn(rows, shape.in_channels, *size, generator=generator),
        torch.full((rows,), 437.0),
        torch.randn(rows, 7, CONTEXT, generator=generator),
        adm,
    )


@torch.no_grad()
def by_modules(unet: Any, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, **more: Any) -> Any:
    given = {"encoder_hidden_states": context, "class_labels": adm, "return_dict": False, **more}
    return unet(latents, timesteps, **given)[0]


def in_float64(unet: Any, given: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    return unet.double(), tuple(None if part is None else part.double() for part in given)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("rows", "size"), [(2, (12, 16)), (1, (9, 7)), (3, (8, 8))])
@torch.no_grad()
def test_as_diffusers_modules(kind: str, rows: int, size: tuple[int, int]) -> None:
    unet, given = in_float64(network(SHAPES[kind]), inputs(SHAPES[kind], rows, size))
    expected, straight = by_modules(unet, *given), ForwardPass(unet)
    for _ in range(2):
        torch.testing.assert_close(straight(*given), expected, atol=FINE, rtol=FINE)
    torch.testing.assert_close(by_modules(unet, *given), expected, atol=FINE, rtol=FINE)


@torch.no_grad()
def test_residuals_are_added_where_diffusers_adds_them() -> None:
    shape = SHAPES["sdxl"]
    unet, given = in_float64(network(shape), inputs(shape))
    sizes = [(32, 12, 16)] * 3 + [(32, 6, 8)] + [(64, 6, 8)] * 2
    skips = tuple(torch.full((2, *size), 0.1 * number).double() for number, size in enumerate(sizes))
    middle = torch.full((2, 64, 6, 8), 0.7).double()
    call = NetworkCall(("negative", "positive"), 0.3, ControlResiduals(skips, middle))
    more = {"down_block_additional_residuals": skips, "mid_block_additional_residual": middle}
    torch.testing.assert_close(ForwardPass(unet)(*given, call), by_modules(unet, *given, **more), atol=FINE, rtol=FINE)


@torch.no_grad()
def test_projections_lie_side_by_side_and_are_held_once() -> None:
    unet = network(SHAPES["sdxl"])
    ForwardPass(unet)
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    places = [layer.weight.untyped_storage().data_ptr() for layer in (attention.to_q, attention.to_k, attention.to_v)]
    assert len(set(places)) == 1
    before = {name: weight.data_ptr() for name, weight in unet.named_parameters()}
    ForwardPass(unet)
    assert {name: weight.data_ptr() for name, weight in unet.named_parameters()} == before


@pytest.mark.parametrize("kind", SHAPES)
@torch.no_grad()
def test_convolutions_work_in_the_layout_of_their_weights(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    convolve, layouts = forward_pass.conv2d, set()

    def watched(x: Tensor, weight: Tensor, *more: Any) -> Tensor:
        layouts.add((x.is_contiguous(), weight.is_contiguous()))
        return convolve(x, weight, *more)

    monkeypatch.setattr(forward_pass, "conv2d", watched)
    ForwardPass(network(SHAPES[kind]))(*inputs(SHAPES[kind]))
    assert layouts == {(True, True)}


@pytest.fixture
def projected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers for which keys and values of a text were made."""
    layers: list[int] = []
    known = forward_pass._Block.known

    def counted(block: Any, context: Tensor, pictures: Any, layer: int) -> Any:
        layers.append(layer)
        return known(block, context, pictures, layer)

    monkeypatch.setattr(forward_pass._Block, "known", counted)
    return layers


LAYERS = list(range(2 * 2 + 2 + 3 * 2))


@torch.no_grad()
def test_a_text_is_projected_once_for_a_run(projected: list[int]) -> None:
    straight, given = ForwardPass(network(SHAPES["sdxl"])), inputs(SHAPES["sdxl"])
    for step in range(5):
        straight(given[0] * step, *given[1:])
    assert projected == LAYERS
    other = inputs(SHAPES["sdxl"], seed=3)
    straight(*other)
    assert projected == LAYERS * 2
    straight(*given)
    assert projected == LAYERS * 2


@torch.no_grad()
def test_the_added_condition_is_embedded_once_for_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[Tensor] = []
    embed = ForwardPass._embedded_adm
    monkeypatch.setattr(ForwardPass, "_embedded_adm", lambda self, adm: embedded.append(adm) or embed(self, adm))
    straight, given = ForwardPass(network(SHAPES["sdxl"])), inputs(SHAPES["sdxl"])
    first, *_ = [straight(*given) for _ in range(3)]
    assert len(embedded) == 1
    given[3].mul_(2)
    assert not torch.allclose(straight(*given), first)
    assert len(embedded) == 2


@torch.no_grad()
def test_a_noise_level_is_embedded_once_for_all_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[float] = []
    embed = ForwardPass._embedded

    def noted(self: ForwardPass, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        embedded.append(timesteps[0].item())
        return embed(self, timesteps, dtype)

    monkeypatch.setattr(ForwardPass, "_embedded", noted)
    straight, given = ForwardPass(network(SHAPES["sdxl"])), inputs(SHAPES["sdxl"])
    plain, *others = given[0], *given[2:]

    def answer(level: float, named: bool, rows: int = 2) -> Tensor:
        call = NetworkCall(("negative", "positive"), 0.3, timestep=level if named else None)
        latents, *texts = (part[:rows] for part in (plain, *others))
        return straight(latents, torch.full((rows,), level), *texts, call)

    for level in (900.0, 20.0, 900.0):
        torch.testing.assert_close(answer(level, named=True), answer(level, named=False), atol=0, rtol=0)
    assert embedded == [900.0, 900.0, 20.0, 20.0, 900.0], "the third is known, but for who does not name it"
    answer(900.0, named=True, rows=1)
    assert embedded[-1] == 900.0, "of so many rows it is not known yet"
    for level in range(2 * forward_pass.TIMES_KEPT_AT_MOST):
        straight._time_of(torch.full((1,), float(level)), float(level), torch.float32)
    assert len(straight._times._kept) == forward_pass.TIMES_KEPT_AT_MOST


@torch.no_grad()
def test_rows_of_a_text_are_texts_of_their_own(projected: list[int]) -> None:
    straight, given = ForwardPass(network(SHAPES["sdxl"])), inputs(SHAPES["sdxl"])
    whole = straight(*given)
    for _ in range(2):
        for row in range(2):
            one = straight(*(part[row : row + 1] for part in given))
            torch.testing.assert_close(one, whole[row : row + 1], atol=COARSE, rtol=COARSE)
    assert projected == LAYERS * 3


@torch.no_grad()
def test_a_text_that_was_changed_is_another(projected: list[int]) -> None:
    straight, given = ForwardPass(network(SHAPES["sdxl"])), inputs(SHAPES["sdxl"])
    first = straight(*given)
    given[2].mul_(2)
    assert not torch.allclose(straight(*given), first)
    assert projected == LAYERS * 2


@torch.no_grad()
def test_texts_of_the_past_are_let_go(projected: list[int]) -> None:
    straight = ForwardPass(network(SHAPES["sdxl"]))
    for seed in range(2 * forward_pass.KEPT_AT_MOST):
        straight(*inputs(SHAPES["sdxl"], seed=seed))
    assert len(straight._texts._kept) == forward_pass.KEPT_AT_MOST


@torch.no_grad()
def test_half_precision_stays_near() -> None:
    shape = SHAPES["sdxl"]
    given = inputs(shape)
    expected = ForwardPass(network(shape))(*given)
    halves = [None if part is None else part.bfloat16() for part in given]
    rough = ForwardPass(network(shape).bfloat16())(*halves)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


# --- passes that reuse what an earlier one has found in the depths -----------------------------------------------


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("residuals", [True, False], ids=["residuals", "none"])
@torch.no_grad()
def test_the_outermost_level_on_its_own_depths_is_the_whole(kind: str, residuals: bool) -> None:
    unet, given = in_float64(network(SHAPES[kind]), inputs(SHAPES[kind]))
    latents, timesteps, context, adm = given
    straight = ForwardPass(unet)
    known = straight._known(context, None)
    skips = skips_of(unet, *given) if residuals else ()
    added = None if adm is None else straight._embedded_adm(adm)
    time = straight._embedded(timesteps, latents.dtype)
    expected, deep = straight.whole(latents, time, added, known, skips)
    (found,) = straight.outermost(latents, time, added, known, deep, skips)
    torch.testing.assert_close(found, expected, atol=FINE, rtol=FINE)


def skips_of(unet: Any, *given: Any) -> tuple[Tensor, ...]:
    """Something to add to every skip connection, whatever their number and sizes are."""
    sizes: list[torch.Size] = []
    handles = [
        block.register_forward_hook(lambda _block, _inputs, outputs: sizes.extend(part.shape for part in outputs[1]))
        for block in unet.down_blocks
    ]
    first = unet.conv_in.register_forward_hook(lambda _layer, _inputs, output: sizes.append(output.shape))
    by_modules(unet, *given)
    for handle in (first, *handles):
        handle.remove()
    return tuple(torch.full(size, 0.1 * number).double() for number, size in enumerate(sizes))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the passes that are made."""
    made: list[str] = []

    def counted(name: str, run: Any) -> Any:
        def counting(*arguments: Any) -> Any:
            made.append(name)
            return run(*arguments)

        return counting

    for name in ("whole", "outermost"):
        monkeypatch.setattr(ForwardPass, name, counted(name, getattr(ForwardPass, name)))
    return made


@torch.no_grad()
def test_every_third_pass_is_whole(passes: list[str]) -> None:
    straight, given = ForwardPass(network(SHAPES["sdxl"])), inputs(SHAPES["sdxl"])
    call = NetworkCall(("negative", "positive"), 0.3, memory=StepMemory(3))
    first, *others = [straight(given[0] * (1 + 0.01 * step), *given[1:], call) for step in range(7)]
    assert passes == ["whole", "outermost", "outermost"] * 2 + ["whole"]
    assert not torch.equal(first, others[0])


@torch.no_grad()
def test_sides_that_are_asked_apart_reuse_their_own(passes: list[str]) -> None:
    straight, given = ForwardPass(network(SHAPES["sdxl"])), inputs(SHAPES["sdxl"])
    memory = StepMemory(2)
    whole = straight(*given, NetworkCall(("negative", "positive"), 0.3, memory=memory))
    again = straight(*given, NetworkCall(("negative", "positive"), 0.3, memory=memory))
    torch.testing.assert_close(again, whole, atol=COARSE, rtol=COARSE)
    apart = StepMemory(2)
    sides: tuple[PromptSide, ...] = ("negative", "positive")
    for _ in range(2):
        for row, side in enumerate(sides):
            one = straight(*(part[row : row + 1] for part in given), NetworkCall((side,), 0.3, memory=apart))
            torch.testing.assert_close(one, whole[row : row + 1], atol=COARSE, rtol=COARSE)
    assert passes == ["whole", "outermost", "whole", "whole", "outermost", "outermost"]


@torch.no_grad()
def test_runs_without_memory_are_whole(passes: list[str]) -> None:
    straight, given = ForwardPass(network(SHAPES["sdxl"])), inputs(SHAPES["sdxl"])
    for _ in range(3):
        straight(*given, NetworkCall(("negative", "positive"), 0.3))
    assert passes == ["whole"] * 3
