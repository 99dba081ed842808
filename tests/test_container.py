"""The Dockerfile and the compose file suit the server: its parts are in the image, the user's folders are mounted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fooocusapi.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
IN_IMAGE = "/app/"


def setting(name: str) -> str:
    return str(Settings.model_fields[name].default)


def mounts() -> dict[str, str]:
    """Folder in the container -> how the compose file mounts it from beside itself."""
    found = re.findall(rf"^ +- \./(\S+?):{IN_IMAGE}(\S+?)(?::(ro))?$", COMPOSE, re.MULTILINE)
    assert all(outside == inside for outside, inside, _ in found)
    return {inside: mode or "rw" for _, inside, mode in found}


@pytest.mark.parametrize("name", ["models_root", "output_path"])
def test_what_the_server_writes_is_a_volume_of_its_user(name: str) -> None:
    folder = setting(name)
    assert mounts()[folder] == "rw"
    assert f'"{IN_IMAGE}{folder}"' in re.search(r"^VOLUME .*$", DOCKERFILE, re.MULTILINE)[0]  # type: ignore[index]
    made = re.search(r"^USER fooocus$.*^RUN mkdir ([\w ]+)$.*^VOLUME", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert made is not None
    assert folder in made[1].split()


@pytest.mark.parametrize("name", ["styles_path", "wildcards_path", "presets_path"])
def test_what_the_user_brings_is_mounted(name: str) -> None:
    assert mounts()[setting(name)] == "ro"


def test_everything_that_is_copied_is_there() -> None:
    copied = [word for line in re.findall(r"^COPY --\S+ (.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    assert {"main.py", "fooocus_core", "fooocusapi", "constraints.txt"} <= set(copied)
    assert not [name for name in copied if not (ROOT / name).exists()]
    kept_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not set(kept_out) & set(copied)


def test_nothing_is_left_to_compile_at_the_start_of_a_container() -> None:
    (install,) = re.findall(r"^RUN .*uv pip install .*$", DOCKERFILE, re.MULTILINE)
    assert " --compile-bytecode " in install
    assert re.search(r"^COPY .* fooocusapi$.*^RUN .* compileall -q fooocus_core fooocusapi$", DOCKERFILE, re.M | re.S)


def test_both_devices_have_a_base() -> None:
    assert set(re.findall(r"^FROM \S+ AS base-(\w+)$", DOCKERFILE, re.MULTILINE)) == {"cpu", "cuda"}
    assert "FROM base-${DEVICE}" in DOCKERFILE
    assert "DEVICE: ${DEVICE:-cpu}" in COMPOSE


def test_the_port_is_the_server_s() -> None:
    port = setting("port")
    assert f"EXPOSE {port}" in DOCKERFILE
    assert f'"127.0.0.1:{port}:{port}"' in COMPOSE
