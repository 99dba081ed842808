"""``--vram`` from the command line to the picture, with the model that ships with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fooocus_core.engine import Engine as CoreEngine
from fooocus_core.library import Library
from fooocus_core.models.residence import RESIDENCES
from fooocus_core.models.unet import DiffusionNetwork
from fooocus_core.presets.preset import load_preset
from fooocusapi.app import create_app
from fooocusapi.engine_maker import make_core_engine
from fooocusapi.flags import read_flags
from fooocusapi.runtime import Runtime
from fooocusapi.settings import Settings, load_settings
from tests.fooocusapi.served import TEXT_TO_IMAGE, pixels_of, wait_until

STEPS = 2
LEVELS = 1
"""How far a value may be from that of ``normal``, of 255."""
BODY = {
    "prompt": "a red apple",
    "image_seed": 7,
    "aspect_ratios_selection": "96*96",
    "advanced_params": {"overwrite_step": STEPS, "sharpness": 2},
}


def settings_of(root: Path, *flags: str) -> Settings:
    folders = {f"{name}_path": root / name for name in ("output", "styles", "wildcards", "presets", "config")}
    given = read_flags(["--device", "cpu", *flags]).settings
    return load_settings({**given, **folders, "models_root": root / "models"})


def picture(root: Path, *flags: str) -> Any:
    settings = settings_of(root, *flags)
    engine = make_core_engine(settings, Library.below(settings.models_root), load_preset("pocket"))
    app = create_app(settings, Runtime(settings, lambda *_: engine).open)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").json()["status"] != "starting")
        answer = client.post(TEXT_TO_IMAGE, json=BODY, headers={"accept": "image/png"})
    assert answer.status_code == 200, answer.text
    return pixels_of(answer.content)


def test_the_picture_of_low_is_that_of_normal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    call = DiffusionNetwork.__call__

    def counting(self: DiffusionNetwork, latents: Any, *others: Any) -> Any:
        rows.append(len(latents))
        return call(self, latents, *others)

    monkeypatch.setattr(DiffusionNetwork, "__call__", counting)
    normal = picture(tmp_path)
    assert set(rows) == {2}
    rows.clear()
    low = picture(tmp_path, "--vram", "low")
    assert set(rows) == {1}
    assert normal.std() > 1
    assert np.abs(normal.astype(int) - low.astype(int)).max() <= LEVELS


@pytest.mark.parametrize(
    ("flag", "vram"), [("--vram=high", "high"), ("--always-low-vram", "low"), ("--skip-pip", "normal")]
)
def test_the_engine_keeps_to_the_setting(tmp_path: Path, flag: str, vram: str) -> None:
    settings = settings_of(tmp_path, flag)
    assert settings.vram == vram
    engine = make_core_engine(settings, Library.below(settings.models_root), load_preset("pocket"))
    assert isinstance(engine, CoreEngine)
    assert engine.models.placement.residence == RESIDENCES[settings.vram]
