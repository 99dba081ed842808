"""The examples against one server with the pocket model: what they print, and the pictures that they write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fooocusapi.demo import running_server
from fooocusapi.settings import without_server_settings

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PATIENCE_S = 300
STEPS = "1"
LARGE = (1024, 1024)
"""The least that variations and upscales are brought to."""

WRITTEN = {
    "text_to_image.py": {
        "text-to-image-0.png": (512, 512),
        "text-to-image-1.png": (512, 512),
        "text-to-image-itself.png": (512, 512),
    },
    "async_with_previews.py": {"async-0.png": (512, 512)},
    "upscale_vary.py": {"varied-0.png": LARGE, "upscaled-0.png": LARGE, "varied-again-0.png": LARGE},
    "inpaint_outpaint.py": {"inpainted-0.png": (256, 256), "outpainted-0.png": (256 + 64 + 128, 256)},
    "enhance.py": {
        "enhanced-0.png": (256, 256),
        "enhanced-step-0.png": (256, 256),
        "enhanced-step-1.png": (256, 256),
    },
    "image_prompt.py": {},
    "text_to_image_with_ip.py": {"without-a-picture-0.png": (512, 512)},
    "webhook.py": {"webhook-0.png": (512, 512)},
    "stop_and_history.py": {},
    "curl.sh": {"curl-apple.png": (512, 512), "curl-varied.png": LARGE, "curl-wider.png": (1024 + 307, 1024)},
}


TOLD = {
    "async_with_previews.py": ["job ", "SUCCESS 100 % Finished"],
    "image_prompt.py": [
        "ip-adapter-plus_sdxl_vit-h.bin",
        "control-lora-canny-rank128.safetensors",
        "main.py download ",
    ],
    "text_to_image_with_ip.py": ["no picture: ", "ip-adapter-plus-face_sdxl_vit-h.bin"],
    "webhook.py": ["told of job "],
    "stop_and_history.py": ["1 waiting or running", "success", "ERROR: Stopped by the user", "Deleted"],
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on this checkout, without anything else that may lie beside it."""
    folder = tmp_path_factory.mktemp("server")
    own = {f"FOOOCUSAPI_{name}": str(folder / name) for name in ("MODELS_ROOT", "STYLES_PATH", "CONFIG_PATH")}
    environment = {
        **without_server_settings(os.environ),
        **own,
        "FOOOCUSAPI_CPU_THREADS": "1",
        "FOOOCUSAPI_DEVICE": "cpu",
        "FOOOCUSAPI_WEBHOOK_PRIVATE": "1",
    }
    with running_server(folder, environment) as client:
        yield str(client.base_url).rstrip("/")


def run(name: str, address: str, folder: Path) -> str:
    """What an example printed; it ended well."""
    arguments = [address, str(folder)] if name.endswith(".sh") else ["--server", address, "--output", str(folder)]
    command = ["sh"] if name.endswith(".sh") else [sys.executable]
    ended = subprocess.run(
        [*command, str(EXAMPLES / name), *arguments],
        env={**os.environ, "FOOOCUSAPI_EXAMPLE_STEPS": STEPS},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_every_example_is_run() -> None:
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")}
    assert names == {*WRITTEN, "connection.py"}
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{name}]({name})" in page for name in names)


@pytest.mark.parametrize("name", [name for name in WRITTEN if name.endswith(".py") or shutil.which("curl")])
def test_an_example(name: str, address: str, tmp_path: Path) -> None:
    printed = run(name, address, tmp_path)
    written = {path.name: Image.open(path) for path in tmp_path.iterdir()}
    written.pop("async-preview.png", None)
    assert {file: picture.size for file, picture in written.items()} == WRITTEN[name]
    for file, picture in written.items():
        assert np.asarray(picture.convert("L")).std() > 1, f"{file} shows nothing"
    for told in TOLD.get(name, ()):
        assert told in printed
