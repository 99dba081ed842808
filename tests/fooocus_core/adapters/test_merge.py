"""LoRAs in a model's weights: neutral ones, order, files that do not belong, and the way back to the last bit."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fooocus_core.adapters import merge
from fooocus_core.adapters.lora import LoraFile, Matched, match_lora
from fooocus_core.adapters.lora_maths import (
    Difference,
    EightBit,
    Glora,
    Hadamard,
    Kronecker,
    LowRank,
    Nothing,
    Patch,
    merged,
)
from fooocus_core.adapters.merge import LoraMerger, WeightedLora
from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.device import Placement
from fooocus_core.models.loaded import LoadedModel, load_model
from tests.fooocus_core.adapters.lora_files import LAYOUTS, PLACES, Layout, foreign_tensors, lora_tensors
from tests.fooocus_core.models.tiny import write_checkpoint

WIDTHS = {"unet": 64, "l": 32, "g": 48}
CPU = Placement(torch.device("cpu"), torch.float32, torch.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_checkpoint(tmp_path_factory.mktemp("merge") / "tiny.safetensors"), CPU)


@pytest.fixture
def merger(model: LoadedModel) -> Iterator[LoraMerger]:
    yield model.merger
    model.merger.remove()


def weights_of(model: LoadedModel) -> dict[str, Tensor]:
    parts = {"unet": model.network.unet, "l": model.text.l.model, "g": model.text.g.model}
    return {f"{part}.{key}": weight.clone() for part, net in parts.items() for key, weight in net.named_parameters()}


def differing(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    return {key for key in before if not torch.equal(before[key], after[key])}


def lora(weight: float = 1.0, layout: Layout = LAYOUTS["kohya"], seed: int = 1, size: float = 0.25) -> WeightedLora:
    return WeightedLora(LoraFile("a.safetensors", lora_tensors(WIDTHS, layout, seed=seed, size=size)), weight)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_neutral_lora_changes_nothing(model: LoadedModel, merger: LoraMerger, layout: Layout) -> None:
    plain = weights_of(model)
    merger.apply([lora(0.0, layout), lora(1.0, layout, size=0.0)])
    assert not differing(plain, weights_of(model))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_changes_the_same_weights_by_the_same(
    model: LoadedModel, merger: LoraMerger, layout: Layout
) -> None:
    plain = weights_of(model)
    merger.apply([lora(-2.0, LAYOUTS["full_difference"])])
    expected = weights_of(model)
    assert {key.partition(".")[0] for key in differing(plain, expected)} == {"unet", "l", "g"}
    merger.apply([lora(-2.0, layout)])
    assert not differing(expected, weights_of(model))


def test_files_merge_in_order(model: LoadedModel, merger: LoraMerger) -> None:
    """GLoRA reads the weight as it is by then: the order is seen in the result."""
    multiplying = {
        f"{PLACES['unet'].flat}.a1.weight": torch.eye(64),
        f"{PLACES['unet'].flat}.a2.weight": torch.eye(64),
        f"{PLACES['unet'].flat}.b1.weight": torch.zeros(1, 64),
        f"{PLACES['unet'].flat}.b2.weight": torch.zeros(64, 1),
    }
    doubling, adding = WeightedLora(LoraFile("b.safetensors", multiplying), 1.0), lora()
    merger.apply([doubling, adding])
    first = weights_of(model)
    merger.apply([adding, doubling])
    assert differing(first, weights_of(model))


LORAS = st.builds(
    lora,
    weight=st.floats(-2, 2),
    layout=st.sampled_from(list(LAYOUTS.values())),
    seed=st.integers(1, 3),
)


@settings(deadline=None, max_examples=12)
@given(history=st.lists(st.lists(LORAS, max_size=3), max_size=4), last=st.lists(LORAS, max_size=3))
def test_nothing_but_the_last_list_matters(
    model: LoadedModel, history: list[list[WeightedLora]], last: list[WeightedLora]
) -> None:
    plain = weights_of(model)
    model.merger.apply(last)
    expected = weights_of(model)
    for loras in [*history, last]:
        model.merger.apply(loras)
    assert not differing(expected, weights_of(model))
    model.merger.remove()
    assert not differing(plain, weights_of(model))


# --- files that do not belong -------------------------------------------------------------------------------------


def with_unmatched(count: int) -> WeightedLora:
    return WeightedLora(LoraFile("odd.safetensors", lora_tensors(WIDTHS) | foreign_tensors(count)), 1.0)


def test_twelve_keys_may_fit_nothing(model: LoadedModel, merger: LoraMerger, caplog: pytest.LogCaptureFixture) -> None:
    plain = weights_of(model)
    merger.apply([with_unmatched(12)])
    assert differing(plain, weights_of(model))
    assert [record.getMessage() for record in caplog.records] == [
        "LoRA odd.safetensors: 12 of its 18 keys fit nothing here"
    ]


def test_thirteen_may_not(model: LoadedModel, merger: LoraMerger, caplog: pytest.LogCaptureFixture) -> None:
    plain = weights_of(model)
    with pytest.raises(
        UnsupportedModel, match=r"^odd\.safetensors: .* 13 of its 19 keys fit nothing here, such as lora_unet_double"
    ):
        merger.apply([lora(), with_unmatched(13)])
    assert not differing(plain, weights_of(model))
    merger.apply([with_unmatched(13), lora()], skip_foreign=True)
    assert "odd.safetensors left out" in caplog.text
    expected = weights_of(model)
    merger.apply([lora()])
    assert not differing(expected, weights_of(model))


def test_a_file_without_any_weight_of_the_right_shape(
    model: LoadedModel, merger: LoraMerger, caplog: pytest.LogCaptureFixture
) -> None:
    plain = weights_of(model)
    wider = LoraFile("wide.safetensors", lora_tensors({"unet": 65, "l": 33, "g": 49}))
    with pytest.raises(UnsupportedModel, match=r"^wide\.safetensors: made for another model: nothing in it has"):
        merger.apply([lora(), WeightedLora(wider, 1.0)])
    assert not differing(plain, weights_of(model))
    merger.apply([WeightedLora(wider, 1.0)], skip_foreign=True)
    assert "wide.safetensors left out" in caplog.text
    assert not differing(plain, weights_of(model))


def test_weights_of_another_shape_are_left_out_alone(
    model: LoadedModel, merger: LoraMerger, caplog: pytest.LogCaptureFixture
) -> None:
    plain = weights_of(model)
    merger.apply([WeightedLora(LoraFile("half.safetensors", lora_tensors({**WIDTHS, "unet": 65})), 1.0)])
    assert {key.partition(".")[0] for key in differing(plain, weights_of(model))} == {"l", "g"}
    assert "half.safetensors: 1 of its 3 patches fit no weight here" in caplog.text


def test_a_failure_in_the_middle_leaves_the_weights_as_in_the_file(
    model: LoadedModel, merger: LoraMerger, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = weights_of(model)
    calls = iter([merged, merged])

    def failing(weight: Tensor, patch: Patch, strength: float) -> Tensor | None:
        try:
            return next(calls)(weight, patch, strength)
        except StopIteration:
            raise MemoryError from None

    monkeypatch.setattr("fooocus_core.adapters.merge.merged", failing)
    with pytest.raises(MemoryError):
        merger.apply([lora()])
    assert not differing(plain, weights_of(model))


@pytest.mark.parametrize("strength", [1.0, -0.3])
@pytest.mark.parametrize(
    "patch",
    [
        LowRank(torch.rand(4, 2), torch.rand(2, 6), None, 1.0),
        Hadamard(*(torch.rand(shape) for shape in ((4, 2), (2, 6)) * 2), None, None, None),
        Kronecker(torch.rand(2, 3), torch.rand(2, 2), None, None, None, None, None, None),
        Glora(torch.rand(2, 6), torch.rand(6, 2), torch.rand(2, 6), torch.rand(4, 2), 1.0),
        Difference(torch.rand(4, 6)),
        EightBit(torch.randint(0, 256, (4, 6), dtype=torch.uint8), torch.tensor(-1.0), torch.tensor(2.0)),
    ],
    ids=lambda patch: type(patch).__name__,
)
def test_merging_changes_neither_the_file_nor_the_weight(patch: Patch, strength: float) -> None:
    weight = torch.rand(4, 6)
    held = {key: value.clone() for key, value in vars(patch).items() if isinstance(value, Tensor)}
    plain = weight.clone()
    added = patch.added(weight)
    assert added is not None
    result = merged(weight, patch, strength)
    assert result is not None
    assert torch.equal(result, plain + strength * added)
    assert torch.equal(weight, plain)
    assert all(torch.equal(held[key], vars(patch)[key]) for key in held)


SHAPES = st.lists(st.integers(0, 4), max_size=4)
TENSORS = st.builds(lambda shape: torch.ones(shape), SHAPES)
MAYBE = st.none() | TENSORS
ALPHA = st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32)
PATCHES = st.one_of(
    st.builds(LowRank, TENSORS, TENSORS, MAYBE, ALPHA),
    st.builds(Hadamard, TENSORS, TENSORS, TENSORS, TENSORS, MAYBE, MAYBE, ALPHA),
    st.builds(Kronecker, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, ALPHA),
    st.builds(Glora, TENSORS, TENSORS, TENSORS, TENSORS, ALPHA),
    st.builds(Difference, TENSORS),
    st.builds(EightBit, TENSORS, TENSORS, TENSORS),
    st.just(Nothing()),
)


@settings(deadline=None)
@given(PATCHES, TENSORS, st.floats(-2, 2))
def test_tensors_of_any_shape_fit_or_do_not(patch: Patch, weight: Tensor, strength: float) -> None:
    result = merged(weight, patch, strength)
    assert result is None or result.shape == weight.shape


@pytest.mark.parametrize(("part", "changed"), [("unet", set()), ("l", {"l"}), ("g", {"g"})])
def test_a_text_encoder_is_told_when_its_own_weights_change(
    model: LoadedModel, merger: LoraMerger, part: str, changed: set[str]
) -> None:
    tensors = {key: tensor for key, tensor in lora().file.content.items() if key.startswith(PLACES[part].flat)}
    texts = {"l": model.text.l, "g": model.text.g}

    def versions() -> dict[str, int]:
        return {name: text.weights_version for name, text in texts.items()}

    before = versions()
    merger.apply([WeightedLora(LoraFile("a.safetensors", tensors), 1.0)])
    merged = versions()
    merger.remove()
    assert {name for name in texts if merged[name] != before[name]} == changed
    assert {name for name in texts if versions()[name] != merged[name]} == changed


def places_of(model: LoadedModel) -> dict[str, tuple[int, int]]:
    """Where every parameter lies, and how often it has been changed in place."""
    parts = {"unet": model.network.unet, "l": model.text.l.model, "g": model.text.g.model}
    return {
        f"{part}.{key}": (weight.data_ptr(), weight._version)
        for part, net in parts.items()
        for key, weight in net.named_parameters()
    }


def touched(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> set[str]:
    return {key.partition(".")[0] for key in before if before[key] != after[key]}


def only(part: str, seed: int, weight: float = 1.0) -> WeightedLora:
    """A file that changes one of the networks alone."""
    whole = lora(seed=seed).file
    tensors = {key: tensor for key, tensor in whole.content.items() if key.startswith(PLACES[part].flat)}
    return WeightedLora(LoraFile(f"{part}.safetensors", tensors), weight)


def test_only_what_is_meant_to_differ_is_touched(model: LoadedModel, merger: LoraMerger) -> None:
    files = [only("unet", 1), only("l", 2), only("g", 3)]
    plain = places_of(model)
    merger.apply(files)
    merged = places_of(model)
    assert touched(plain, merged) == {"unet", "l", "g"}
    merger.apply(files)
    assert places_of(model) == merged
    merger.apply([files[0], WeightedLora(files[1].file, 0.5), files[2]])
    other_weight = places_of(model)
    assert touched(merged, other_weight) == {"l"}
    merger.apply([files[0], files[2]])
    without = places_of(model)
    assert touched(other_weight, without) == {"l"}
    merger.apply([files[2], WeightedLora(files[0].file, 0.0)])
    assert touched(without, places_of(model)) == {"unet"}


def test_what_does_not_fit_is_told_again_though_nothing_is_merged_again(
    model: LoadedModel, merger: LoraMerger, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = dict(lora().file.content)
    tensors[f"{PLACES['l'].flat}.lora_up.weight"] = torch.ones(7, 1)
    file = LoraFile("partly.safetensors", tensors)
    for _ in range(2):
        caplog.clear()
        merger.apply([WeightedLora(file, 1.0)])
        assert "partly.safetensors: 1 of its 3 patches fit no weight here" in caplog.text


def test_a_file_is_matched_once_and_then_forgotten_with_it(merger: LoraMerger, monkeypatch: pytest.MonkeyPatch) -> None:
    matched: list[str] = []

    def counted(file: LoraFile, modules: Mapping[str, str]) -> Matched:
        matched.append(file.name)
        return match_lora(file, modules)

    monkeypatch.setattr(merge, "match_lora", counted)
    first, second = only("unet", 1), only("l", 2)
    for loras in ([first], [first, second], [WeightedLora(first.file, 0.3)], [second]):
        merger.apply(loras)
    assert sorted(matched) == ["l.safetensors"] * 2 + ["unet.safetensors"] * 2  # the network, then the encoders
    held = [weakref.ref(tensor) for tensor in (*first.file.content.values(), *second.file.content.values())]
    del first, second, loras
    gc.collect()
    assert not any(tensor() is not None for tensor in held)
