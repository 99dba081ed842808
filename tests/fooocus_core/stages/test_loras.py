"""LoRAs from a request to the pixels, with the model that ships with the project."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fooocus_core.metadata.record import RecordedLora
from fooocus_core.plan import Lora
from fooocus_core.presets.modes import MODES
from tests.fooocus_core.adapters.lora_files import (
    LAYOUTS,
    PLACES,
    Layout,
    foreign_tensors,
    lora_tensors,
    write_lora,
)
from tests.fooocus_core.models.tiny import SIDECAR, write_checkpoint
from tests.fooocus_core.stages.rendering import Studio

TAG_NAME = "paint"
LIGHTNING = MODES["Lightning"].lora
assert LIGHTNING is not None


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("loras"))


@pytest.fixture(scope="module")
def widths(studio: Studio) -> Mapping[str, int]:
    """How wide the pocket model's networks are where the files change them."""
    model = studio.engine.models.checkpoint(studio.plan().stages[0].models)
    name = PLACES["unet"].full.removeprefix("diffusion_model.")
    unet = model.network.unet.get_parameter(model.network.parameter_names[name]).shape[0]
    return {"unet": unet, "l": model.text.l.width, "g": model.text.g.width}


@pytest.fixture
def paint(studio: Studio, widths: Mapping[str, int]) -> str:
    return write_lora(studio.root / "loras" / f"{TAG_NAME}.safetensors", lora_tensors(widths))


@pytest.fixture(scope="module")
def plain(studio: Studio) -> np.ndarray:
    return studio.picture()


@pytest.fixture(scope="module")
def painted(studio: Studio, widths: Mapping[str, int]) -> np.ndarray:
    tensors = lora_tensors(widths, LAYOUTS["full_difference"])
    return studio.picture(loras=[Lora(write_lora(studio.root / "loras" / "plainest.safetensors", tensors), 1.0)])


def test_a_lora_changes_the_picture(plain: np.ndarray, painted: np.ndarray) -> None:
    assert np.abs(plain.astype(int) - painted.astype(int)).max() > 8


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_picture(
    studio: Studio, widths: Mapping[str, int], painted: np.ndarray, layout: Layout
) -> None:
    name = write_lora(studio.root / "loras" / "layout.safetensors", lora_tensors(widths, layout))
    assert np.array_equal(studio.picture(loras=[Lora(name, 1.0)]), painted)


@pytest.mark.parametrize("network", ["unet", "l", "g"])
def test_each_network_is_reached(
    studio: Studio, widths: Mapping[str, int], plain: np.ndarray, painted: np.ndarray, network: str
) -> None:
    name = write_lora(studio.root / "loras" / "one.safetensors", lora_tensors({network: widths[network]}))
    picture = studio.picture(loras=[Lora(name, 1.0)])
    assert not np.array_equal(picture, plain)
    assert not np.array_equal(picture, painted)


def test_weights(studio: Studio, paint: str, plain: np.ndarray) -> None:
    """At 0 nothing changes; at every other weight the picture is another one."""
    assert np.array_equal(studio.picture(loras=[Lora(paint, 0.0)]), plain)
    pictures = [studio.picture(loras=[Lora(paint, weight)]).tobytes() for weight in (-2.0, -1.0, 0.5, 1.0, 2.0)]
    assert len({plain.tobytes(), *pictures}) == 6


def test_the_next_job_has_no_trace_of_the_last(studio: Studio, paint: str, plain: np.ndarray) -> None:
    for weight in (1.0, -2.0):
        studio.picture(loras=[Lora(paint, weight)])
        assert np.array_equal(studio.picture(), plain)


