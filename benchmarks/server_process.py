"""A server process with one checkpoint on loopback, for whoever measures it."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from fooocus_core.library import POCKET_FOLDER, POCKET_NAME
from fooocusapi.settings import without_server_settings

ROOT = Path(__file__).resolve().parent.parent
POCKET = POCKET_FOLDER / POCKET_NAME
END_WITHIN_S = 60
AS_IT_IS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Case:
    """What is measured."""

    checkpoint: Path
    steps: int
    runs: int
    device: str


def server_flags(case: Case, folder: Path) -> dict[str, Any]:
    """The settings of a server that knows this checkpoint only and keeps all it has in ``folder``."""
    return {
        "output_path": folder / "outputs",
        "models_root": folder / "models",
        "config_path": folder / "config.txt",
        "log_level": "warning",
        "device": case.device,
    }


@contextmanager
def running_server(
    case: Case, folder: Path, *, environment: Mapping[str, str] = AS_IT_IS, is_killed: bool = False
) -> Iterator[tuple[httpx.Client, float, int]]:
    """A server process: a client, when it was started, and its process id.

    ``environment``: variables beside those that are set. ``is_killed``: it need not end in an orderly way.
    """
    flags = server_flags(case, folder)
    checkpoints = flags["models_root"] / "checkpoints"
    checkpoints.mkdir(parents=True)
    if case.checkpoint != POCKET:
        (checkpoints / case.checkpoint.name).symlink_to(case.checkpoint.resolve())
    port = free_port()
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "main.py", f"--port={port}", *(f"--{name}={value}" for name, value in flags.items())],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env={**without_server_settings(os.environ), "FOOOCUSAPI_PRESET": "", **environment},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=None, trust_env=False) as client:
            yield client, started_s, process.pid
    finally:
        (process.kill if is_killed else process.terminate)()
        process.wait(END_WITHIN_S)


def wait_for_ping(client: httpx.Client) -> None:
    """Until the port answers."""
    while True:
        try:
            client.get("/ping").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.01)
        else:
            return


def post_picture(client: httpx.Client, case: Case, **more: Any) -> str:
    """The address of the first picture, by a call that waits. No styles, no LoRAs: both sides read the same text."""
    body = {
        "prompt": "a red apple",
        "style_selections": [],
        "loras": [],
        "image_seed": 7,
        "advanced_params": {"overwrite_step": case.steps},
        **more,
    }
    pictures = client.post("/v1/generation/text-to-image", json=body).raise_for_status().json()
    if any(picture["finish_reason"] != "SUCCESS" for picture in pictures):
        raise SystemExit(f"the server made no picture: {pictures}")
    return str(pictures[0]["url"])


def submit_to_worker_ms(history: Mapping[str, Any]) -> float:
    """The median over all jobs but the first, which waits for the engine to be made."""
    waits = [entry["start_mills"] - entry["in_queue_mills"] for entry in history["history"][1:]]
    return float(statistics.median(waits))


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