def test_a_tag_does_what_the_list_does(
    studio: Studio, paint: str, plain: np.ndarray, painted: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    assert np.array_equal(studio.picture(f"a red apple<lora:{TAG_NAME}:1>"), painted)
    assert np.array_equal(studio.picture("a red apple<lora:unknown:1>"), plain)
    assert "LoRA tag left out: '<lora:unknown:1>'" in caplog.text
    record = studio.record(studio.plan(f"<lora:{TAG_NAME}:0.5> a red apple"))
    assert [(lora.name, lora.weight) for lora in record.loras if lora] == [(paint, 0.5)]


def test_the_record_tells_files_weights_and_hashes(studio: Studio, paint: str) -> None:
    short = hashlib.sha256((studio.root / "loras" / paint).read_bytes()).hexdigest()[:10]
    assert studio.record(studio.plan(loras=[Lora(paint, 0.25)])).loras == (RecordedLora(paint, 0.25, short),)


def test_the_record_tells_the_author(studio: Studio) -> None:
    plan = studio.plan()
    assert studio.record(plan).created_by == ""
    signed = dataclasses.replace(plan, output=dataclasses.replace(plan.output, created_by="Ada"))
    assert studio.record(signed).created_by == "Ada"


# --- files that cannot be used ------------------------------------------------------------------------------------


def test_a_lora_for_another_model_fails_the_job_by_its_name(studio: Studio, paint: str, plain: np.ndarray) -> None:
    foreign = write_lora(studio.root / "loras" / "foreign.safetensors", foreign_tensors())
    reason = studio.failure(studio.plan(loras=[Lora(paint, 1.0), Lora(foreign, 1.0)]))
    assert reason == (
        "foreign.safetensors: made for another kind of model: 13 of its 13 keys fit nothing here, "
        "such as lora_unet_double_blocks_0_attn.lora_up.weight"
    )
    assert np.array_equal(studio.picture(), plain)


def test_a_lora_of_other_widths_fails_the_job_by_its_name(
    studio: Studio, widths: Mapping[str, int], plain: np.ndarray
) -> None:
    wide = {network: 2 * width for network, width in widths.items()}
    name = write_lora(studio.root / "loras" / "wide.safetensors", lora_tensors(wide))
    assert studio.failure(studio.plan(loras=[Lora(name, 1.0)])).startswith("wide.safetensors: made for another model")
    assert np.array_equal(studio.picture(), plain)


def test_broken_files_fail_the_job_by_their_name(
    studio: Studio, paint: str, plain: np.ndarray, painted: np.ndarray
) -> None:
    whole = (studio.root / "loras" / paint).read_bytes()
    contents = {
        "cut.safetensors": whole[:-100],
        "empty.safetensors": b"",
        "noise.safetensors": bytes(range(256)),
        "noise.pth": bytes(range(256)),
    }
    for name, content in contents.items():
        (studio.root / "loras" / name).write_bytes(content)
        studio.picture(loras=[Lora(paint, 1.0)])
        assert studio.failure(studio.plan(loras=[Lora(name, 1.0)])).startswith(f"{name}: ")
        assert np.array_equal(studio.picture(), plain)
    assert np.array_equal(studio.picture(loras=[Lora(paint, 1.0)]), painted)


def test_a_pickle_that_would_run_something_is_refused(studio: Studio, plain: np.ndarray) -> None:
    torch.save({"lora": print}, studio.root / "loras" / "unsafe.ckpt")
    reason = studio.failure(studio.plan(loras=[Lora("unsafe.ckpt", 1.0)]))
    assert reason == "unsafe.ckpt: not a file of plain tensors; nothing else is unpickled"
    assert np.array_equal(studio.picture(), plain)


def test_a_file_that_has_gone_is_left_out(studio: Studio, plain: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    """A job may wait long enough for it."""
    assert np.array_equal(studio.picture(loras=[Lora("gone.safetensors", 1.0)]), plain)
    assert "LoRA not found, left out: 'gone.safetensors'" in caplog.text


# --- the performance modes' own -----------------------------------------------------------------------------------


@pytest.fixture
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A checkpoint that renders what it is asked for, as SDXL does."""
    root = tmp_path_factory.mktemp("full_size")
    (root / "checkpoints").mkdir()
    sidecar = {key: value for key, value in SIDECAR.items() if key not in ("native_area_px", "sizes")}
    write_checkpoint(root / "checkpoints" / "tiny.safetensors", sidecar=json.loads(json.dumps(sidecar)))
    return Studio(root, "tiny.safetensors", side_px=64)


def test_a_mode_without_its_file_fails_by_the_files_name(full_size: Studio) -> None:
    plan = full_size.plan("a", mode_lora=LIGHTNING, performance="Lightning")
    assert full_size.failure(plan) == (
        "loras: no file named 'sdxl_lightning_4step_lora.safetensors', needed for performance Lightning; "
        "it is published at https://huggingface.co/mashb1t/misc/resolve/main/sdxl_lightning_4step_lora.safetensors "
        "and fetched by: main.py download sdxl_lightning_4step_lora.safetensors"
    )
    assert full_size.finished(full_size.plan("a"))


def test_a_modes_file_comes_last(full_size: Studio) -> None:
    loras = full_size.root / "loras"
    widths = {"unet": 64, "l": 32, "g": 48}
    own = write_lora(loras / "own.safetensors", lora_tensors(widths))
    write_lora(loras / "tagged.safetensors", lora_tensors(widths, seed=2))
    write_lora(loras / "fast" / LIGHTNING.name, lora_tensors(widths, seed=3))
    record = full_size.record(
        full_size.plan(
            "a <lora:tagged:-1>, <lora:sdxl_lightning_4step_lora:2>",
            [Lora(own, 0.5)],
            mode_lora=LIGHTNING,
            performance="Lightning",
        )
    )
    assert [(lora.name, lora.weight) for lora in record.loras if lora] == [
        ("own.safetensors", 0.5),
        ("tagged.safetensors", -1.0),
        ("fast/sdxl_lightning_4step_lora.safetensors", 1.0),
    ]


def test_the_pocket_model_runs_the_modes_without_their_files(
    studio: Studio, plain: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    save_file(foreign_tensors(), studio.root / "loras" / LIGHTNING.name)
    finished = studio.finished(studio.plan(mode_lora=LIGHTNING, performance="Lightning"))
    assert finished.record.loras == ()
    assert np.array_equal(finished.pixels, plain)
    assert "mode Lightning without its LoRA" in caplog.text
